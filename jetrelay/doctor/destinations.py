"""Where deliveries go: names that lead nowhere or where nothing may go, endpoints that are held, and the inbox that anyone may read."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone

from delivery.destinations.addresses import Door
from delivery.destinations.names import system_look_up
from jetrelay.doctor.configuration import is_open_to_others
from jetrelay.doctor.finding import Finding, ok, problem, skipped, warning
from jetrelay.doctor.registry import Check
from jetrelay.inbox.models import Inbox
from subscriptions.models import Endpoint

# Hosts that are looked up, on so many threads, for so long.
MOST_HOSTS, THREADS, LOOK_UP_S = 200, 32, 8.0
# So many endpoints are named.
SHOWN = 5

# What a host leads to, or why it cannot be found.
Found = Sequence[str] | str


def names() -> Iterator[Finding]:
    endpoints = list(Endpoint.objects.active().without_secrets().order_by("-id")[: 10 * MOST_HOSTS])
    by_host: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_host.setdefault((urlsplit(endpoint.url).hostname or "").lower(), []).append(endpoint)
    chosen = list(by_host)[:MOST_HOSTS]
    if not chosen:
        yield skipped("no endpoint is active")
        return
    found = look_up(chosen, LOOK_UP_S)
    lost = [host for host in chosen if isinstance(found.get(host, "no answer"), str)]
    if lost:
        whose = _named(by_host[host][0] for host in lost)
        advice = "Mend or pause the endpoint. What it is owed is kept while its breaker is open."
        if len(lost) == len(chosen) > 1:
            yield problem("no host of any endpoint can be found", "Does this machine's name server answer? See /etc/resolv.conf.")
        else:
            yield warning(f"{len(lost)} of {len(chosen)} hosts cannot be found ({_reason(found.get(lost[0]))}): {whose}", advice)
    refused = [(endpoint, why) for host in chosen for endpoint in by_host[host] if (why := _refusal(endpoint, found.get(host, ())))]
    if refused:
        advice = "Nothing is sent there: JETRELAY_ALLOWED_NETWORKS can open the network, if it is yours."
        if any(each.origin == Endpoint.Origin.INBOX for each, _ in refused):
            advice += " Of the built-in inbox: run doctor with the PORT that the web process has."
        yield warning(
            f"{len(refused)} endpoint{'s'[: len(refused) > 1]} may not be connected to ({refused[0][1]}): {_named(each for each, _ in refused)}", advice
        )
    if len(by_host) > MOST_HOSTS:
        yield skipped(f"{len(by_host) - MOST_HOSTS} more hosts were not looked up")
    if not lost and not refused:
        yield ok(f"{len(chosen)} host{'s'[: len(chosen) > 1]} found, and may be connected to")


def look_up(hosts: Iterable[str], most_s: float) -> dict[str, Found]:
    """As the sender does, side by side. Hosts that are not answered for in time are left out."""
    waiting: SimpleQueue[str] = SimpleQueue()
    answers: SimpleQueue[tuple[str, Found]] = SimpleQueue()
    wanted = list(dict.fromkeys(hosts))
    for host in wanted:
        waiting.put(host)
    for _ in range(min(THREADS, len(wanted))):
        threading.Thread(target=_answer, args=(waiting, answers), name="doctor: name", daemon=True).start()
    found: dict[str, Found] = {}
    deadline = monotonic() + most_s
    while len(found) < len(wanted):
        try:
            host, answer = answers.get(timeout=max(0.0, deadline - monotonic()))
        except Empty:
            break
        found[host] = answer
    return found


def _answer(waiting: "SimpleQueue[str]", answers: "SimpleQueue[tuple[str, Found]]") -> None:
    while True:
        try:
            host = waiting.get_nowait()
        except Empty:
            return
        try:
            answers.put((host, system_look_up(host) or "it has no address"))
        except (OSError, UnicodeError) as error:
            answers.put((host, str(getattr(error, "strerror", None) or error)))


def _refusal(endpoint: Endpoint, found: Found) -> str:
    """Why none of the addresses may be connected to; empty where one may be, or none is known."""
    door = Door(everything=endpoint.url_is_operators, allowed=tuple(settings.JETRELAY_ALLOWED_NETWORKS))
    refusals = [] if isinstance(found, str) else [door.refusal(address) for address in found]
    return refusals[0] or "" if refusals and all(refusals) else ""


def _reason(found: Found | None) -> str:
    return found if isinstance(found, str) else "no answer in time"


def held() -> Iterator[Finding]:
    now = timezone.now()
    present = Endpoint.objects.present().without_secrets()
    disabled = list(present.filter(state=Endpoint.State.DISABLED))
    if disabled:
        yield warning(
            f"{len(disabled)} disabled: {_named(disabled)} ({disabled[0].state_reason or 'by hand'})",
            "What they are owed is kept. Enable them once they answer, or delete them.",
        )
    broken = list(present.filter(state=Endpoint.State.ACTIVE, health__open_until__gt=now).select_related("health"))
    if broken:
        yield warning(
            f"{len(broken)} with an open breaker: {_named(broken)} ({broken[0].health.reason})",
            "Their deliveries wait, and go by themselves once the receiver answers.",
        )
    unverified = present.filter(state=Endpoint.State.UNVERIFIED).count()
    if unverified:
        yield warning(f"{unverified} have not answered their challenge", "Nothing is sent to them: verify them on their pages, or delete them.")
    if not disabled and not broken and not unverified:
        counted = present.filter(state=Endpoint.State.ACTIVE).count()
        yield ok(f"{counted} active, none is held") if counted else skipped("there is none")


def inbox() -> Iterator[Finding]:
    present = Inbox.objects.exclude(endpoint__state=Endpoint.State.DELETED).count()
    if not present:
        yield ok("there is none")
    elif is_open_to_others():
        advice = "It is for trying things out. Set WEBHOOK_URL, or delete its endpoint, when that is done."
        yield warning("the built-in inbox can be reached from outside: whoever knows its address reads what arrives", advice)
    else:
        yield ok("the built-in inbox is for this machine alone")


def _named(endpoints: Iterable[Endpoint]) -> str:
    found = [f"{endpoint.name} ({urlsplit(endpoint.url).hostname})" for endpoint in endpoints]
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


CHECKS = (
    Check("names", names, needs=("database",), limit_s=LOOK_UP_S + 7),
    Check("endpoints", held, needs=("database",)),
    Check("inbox", inbox, needs=("database",)),
)
