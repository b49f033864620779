"""The player's v2 wire over real sockets: what a client may ask for, what it is told, and compression on both wires."""

import json
import threading
from urllib.parse import urlencode

import pytest
import requests
import zstandard
from atproto_jetstream import JetstreamClient

from delivery.sources.jetstream.player.dictionaries import Dictionaries, Dictionary, train
from delivery.sources.jetstream.player.edition import Edition, Terms
from delivery.sources.jetstream.player.log import FileLog
from delivery.sources.jetstream.player.misbehaviour import HostOptions
from tests.played import (
    ANNA,
    BERT,
    LIKE,
    POST,
    START_US,
    client,
    commit,
    commits,
    identity,
    payloads,
    played,
    read,
    read_all,
    read_until_closed,
    refusal,
    seqs,
    sync_frame,
)
from tests.whole import SHARED

MIXED = [commit(0, ANNA, POST), commit(1, BERT, LIKE), identity(2, BERT), sync_frame(4), b"garbage"]


def frames(lines):
    made = Edition(FileLog(lines), Terms(wire=2))
    return [made.at(position)[0].line(position) for position in range(len(lines))]


def get_all(lines, **parameters):
    with played(lines) as (host,), client(host.v2, **parameters) as socket:
        return read_all(socket)


def error(response):
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/json"
    body = json.loads(response.body)
    assert set(body) == {"error", "message"}
    return body["error"], body["message"]


# --- What is served --------------------------------------------------------------------------------------------------


def test_it_serves_the_same_log_on_both_wires():
    with played(MIXED) as (host,), client(host.v1) as old, client(host.v2) as new:
        assert read_all(new) == frames(MIXED)
        assert read_all(old) == [*MIXED[:3], b"garbage"]


def test_it_serves_recorded_frames_as_they_are():
    path = SHARED / "v2_server_simulated.ndjson"
    if not path.exists():
        pytest.skip("the recorded frames are not here")
    lines = path.read_bytes().splitlines()
    with played(lines) as (host,), client(host.v2) as new, client(host.v1, cursor=12_100) as old:
        assert read_all(new) == lines
        assert read_all(old) == (SHARED / "v1_server_simulated.ndjson").read_bytes().splitlines()[100:]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"kinds": "commit"}, [0, 1, 4]),
        ({"kinds": ["identity", "sync", "sync"]}, [2, 3, 4]),
        ({"collections": POST}, [0, 2, 3, 4]),
        ({"collections": "app.bsky.feed.*", "kinds": "commit"}, [0, 1, 4]),
        ({"collections": LIKE, "kinds": ["commit", "sync"]}, [1, 3, 4]),
        ({"dids": BERT}, [1, 2, 4]),
        ({"dids": [ANNA, BERT], "collections": LIKE}, [1, 2, 3, 4]),
        ({"maxMessageSizeBytes": len(frames(MIXED)[2])}, [2, 3, 4]),
        ({"maxMessageSizeBytes": 0, "nonsense": "x"}, [0, 1, 2, 3, 4]),
    ],
)
def test_it_filters(parameters, expected):
    assert get_all(MIXED, **parameters) == [frames(MIXED)[number] for number in expected]


def test_it_takes_10_000_dids_in_the_url():
    dids = [f"did:plc:{number:024}" for number in range(9_999)] + [BERT]
    assert get_all(MIXED, dids=dids) == [frames(MIXED)[number] for number in (1, 2, 4)]


def test_it_closes_on_any_message_from_the_client():
    with played(MIXED) as (host,), client(host.v2) as socket:
        socket.send('{"type":"options_update","payload":{}}')
        _, close = read_until_closed(socket)
        assert close is not None
        assert close.code == 1008


def test_it_takes_the_subprotocol_where_it_is_offered():
    with played(MIXED) as (host,):
        for url, offered, taken in [(host.v2, "xrpc.v1.json", "xrpc.v1.json"), (host.v2, "other", None), (host.v1, "xrpc.v1.json", None)]:
            with client(url, subprotocols=[offered]) as socket:
                assert socket.subprotocol == taken


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"wantedCollections": POST}, "wantedCollections: this is a v1 parameter: here it is called collections"),
        ({"wantedDids": BERT}, "wantedDids"),
        ({"wantedNothing": 1}, "wantedNothing"),
        ({"kinds": "info"}, "kinds: 'info' is none of"),
        ({"kinds": ""}, "kinds"),
        ({"kinds": "identity", "collections": POST}, "collections: they are of commits alone"),
        ({"collections": "app.bsky.fo*"}, "collections: 'app.bsky.fo*' is neither"),
        ({"collections": [f"example.many.c{number}" for number in range(101)]}, "collections: 101"),
        ({"dids": "anna"}, "dids: 'anna'"),
        ({"dids": [f"did:plc:{number:024}" for number in range(10_001)]}, "dids: 10001"),
        ({"cursor": "-1"}, "cursor: -1 is below 0"),
        ({"cursor": "soon"}, "cursor: 'soon' is not an integer"),
        ({"zstdDictionary": "0"}, "zstdDictionary"),
        ({"maxMessageSizeBytes": 2**32}, "maxMessageSizeBytes"),
    ],
)
def test_it_refuses_a_bad_parameter_before_the_upgrade(parameters, said):
    with played(MIXED) as (host,):
        name, message = error(refusal(host.v2, **parameters))
    assert name == "InvalidRequest"
    assert message.startswith(said)


