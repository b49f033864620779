"""The Jetstream player, over real sockets: the server in this process, the command in its own."""

import array
import asyncio
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from struct import pack, unpack
from urllib.parse import urlencode

import pytest
from django.core.management import CommandError, call_command
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from delivery.sources.jetstream import demo_events
from delivery.sources.jetstream.player import server, tid
from delivery.sources.jetstream.player.copies import fresh_copy
from delivery.sources.jetstream.player.log import DemoLog, FileLog
from delivery.sources.jetstream.player.stretch import LENGTH

# What a client says that is no WebSocket library.
HANDSHAKE = (
    b"GET /subscribe HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 20
ANNA, BERT = "did:plc:" + "a" * 24, "did:plc:" + "b" * 24
POST, LIKE, PROFILE = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.actor.profile"
START_US = 1_780_000_000_000_000
REV = tid.encode(START_US, 5)


def line(event):
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def make_commit(time_us=START_US, did=ANNA, collection=POST, rev=REV, text="hé 👩‍🌾"):
    commit = {"rev": rev, "operation": "create", "collection": collection, "rkey": REV, "record": {"text": text}, "cid": "bafy"}
    return line({"did": did, "time_us": time_us, "kind": "commit", "commit": commit})


def make_identity(time_us=START_US, did=ANNA):
    return line({"did": did, "time_us": time_us, "kind": "identity", "identity": {"did": did, "seq": 1, "time": "2026-05-28T20:26:40.123Z"}})


def make_commits(count):
    return [make_commit(START_US + number) for number in range(count)]


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, TIMEOUT_S))


def url(port, **parameters):
    return f"ws://127.0.0.1:{port}/subscribe?{urlencode(parameters, doseq=True)}"


def client(port, **parameters):
    # Without max_queue=None a client that closes while it holds unread events would wait for its close_timeout.
    return connect(url(port, **parameters), max_size=None, max_queue=None)


async def read(socket, count):
    return [await socket.recv(decode=False) for _ in range(count)]


async def closing(socket) -> Close:
    """The close frame that the server sends next."""
    with pytest.raises(ConnectionClosed) as caught:
        await socket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd


async def is_quiet(socket):
    """True when nothing more was sent: frames come in order, so a pong comes after all of them."""
    await (await socket.ping())
    try:
        async with asyncio.timeout(0):
            await socket.recv()
    except TimeoutError:
        return True
    return False


async def read_all(lines, **parameters):
    """What a client with these parameters gets of these lines before the stream goes quiet."""
    async with server.playing(FileLog(lines)) as port, client(port, **parameters) as socket:
        return await everything(socket)


async def everything(socket):
    await (await socket.ping())
    got = []
    try:
        while True:
            async with asyncio.timeout(0.05):
                got.append(await socket.recv(decode=False))
    except TimeoutError:
        return got


async def refusal(port, path):
    with pytest.raises(InvalidStatus) as caught:
        async with connect(f"ws://127.0.0.1:{port}{path}"):
            pass
    return caught.value.response.status_code, caught.value.response.body.decode()


# --- Serving a file --------------------------------------------------------------------------------------------------


def test_it_serves_the_lines_byte_for_byte_and_stays_open():
    lines = [make_commit(text="x" * size) for size in (0, 1, 100, 60_000, 70_000, 600_000)] + [b'{ "did" : "odd spacing"\t}\r', make_identity()]

    async def scenario():
        async with server.playing(FileLog(lines)) as port, client(port) as socket:
            assert await read(socket, len(lines)) == lines
            assert await is_quiet(socket)

    run(scenario())


def test_it_serves_long_files_in_order():
    lines = list(itertools.islice(demo_events.make(1, START_US), 5 * LENGTH + 7))

    async def scenario():
        async with server.playing(FileLog(lines)) as port, client(port) as socket:
            assert await read(socket, len(lines)) == lines

    run(scenario())


def test_it_serves_garbage_as_it_is_to_filtered_clients_too():
    garbage = [b"not json", b"[1,2]", b'{"kind":"commit"', b'{"did":7,"time_us":"x"}', b"\xff\xfe"]

    async def scenario():
        assert await read_all(garbage) == garbage
        assert await read_all(garbage, wantedCollections=POST, wantedDids=BERT) == garbage

    run(scenario())


