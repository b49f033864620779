"""The terms of an endpoint in words: when it is tried again, what holds it back, what it asked for, and what its breaker does."""

from collections.abc import Sequence

from delivery.explain import explain
from delivery.outcomes import policy_of
from delivery.standing import Kind, Standing
from subscriptions.models import Endpoint, Source, Subscription

# Of a long list so many are named one by one.
NAMED = 6
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_BREAKER = {
    Kind.WELL: "Closed: requests go out as they come.",
    Kind.FAILING: "Closed still. It opens after 5 failures in a row, and then deliveries wait without using up attempts.",
    Kind.OPEN: "Open: deliveries wait and use up no attempt. Then one request goes to see whether the receiver is back.",
    Kind.PROBING: "Open, for one request, which goes to see whether the receiver is back. Everything else waits.",
    Kind.ASKED_TO_WAIT: "The receiver has asked for a pause (Retry-After). Deliveries wait, and use up no attempt.",
    Kind.RECOVERING: "Closed again. The backlog goes out gently: more at once with every success.",
    Kind.HELD: "The breaker has nothing to do while the endpoint is held.",
}


def wait(seconds: float) -> str:
    """`30 s`, `1 min 30 s`, `2 h`, exactly."""
    if seconds < 60:
        return f"{seconds:g} s"
    rest, parts = seconds, []
    for size, unit in _UNITS:
        if rest >= size:
            parts.append(f"{int(rest // size)} {unit}")
            rest %= size
    return " ".join([*parts, f"{rest:g} s"] if rest else parts)


def retries(endpoint: Endpoint) -> str:
    """`Retries after 30 s, 5 min, 30 min, 2 h, then dead.`"""
    policy = policy_of(endpoint)
    waits = list(policy.schedule_s)
    if not waits:
        return "No retries: a delivery that fails is dead at once."
    if len(waits) > 2 and len(set(waits)) == 1:
        said = f"Retries every {wait(waits[0])}, {len(waits)} times, then dead."
    else:
        named = [wait(each) for each in waits[:NAMED]]
        more = f" and {len(waits) - NAMED} more, the last after {wait(waits[-1])}" if len(waits) > NAMED else ""
        said = f"Retries after {', '.join(named)}{more}, then dead."
    if policy.jitter:
        said += f" Each wait is up to {endpoint.retry_jitter_percent} % longer, by chance."
    if policy.transient_only:
        said += " Only 408, 425, 429, 5xx and network errors are tried again: any other answer is final."
    return said


def limits(endpoint: Endpoint) -> list[str]:
    """What bounds its requests, a sentence each."""
    said = [
        f"{wait(endpoint.timeout_s)} for one attempt, DNS and connect included.",
        f"{endpoint.max_in_flight:,} {_plural(endpoint.max_in_flight, 'request')} open at once.",
    ]
    rate = endpoint.rate_limit_per_s
    if rate is None:
        said.append("No limit on requests a second.")
    else:
        said.append(f"{rate:g} requests a second, evenly." if rate >= 1 else f"One request in {wait(round(1 / rate, 1))}.")
    if endpoint.ordered:
        said.append("Each subject's events go one after the other, in stream order.")
    if endpoint.batch_size > 1:
        said.append(f"Up to {endpoint.batch_size} events in one request; an event waits up to {wait(endpoint.batch_wait_ms / 1000)} for others.")
    if endpoint.priority != Endpoint.Priority.NORMAL:
        said.append(f"{endpoint.get_priority_display()} priority while this machine cannot keep up.")
    return said


def breaker(standing: Standing) -> str:
    return _BREAKER[standing.kind]


def failure(standing: Standing) -> tuple[str, str]:
    """The last failure in words, with what to do about it. It is kept as `503`, or as an error of the sender with its detail."""
    kept = standing.last_failure
    error, _, detail = kept.partition(": ")
    if kept[:3].isdecimal() and not kept[3:4].isalnum():
        words, advice = explain(int(kept[:3]))
        return (words if kept[3:] == "" else kept), advice
    words, advice = explain(None, error) if error.isidentifier() else (kept, "")
    return (f"{words}: {detail}" if detail and advice else words if advice else kept), advice


def wish(subscription: Subscription) -> list[tuple[str, str]]:
    """What a subscription asks for, as (what it is about, in words) pairs. Patterns and DIDs are anyone's text."""
    patterns = "everything" if "*" in subscription.collections else named(subscription.collections)
    if subscription.source.kind == Source.Kind.API:
        return [("Types", patterns)]
    said = []
    others = [kind for kind in subscription.kinds if kind != "commit"]
    if "commit" in subscription.kinds:
        said += [("Commits in", patterns), ("Operations", named(subscription.operations) if subscription.operations else "all")]
    if others:
        said.append(("Also" if len(others) < len(subscription.kinds) else "Only", f"{named(others)} events"))
    said.append(("Accounts", named(subscription.dids) if subscription.dids else "all"))
    return said


def named(names: Sequence[str]) -> str:
    """`a, b and 3 more`"""
    more = len(names) - NAMED
    return f"{', '.join(names[:NAMED])} and {more:,} more" if more > 0 else ", ".join(names)


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
