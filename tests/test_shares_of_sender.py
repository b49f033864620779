"""What one tenant may take of a sender while others wait: places, threads that look up names, memory for headers."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from delivery.destinations import names
from delivery.destinations.exchange import Error, Gate, Inbox
from delivery.destinations.failures import LONG_HEADERS
from delivery.destinations.http import MAX_IDLE_HANDLES, Sender
from delivery.destinations.names import Resolver
from delivery.destinations.transfer import MAX_KEPT_HEADERS, MAX_READ_HEADERS
from tests.threads import eventually
from tests.wire import LOOPBACK, Crowd, Wire, collect, hang, keep_alive, post, read_request, request, saying

PLACES = 60


@contextmanager
def sending(**over: Any) -> Iterator[Sender]:
    running = Sender(LOOPBACK, **over)
    yield running
    running.stop()


def submit(sender: Sender, url: str, tenant: str, count: int, inbox: Inbox, limit: int = 1000) -> Gate:
    gate = Gate(limit, tenant)
    sender.submit_to(gate, [request(url, inbox, gate=gate, timeout_ms=60_000) for _ in range(count)])
    return gate


def test_endpoints_that_never_answer_leave_places_for_other_tenants() -> None:
    stuck, inbox = Inbox(), Inbox()
    with Wire(hang) as hanging, Wire(keep_alive) as quick, sending(most_open=PLACES) as sender:
        gates = [submit(sender, hanging.url, "greedy", 1000, stuck) for _ in range(5)]
        eventually(lambda: sum(gate.open for gate in gates) == PLACES // 2)
        submit(sender, quick.url, "other", 200, inbox)
        assert {result.status for result in collect(inbox, 200)} == {200}
        assert sum(gate.open for gate in gates) == PLACES // 2
        assert stuck.take(0) == []


@pytest.mark.parametrize("greedy", [2, 5])
def test_however_many_are_greedy_something_is_free(greedy: int) -> None:
    stuck, inbox = Inbox(), Inbox()
    with Wire(hang) as hanging, Wire(keep_alive) as quick, sending(most_open=PLACES) as sender:
        gates = [submit(sender, hanging.url, f"greedy {number}", 1000, stuck) for number in range(greedy)]
        # All of the same instant, or of some after the others: what is left is between.
        eventually(lambda: PLACES // 2 <= sum(gate.open for gate in gates) < PLACES)
        submit(sender, quick.url, "other", 50, inbox)
        assert {result.status for result in collect(inbox, 50)} == {200}


def test_a_tenant_goes_on_as_its_places_come_free() -> None:
    inbox, crowd = Inbox(), Crowd()
    with Wire(crowd.behave) as wire, sending(most_open=PLACES) as sender:
        gate = submit(sender, wire.url, "greedy", 300, inbox)
        assert {result.status for result in collect(inbox, 300)} == {200}
    assert crowd.most <= PLACES // 2
    assert (gate.open, list(gate.waiting)) == (0, [])


def test_a_tenant_goes_on_as_places_of_others_come_free() -> None:
    """Nothing of its own ends meanwhile."""
    stuck, freed = Inbox(), Inbox()
    with Wire(hang) as hanging, sending(most_open=PLACES) as sender:
        # 30 places; another takes 15 of the rest and gives them back after a while.
        mine = submit(sender, hanging.url, "mine", 100, stuck)
        eventually(lambda: mine.open == PLACES // 2)
        theirs = Gate(10, "theirs")
        sender.submit_to(theirs, [request(hanging.url, freed, gate=theirs, timeout_ms=300) for _ in range(10)])
        later = Gate(1000, "later")
        sender.submit_to(later, [request(hanging.url, stuck, gate=later, timeout_ms=60_000) for _ in range(100)])
        eventually(lambda: later.open == 10)
        assert {result.error for result in collect(freed, 10)} == {Error.TIMEOUT}
        eventually(lambda: later.open == 15)


def test_a_request_has_its_place_while_its_name_is_looked_up() -> None:
    hold, stuck, inbox = threading.Event(), Inbox(), Inbox()
    resolver = Resolver(lambda _: ["127.0.0.1"] if hold.wait(60) else [])
    with Wire(keep_alive) as quick, sending(most_open=PLACES, resolver=resolver) as sender:
        gate = submit(sender, "http://hanging.test/", "greedy", 1000, stuck)
        eventually(lambda: gate.open == PLACES // 2)
        submit(sender, quick.url, "other", 50, inbox)
        assert {result.status for result in collect(inbox, 50)} == {200}
        assert gate.open == PLACES // 2
        hold.set()


def test_names_that_hang_leave_threads_for_those_of_other_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_THREADS", 8)
    hold, asked, stuck, inbox = threading.Event(), list[str](), Inbox(), Inbox()

    def look_up(name: str) -> Sequence[str]:
        asked.append(name)
        if name.startswith("hanging"):
            hold.wait(60)
        return ["127.0.0.1"]

    with Wire(keep_alive) as wire, sending(resolver=Resolver(look_up)) as sender:
        for number in range(50):
            submit(sender, wire.url_of(f"hanging{number}.test"), "greedy", 1, stuck)
        # The name that the other tenant wants too waits behind the greedy one's.
        submit(sender, wire.url_of("good0.test"), "greedy", 1, stuck)
        eventually(lambda: len(asked) == 4)
        for number in range(20):
            submit(sender, wire.url_of(f"good{number}.test"), "other", 1, inbox)
        assert {result.status for result in collect(inbox, 20)} == {200}
        assert len([name for name in asked if name.startswith("hanging")]) == 4
        assert len(asked) == len(set(asked))
        hold.set()
        assert {result.status for result in collect(stuck, 51)} == {200}


def test_one_name_too_many_costs_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_KEPT", 3)
    asked = list[str]()

    def look_up(name: str) -> Sequence[str]:
        asked.append(name)
        return ["127.0.0.1"]

    with Wire(keep_alive) as wire, sending(resolver=Resolver(look_up)) as sender:
        for name in ("a", "b", "c", "d", "b", "c", "d", "a"):
            assert post(sender, wire.url_of(f"{name}.test")).status == 200
    assert asked == ["a.test", "b.test", "c.test", "d.test", "a.test"]


# --- memory --------------------------------------------------------------------------------------------------------


def answering(headers: int) -> bytes:
    """An answer with so many bytes of headers after its status."""
    line = b"X-Padding: " + b"p" * 987 + b"\r\n"
    return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line * (headers // len(line)) + b"\r\n"


def test_it_keeps_a_little_of_long_headers() -> None:
    with Wire(saying(answering(MAX_READ_HEADERS - 2000))) as wire, sending() as sender:
        result = post(sender, wire.url)
    assert (result.status, result.error) == (200, None)
    assert len(result.response_headers) == MAX_KEPT_HEADERS


def test_it_names_headers_that_are_too_long() -> None:
    with Wire(saying(answering(MAX_READ_HEADERS + 2000))) as wire, sending() as sender:
        result = post(sender, wire.url)
    assert (result.status, result.error, result.error_detail) == (None, Error.BAD_RESPONSE, LONG_HEADERS)
    assert len(result.response_headers) == MAX_KEPT_HEADERS


def test_what_it_holds_of_headers_does_not_grow_with_what_receivers_send() -> None:
    """While requests are open: what is kept of each, and not of all that came."""

    async def drip(reader: Any, writer: Any) -> None:
        await read_request(reader)
        writer.write(answering(MAX_READ_HEADERS - 2000)[:-2])
        await writer.drain()
        await asyncio.sleep(60)

    inbox = Inbox()
    with Wire(drip) as wire, sending() as sender:
        gate = submit(sender, wire.url, "one", 50, inbox, limit=50)
        busy = vars(sender)["_busy"]
        eventually(lambda: gate.open == 50 and all(each.header_bytes > 60_000 for each in list(busy.values())))
        assert max(sum(map(len, each.lines)) for each in list(busy.values())) <= MAX_KEPT_HEADERS + 1000


def test_handles_of_a_burst_and_of_large_headers_are_given_back() -> None:
    inbox = Inbox()
    with Wire(keep_alive) as quick, Wire(saying(answering(20_000))) as long, sending() as sender:
        idle = vars(sender)["_idle"]
        assert post(sender, long.url).status == 200
        assert idle == []
        count = MAX_IDLE_HANDLES + 50
        sender.submit([request(quick.url, inbox) for _ in range(count)])
        collect(inbox, count)
        assert 0 < len(idle) <= MAX_IDLE_HANDLES