def test_it_skips_empty_lines_only(tmp_path):
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"one\n\n two \r\nthree")

    async def scenario():
        async with server.playing(FileLog.read([path, path])) as port, client(port) as socket:
            assert await read(socket, 6) == [b"one", b" two \r", b"three"] * 2

    run(scenario())


def test_it_never_compresses():
    async def scenario():
        async with server.playing(FileLog([make_commit()])) as port, client(port) as socket:
            assert "Sec-WebSocket-Extensions" not in socket.response.headers

    run(scenario())


def test_it_closes_clients_with_1001_at_the_end():
    async def scenario():
        async with server.playing(FileLog([make_commit()])) as port:
            socket = await connect(url(port))
            await socket.recv()
        assert (await closing(socket)).code == 1001

    run(scenario())


# --- Filters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (POST, [0, 3]),
        ([POST, PROFILE, POST], [0, 2, 3]),
        ("app.bsky.feed.*", [0, 1, 3]),
        ("app.bsky.*", [0, 1, 2, 3]),
        ("app.bsky.fee.*", [3]),
    ],
)
def test_it_filters_collections_and_lets_identities_pass(wanted, expected):
    lines = [make_commit(collection=POST), make_commit(collection=LIKE), make_commit(collection=PROFILE), make_identity()]

    async def scenario():
        assert await read_all(lines, wantedCollections=wanted) == [lines[number] for number in expected]

    run(scenario())


def test_it_filters_dids_of_every_kind():
    lines = [make_commit(did=ANNA), make_commit(did=BERT), make_identity(did=ANNA), make_identity(did=BERT)]

    async def scenario():
        assert await read_all(lines, wantedDids=BERT) == [lines[1], lines[3]]
        assert await read_all(lines, wantedDids=BERT, wantedCollections=LIKE) == [lines[3]]

    run(scenario())


def test_it_leaves_out_messages_above_the_size():
    lines = [make_commit(text="long" * 100), make_commit(text="short")]

    async def scenario():
        assert await read_all(lines, maxMessageSizeBytes=len(lines[1])) == [lines[1]]
        assert await read_all(lines, maxMessageSizeBytes=len(lines[1]) - 1) == []
        assert await read_all(lines, maxMessageSizeBytes=0) == lines
        assert await read_all(lines, maxMessageSizeBytes=-1) == lines

    run(scenario())


def test_it_ignores_unknown_parameters():
    async def scenario():
        assert len(await read_all(make_commits(2), dids="nonsense", cursor="", compress="false")) == 2

    run(scenario())


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"wantedCollections": "app.bsky.fo*"}, "wantedCollections: 'app.bsky.fo*' is neither"),
        ({"wantedCollections": "*"}, "wantedCollections"),
        ({"wantedCollections": ""}, "wantedCollections"),
        ({"wantedCollections": "app.bsky"}, "wantedCollections"),
        ({"wantedCollections": [f"example.many.c{number}" for number in range(101)]}, "wantedCollections: 101"),
        ({"wantedDids": "anna"}, "wantedDids: 'anna'"),
        ({"cursor": "-1"}, "cursor: -1 is negative"),
        ({"cursor": "1e15"}, "cursor: '1e15' is not an integer"),
        ({"cursor": "1.5"}, "cursor"),
        ({"cursor": str(2**63)}, "cursor"),
        ({"maxMessageSizeBytes": "big"}, "maxMessageSizeBytes"),
        ({"compress": "true"}, "compress"),
    ],
)
def test_it_answers_a_bad_parameter_with_a_400_that_names_it(parameters, said):
    async def scenario():
        async with server.playing(FileLog([make_commit()])) as port:
            status, body = await refusal(port, "/subscribe?" + urlencode(parameters, doseq=True))
            assert status == 400
            assert body.startswith(said)

    run(scenario())


def test_it_takes_100_collections_after_dedupe():
    async def scenario():
        collections = [f"example.many.c{number}" for number in range(100)]
        assert len(await read_all([make_identity()], wantedCollections=[*collections, collections[0]])) == 1

    run(scenario())


def test_it_answers_another_path_with_a_404():
    async def scenario():
        async with server.playing(FileLog([make_commit()])) as port:
            status, body = await refusal(port, "/xrpc/nothing")
            assert status == 404
            assert "/subscribe" in body

    run(scenario())


# --- Client messages -------------------------------------------------------------------------------------------------


def update(**payload):
    return json.dumps({"type": "options_update", "payload": payload})


