"""Several hosts from one log, a log that grows while they serve it, and both from the command line."""

import asyncio
import json
import re
import signal
import socket as sockets
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.management import CommandError, call_command

from delivery.sources.jetstream.player import server
from delivery.sources.jetstream.player.dictionaries import train
from delivery.sources.jetstream.player.live import LiveLog
from delivery.sources.jetstream.player.log import FileLog
from delivery.sources.jetstream.player.misbehaviour import HostOptions, Misbehaviour
from tests.played import LIKE, POST, START_US, client, commit, commits, identity, played, read, read_all, read_until_closed, refusal, seqs, sync_frame
from tests.test_play_jetstream import TIMEOUT_S, command, write


def times(lines):
    return [json.loads(line)["time_us"] - START_US for line in lines]


# --- A live log ------------------------------------------------------------------------------------------------------


def test_a_client_at_the_tip_gets_what_is_appended():
    log = LiveLog(commits(3))
    with played(log) as (host,), client(host.v1) as old, client(host.v2) as new:
        assert read_all(old) == []
        log.append(commit(3))
        assert read(old, 1) == [commit(3)]
        assert seqs(read(new, 1)) == [4]
        log.append(sync_frame(5), commit(5))
        assert read(old, 1) == [commit(5)]
        assert seqs(read(new, 2)) == [5, 6]


def test_a_client_misses_nothing_from_its_handshake_on():
    log = LiveLog()
    with played(log) as (host,):
        for number in range(20):
            with client(host.v1) as socket:
                log.append(commit(number))
                assert read(socket, 1) == [commit(number)]


def test_a_cursor_replays_a_live_log():
    log = LiveLog(commits(5))
    with played(log) as (host,), client(host.v1, cursor=START_US + 3) as old, client(host.v2, cursor=4) as new:
        log.append(identity(5))
        assert read(old, 3) == [commit(3), commit(4), identity(5)]
        assert seqs(read(new, 3)) == [4, 5, 6]


def test_any_thread_may_append():
    log = LiveLog()
    with played(log) as (host,), client(host.v1) as old, client(host.v2) as new:
        lines = commits(4_000)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(log.append, lines))
        assert sorted(read(old, 4_000)) == sorted(lines)
        assert seqs(read(new, 4_000)) == list(range(1, 4_001))


def test_a_live_log_may_have_a_rate():
    log = LiveLog()
    with played(log, rate=5_000) as (host,), client(host.v1) as socket:
        log.append(*commits(3))
        assert read(socket, 3) == commits(3)
        log.append(commit(3))
        assert read(socket, 1) == [commit(3)]


def test_a_live_log_is_watched_only_while_it_is_served():
    log = LiveLog()
    with played(log):
        pass
    log.append(commit(0))
    assert len(log) == 1


# --- Several hosts ---------------------------------------------------------------------------------------------------


def test_each_host_has_its_own_clock_numbers_and_ways():
    log = LiveLog()
    hosts = [HostOptions(first_seq=100, number=True), HostOptions(skew_s=3.5, first_seq=9_000, misbehaviour=Misbehaviour(withhold=LIKE))]
    with played(log, hosts) as (one, two), client(one.v1) as first, client(two.v1) as second, client(two.v2) as third:
        log.append(commit(0), commit(1, collection=LIKE), commit(2))
        got = read(first, 3)
        assert times(got) == [0, 1, 2]
        assert [json.loads(line)["cursor"] for line in got] == [100, 101, 102]
        assert times(read(second, 2)) == [3_500_000, 3_500_002]
        assert seqs(read(third, 2)) == [9_000, 9_002]
        assert (one.connections, two.connections) == (1, 2)


def test_hosts_share_one_pace():
    lines = commits(400)
    with played(lines, [HostOptions(), HostOptions()], rate=1_000) as (one, two), client(one.v1) as first:
        assert read(first, 100) == lines[:100]
        with client(two.v1) as second:
            assert times(read(second, 1))[0] >= 100


def test_one_host_may_drop_its_clients_alone():
    log = LiveLog()
    with played(log, [HostOptions(), HostOptions()]) as (one, two), client(one.v1) as first, client(two.v1) as second:
        one.close_all()
        assert read_until_closed(first) == ([], None)
        log.append(commit(0))
        assert read(second, 1) == [commit(0)]
        one.wait_for_connections(1)
        assert (one.open_connections, two.open_connections) == (0, 1)


def test_it_serves_one_host_as_before():
    async def scenario():
        async with server.playing(FileLog(commits(2)), misbehaviour=Misbehaviour(refuse_connections=1)) as port:
            url = f"ws://127.0.0.1:{port}/subscribe"
            return await asyncio.to_thread(refusal, url), await asyncio.to_thread(lambda: _first(url))

    refused, line = asyncio.run(scenario())
    assert (refused.status_code, line) == (503, commit(0))


