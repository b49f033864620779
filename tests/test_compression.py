"""Compressed frames: dictionaries fetched, kept and refused, and frames that cannot be what they claim to be."""

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from delivery.sources.jetstream import compression as module
from delivery.sources.jetstream.compression import V1_DICTIONARY, Compression, Dictionaries, Dictionary, Undecodable, read_v1_dictionary
from delivery.sources.jetstream.frames import MAX_FRAME
from tests.builders import frame
from tests.hosts import Host, Script, Visit, compressed, frame_v2, refusing, trained
from tests.whole import SHARED

TEXT = frame_v2(1, 7)
ID = 20260811
RANDOM = bytes(range(256)) * 8


def of(id: int = ID) -> Dictionary:
    return Dictionary(trained(id))


# --- Frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [TEXT, frame(1), b"", b"\xff\xfe\x00", b"x" * MAX_FRAME], ids=["v2", "v1", "empty", "bytes", "large"])
def test_it_reads_a_compressed_frame(text: bytes) -> None:
    assert of().decompress(compressed(text, trained(ID))) == text


def test_it_reads_frames_that_do_not_say_how_large_they_are() -> None:
    made = zstandard.ZstdCompressor(dict_data=zstandard.ZstdCompressionDict(trained(ID)), write_content_size=False)
    assert of().decompress(made.compress(TEXT)) == TEXT


def test_it_reads_many_frames_one_after_the_other() -> None:
    dictionary = of()
    for number in range(500):
        text = frame_v2(number, number)
        assert dictionary.decompress(compressed(text, trained(ID))) == text


def test_it_refuses_every_frame_that_is_cut_short() -> None:
    whole, dictionary = compressed(TEXT, trained(ID)), of()
    for end in range(len(whole)):
        with pytest.raises(Undecodable):
            dictionary.decompress(whole[:end])


def test_a_damaged_frame_is_refused_or_read_as_something_else() -> None:
    dictionary, whole, refused = of(), compressed(TEXT, trained(ID)), 0
    for place in range(len(whole)):
        for bit in (1, 128):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            try:
                assert len(dictionary.decompress(bytes(damaged))) <= MAX_FRAME
            except Undecodable:
                refused += 1
    assert refused
    # None of that has hurt the reader.
    assert dictionary.decompress(whole) == TEXT