def test_it_waits_for_the_hello_when_asked_to():
    lines = [make_commit(did=ANNA), make_commit(did=BERT)]

    async def scenario():
        async with server.playing(FileLog(lines)) as port, client(port, requireHello="true", wantedDids=ANNA) as socket:
            await socket.send('{"type":"something_else","payload":7}')
            assert await is_quiet(socket)
            await socket.send(update(wantedDids=[BERT]))
            assert await read(socket, 1) == [lines[1]]

    run(scenario())


def test_it_takes_10_000_dids_in_an_update():
    async def scenario():
        async with server.playing(FileLog([make_commit(did=BERT)])) as port, client(port, requireHello="true") as socket:
            await socket.send(update(wantedDids=[f"did:plc:{number:024}" for number in range(9_999)] + [BERT]))
            assert await read(socket, 1) == [make_commit(did=BERT)]

    run(scenario())


def test_it_replaces_the_whole_filter_with_an_update():
    async def scenario():
        async with server.playing(FileLog(make_commits(1), loop=True), rate=500) as port, client(port, wantedDids=BERT) as socket:
            assert await is_quiet(socket)
            await socket.send(update(wantedCollections=[POST], wantedDids=[]))
            await read(socket, 3)
            await socket.send(update(wantedCollections=[LIKE]))
            while await everything(socket):
                pass
            await socket.send(update(wantedCollections=[], wantedDids=None))
            await read(socket, 3)

    run(scenario())


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ("{not json", 1007, ""),
        ("[]", 1007, ""),
        (update(wantedCollections=["app.bsky.fo*"]), 1008, "wantedCollections"),
        (update(wantedCollections=["ü" * 500]), 1008, "wantedCollections"),
        (update(wantedCollections="app.bsky.*"), 1008, "payload"),
        (update(wantedDids=["anna"]), 1008, "wantedDids"),
        (update(wantedDids=[f"did:plc:{number:024}" for number in range(10_001)]), 1008, "wantedDids: 10001"),
        ('{"type":"options_update","payload":[]}', 1008, "payload"),
    ],
)
def test_it_closes_on_a_bad_message(message, code, said):
    async def scenario():
        async with server.playing(FileLog([])) as port, client(port) as socket:
            await socket.send(message)
            closed = await closing(socket)
            assert closed.code == code
            assert closed.reason.startswith(said)

    run(scenario())


def test_it_refuses_a_message_above_10_mb_by_its_length_alone():
    async def scenario():
        async with server.playing(FileLog([])) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(pack("!BBQ4x", 0x81, 0xFF, 10_000_001))
            opcode, _, code = unpack("!BBH", await reader.readexactly(4))
            assert (opcode, code) == (0x88, 1009)
            writer.close()

    run(scenario())


# --- Cursors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cursor", "first"), [(0, 0), (START_US, 0), (START_US + 1, 1), (START_US + 4, 4), (START_US + 5, 5), (2**63 - 1, 5)])
def test_it_starts_at_the_cursor_inclusive(cursor, first):
    async def scenario():
        assert await read_all(make_commits(5), cursor=cursor) == make_commits(5)[first:]

    run(scenario())


def test_it_starts_where_the_log_first_reached_the_cursor():
    """With times that go back and forth, the highest time seen is a cursor that misses nothing."""
    lines = [make_commit(START_US + offset) for offset in (10, 30, 20, 30, 5, 40)]

    async def scenario():
        assert await read_all(lines, cursor=START_US + 30) == lines[1:]

    run(scenario())


# --- The pace --------------------------------------------------------------------------------------------------------


def test_it_keeps_one_pace_for_all_clients():
    lines = make_commits(150)

    async def scenario():
        async with server.playing(FileLog(lines), rate=150) as port, client(port) as first:
            started = time.monotonic()
            assert await read(first, 30) == lines[:30]
            async with client(port) as second, client(port, cursor=START_US) as third:
                joined = lines.index((await read(second, 1))[0])
                assert joined >= 30
                assert await read(third, 150) == lines
                assert await read(second, 149 - joined) == lines[joined + 1 :]
            assert await read(first, 120) == lines[30:]
            assert await is_quiet(first)
            assert time.monotonic() - started >= 0.9

    run(scenario())


