"""The two wires: the URL to connect to, and the reading of what comes back."""

from urllib.parse import parse_qs, urlsplit

import pytest

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream.frames import InvalidFrame
from delivery.sources.jetstream.frames_v2 import HostError, Info
from delivery.sources.jetstream.wires import V1, V2, Asked, Wire, wire_of
from subscriptions.matching import Wanted
from tests.builders import DID, POST, frame
from tests.hosts import frame_v2, info_v2

ON_V1 = "wss://host.example/subscribe"
ON_V2 = "wss://host.example/xrpc/network.bsky.jetstream.subscribeEvents"
MANY = tuple(f"did:plc:{number:024d}" for number in range(10_000))


def query(wire: Wire, asked: Asked) -> dict[str, list[str]]:
    url, hello = wire.address(asked)
    assert not hello
    assert url.startswith(wire.url)
    return parse_qs(urlsplit(url).query, strict_parsing=bool(urlsplit(url).query))


@pytest.mark.parametrize(
    ("url", "kind", "name", "updates"),
    [
        (ON_V1, V1, "v1", True),
        (ON_V2, V2, "v2", False),
        ("ws://host.example:6008/behind/subscribe", V1, "v1", True),
        ("ws://host.example/behind/xrpc/network.bsky.jetstream.subscribeEvents", V2, "v2", False),
    ],
)
def test_the_path_says_which_wire_it_is(url: str, kind: type[Wire], name: str, updates: bool) -> None:
    wire = wire_of(url)
    assert type(wire) is kind
    assert (wire.url, wire.name, wire.updates) == (url, name, updates)


@pytest.mark.parametrize("url", [ON_V1, ON_V2])
def test_it_asks_for_everything_without_a_query(url: str) -> None:
    assert wire_of(url).address(Asked(Wanted())) == (url, False)


def test_it_asks_v1_with_its_own_names() -> None:
    wanted = Wanted((POST, "app.bsky.graph.*"), (DID, "did:web:example.com%3A8080"), ("commit", "identity"))
    assert query(V1(ON_V1), Asked(wanted, 1_780_000_000_000_000, 1612007021)) == {
        "wantedCollections": [POST, "app.bsky.graph.*"],
        "wantedDids": [DID, "did:web:example.com%3A8080"],
        "cursor": ["1780000000000000"],
        "compress": ["true"],
    }


def test_it_asks_v2_with_its_own_names() -> None:
    wanted = Wanted((POST, "app.bsky.graph.*"), (DID, "did:web:example.com%3A8080"), ("commit", "identity"))
    assert query(V2(ON_V2), Asked(wanted, 12_345, 20260811)) == {
        "kinds": ["commit", "identity"],
        "collections": [POST, "app.bsky.graph.*"],
        "dids": [DID, "did:web:example.com%3A8080"],
        "cursor": ["12345"],
        "zstdDictionary": ["20260811"],
    }


@pytest.mark.parametrize("url", [ON_V1, ON_V2])
def test_a_cursor_of_zero_is_a_cursor(url: str) -> None:
    assert query(wire_of(url), Asked(Wanted(), 0)) == {"cursor": ["0"]}


def test_a_long_filter_follows_as_the_first_message_on_v1() -> None:
    url, hello = V1(ON_V1).address(Asked(Wanted((POST,), MANY), 77, 1612007021))
    assert hello
    assert parse_qs(urlsplit(url).query) == {"cursor": ["77"], "compress": ["true"], "requireHello": ["true"]}
    assert V1(ON_V1).address(Asked(Wanted((POST,), MANY))) == (f"{ON_V1}?requireHello=true", True)


def test_a_long_filter_stands_in_the_url_on_v2() -> None:
    assert query(V2(ON_V2), Asked(Wanted((), MANY))) == {"dids": list(MANY)}


def test_each_reads_its_own_frames_and_says_who_sent_them() -> None:
    on_v1, on_v2 = V1(ON_V1).parse(frame(1, cursor=7)), V2(ON_V2).parse(frame_v2(1, 7))
    assert isinstance(on_v1, Incoming)
    assert isinstance(on_v2, Incoming)
    assert (on_v1.origin, on_v2.origin) == (ON_V1, ON_V2)
    assert on_v1.dedup_key == on_v2.dedup_key
    assert (on_v1.time_us, on_v1.cursor) == (on_v2.time_us, on_v2.cursor)


def test_each_refuses_the_frames_of_the_other() -> None:
    with pytest.raises(InvalidFrame):
        V1(ON_V1).parse(frame_v2(1, 7))
    with pytest.raises(InvalidFrame):
        V2(ON_V2).parse(frame(1))


def test_v2_hands_on_what_the_host_says() -> None:
    assert V2(ON_V2).parse(info_v2("OutdatedCursor")) == Info("OutdatedCursor", "about the cursor")
    with pytest.raises(HostError, match="ConsumerTooSlow"):
        V2(ON_V2).parse(b'{"$type":"error","error":"ConsumerTooSlow","message":"x"}')
