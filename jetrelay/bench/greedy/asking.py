"""Those that take from the site: threads, memory, transactions, and the database's time."""

from collections.abc import Sequence

from delivery.sources import api
from delivery.trial import MOST
from jetrelay.api.events import MAX_BATCH_BYTES
from jetrelay.bench.greedy.tenant import MANY, TYPE, Greedy, Load, batch, largest, local

# Clients at once: more than there are threads for pages.
_DOZENS = 48
_AT_ONCE = 20
# What an event of a full batch may have: the batch as large as it is taken.
_PADDING = MAX_BATCH_BYTES // api.MAX_ITEMS - 100

# More than there is room for bodies of 10 MB.
CLIENTS = 64


class FanOut(Greedy):
    """Full batches to hundreds of endpoints: transactions of 600,000 rows while others wait."""

    name = "fan-out"

    def prepare(self) -> None:
        self.reach.endpoints(
            MANY,
            local("fan", self.reach.quick()),
            priority="high",
            max_in_flight=largest("max_in_flight"),
        )

    def loads(self) -> Sequence[Load]:
        return [self.posting(batch(api.MAX_ITEMS), connections=4)]


class Posters(Greedy):
    """As many clients as the server has threads, which post the largest batches with one key."""

    name = "posters"
    keys = 1

    def prepare(self) -> None:
        self.reach.endpoints(
            1,
            local("sink", self.reach.quick()),
            priority="high",
            max_in_flight=largest("max_in_flight"),
        )
        self._lines = self.reach.keys(self.keys)

    def loads(self) -> Sequence[Load]:
        return [self.posting(batch(api.MAX_ITEMS, _PADDING), CLIENTS, self._lines)]


class ManyKeys(Posters):
    """The same with a key for each of them."""

    name = "many-keys"
    keys = CLIENTS


class _WithHistory(Greedy):
    """Has thousands of events and deliveries to look at."""

    def prepare(self) -> None:
        self.reach.endpoints(
            5,
            local("sink", self.reach.quick()),
            max_in_flight=largest("max_in_flight"),
        )
        self.pour(20)


class Calls(_WithHistory):
    """Dozens of clients that ask the API for lists, counts and previews, with a key."""

    name = "calls"

    def loads(self) -> Sequence[Load]:
        asked = [
            ("GET", "/api/v1/deliveries?state=dead", ""),
            ("GET", "/api/v1/events?type=greed.nothing.*", ""),
            ("GET", "/api/v1/stats", ""),
            ("POST", "/api/v1/replays/preview", '{"action":"replay"}'),
            (
                "POST",
                "/api/v1/subscriptions/preview",
                f'{{"types":["{TYPE}.nothing"],"last":{MOST}}}',
            ),
        ]
        each = _DOZENS // len(asked)
        return [Load(path, body, method, each, [self.reach.bearer]) for method, path, body in asked]


class Pages(_WithHistory):
    """Dozens of browsers that ask for the pages that look through most, signed in."""

    name = "pages"

    def loads(self) -> Sequence[Load]:
        asked = (
            "/?span=week",
            "/events/?q=found+nowhere",
            "/deliveries/?state=dead",
            "/replays/new/?action=replay&delivery_state=dead",
            "/endpoints/",
        )
        return [
            Load(
                path,
                method="GET",
                connections=_DOZENS // len(asked),
                credentials=[self.reach.cookie],
                headers=(),
            )
            for path in asked
        ]


class Outward(Greedy):
    """New endpoints, challenges and test events, 20 of each at once, at a silent receiver."""

    name = "outward"
    env = {"JETRELAY_VERIFY_ENDPOINTS": "true"}

    def prepare(self) -> None:
        self._port = self.reach.hanging()
        # It is answered once the challenge has failed, so one is enough to ask about.
        self._ids = self.reach.endpoints(
            1,
            local("hanging", self._port),
            timeout_s=largest("timeout_s"),
        )

    def loads(self) -> Sequence[Load]:
        asked = [("/api/v1/endpoints", f'{{"url":"http://new-%n%.localhost:{self._port}/greedy"}}')]
        for id in self._ids:
            asked += [(f"/api/v1/endpoints/{id}/{act}", "") for act in ("verify", "test")]
        key = [self.reach.bearer]
        return [Load(path, body, connections=_AT_ONCE, credentials=key) for path, body in asked]


class Replays(_WithHistory):
    """A hundred replays at once, each of everything that it has."""

    name = "replays"

    def loads(self) -> Sequence[Load]:
        wish = '{"action":"replay","state":"delivered"}'
        return [Load("/api/v1/replays", wish, connections=5, credentials=[self.reach.bearer])]

    def prepare(self) -> None:
        super().prepare()
        self.reach.ask(self.loads(), 100)


class Keys(Greedy):
    """Keys, idempotency keys and wrong passwords: a row or a hash for each request."""

    name = "keys"

    def loads(self) -> Sequence[Load]:
        key, token = [self.reach.bearer], "a" * 32
        json = ("Content-Type: application/json",)
        form = ("Content-Type: application/x-www-form-urlencoded", f"Cookie: csrftoken={token}")
        return [
            Load(
                "/api/v1/keys",
                '{"name":"key %n%","scopes":["events:write"]}',
                connections=10,
                credentials=key,
            ),
            Load(
                "/api/v1/sources",
                '{"name":"%n%"}',
                connections=5,
                credentials=key,
                headers=(*json, "Idempotency-Key: source-%n%"),
            ),
            Load(
                "/api/v1/events",
                f'{{"type":"{TYPE}","data":{{}}}}',
                connections=10,
                credentials=key,
                headers=(*json, "Idempotency-Key: event-%n%"),
            ),
            Load(
                "/login/",
                f"csrfmiddlewaretoken={token}&username=greedy-%n%&password=wrong",
                connections=10,
                headers=form,
            ),
        ]