def _first(url):
    with client(url) as socket:
        return read(socket, 1)[0]


# --- The command -----------------------------------------------------------------------------------------------------


def urls(announcement):
    return re.findall(r"ws://[^ ;]+", announcement)


def test_the_command_serves_several_hosts(tmp_path):
    lines = [commit(0), commit(1, collection=LIKE)]
    options = ("--skew=-2,3.5", "--first-seq", "5,800", "--number", "--host-option", f"2:withhold={LIKE}", "--host-option", "1:abort-after=1")
    with command(tmp_path, write(tmp_path, lines), "--port", 0, "--hosts", 2, *options) as (process, announcement):
        one, one_v2, two, two_v2 = urls(announcement)
        assert announcement == f"play_jetstream: listening on {one} and {one_v2}; {two} and {two_v2} (2 events)\n"
        with client(one) as socket:
            got, close = read_until_closed(socket)
            assert (times(got), close) == ([-2_000_000], None)
        with client(two) as socket:
            (line,) = read_all(socket)
            assert (times([line]), json.loads(line)["cursor"]) == ([3_500_000], 800)
        with client(two_v2) as socket:
            assert seqs(read_all(socket)) == [800]
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr.read() == ""


def test_the_command_serves_on_ports_in_a_row(tmp_path):
    with sockets.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port ({port - 1}|{port}) on 127.0.0.1 is in use"):
            call_command("play_jetstream", str(write(tmp_path, commits(1))), "--port", str(port - 1), "--hosts", "2")


def test_the_command_compresses_with_the_files_it_is_given(tmp_path):
    given = train([])
    (tmp_path / "dictionary").write_bytes(given.data)
    options = ("--v1-zstd-dictionary", tmp_path / "dictionary", "--zstd-dictionary", tmp_path / "dictionary")
    with command(tmp_path, write(tmp_path, commits(2)), "--port", 0, *options) as (_, announcement):
        v1, v2 = urls(announcement)
        for url in (f"{v1}?compress=true", f"{v2}?zstdDictionary={given.id}"):
            with client(url) as socket:
                assert all(message.startswith(b"\x28\xb5\x2f\xfd") for message in read(socket, 2))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hosts", "0"], "'0' is not a number of hosts"),
        (["--hosts", "2", "--skew", "1"], "--skew 1: give a value for each host, 2 with commas between, or say --hosts 1"),
        (["--skew", "soon"], "--skew soon: 'soon' is not a number"),
        (["--first-seq", "1.5"], "--first-seq 1.5: '1.5' is not a whole number"),
        (["--first-seq=-5"], "--first-seq: -5 is not between 0 and"),
        (["--host-option", "withhold=x"], "--host-option withhold=x: write the host's number"),
        (["--host-option", "2:no-pongs"], "--host-option 2:no-pongs: there is no host 2, as --hosts is 1"),
        (["--host-option", "1:witholt=x"], "there is no option 'witholt'; did you mean withhold?"),
        (["--host-option", "1:no-pongs=yes"], "no-pongs takes no value"),
        (["--host-option", "1:silence-after"], "silence-after wants a value"),
        (["--host-option", "1:silence-after=some"], "'some' is not a whole number"),
        (["--silence-after", "some"], "'some' is not a whole number"),
        (["--jitter", "nan"], "'nan' is not a number"),
        (["--silence-for", "3"], "--silence-for: says nothing without --silence-after"),
        (["--retry-after", "3"], "--retry-after: says nothing without --refuse-connections or --refuse-for"),
        (["--garbage-every", "0"], "--garbage-every: 0 is below 1"),
        (["--port", "65535", "--hosts", "2"], "2 hosts from port 65535 on need ports above 65535"),
        (["--zstd-dictionary", "missing"], "Cannot read missing: No such file"),
        (["--v1-zstd-dictionary", __file__], "is no zstd dictionary"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_hosts(tmp_path, arguments, said):
    with pytest.raises(CommandError) as caught:
        call_command("play_jetstream", str(write(tmp_path, commits(1))), *arguments)
    assert said in str(caught.value)


def test_an_option_for_all_hosts_gives_way_to_one_for_the_kth(tmp_path):
    options = ("--hosts", 2, "--abort-after", 1, "--host-option", "2:abort-after=3")
    with command(tmp_path, write(tmp_path, [commit(number, collection=POST) for number in range(5)]), "--port", 0, *options) as (_, announcement):
        for url, expected in zip(urls(announcement)[::2], (1, 3), strict=True):
            with client(url) as socket:
                assert len(read_until_closed(socket)[0]) == expected


def test_no_thread_is_left(tmp_path):
    before = threading.active_count()
    with played(commits(1)) as (host,), client(host.v1) as socket:
        read(socket, 1)
    assert threading.active_count() <= before