def test_it_keeps_the_beginning_for_the_first_client():
    async def scenario():
        async with server.playing(FileLog(make_commits(3)), rate=1_000) as port, client(port, cursor=START_US + 2) as socket:
            assert await read(socket, 3) == make_commits(3)

    run(scenario())


def test_it_lets_a_client_that_comes_back_with_its_cursor_miss_nothing():
    lines = make_commits(300)

    async def scenario():
        got: list[bytes] = []
        parameters: dict[str, int] = {}
        async with server.playing(FileLog(lines), rate=1_000) as port:
            while not got or got[-1] != lines[-1]:
                async with client(port, **parameters) as socket:
                    got += await read(socket, 40 if len(got) < 250 else 300 - lines.index(got[-1]))
                parameters = {"cursor": json.loads(got[-1])["time_us"]}
        assert list(dict.fromkeys(got)) == lines

    run(scenario())


# --- Loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, 2_000])
def test_it_loops_with_fresh_copies(rate):
    lines = [make_commit(START_US), make_identity(START_US + 1, BERT), b"garbage"]

    async def scenario():
        async with server.playing(FileLog(lines, loop=True), rate=rate) as port, client(port) as socket:
            rounds = [await read(socket, 3) for _ in range(3)]
        assert rounds[0] == lines
        assert [lines_of[2] for lines_of in rounds] == [b"garbage"] * 3
        commits, identities = ([json.loads(round_[kind]) for round_ in rounds] for kind in (0, 1))
        assert [event["time_us"] - START_US for event in commits] == [0, 1_000_001, 2_000_002]
        assert len({event["commit"]["rev"] for event in commits}) == 3
        assert [event["identity"]["time"][17:] for event in identities] == ["40.123Z", "41.123Z", "42.123Z"]

    run(scenario())


def test_it_changes_nothing_else_in_a_fresh_copy():
    original = make_commit()
    copy = fresh_copy(original, 5_000_000)
    new_rev = tid.encode(START_US + 5_000_000, 5)
    assert copy == original.replace(str(START_US).encode(), str(START_US + 5_000_000).encode()).replace(
        f'"rev":"{REV}"'.encode(), f'"rev":"{new_rev}"'.encode()
    )


@pytest.mark.parametrize(
    "garbage", [b"not json", b"[1]", b"{}", b'{"time_us":"x"}', b'{"time_us":1,"commit":7}', b'{"time_us":1,"identity":{"time":"noon"}}', b"\xff"]
)
def test_it_copies_garbage_as_it_is(garbage):
    assert fresh_copy(garbage, 1) == garbage


def test_it_gives_a_copy_without_a_proper_rev_one_of_its_time():
    copy = json.loads(fresh_copy(make_commit(rev="first"), 7))
    assert copy["commit"]["rev"] == tid.encode(START_US + 7, 0)


@pytest.mark.parametrize("rate", [None, 5_000])
def test_it_replays_later_rounds_from_a_cursor(rate):
    lines = make_commits(LENGTH + 5)

    async def scenario():
        async with server.playing(FileLog(lines, loop=True), rate=rate) as port:
            async with client(port) as socket:
                got = await read(socket, 2 * len(lines) + 10)
            async with client(port, cursor=json.loads(got[-20])["time_us"]) as socket:
                assert (await read(socket, 20)) == got[-20:]

    run(scenario())


# --- Made-up events --------------------------------------------------------------------------------------------------


def make_demo(rate, **over):
    return DemoLog(demo_events.Storyteller(1).tell, rate, **over)


def test_it_plays_made_up_events_with_the_present_time():
    async def scenario():
        async with server.playing(make_demo(500), rate=500) as port, client(port) as socket:
            before = time.time_ns() // 1_000
            events = [json.loads(data) for data in await read(socket, 100)]
            after = time.time_ns() // 1_000
        times = [event["time_us"] for event in events]
        assert before - 1_000_000 < times[0] < times[-1] <= after
        assert len(set(times)) == 100

    run(scenario())


def test_it_replays_made_up_events_from_a_cursor():
    async def scenario():
        async with server.playing(make_demo(2_000), rate=2_000) as port:
            async with client(port) as socket:
                got = await read(socket, 100)
            async with client(port, cursor=json.loads(got[40])["time_us"]) as socket:
                assert await read(socket, 60) == got[40:]
            async with client(port, cursor=0) as socket:
                assert await read(socket, 100) == got

    run(scenario())


