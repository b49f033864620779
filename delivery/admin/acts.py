"""What people may ask of endpoints, in the admin or on a page: done, told in words, and written down twice.

The admin's log is the history of a row there; the audit log is what a tenant sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import transaction

from delivery import endpoints, verification
from subscriptions.models import AuditEntry, Endpoint, EndpointQuerySet

PERMISSION = "subscriptions.change_endpoint"
DELETE_PERMISSION = "subscriptions.delete_endpoint"


class Told(NamedTuple):
    """What to tell whoever asked. `level` is one of `django.contrib.messages`."""

    level: int
    words: str


@dataclass(frozen=True)
class Act:
    """One thing that may be asked of any number of endpoints. `done` is what an endpoint then is."""

    label: str
    done: str
    do: Callable[[EndpointQuerySet, str], list[Endpoint]]
    # Said where there was none to do it to.
    nothing: str

    @property
    def action(self) -> str:
        """The audit log's name for it, which is that of the API."""
        return f"endpoint.{self.label.lower().replace(' ', '-')}"

    def carry_out(self, user: Any, chosen: EndpointQuerySet, place: str) -> Told:
        """Do it, by this user at this place (`in the admin`)."""
        with transaction.atomic():
            changed = self.do(chosen, f"{self.done} by {user} {place}")
            for endpoint in changed:
                log(user, endpoint, f"{self.done.capitalize()}.", action=self.action, detail=place)
        if not changed:
            return Told(messages.WARNING, self.nothing)
        return Told(messages.SUCCESS, f"{changed[0].name if len(changed) == 1 else f'{len(changed):,} endpoints'}: {self.done}.")


def _resume(chosen: EndpointQuerySet, _reason: str) -> list[Endpoint]:
    return endpoints.resume(chosen)


def _enable(chosen: EndpointQuerySet, _reason: str) -> list[Endpoint]:
    return endpoints.enable(chosen)


def _reset_breaker(chosen: EndpointQuerySet, _reason: str) -> list[Endpoint]:
    return endpoints.reset_breaker(chosen)


ACTS = {
    "pause": Act("Pause", "paused", endpoints.pause, "Nothing was paused: only active endpoints can be."),
    "resume": Act("Resume", "resumed", _resume, "Nothing was resumed: only paused endpoints can be. Enable those that are disabled."),
    "disable": Act("Disable", "disabled", endpoints.disable, "Nothing was disabled: only active and paused endpoints can be."),
    "enable": Act(
        "Enable", "enabled", _enable, "Nothing was enabled: only disabled endpoints can be. Resume those that are paused, verify those that are unverified."
    ),
    "reset_breaker": Act("Reset breaker", "breaker reset", _reset_breaker, "There was nothing to reset: no failure, no open breaker."),
}


def verify(user: Any, id: UUID) -> Told:
    """Challenge one endpoint, and wait for its answer."""
    endpoint = Endpoint.objects.present().get(pk=id)
    return told(endpoint, challenged(user, endpoint))


def send_test(user: Any, id: UUID) -> Told:
    """Send one endpoint a test event, and wait for its answer."""
    endpoint = Endpoint.objects.present().get(pk=id)
    return told(endpoint, tested(user, endpoint))


def challenged(user: Any, endpoint: Endpoint) -> verification.Outcome:
    return _logged(user, endpoint, "endpoint.verify", "Challenged", verification.verify(endpoint))


def tested(user: Any, endpoint: Endpoint) -> verification.Outcome:
    return _logged(user, endpoint, "endpoint.test", "Sent a test event", verification.send_test(endpoint))


def told(endpoint: Endpoint, outcome: verification.Outcome) -> Told:
    return Told(messages.SUCCESS if outcome.passed else messages.ERROR, f"{endpoint.name}: {outcome.words}")


def delete(user: Any, endpoint: Endpoint) -> Told:
    try:
        done = endpoints.delete(endpoint, f"deleted by {user}")
    except endpoints.NotDeletable as refusal:
        return Told(messages.ERROR, str(refusal))
    log(user, endpoint, "Deleted.", DELETION, action="endpoint.delete", detail=endpoint.url)
    rest = "" if done.finished else " The rest is being cancelled now, over the next minutes."
    return Told(messages.SUCCESS, f"{endpoint.name}: deleted. Pending deliveries cancelled: {done.cancelled:,}.{rest}")


def log(user: Any, endpoint: Endpoint, message: str, flag: int = CHANGE, *, action: str = "", detail: str = "") -> None:
    """An entry in the admin's log, which is the endpoint's history, and by its `action` one in the audit log. Never with a secret in it."""
    LogEntry.objects.log_actions(user.pk, [endpoint], flag, message, single_object=True)
    if action:
        AuditEntry.note_by(user, endpoint.tenant_id, action, endpoint.public_id, detail)


def _logged(user: Any, endpoint: Endpoint, action: str, what: str, outcome: verification.Outcome) -> verification.Outcome:
    if outcome.busy:
        # Nothing was done.
        return outcome
    came = "passed" if outcome.passed else "failed"
    log(user, endpoint, f"{what}: {came}.", action=action, detail=came)
    return outcome
