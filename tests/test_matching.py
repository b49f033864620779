"""Matching, against the table in words and against a matcher that looks at every filter in turn."""

import random
import re
from uuid import UUID

import pytest

from delivery.sources.jetstream.player import options
from subscriptions.matching import Filter, Matcher, Wanted, patterns_covering, wanted
from subscriptions.validation import KINDS, OPERATIONS
from tests.builders import DID, POST, some_id

BOB = "did:plc:" + "b" * 24
ONE, TWO = some_id(1), some_id(2)
COLLECTIONS = [
    "app.bsky.feed.post",
    "app.bsky.feed.like",
    "app.bsky.feedgen.x",
    "app.bsky.graph.follow",
    "app.example.feed.post",
    "com.example.thing",
    "identity",
]
PATTERNS = ["*", "app.*", "app.bsky.*", "app.bsky.feed.*", "com.example.*", "net.*", *COLLECTIONS]
DIDS = [f"did:plc:{number:024d}" for number in range(6)]


@pytest.mark.parametrize(
    ("pattern", "type", "matches"),
    [
        ("*", POST, True),
        ("*", "x", True),
        (POST, POST, True),
        (POST, "app.bsky.feed.posts", False),
        (POST, "app.bsky.feed", False),
        (POST, "app.bsky.feed.post.more", False),
        (POST, "App.bsky.feed.post", False),
        ("app.bsky.feed.*", POST, True),
        ("app.bsky.feed.*", "app.bsky.feed.post.more", True),
        ("app.bsky.feed.*", "app.bsky.feed", False),
        ("app.bsky.feed.*", "app.bsky.feedgen.x", False),
        ("app.bsky.*", POST, True),
        ("app.*", POST, True),
        ("app.*", "application.x", False),
        ("bsky.*", POST, False),
    ],
)
def test_it_reads_wildcards(pattern: str, type: str, matches: bool) -> None:
    assert Matcher([Filter(ONE, (pattern,))]).match("commit", type, "create", DID) == ((ONE,) if matches else ())


@pytest.mark.parametrize(
    ("kinds", "operations", "dids", "event", "matches"),
    [
        (("commit",), (), (), ("commit", POST, "delete", DID), True),
        (("commit",), (), (), ("commit", POST, "an operation of next year", DID), True),
        (("commit",), ("create",), (), ("commit", POST, "create", DID), True),
        (("commit",), ("create", "update"), (), ("commit", POST, "delete", DID), False),
        (("commit",), (), (DID,), ("commit", POST, "create", DID), True),
        (("commit",), (), (DID,), ("commit", POST, "create", BOB), False),
        (("commit",), ("delete",), (DID,), ("commit", POST, "delete", DID), True),
        (("commit",), ("delete",), (DID,), ("commit", POST, "create", DID), False),
        # Identity and account events are for those who ask for them, whatever collections they want.
        (("commit",), (), (), ("identity", "identity", "", DID), False),
        (("commit",), (), (), ("account", "account", "", DID), False),
        (("commit",), (), (), ("labels", "labels", "", DID), False),
        (("identity",), (), (), ("identity", "identity", "", DID), True),
        (("identity",), (), (), ("commit", POST, "create", DID), False),
        (("account", "commit"), ("create",), (), ("account", "account", "", DID), True),
        (("account",), (), (DID,), ("account", "account", "", DID), True),
        (("account",), (), (DID,), ("account", "account", "", BOB), False),
        (("sync",), (), (), ("sync", "sync", "", DID), True),
        (("api",), (), (), ("api", POST, "", DID), True),
        (("api",), (), (), ("api", "invoice.paid", "", DID), False),
    ],
)
def test_it_reads_kinds_operations_and_dids(
    kinds: tuple[str, ...], operations: tuple[str, ...], dids: tuple[str, ...], event: tuple[str, str, str, str], matches: bool
) -> None:
    assert Matcher([Filter(ONE, (POST,), dids, operations, kinds)]).match(*event) == ((ONE,) if matches else ())