# --- Cursors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cursor", "first"), [(0, 0), (1, 0), (3, 2), (6, 5), (START_US + 2, 2), (START_US + 99, 5)])
def test_it_starts_at_a_cursor_inclusive(cursor, first):
    assert get_all(commits(5), cursor=cursor) == frames(commits(5))[first:]


def test_it_starts_at_a_number_of_its_own():
    with played(commits(5), [HostOptions(first_seq=500, number=True)]) as (host,):
        with client(host.v2, cursor=503) as socket:
            assert seqs(read_all(socket)) == [503, 504]
        with client(host.v1, cursor=503) as socket:
            assert [json.loads(line)["cursor"] for line in read_all(socket)] == [503, 504]


def test_it_takes_a_small_cursor_for_a_time_where_v1_is_not_numbered():
    with played(commits(5)) as (host,), client(host.v1, cursor=3) as socket:
        assert len(read_all(socket)) == 5


def test_it_refuses_a_number_that_is_no_longer_kept():
    with played([commit(number, cursor=70 + number) for number in range(5)]) as (host,):
        assert error(refusal(host.v2, cursor=69)) == ("CursorTooOld", "seq 69 is older than what is kept: the oldest is 70")
        with client(host.v2, cursor=70) as socket:
            assert len(read_all(socket)) == 5


def test_it_tells_a_client_whose_time_is_too_old():
    info, *events = payloads(get_all(commits(3), cursor=START_US - 1))
    assert info["$type"] == "network.bsky.jetstream.subscribeEvents#info"
    assert info["name"] == "OutdatedCursor"
    assert "seq 1" in info["message"]
    assert len(events) == 3


def test_it_tells_a_client_whose_number_is_beyond_the_next():
    (info,) = payloads(get_all(commits(3), cursor=5))
    assert info["name"] == "FutureCursor"
    assert get_all(commits(3), cursor=4) == []


# --- Compression -----------------------------------------------------------------------------------------------------


def decompressor(data):
    return zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(data)).decompress


def dictionary(host, **parameters):
    return requests.get(host.v2.replace("ws:", "http:").replace("subscribeEvents", "getZstdDictionary"), params=parameters, timeout=20)


def test_it_compresses_with_a_dictionary_of_its_own():
    with played(MIXED) as (host,):
        data = dictionary(host).content
        id = zstandard.ZstdCompressionDict(data).dict_id()
        assert dictionary(host, id=id).content == data
        with client(host.v2, zstdDictionary=id, kinds=["commit"]) as socket:
            got = read_all(socket)
    expected = [frames(MIXED)[number] for number in (0, 1, 4)]
    assert [decompressor(data)(message) for message in got] == expected
    assert {zstandard.get_frame_parameters(message).dict_id for message in got} == {id}


def test_it_compresses_what_it_says_first_too():
    with played(commits(2)) as (host,):
        data = dictionary(host).content
        with client(host.v2, zstdDictionary=zstandard.ZstdCompressionDict(data).dict_id(), cursor=9) as socket:
            (info,) = payloads([decompressor(data)(message) for message in read_all(socket)])
    assert info["name"] == "FutureCursor"


def test_it_counts_the_bytes_of_the_text_when_it_compresses():
    text = frames(MIXED)[2]
    with played(MIXED) as (host,):
        data = dictionary(host).content
        with client(host.v2, zstdDictionary=zstandard.ZstdCompressionDict(data).dict_id(), kinds="identity", maxMessageSizeBytes=len(text) - 1) as socket:
            assert [decompressor(data)(message) for message in read_all(socket)] == [b"garbage"]


def test_it_names_the_current_dictionary_when_asked_for_another():
    with played(MIXED) as (host,):
        id = zstandard.ZstdCompressionDict(dictionary(host).content).dict_id()
        name, message = error(refusal(host.v2, zstdDictionary=7))
        answer = dictionary(host, id=7)
        assert dictionary(host, id="x").json()["error"] == "InvalidRequest"
    assert name == answer.json()["error"] == "UnknownZstdDictionary"
    assert (answer.status_code, answer.json()["message"]) == (400, message)
    assert str(id) in message