@pytest.mark.parametrize("bad", [b"", b"x", b"{}", TEXT, RANDOM, b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd" + b"\xff" * 20])
def test_it_refuses_what_is_no_compressed_frame(bad: bytes) -> None:
    with pytest.raises(Undecodable, match=r"."):
        of().decompress(bad)


@pytest.mark.parametrize("size", [MAX_FRAME + 1, 2**31, 2**40, 2**63, 2**64 - 3])
def test_it_refuses_a_frame_that_claims_to_be_huge(size: int) -> None:
    with pytest.raises(Undecodable, match=r"more than|does not decompress"):
        of().decompress(b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + b"\x01\x00\x00")


@pytest.mark.parametrize("says_so", [True, False])
def test_it_refuses_a_small_frame_that_becomes_a_large_one(says_so: bool) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=says_so).compress(b"\0" * (200 * 1024 * 1024))
    assert len(bomb) < 50_000
    with pytest.raises(Undecodable):
        of().decompress(bomb)


def test_it_refuses_a_frame_made_with_another_dictionary() -> None:
    with pytest.raises(Undecodable):
        of(1).decompress(compressed(TEXT, trained(2)))


# --- Dictionaries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [1, ID, V1_DICTIONARY, 2**31 - 1])
def test_it_knows_the_id_of_a_dictionary(id: int) -> None:
    assert of(id).id == id


@pytest.mark.parametrize(
    "bad",
    [b"", b"x" * 7, b"x" * 4_096, b"<html>not found</html>", trained(ID)[4:], trained(ID)[:12], trained(ID)[:8] + b"\xff" * 500],
    ids=["empty", "short", "text", "html", "headless", "cut", "garbled"],
)
def test_it_refuses_what_is_no_dictionary(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"no zstd dictionary|is damaged"):
        Dictionary(bad)


# --- The dictionary of the v1 wire, from a file ------------------------------------------------------------------------


def test_it_reads_the_dictionary_of_the_v1_wire(tmp_path: Path) -> None:
    (tmp_path / "dictionary").write_bytes(trained(V1_DICTIONARY))
    assert read_v1_dictionary(str(tmp_path / "dictionary")) == trained(V1_DICTIONARY)


def test_it_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the file cannot be read: No such file"):
        read_v1_dictionary(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"^the file cannot be read: "):
        read_v1_dictionary(str(tmp_path))
    (tmp_path / "text").write_bytes(b"hello, this is a text")
    with pytest.raises(ValueError, match=r"^these bytes are no zstd dictionary$"):
        read_v1_dictionary(str(tmp_path / "text"))
    (tmp_path / "other").write_bytes(trained(ID))
    with pytest.raises(ValueError, match=f"^this is the dictionary with id {ID}, but the v1 wire uses {V1_DICTIONARY}$"):
        read_v1_dictionary(str(tmp_path / "other"))


@pytest.mark.parametrize(("name", "id"), [("zstd_dictionary_v1", V1_DICTIONARY), ("zstd_dictionary_v2_20260811", 20260811)])
def test_it_reads_the_published_dictionaries(name: str, id: int) -> None:
    if not (SHARED / name).exists():
        pytest.skip("wants the published dictionaries, which are not part of the project")
    content = (SHARED / name).read_bytes()
    assert Dictionary(content).id == id
    assert Dictionary(content).decompress(compressed(TEXT, content)) == TEXT
    if id == V1_DICTIONARY:
        assert read_v1_dictionary(str(SHARED / name)) == content


# --- Fetching them -----------------------------------------------------------------------------------------------------


def answering(content: bytes) -> Script:
    return refusing("200 OK", content)


@contextmanager
def giving(script: Script) -> Iterator[Host]:
    with Host(script) as host:
        yield host


@pytest.fixture
def dictionaries(tmp_path: Path) -> Dictionaries:
    return Dictionaries(tmp_path / "made" / "when needed", "Jetrelay/test")


def test_it_fetches_the_dictionary_of_a_host_once(dictionaries: Dictionaries, tmp_path: Path) -> None:
    with giving(answering(trained(ID))) as host:
        for _ in range(3):
            found = dictionaries.of(host.v2_url)
            assert found is not None
            assert found.id == ID
        (visit,) = host.visits
        assert visit.head.startswith(b"GET /xrpc/network.bsky.jetstream.getZstdDictionary HTTP/1.1\r\n")
        assert b"\r\nUser-Agent: Jetrelay/test\r\n" in visit.head
        url = host.v2_url
    # The next start needs no host for it.
    again = Dictionaries(tmp_path / "made" / "when needed", "Jetrelay/test").of(url)
    assert again is not None
    assert again.decompress(compressed(TEXT, trained(ID))) == TEXT


def test_it_looks_where_the_host_has_its_other_methods(dictionaries: Dictionaries) -> None:
    with giving(answering(trained(ID))) as host:
        assert dictionaries.of(host.v2_url.replace("/xrpc", "/behind/xrpc")) is not None
        assert host.visits[0].path == "/behind/xrpc/network.bsky.jetstream.getZstdDictionary"


def test_each_host_has_its_own(dictionaries: Dictionaries) -> None:
    with giving(answering(trained(1))) as one, giving(answering(trained(2))) as two:
        for _ in range(2):
            assert [found and found.id for found in (dictionaries.of(one.v2_url), dictionaries.of(two.v2_url))] == [1, 2]


def test_it_fetches_anew_what_it_was_told_to_forget(dictionaries: Dictionaries) -> None:
    dictionaries.forget("wss://never.example/xrpc/network.bsky.jetstream.subscribeEvents")
    with Host(answering(trained(1)), answering(trained(2))) as host:
        first = dictionaries.of(host.v2_url)
        dictionaries.forget(host.v2_url)
        second = dictionaries.of(host.v2_url)
        assert first is not None
        assert second is not None
        assert (first.id, second.id) == (1, 2)


@pytest.mark.parametrize("damage", [b"", b"garbage", trained(ID)[:100]], ids=["empty", "garbage", "cut"])
def test_it_fetches_anew_what_was_damaged_on_the_disk(dictionaries: Dictionaries, tmp_path: Path, damage: bytes) -> None:
    with giving(answering(trained(ID))) as host:
        dictionaries.of(host.v2_url)
        (kept,) = (tmp_path / "made" / "when needed").iterdir()
        kept.write_bytes(damage)
        assert dictionaries.of(host.v2_url) is not None
        assert kept.read_bytes() == trained(ID)
        assert len(host.visits) == 2


def test_a_folder_that_cannot_be_written_costs_a_download_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    dictionaries = Dictionaries(tmp_path / "file" / "folder", "Jetrelay/test")
    with giving(answering(trained(ID))) as host:
        assert dictionaries.of(host.v2_url) is not None
        assert dictionaries.of(host.v2_url) is not None
        assert len(host.visits) == 2


@pytest.mark.parametrize(
    ("status", "content", "headers"),
    [
        ("404 Not Found", b'{"error":"NotFound"}', ""),
        ("500 Oops", trained(ID), ""),
        ("204 No Content", b"", ""),
        ("200 OK", b"", ""),
        ("200 OK", b"<html>", ""),
        ("200 OK", trained(ID)[:100], ""),
        ("200 OK", trained(ID), "Content-Encoding: gzip\r\n"),
        ("200 OK", trained(ID), "Content-Length: 1000000\r\n"),
    ],
)
def test_without_a_dictionary_there_is_no_compression(dictionaries: Dictionaries, tmp_path: Path, status: str, content: bytes, headers: str) -> None:
    def script(visit: Visit) -> None:
        length = "" if "Length" in headers else f"Content-Length: {len(content)}\r\n"
        visit.sock.sendall(f"HTTP/1.1 {status}\r\n{headers}{length}\r\n".encode() + content)
        visit.sock.shutdown(1)

    with giving(script) as host:
        assert dictionaries.of(host.v2_url) is None
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
def test_an_answer_that_is_no_http_is_no_dictionary(dictionaries: Dictionaries, answer: bytes) -> None:
    def script(visit: Visit) -> None:
        visit.sock.sendall(answer)
        visit.sock.shutdown(1)

    with giving(script) as host:
        assert dictionaries.of(host.v2_url) is None


def test_a_host_that_is_not_there_has_no_dictionary(dictionaries: Dictionaries) -> None:
    with giving(answering(b"")) as host:
        url = host.v2_url
    assert dictionaries.of(url) is None


def test_it_never_follows_a_redirect(dictionaries: Dictionaries) -> None:
    with giving(answering(trained(ID))) as other:
        with giving(refusing("302 Found", b"", f"Location: {other.v2_url.replace('ws:', 'http:')}\r\n")) as host:
            assert dictionaries.of(host.v2_url) is None
        assert not other.visits


def test_it_refuses_a_dictionary_that_is_too_large(dictionaries: Dictionaries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_DICTIONARY", 4_000)
    assert len(trained(ID)) > 4_000
    with giving(answering(trained(ID))) as host:
        assert dictionaries.of(host.v2_url) is None


def test_it_refuses_a_dictionary_without_an_end(dictionaries: Dictionaries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_DICTIONARY", 1_000_000)

    def script(visit: Visit) -> None:
        visit.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            visit.sock.sendall(RANDOM)

    with giving(script) as host:
        assert dictionaries.of(host.v2_url) is None


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n"])
def test_it_waits_for_a_silent_host_no_longer_than_it_may(dictionaries: Dictionaries, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.2)

    def script(visit: Visit) -> None:
        visit.sock.sendall(head)
        visit.wait_until_gone()

    with giving(script) as host:
        assert dictionaries.of(host.v2_url) is None


def test_it_waits_for_a_slow_host_no_longer_than_it_may(dictionaries: Dictionaries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.3)
    gone = threading.Event()

    def script(visit: Visit) -> None:
        visit.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n")
        try:
            # A byte at a time, each soon enough after the one before.
            while not gone.wait(0.02):
                visit.sock.sendall(b"x")
        finally:
            gone.set()

    with giving(script) as host:
        assert dictionaries.of(host.v2_url) is None
        assert gone.wait(20)


# --- Whether to ask for it ---------------------------------------------------------------------------------------------


def test_it_asks_for_the_dictionary_it_was_given() -> None:
    given = of(V1_DICTIONARY)
    asked = Compression("ws://host.example/subscribe", given)
    assert asked.dictionary() is given
    asked.give_up()
    assert asked.dictionary() is None
    assert Compression("ws://host.example/subscribe", None).dictionary() is None


def test_it_asks_again_with_the_dictionary_that_the_host_knows_now(dictionaries: Dictionaries) -> None:
    with Host(answering(trained(1)), answering(trained(2)), answering(trained(3))) as host:
        asked = Compression(host.v2_url, dictionaries)
        for id in (1, 2, 3):
            found = asked.dictionary()
            assert found is not None
            assert found.id == id
            asked.refuse(id)


def test_it_gives_up_when_the_host_hands_out_what_it_does_not_know(dictionaries: Dictionaries) -> None:
    with giving(answering(trained(1))) as host:
        asked = Compression(host.v2_url, dictionaries)
        assert asked.dictionary()
        asked.refuse(1)
        assert asked.dictionary() is None
        assert asked.dictionary() is None
        assert len(host.visits) == 2


def test_it_asks_later_for_what_a_host_could_not_give_at_first(dictionaries: Dictionaries, monkeypatch: pytest.MonkeyPatch) -> None:
    with Host(refusing("503 Service Unavailable"), answering(trained(1))) as host:
        asked = Compression(host.v2_url, dictionaries)
        assert asked.dictionary() is None
        # Not with every connection.
        assert asked.dictionary() is None
        assert len(host.visits) == 1
        monkeypatch.setattr(module, "_ASK_AGAIN_S", 0.0)
        dictionaries._not_before.clear()
        assert asked.dictionary() is not None


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"], ids=["headers", "body"])
def test_a_dictionary_that_drips_holds_nobody(dictionaries: Dictionaries, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.3)
    over = threading.Event()

    def drips(visit: Visit) -> None:
        visit.sock.sendall(head)
        while not over.wait(0.05):
            visit.sock.sendall(b"a")

    with Host(drips) as host:
        assert dictionaries.of(host.v2_url) is None
        over.set()