def test_it_names_every_endpoint_once_and_in_order() -> None:
    filters = [Filter(TWO, ("*",)), Filter(ONE, (POST,)), Filter(ONE, ("app.*", "*")), Filter(TWO, (POST,), (DID,)), Filter(ONE, ("*",), (DID,), ("create",))]
    assert Matcher(filters).match("commit", POST, "create", DID) == (ONE, TWO)


def test_it_lists_the_patterns_that_cover_a_name() -> None:
    assert patterns_covering(POST) == [POST, "app.bsky.feed.*", "app.bsky.*", "app.*", "*"]
    assert patterns_covering("identity") == ["identity", "*"]


def test_it_gives_the_same_answer_however_many_collections_there_were() -> None:
    matcher = Matcher([Filter(ONE, ("app.bsky.*",)), Filter(TWO, ("com.*",))])
    for number in range(50_000):
        assert matcher.match("commit", f"app.bsky.x{number}", "create", DID) == (ONE,)
        assert len(matcher._remembered) <= 20_000
    assert matcher.match("commit", "com.example.x", "create", DID) == (TWO,)


def test_it_answers_the_same_question_from_memory() -> None:
    matcher = Matcher([Filter(TWO, ("*",)), Filter(ONE, ("*",)), Filter(ONE, ("*",), (BOB,))])
    answer = matcher.match("commit", POST, "create", DID)
    assert answer == (ONE, TWO)
    assert matcher.match("commit", POST, "create", DID) is answer


# --- Against the plain reading -----------------------------------------------------------------------------------------


def some(choices: random.Random, items: list[str], least: int = 0) -> tuple[str, ...]:
    return tuple(choices.sample(items, choices.randint(least, min(3, len(items)))))


def random_filter(choices: random.Random) -> Filter:
    dids = some(choices, DIDS) if choices.random() < 0.5 else ()
    return Filter(some_id(choices.randrange(8)), some(choices, PATTERNS, 1), dids, some(choices, list(OPERATIONS)), some(choices, list(KINDS), 1))


def random_event(choices: random.Random) -> tuple[str, str, str, str]:
    kind = choices.choice([*KINDS, "labels"])
    type = choices.choice(COLLECTIONS) if kind in ("commit", "api") else kind
    return kind, type, choices.choice([*OPERATIONS, "moved"]) if kind == "commit" else "", choices.choice(DIDS)


def plainly(each: Filter, kind: str, type: str, operation: str, did: str) -> bool:
    if kind not in each.kinds or (each.dids and did not in each.dids):
        return False
    if kind == "commit" and each.operations and operation not in each.operations:
        return False
    if kind not in ("commit", "api"):
        return True
    return any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), type) for pattern in each.collections)


@pytest.mark.parametrize("seed", range(40))
def test_it_agrees_with_looking_at_every_filter(seed: int) -> None:
    choices = random.Random(seed)
    filters = [random_filter(choices) for _ in range(choices.randint(0, 25))]
    matcher = Matcher(filters)
    for _ in range(300):
        event = random_event(choices)
        assert matcher.match(*event) == tuple(sorted({each.endpoint for each in filters if plainly(each, *event)}))


# --- What the stream is asked for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_it_asks_for_at_least_what_any_filter_wants(seed: int) -> None:
    choices = random.Random(seed)
    filters = [random_filter(choices) for _ in range(choices.randint(1, 3))]
    union = wanted(filters)
    assert union is not None
    # As the hosts read it: identity and account events pass every filter of collections.
    asked = options.Filter.build(union.collections, union.dids, 0)
    for _ in range(300):
        event = kind, type, _, did = random_event(choices)
        if any(plainly(each, *event) for each in filters) and kind != "api":
            assert not asked.collections or kind != "commit" or asked.wants_collection[type]
            assert not asked.dids or did in asked.wants_did


