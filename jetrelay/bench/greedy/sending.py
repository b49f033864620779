"""Those that take from the worker: places, memory, threads for names, claims and turns."""

from collections.abc import Sequence

from delivery.destinations import names
from delivery.sources import api
from jetrelay.api.endpoints import Retry
from jetrelay.api.events import MAX_BATCH_BYTES
from jetrelay.bench.greedy.tenant import MANY, Greedy, Load, batch, largest, local
from subscriptions import validation

# Events in a post to hundreds of endpoints, where it is not the posting that is to be felt.
_EACH = 10
# What an event needs beside its data, generously.
_ROOM = 512
# Events of the largest size in one post.
_FEW = MAX_BATCH_BYTES // api.MAX_EVENT - 1


def _most(*names: str) -> dict[str, object]:
    """Terms of an endpoint with the largest values of these names, and the highest priority."""
    return {"priority": "high"} | {name: largest(name) for name in names}


def _soonest() -> dict[str, object]:
    """As many retries as there may be, as soon as they may be."""
    return {
        "strategy": "fixed",
        "first_s": 0,
        "count": largest("count", Retry),
        "jitter_percent": 0,
    }


class Places(Greedy):
    """Five endpoints that never answer, with the most requests at once and the longest time."""

    name = "places"

    def prepare(self) -> None:
        for number in range(5):
            # The kernel holds so many connections of each port, and no more.
            self.reach.endpoints(
                1,
                local(f"hanging-{number}", self.reach.hanging()),
                **_most("max_in_flight", "timeout_s"),
            )
        self.pour(2)


class Headers(Greedy):
    """Endpoints that answer with as many headers as libcurl reads, and a body beside them."""

    name = "headers"
    kind = "wordy"

    def prepare(self) -> None:
        self.reach.endpoints(
            20,
            local("wordy", self.reach.receiver(self.kind)),
            **_most("max_in_flight", "timeout_s"),
        )
        self.pour(2)


class Trickle(Headers):
    """The same headers, and then a line a second: memory that is held until the time limit."""

    name = "trickle"
    kind = "trickling"


class Large(Greedy):
    """Events of the largest size to hundreds of endpoints that send the largest batches."""

    name = "large"

    def prepare(self) -> None:
        self.reach.endpoints(
            MANY // 2,
            local("large", self.reach.quick()),
            **_most("max_in_flight", "batch_size", "batch_wait_ms"),
        )

    def loads(self) -> Sequence[Load]:
        return [self.posting(batch(_FEW, api.MAX_EVENT - _ROOM))]


class Names(Greedy):
    """Hosts whose names are never found, more of them than there are threads to look them up."""

    name = "names"
    env = {"DJANGO_SETTINGS_MODULE": "jetrelay.bench.greed_settings"}
    hosts = ("first.answered.test", "second.answered.test")

    def prepare(self) -> None:
        self.reach.endpoints(
            names.MAX_THREADS * 2,
            lambda number: f"http://n{number}.silent.test/",
            **_most("max_in_flight", "timeout_s"),
        )
        self.reach.ask([self.posting(batch(_EACH))], 1)


class Failing(Greedy):
    """Hundreds of endpoints that fail at once, with the most retries as soon as they may be."""

    name = "failing"

    def prepare(self) -> None:
        self.reach.endpoints(
            MANY,
            local("failing", self.reach.receiver("failing")),
            retry=_soonest(),
            **_most("max_in_flight"),
        )

    def loads(self) -> Sequence[Load]:
        return [self.posting(batch(_EACH))]


class Subjects(Greedy):
    """100,000 subjects of two ordered endpoints, one that fails and one that never answers."""

    name = "subjects"

    def prepare(self) -> None:
        terms = {"ordered": True, "retry": _soonest()} | _most("max_in_flight")
        self.reach.endpoints(1, local("failing", self.reach.receiver("failing")), **terms)
        self.reach.endpoints(
            1,
            local("slow", self.reach.hanging()),
            **terms,
            timeout_s=largest("timeout_s"),
        )
        self.pour(100, subject="did:%n%-%i%")


class Rates(Greedy):
    """Hundreds of endpoints with the smallest rate limit: turns and claims that lead to nothing."""

    name = "rates"

    def prepare(self) -> None:
        self.reach.endpoints(
            MANY,
            local("rated", self.reach.quick()),
            rate_limit_per_s=validation.MIN_RATE,
            **_most("max_in_flight"),
        )

    def loads(self) -> Sequence[Load]:
        return [self.posting(batch(_EACH))]
