"""Messages as the page shows them."""

from dataclasses import dataclass
from typing import Any

from jetrelay.dashboard.bodies import parsed, printable
from jetrelay.inbox.models import Inbox, InboxMessage

# Longer bodies are cut on the page.
MAX_SHOWN = 16_384


@dataclass(frozen=True)
class Arrival:
    message: InboxMessage
    repeat: bool
    type: str
    operation: str
    did: str
    body: str
    cut: bool

    @property
    def bearer(self) -> str:
        """What was stored of the Authorization header; empty when there was none."""
        return str(self.message.headers.get("Authorization", ""))


def read(inbox: Inbox, limit: int) -> list[Arrival]:
    """The newest messages; one whose webhook-id came before is a repeat."""
    seen: set[str] = set()
    arrivals = []
    for message in reversed(inbox.messages.all()[:limit]):
        arrivals.append(_arrival(message, repeat=bool(message.webhook_id) and message.webhook_id in seen))
        seen.add(message.webhook_id)
    return arrivals[::-1]


def _arrival(message: InboxMessage, repeat: bool) -> Arrival:
    text = message.text()
    event = parsed(text)
    event = event if isinstance(event, dict) else {}
    commit = event.get("commit")
    commit = commit if isinstance(commit, dict) else {}
    return Arrival(
        message=message,
        repeat=repeat,
        type=_word(commit.get("collection")) or _word(event.get("type")) or _word(event.get("kind")),
        operation=_word(commit.get("operation")),
        did=_word(event.get("did")),
        body=text[:MAX_SHOWN],
        cut=len(text) > MAX_SHOWN,
    )


def _word(value: Any) -> str:
    return printable(value)[:320] if isinstance(value, str) else ""