@pytest.mark.parametrize(
    ("filters", "union"),
    [
        ([], None),
        ([Filter(ONE, ("*",))], Wanted(kinds=("commit",))),
        ([Filter(ONE, (POST,))], Wanted((POST,), kinds=("commit",))),
        ([Filter(ONE, (POST,)), Filter(TWO, ("app.bsky.graph.*", POST))], Wanted((POST, "app.bsky.graph.*"), kinds=("commit",))),
        ([Filter(ONE, (POST,)), Filter(TWO, ("*",))], Wanted(kinds=("commit",))),
        ([Filter(ONE, (POST,), (DID,))], Wanted((POST,), (DID,), kinds=("commit",))),
        ([Filter(ONE, (POST,), (DID,)), Filter(TWO, (POST,), (BOB,))], Wanted((POST,), (DID, BOB), kinds=("commit",))),
        ([Filter(ONE, (POST,), (DID,)), Filter(TWO, (POST,))], Wanted((POST,), kinds=("commit",))),
        # Without commits the collections do not count, and no host can be asked for "no commits".
        ([Filter(ONE, ("*",), kinds=("identity",))], Wanted(kinds=("identity",))),
        ([Filter(ONE, ("*",), kinds=("identity",)), Filter(TWO, (POST,))], Wanted((POST,), kinds=("commit", "identity"))),
        # A host refuses a whole request for one name that is none: everything is asked for instead.
        ([Filter(ONE, ("invoice.paid", POST))], Wanted(kinds=("commit",))),
        ([Filter(ONE, ("app",))], Wanted(kinds=("commit",))),
        # On the v2 wire a host can be asked for some kinds alone; what comes over HTTP is none of them.
        ([Filter(ONE, ("*",), kinds=("sync", "account"))], Wanted(kinds=("account", "sync"))),
        ([Filter(ONE, (POST,), kinds=("commit", "api"))], Wanted((POST,), kinds=("commit",))),
        ([Filter(ONE, ("*",), kinds=("commit", "identity", "account", "sync"))], Wanted()),
        ([Filter(ONE, ("*",), kinds=("commit", "identity")), Filter(TWO, ("*",), kinds=("account", "sync"))], Wanted()),
        ([Filter(ONE, ("app.*",))], Wanted(("app.*",), kinds=("commit",))),
    ],
)
def test_it_asks_for_the_union(filters: list[Filter], union: Wanted | None) -> None:
    assert wanted(filters) == union


@pytest.mark.parametrize(("count", "asked"), [(100, 100), (101, 0)])
def test_it_asks_for_everything_when_there_are_too_many_collections(count: int, asked: int) -> None:
    filters = [Filter(UUID(int=number), (f"app.bsky.x{number}.y",), (DID,)) for number in range(count)]
    union = wanted(filters)
    assert union is not None
    assert len(union.collections) == asked
    assert union.dids == (DID,)


@pytest.mark.parametrize(("count", "asked"), [(10_000, 10_000), (10_001, 0)])
def test_it_asks_for_everyone_when_there_are_too_many_dids(count: int, asked: int) -> None:
    union = wanted([Filter(ONE, (POST,), tuple(f"did:plc:{number}" for number in range(count)))])
    assert union is not None
    assert len(union.dids) == asked
    assert union.collections == (POST,)


@pytest.mark.parametrize(
    ("asked", "broad"),
    [
        (Wanted(), True),
        (Wanted(kinds=("commit",)), True),
        (Wanted(kinds=("account", "commit")), True),
        (Wanted(kinds=("account", "identity", "sync")), False),
        (Wanted((POST,)), False),
        (Wanted(("app.*",)), False),
        (Wanted((), (DID,)), False),
    ],
)
def test_it_knows_when_a_living_host_always_has_something_to_send(asked: Wanted, broad: bool) -> None:
    assert asked.broad is broad
