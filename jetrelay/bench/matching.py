"""Matching: the events matched per second with a hundred times as many subscriptions, and `ratio`: how many times slower that is.

Both sets begin with the same few broad subscriptions. The rest are narrow: accounts, collections that few write to, the
prefixes of their makers, a third of them with chosen operations. The range that accounts and makers are drawn from is
as many times wider as the set is larger, for its events too, so that an event is wanted by the same handful of
endpoints, and is as often one by a watched account, in both: an event that more endpoints want costs more by nature.
The sets take turns, and the ratio is the median over the repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from time import perf_counter
from typing import Annotated
from uuid import UUID

from jetrelay.bench.interface import Figures, Say
from subscriptions.matching import Filter, Matcher

SUBSCRIPTIONS, EVENTS, REPEATS = 100_000, 100_000, 7
SMALLER = 100
# Of the collections that somebody asks for, so many are written to; the network knows some thousand.
MOST_WRITTEN = 2_000
# With 4, a tenth of the accounts writes 56 per cent of the events. Those that are watched are drawn evenly.
AUTHORS_SKEW = 4

Event = tuple[str, str, str, str]

_COMMON = ("app.bsky.feed.like", "app.bsky.feed.post", "app.bsky.graph.follow", "app.bsky.feed.repost", "app.bsky.actor.profile", "app.bsky.graph.block")
_SHARES = (45, 20, 15, 12, 5, 3)
_BROAD = (("*",), ("app.bsky.feed.*",), ("app.bsky.graph.*",), ("app.bsky.*",), ("app.bsky.feed.post", "app.bsky.feed.like"), ("app.bsky.graph.follow",))


def measure(
    say: Say,
    *,
    subscriptions: Annotated[int, "subscriptions of the larger set"] = SUBSCRIPTIONS,
    events: Annotated[int, "events to match each time"] = EVENTS,
) -> Figures:
    few, many = _Side(max(subscriptions // SMALLER, len(_BROAD)), events), _Side(subscriptions, events)
    say(f"matching {events:,} events by {few.subscriptions:,} and {subscriptions:,} subscriptions, {REPEATS} times in turn")
    rounds = [(few.per_s(), many.per_s()) for _ in range(REPEATS)]
    return {
        "name": "matching",
        "ratio": round(median(fast / slow for fast, slow in rounds), 3),
        "few_matched_events_per_s": round(median(fast for fast, _ in rounds)),
        "many_matched_events_per_s": round(median(slow for _, slow in rounds)),
        "few_endpoints_per_event": few.mean_endpoints(),
        "many_endpoints_per_event": many.mean_endpoints(),
        "few_compiled_s": round(few.compiled_s, 4),
        "many_compiled_s": round(many.compiled_s, 4),
        "subscriptions": subscriptions,
        "events": events,
    }


@dataclass
class _Side:
    """A matcher of so many subscriptions, and events for it."""

    subscriptions: int
    events: int
    chance: Random = field(default_factory=lambda: Random(1))

    def __post_init__(self) -> None:
        filters = [self._filter(number) for number in range(self.subscriptions)]
        self.stream: Sequence[Event] = [self._event() for _ in range(self.events)]
        started = perf_counter()
        self.matcher = Matcher(filters)
        self.compiled_s = perf_counter() - started

    def per_s(self) -> float:
        match, started = self.matcher.match, perf_counter()
        for kind, type, operation, did in self.stream:
            match(kind, type, operation, did)
        return self.events / (perf_counter() - started)

    def mean_endpoints(self) -> float:
        return round(sum(len(self.matcher.match(*event)) for event in self.stream) / self.events, 2)

    def _account(self, skew: int = 1) -> str:
        return f"did:plc:{int(10 * self.subscriptions * self.chance.random() ** skew):024d}"

    def _rare(self, most: int) -> str:
        """A collection of a small maker, each of whom has ten."""
        return "com.maker{}.app.record{}".format(*divmod(self.chance.randrange(min(most, self.subscriptions)), 10))

    def _event(self) -> Event:
        type = self._rare(MOST_WRITTEN) if self.chance.random() < 0.03 else self.chance.choices(_COMMON, _SHARES)[0]
        return "commit", type, self.chance.choices(("create", "update", "delete"), (88, 2, 10))[0], self._account(AUTHORS_SKEW)

    def _filter(self, number: int) -> Filter:
        chance, endpoint = self.chance, UUID(int=self.chance.getrandbits(128))
        if number < len(_BROAD):
            return Filter(endpoint, _BROAD[number])
        operations = ("create",) if chance.random() < 1 / 3 else ()
        match chance.choices(("accounts", "rare", "maker"), (60, 30, 10))[0]:
            case "accounts":
                collections = chance.choice((("*",), ("app.bsky.feed.*",), ("app.bsky.feed.post",), ("app.bsky.feed.post", "app.bsky.graph.*")))
                return Filter(endpoint, collections, tuple(self._account() for _ in range(chance.randint(1, 5))), operations)
            case "rare":
                return Filter(endpoint, tuple(self._rare(self.subscriptions) for _ in range(chance.randint(1, 3))), (), operations)
        return Filter(endpoint, (self._rare(self.subscriptions).rpartition(".")[0] + ".*",), (), operations)