def test_it_forgets_all_but_the_last_made_up_events():
    log = make_demo(1_000, history=2 * LENGTH)
    for upto in range(0, 10 * LENGTH, 300):
        log.extend(upto)
    assert upto - 3 * LENGTH <= log.oldest <= upto - 2 * LENGTH
    assert log.find(0) == log.oldest
    stretch, index = log.at(upto - 1)
    assert index == len(stretch) - 1


def test_it_makes_no_events_that_nobody_could_ask_for():
    log = make_demo(1_000, history=50)
    log.extend(10_000_000)
    assert log.oldest == 10_000_000 - 50


# --- The command -----------------------------------------------------------------------------------------------------


def spawn(tmp_path, *arguments):
    environment = os.environ | {"SECRET_KEY": "x", "JETRELAY_DATA_DIR": str(tmp_path / "data")}
    return subprocess.Popen(
        [sys.executable, "manage.py", "play_jetstream", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def command(tmp_path, *arguments):
    """The running command and the line it announced itself with; it ends within the timeout whatever happens."""
    process = spawn(tmp_path, *arguments)
    deadline = threading.Timer(TIMEOUT_S, process.kill)
    deadline.start()
    try:
        yield process, process.stdout.readline()
    finally:
        deadline.cancel()
        process.kill()
        process.communicate()


def write(tmp_path, lines):
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def port_in(announcement):
    return int(announcement.split("/subscribe")[0].rpartition(":")[2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_plays_files_until_it_is_told_to_end(tmp_path, number):
    lines = make_commits(3)
    with command(tmp_path, write(tmp_path, lines), "--port", 0) as (process, announcement):
        port = port_in(announcement)
        root = f"ws://127.0.0.1:{port}"
        assert announcement == f"play_jetstream: listening on {root}/subscribe and {root}/xrpc/network.bsky.jetstream.subscribeEvents (3 events)\n"

        async def scenario():
            async with client(port) as socket:
                assert await read(socket, 3) == lines
                process.send_signal(number)
                assert (await closing(socket)).code == 1001

        run(scenario())
        assert process.wait(TIMEOUT_S) == 0
        assert process.stdout.read() == process.stderr.read() == ""


def test_the_command_ends_though_a_client_does_not_read(tmp_path):
    with (
        command(tmp_path, write(tmp_path, make_commits(1_000)), "--port", 0, "--loop") as (process, announcement),
        socket.create_connection(("127.0.0.1", port_in(announcement))) as stalled,
    ):
        stalled.sendall(HANDSHAKE)
        wait_until_full(stalled)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def wait_until_full(stalled):
    """Return once no more bytes arrive at a socket that nobody reads."""
    waiting = array.array("i", [0])
    seen = -1
    while waiting[0] == 0 or waiting[0] != seen:
        seen = waiting[0]
        time.sleep(0.1)
        fcntl.ioctl(stalled, termios.FIONREAD, waiting)


def test_the_command_makes_up_events(tmp_path):
    with command(tmp_path, "--demo", "--port", 0, "--rate", 200) as (_, announcement):
        assert announcement.endswith("subscribeEvents (made-up events, 200/s)\n")

        async def scenario():
            async with client(port_in(announcement)) as socket:
                assert len({json.loads(data)["time_us"] for data in await read(socket, 20)}) == 20

        run(scenario())


def failure(*arguments):
    with pytest.raises(CommandError) as caught:
        call_command("play_jetstream", *map(str, arguments))
    return str(caught.value)


def test_the_command_says_that_its_port_is_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = failure(write(tmp_path, make_commits(1)), "--port", port)
    assert f"Port {port} on 127.0.0.1 is in use" in said
    assert "--port" in said


def test_the_command_says_what_is_wrong_with_its_arguments(tmp_path):
    events, empty = write(tmp_path, make_commits(1)), tmp_path / "empty.ndjson"
    empty.touch()
    assert "missing.ndjson: No such file" in failure(tmp_path / "missing.ndjson")
    assert "Is a directory" in failure(tmp_path)
    assert "no events in" in failure(empty)
    assert "--demo" in failure()
    assert "not both" in failure(events, "--demo")
    assert "--loop" in failure("--demo", "--loop")
    assert "not a rate" in failure(events, "--rate", "0")
    assert "not a port" in failure(events, "--port", "99999")
    assert "--host" in failure(events, "--host", "192.0.2.1", "--port", "0")