def test_it_trains_the_same_dictionary_from_the_same_lines():
    one, same, other = train(commits(50)), train(commits(50)), train(commits(51))
    assert (one.id, one.data) == (same.id, same.data)
    assert one.id != other.id


def test_it_compresses_with_a_dictionary_that_it_is_given():
    given = train(commits(7))
    with played(MIXED, dictionaries=lambda log: Dictionaries(log, given, given)) as (host,):
        assert dictionary(host).content == given.data
        with client(host.v1, compress="true") as socket:
            assert [decompressor(given.data)(message) for message in read_all(socket)] == [*MIXED[:3], b"garbage"]
        with client(host.v1, headers={"Socket-Encoding": "zstd"}, wantedDids=ANNA) as socket:
            assert [decompressor(given.data)(message) for message in read_all(socket)] == [MIXED[0], b"garbage"]
        refused = refusal(host.v1, headers={"Sec-WebSocket-Extensions": "permessage-deflate"}, compress="true")
        assert refused.status_code == 400
        assert b"permessage-deflate" in refused.body


def test_it_does_not_compress_v1_without_its_dictionary():
    with played(MIXED) as (host,):
        for said, refused in [
            ("compress", refusal(host.v1, compress="true")),
            ("Socket-Encoding", refusal(host.v1, headers={"Socket-Encoding": "zstd"})),
        ]:
            assert refused.status_code == 400
            assert refused.body.decode().startswith(said)


@pytest.mark.parametrize(("name", "id"), [("zstd_dictionary_v1", 1612007021), ("zstd_dictionary_v2_20260811", 20260811)])
def test_it_compresses_with_the_dictionaries_of_real_hosts(name, id):
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not here")
    given = Dictionary.read(SHARED / name)
    assert given.id == id
    with played(MIXED, dictionaries=lambda log: Dictionaries(log, given, given)) as (host,):
        for url in (f"{host.v1}?compress=true", f"{host.v2}?zstdDictionary={id}"):
            with client(url) as socket:
                messages = read(socket, 2)
            assert {zstandard.get_frame_parameters(message).dict_id for message in messages} == {id}
            assert json.loads(decompressor(given.data)(messages[0]))


@pytest.mark.parametrize("data", [b"", b"not a dictionary", b"\x37\xa4\x30\xec"])
def test_it_takes_no_other_bytes_for_a_dictionary(data):
    with pytest.raises(ValueError):
        Dictionary(data)


# --- The outside judge -----------------------------------------------------------------------------------------------


def collect(host, count, **parameters):
    """So many events as atproto's own client has them, and that client."""
    found = []
    judge = JetstreamClient(parameters, base_uri=f"ws://127.0.0.1:{host.port}/xrpc", recv_timeout=20)
    giving_up = threading.Timer(20, judge.stop)

    def keep(event):
        found.append(event)
        if len(found) == count:
            judge.stop()

    giving_up.start()
    try:
        judge.start(keep)
    finally:
        giving_up.cancel()
    assert len(found) == count
    return found, judge


def test_a_client_of_others_filters_resumes_and_decompresses():
    lines = [commit(number, collection=(POST, LIKE)[number % 2]) for number in range(300)] + [identity(300)]
    with played(lines) as (host,):
        found, judge = collect(host, 60, kinds=["commit"], collections=[LIKE, "app.bsky.graph.*"])
        assert judge.compressed
        assert {event.collection for event in found} == {LIKE}
        assert [event.seq for event in found] == list(range(2, 122, 2))
        assert found[0].record["text"] == "né"
        more, again = collect(host, 92, kinds=["commit", "identity"], collections=[LIKE], cursor=judge.cursor)
        assert again.compressed
        assert [event.seq for event in more[:2]] == [120, 122]
        assert more[-1].identity.did == ANNA
        assert host.connections == 2


def test_a_client_of_others_knows_the_refusals():
    with played([commit(0, cursor=70)]) as (host,), pytest.raises(Exception, match="CursorTooOld"):
        collect(host, 1, cursor=7)


def test_the_request_line_may_be_a_megabyte_on_v1_too():
    with played(MIXED) as (host,):
        dids = [f"did:plc:{number:024}" for number in range(9_999)] + [ANNA]
        assert 400_000 < len(urlencode({"wantedDids": dids}, doseq=True)) < 500_000
        with client(host.v1, wantedDids=dids, padding="x" * 500_000) as socket:
            assert read(socket, 2) == [MIXED[0], b"garbage"]
