"""The door, tried the whole way: what is typed as a URL, through a real sender, to sockets that must see nobody.

`P` in a URL stands for the port of listeners on 127.0.0.1 and ::1.
"""

import asyncio
import contextlib
import ipaddress
import re
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError

from delivery.destinations.addresses import Door
from delivery.destinations.exchange import Error, Inbox
from delivery.destinations.http import Sender
from delivery.destinations.names import Resolver
from subscriptions.validation import clean_webhook_url
from tests.authority import Authority
from tests.wire import LOOPBACK, OK, Wire, collect, post, read_request, request, saying

# What may be typed and kept, and is refused when the socket is to be opened.
REFUSED_AT_THE_SOCKET = {
    "spelled plainly": ["http://127.0.0.1:P/", "http://127.0.0.2:P/", "http://127.255.255.254:P/", "https://127.0.0.1:P/", "HTTP://127.0.0.1:P/"],
    "this host": ["http://0.0.0.0:P/", "http://0.1.2.3:P/", "http://[::]:P/"],
    "ports": ["http://127.0.0.1:/", "http://127.0.0.1/", "http://127.0.0.1:0P/", "http://127.0.0.1:22/", "http://127.0.0.1:6379/"],
    "IPv6": ["http://[::1]:P/", "http://[0:0:0:0:0:0:0:1]:P/", "http://[0000:0000:0000:0000:0000:0000:0000:0001]:P/", "http://[::0001]:P/", "http://[::1]:/"],
    "zones": ["http://[::1%25lo]:P/", "http://[::1%lo]:P/", "http://[::1%251]:P/", "http://[fe80::1%25eth0]:P/", "http://[fe80::1%251]/"],
    "IPv4-mapped": ["http://[::ffff:127.0.0.1]:P/", "http://[::FFFF:7F00:1]:P/", "http://[0:0:0:0:0:ffff:127.0.0.1]:P/", "http://[::ffff:10.0.0.1]/",
                    "http://[::ffff:0.0.0.0]:P/"],
    "IPv4-compatible": ["http://[::127.0.0.1]:P/", "http://[::7f00:1]:P/", "http://[::10.0.0.1]/"],
    "IPv4-translated": ["http://[::ffff:0:127.0.0.1]:P/"],
    "NAT64": ["http://[64:ff9b::127.0.0.1]:P/", "http://[64:ff9b::a00:1]/", "http://[64:ff9b:1::10.0.0.1]/", "http://[64:ff9b:1:ffff:ffff:ffff:7f00:1]/"],
    "6to4": ["http://[2002:7f00:1::]:P/", "http://[2002:a00:1::1]/", "http://[2002:c0a8:101::1]/"],
    "Teredo": ["http://[2001:0:7f00:1::]:P/", "http://[2001::ffff:ffff:80ff:fffe]/"],
    "ISATAP": ["http://[fe80::5efe:127.0.0.1]:P/", "http://[2606:4700::5efe:127.0.0.1]:P/", "http://[2606:4700::200:5efe:10.0.0.1]/"],
    "private": ["http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.254/", "http://192.168.0.1/", "http://192.168.255.254/"],
    "unique local": ["http://[fc00::1]/", "http://[fd12:3456:789a::1]/", "http://[fdff:ffff::1]/"],
    "link-local": ["http://169.254.0.1/", "http://169.254.255.254/", "http://[fe80::1]/", "http://[febf::1]/"],
    "site-local": ["http://[fec0::1]/", "http://[feff::1]/"],
    "carrier-grade NAT": ["http://100.64.0.1/", "http://100.127.255.254/"],
    "metadata of clouds": ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest/meta-data/",
                           "http://100.100.100.200/latest/meta-data/", "http://192.0.0.192/opc/v2/instance/",
                           "http://168.63.129.16/machine?comp=goalstate", "http://169.254.170.2/v2/credentials", "http://169.254.0.23/",
                           "http://[fd20:ce::254]/computeMetadata/v1/",
                           "http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe]/", "http://[::ffff:168.63.129.16]/",
                           "http://[64:ff9b::a9fe:a9fe]/", "http://[2002:a9fe:a9fe::]/",
                           "http://[2001:0:a9fe:a9fe::]/", "http://[fe80::a9fe:a9fe%25eth0]/"],
    "documentation": ["http://192.0.2.1/", "http://198.51.100.1/", "http://203.0.113.1/", "http://[2001:db8::1]/", "http://[3fff::1]/",
                      "http://[2001:db8::5efe:127.0.0.1]:P/"],
    "benchmarking": ["http://198.18.0.1/", "http://198.19.255.254/", "http://[2001:2::1]/"],
    "multicast": ["http://224.0.0.1/", "http://239.255.255.250:1900/", "http://[ff02::1]/", "http://[ff0e::1]/"],
    "broadcast and reserved": ["http://255.255.255.255/", "http://240.0.0.1/", "http://192.88.99.1/", "http://192.0.0.1/", "http://[100::1]/",
                               "http://[5f00::1]/", "http://[4000::1]/", "http://[2001:10::1]/"],
    "localhost": ["http://localhost:P/", "http://LOCALHOST:P/", "http://LocalHost.:P/", "http://inner.localhost:P/", "http://inner.localhost.:P/"],
    "letters and digits of other scripts": ["http://１２７.０.０.１:P/", "http://127。0。0。1:P/", "http://127．0．0．1:P/", "http://127｡0｡0｡1:P/",
                                            "http://①②⑦.0.0.1:P/", "http://ⓛocalhost:P/",
                                            "http://ｌｏｃａｌｈｏｓｔ:P/", "http://𝟏𝟐𝟕.𝟎.𝟎.𝟏:P/", "http://ℓocalhost:P/"],
    "characters without width": ["http://127.0.0.1\u200b:P/", "http://loc\u00adalhost:P/", "http://local\u2060host:P/"],
    "space around": ["  http://127.0.0.1:P/\n", "\thttp://localhost:P/\r\n", "\u00a0http://[::1]:P/\u2003"],
    "what follows the host": ["http://127.0.0.1:P#@public.test/", "http://127.0.0.1:P?@public.test/", "http://127.0.0.1:P/@public.test/",
                              "http://127.0.0.1:P/http://public.test/",
                              "http://127.0.0.1:P/%2e%2e/%0d%0aX:%20y", "http://127.0.0.1:P/?url=http://public.test#http://public.test"],
    "names that lead inside": ["http://loopback.test:P/", "http://LOOPBACK.Test.:P/", "http://loopback6.test:P/", "http://mapped.test:P/",
                               "http://metadata.test/", "http://private.test/",
                               "http://nat64.test/", "http://zero.test:P/", "http://10.0.0.1.loopback.test:P/", "https://loopback.test:P/",
                               "http://public.test.loopback.test:P/"],
}  # fmt: skip

# What is refused with a sentence as it is typed; and what the sender says, should it ever get it.
NUMBER, NAME, URL, LITERAL = "write it like 192.0.2.1", "is not a valid name", "is not a URL", "is not an IPv6 address: write it like [2001:db8::1]"
USER, NOTHING_MORE = "holds a user name or password", "something other than a port: remove it"
REFUSED_AS_TYPED = [
    *((url, NUMBER, Error.REFUSED_ADDRESS) for url in (
        "http://0177.0.0.1:P/", "http://00000177.0.0.1:P/", "http://127.0.0.01:P/", "http://0x7f.0x0.0x0.0x1:P/", "http://0x7f000001:P/",
        "http://0X7F000001:P/",
        "http://2130706433:P/", "http://017700000001:P/", "http://0000000000000017700000001:P/", "http://127.1:P/", "http://127.0.1:P/",
        "http://127.65535:P/", "http://0x7f.1:P/",
        "http://127.0x000001:P/", "http://127.0.0.1.:P/", "http://127.1.:P/", "http://0:P/", "http://0x0:P/", "http://00.00.00.00:P/", "http://0.:P/",
        "http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://169.254.43518/", "http://0250.077.0201.020/",
    )),
    *((url, NUMBER, Error.DNS) for url in ("http://127.0.0.256:P/", "http://127.0.0.0.1:P/", "http://4294967297:P/")),
    *((url, NAME, Error.REFUSED_ADDRESS) for url in ("http://%31%32%37.0.0.1:P/", "http://127%2e0%2e0%2e1:P/", "http://loc%61lhost:P/",
    "http://%6c%6f%63%61%6c%68%6f%73%74:P/")),
    *((url, NAME, Error.BAD_URL) for url in (
        "http://127.0.0.1%00:P/", "http://127.0.0.1%00.public.test:P/", "http://127.0.0.1%0d%0aX:P/", "http://127.0.0.1%20:P/", "http://%20127.0.0.1:P/",
        "http://127.0.0.1%09:P/",
        "http://public.test%40127.0.0.1:P/", "http://localhost..:P/", "http://127.0.0.1\u200e:P/", "http://\u202e127.0.0.1:P/",
        "http://127.0.0.1\u3000:P/", "http://127.0.0.1\u00a0:P/",
        "http://127.0.0.1\u2028:P/", "http://١٢٧.0.0.1:P/", "http://127.0.0.1,public.test:P/", "http://{127.0.0.1,localhost}:P/",
    )),
    *((url, LITERAL, Error.BAD_URL) for url in ("http://[v1.x]:P/", "http://[v1.127.0.0.1]:P/")),
    ("http://[::1]x:P/", NOTHING_MORE, Error.BAD_URL),
    *((url, USER, Error.REFUSED_ADDRESS) for url in ("http://public.test@127.0.0.1:P/", "http://public.test:pw@127.0.0.1:P/", "http://:@127.0.0.1:P/",
    "http://@localhost:P/")),
    ("http://a@b@127.0.0.1:P/", USER, Error.BAD_URL),
    ("http://127.0.0.1:P@loopback.test:P/", USER, Error.REFUSED_ADDRESS),
    *((url, URL, Error.REFUSED_ADDRESS) for url in ("http:/127.0.0.1:P/", "http:///127.0.0.1:P/", "127.0.0.1:P/", "localhost:P/", "http://[%3a%3a1]:P/",
    "http://127.0.0.1:0/",
                                                    "http://public.test\\@127.0.0.1:P/", "http://127.0.0.1:P\\@loopback.test:P/")),
    *((url, URL, Error.BAD_URL) for url in (
        "http://127.0.0.1 :P/", "http:// 127.0.0.1:P/", "http://127.0.0.1\t:P/", "http://127.0.0.1\n:P/", "http://127.0.0.1\x00:P/",
        "http://127.0.0.1\r\nX: y:P/", "http:127.0.0.1:P/",
        "http:////127.0.0.1:P/", "//127.0.0.1:P/", "http:\\\\127.0.0.1:P\\", "http://[::1:P/", "http://[127.0.0.1]:P/", "http://::1:P/",
        "http://%5b::1%5d:P/", "http://127.0.0.1:P:P/",
        "http://127.0.0.1:+P/", "http://127.0.0.1: P/", "http://127.0.0.1:-1/", "http://127.0.0.1:65536/", "http://127.0.0.1:99999999999999999999/",
        "http://127.0.0.1:0x50/",
        "http://127.0.0.1:８０/", "http://127.0.0.1:P;x/", "",
    )),
    *((url, URL, Error.BAD_URL) for url in (
        "file:///etc/passwd", "file://127.0.0.1/etc/passwd", "gopher://127.0.0.1:P/_x", "gophers://127.0.0.1:P/", "ftp://127.0.0.1:P/",
        "ftps://127.0.0.1:P/", "dict://127.0.0.1:P/d",
        "ldap://127.0.0.1:P/", "ldaps://127.0.0.1:P/", "telnet://127.0.0.1:P/", "tftp://127.0.0.1:P/", "smb://127.0.0.1:P/", "scp://127.0.0.1:P/",
        "sftp://127.0.0.1:P/",
        "imap://127.0.0.1:P/", "pop3://127.0.0.1:P/", "smtp://127.0.0.1:P/", "rtsp://127.0.0.1:P/", "mqtt://127.0.0.1:P/", "ws://127.0.0.1:P/",
        "wss://127.0.0.1:P/", "h2://127.0.0.1:P/",
        "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/", "jar:http://127.0.0.1:P/!/", "data:text/plain,x",
        "javascript:alert(1)", "view-source:http://127.0.0.1:P/",
    )),
]  # fmt: skip

# A door that one address is let through.
ONE = Door(allowed=(ipaddress.ip_network("127.0.0.1/32"),))
NAMES = {
    "loopback.test": ["127.0.0.1"],
    "10.0.0.1.loopback.test": ["127.0.0.1"],
    "public.test.loopback.test": ["127.0.0.1"],
    "loopback6.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "metadata.test": ["169.254.169.254", "fd00:ec2::254"],
    "private.test": ["10.0.0.1", "192.168.0.1", "fd00::1"],
    "nat64.test": ["64:ff9b::7f00:1"],
    "zero.test": ["0.0.0.0", "::"],
    "both.test": ["::1", "127.0.0.1"],
    "inner-first.test": ["127.0.0.1", "::1"],
}


def look_up(name: str) -> Sequence[str]:
    if name.removesuffix(".") in NAMES:
        return NAMES[name.removesuffix(".")]
    raise OSError(-2, "Name or service not known")


def at_port(url: str, port: int) -> str:
    return re.sub(r"(?<=:)([+ 0]?)P", rf"\g<1>{port}", url)


class Listeners:
    """Sockets on 127.0.0.1 and ::1, at one port, that nobody may come to."""

    def __init__(self) -> None:
        self._four = socket.create_server(("127.0.0.1", 0))
        self.port = self._four.getsockname()[1]
        self._six = socket.create_server(("::1", self.port), family=socket.AF_INET6)

    def visited(self) -> bool:
        """Whether a connection was made: the kernel has it then, accepted or not."""
        return bool(select.select([self._four, self._six], [], [], 0)[0])

    def close(self) -> None:
        self._four.close()
        self._six.close()


@pytest.fixture(scope="module")
def listeners() -> Iterator[Listeners]:
    listening = Listeners()
    yield listening
    listening.close()


@contextlib.contextmanager
def sending(door: Door, resolver: Resolver | None = None, authorities: str | None = None) -> Iterator[Sender]:
    running = Sender(door, resolver=resolver or Resolver(look_up), authorities=authorities)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def closed() -> Iterator[Sender]:
    """A sender that lets nobody in: the door as it is when nothing is set."""
    with sending(Door()) as running:
        yield running


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()


# --- spellings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [url for urls in REFUSED_AT_THE_SOCKET.values() for url in urls])
def test_it_refuses_at_the_socket(typed: str, closed: Sender, listeners: Listeners) -> None:
    result = post(closed, clean_webhook_url(at_port(typed, listeners.port)))
    assert (result.status, result.error) == (None, Error.REFUSED_ADDRESS)
    assert result.error_detail.endswith("is not a public address")
    assert not listeners.visited()


@pytest.mark.parametrize(("typed", "words", "error"), REFUSED_AS_TYPED)
def test_it_refuses_as_typed_and_once_more(typed: str, words: str, error: Error, closed: Sender, listeners: Listeners) -> None:
    url = at_port(typed, listeners.port)
    with pytest.raises(ValidationError) as caught:
        clean_webhook_url(url)
    assert words in caught.value.messages[0]
    result = post(closed, url)
    assert (result.status, result.error) == (None, error)
    assert result.error_detail
    assert not listeners.visited()


def test_it_sees_visitors_where_the_door_is_open(listeners: Listeners) -> None:
    """The proof that the listeners would have seen somebody."""
    seeing = Listeners()
    try:
        with sending(Door(everything=True)) as running:
            assert post(running, f"http://loopback.test:{seeing.port}/", timeout_ms=300).error is Error.TIMEOUT
        assert seeing.visited()
    finally:
        seeing.close()


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["both.test", "inner-first.test"])
def test_it_goes_only_to_the_allowed_one_of_several_addresses(name: str) -> None:
    with (
        Wire(answer) as allowed,
        Wire(answer, host="::1", port=allowed.port) as inner,
        sending(ONE) as running,
    ):
        assert post(running, allowed.url_of(name)).status == 200
        assert (allowed.connections, inner.connections) == (1, 0)


@pytest.mark.parametrize("name", ["both.test", "inner-first.test"])
def test_it_goes_nowhere_when_the_allowed_one_of_several_addresses_is_dead(name: str) -> None:
    with Wire(answer, host="::1") as inner, sending(ONE) as running:
        result = post(running, inner.url_of(name))
        assert (result.status, result.error in (Error.REFUSED_ADDRESS, Error.CONNECT)) == (None, True)
        assert inner.connections == 0


def test_it_looks_at_the_address_of_every_connection_and_not_at_an_earlier_answer() -> None:
    """DNS rebinding: the name leads somewhere good first, and inside from then on."""
    answers = iter([["127.0.0.1"], ["::1"], ["::ffff:10.0.0.1"], ["169.254.169.254"]])
    resolver = Resolver(lambda _: next(answers), fresh_s=0, stale_s=0)
    with (
        Wire(saying(OK)) as good,
        Wire(answer, host="::1", port=good.port) as inner,
        sending(ONE, resolver) as running,
    ):
        results = [post(running, good.url_of("rebinding.test")) for _ in range(4)]
        assert [result.error for result in results] == [None, Error.REFUSED_ADDRESS, Error.REFUSED_ADDRESS, Error.REFUSED_ADDRESS]
        assert (good.connections, inner.connections) == (1, 0)


def test_it_names_a_name_that_is_not_known(closed: Sender) -> None:
    result = post(closed, "http://nowhere.test/")
    assert (result.status, result.error) == (None, Error.DNS)
    assert result.error_detail == "Could not resolve host: nowhere.test (Name or service not known)"


def test_it_names_a_name_without_addresses() -> None:
    with sending(LOOPBACK, Resolver(lambda _: [])) as running:
        assert post(running, "http://empty.test/").error_detail == "Could not resolve host: empty.test (it has no address)"


def test_it_lets_no_name_that_hangs_hold_up_others() -> None:
    hold, asked = threading.Event(), []

    def hanging(name: str) -> Sequence[str]:
        asked.append(name)
        if name.startswith("hanging"):
            hold.wait(60)
            return []
        return ["127.0.0.1"]

    late, soon = Inbox(), Inbox()
    with Wire(answer) as wire, sending(LOOPBACK, Resolver(hanging)) as running:
        # More requests and more names than libcurl has threads to look them up.
        running.submit(request(wire.url_of(f"hanging{number % 30}.test"), late, timeout_ms=60_000) for number in range(300))
        running.submit(request(wire.url_of(f"good{number}.test"), soon) for number in range(5))
        assert {result.status for result in collect(soon, 5)} == {200}
        assert late.take(0) == []
        assert len(asked) == 35
        hold.set()
        assert {result.error for result in collect(late, 300)} == {Error.DNS}


def test_it_gives_up_on_a_name_that_hangs() -> None:
    hold = threading.Event()
    with sending(LOOPBACK, Resolver(lambda _: ["127.0.0.1"] if hold.wait(60) else [])) as running:
        result = post(running, "http://hanging.test/", timeout_ms=200)
        assert (result.status, result.error) == (None, Error.TIMEOUT)
        assert result.error_detail == "Could not resolve host: hanging.test (no answer after 200 ms)"
        hold.set()


def test_it_serves_with_what_it_knows_while_a_name_is_looked_up_again() -> None:
    hold, asked = threading.Event(), []

    def once(name: str) -> Sequence[str]:
        asked.append(name)
        if len(asked) > 1:
            hold.wait(60)
        return ["127.0.0.1"]

    with Wire(saying(OK)) as wire, sending(LOOPBACK, Resolver(once, fresh_s=0)) as running:
        assert [post(running, wire.url_of("known.test")).status for _ in range(3)] == [200] * 3
        assert wire.connections == 3
        assert len(asked) == 2
        hold.set()


# --- where an answer leads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("location", ["http://127.0.0.1:P/", "//[::1]:P/", "https://localhost:P/", "gopher://127.0.0.1:P/_x", "file:///etc/passwd"])
def test_it_follows_no_redirect(status: int, location: str, listeners: Listeners) -> None:
    there = location.replace("P", str(listeners.port))
    head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {there}\r\nRefresh: 0; url={there}\r\nContent-Location: {there}\r\nContent-Length: 0\r\n\r\n"
    with Wire(saying(head.encode())) as wire, sending(LOOPBACK) as running:
        assert [post(running, wire.url).status for _ in range(2)] == [status] * 2
    assert not listeners.visited()


def test_it_follows_no_alternative_service(tmp_path: Path, listeners: Listeners) -> None:
    authority = Authority(tmp_path)
    services = f'Alt-Svc: h2="127.0.0.1:{listeners.port}"; ma=3600, http/1.1=":{listeners.port}"; persist=1, h3=":{listeners.port}"\r\n'
    with Wire(saying(f"HTTP/1.1 200 OK\r\n{services}Content-Length: 0\r\n\r\n".encode()), tls=authority.server("loopback.test")) as wire:
        with sending(LOOPBACK, authorities=str(authority.file)) as running:
            assert [post(running, wire.url_of("loopback.test")).status for _ in range(3)] == [200] * 3
        assert wire.connections == 3
    assert not listeners.visited()


def test_it_is_not_moved_to_tls_by_an_earlier_answer(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    strict = b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=3600; includeSubDomains\r\nContent-Length: 0\r\n\r\n"
    with (
        Wire(saying(strict), tls=authority.server("loopback.test")) as tls,
        Wire(answer) as plain,
        sending(LOOPBACK, authorities=str(authority.file)) as running,
    ):
        assert post(running, tls.url_of("loopback.test")).status == 200
        assert post(running, plain.url_of("loopback.test")).status == 200


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5", "socks5h"])
def test_it_takes_no_proxy_from_the_environment(scheme: str, monkeypatch: pytest.MonkeyPatch, listeners: Listeners) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"{scheme}://127.0.0.1:{listeners.port}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Wire(answer) as wire, sending(LOOPBACK) as running:
        assert post(running, wire.url_of("loopback.test")).status == 200
        # Nor is the door opened by it.
        assert post(running, "http://private.test/").error is Error.REFUSED_ADDRESS
    assert not listeners.visited()


# --- what is opened ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks", "host", "reached"),
    [
        (["127.0.0.0/8"], "127.0.0.1", True),
        (["127.0.0.1/32"], "127.0.0.1", True),
        (["127.0.0.1/32"], "loopback.test", True),
        (["127.0.0.1/32"], "localhost", True),
        (["127.0.0.1/32"], "[::ffff:127.0.0.1]", True),
        (["127.0.0.1/32"], "mapped.test", True),
        (["127.0.0.2/31"], "127.0.0.1", False),
        (["127.0.0.0/32"], "127.0.0.1", False),
        (["127.0.0.1/32"], "127.0.0.2", False),
        (["127.0.0.1/32"], "[::1]", False),
        (["127.0.0.1/32"], "0.0.0.0", False),
        (["127.0.0.1/32"], "[64:ff9b::7f00:1]", False),
        (["127.0.0.1/32"], "[2002:7f00:1::]", False),
        (["127.0.0.1/32"], "[::127.0.0.1]", False),
        (["::1/128"], "[::1]", True),
        (["::1/128"], "loopback6.test", True),
        (["::1/128"], "127.0.0.1", False),
        (["::1/128"], "[::ffff:127.0.0.1]", False),
        (["::/0"], "[::1]", True),
        (["::/0"], "127.0.0.1", False),
        (["::/0"], "[::ffff:127.0.0.1]", False),
        (["::/0"], "mapped.test", False),
        (["0.0.0.0/0"], "127.0.0.1", True),
        (["0.0.0.0/0"], "[::ffff:127.0.0.1]", True),
        (["0.0.0.0/0"], "[::1]", False),
        (["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"], "127.0.0.1", False),
        (["10.0.0.0/8", "127.0.0.0/8", "::1/128"], "both.test", True),
        ([], "127.0.0.1", False),
    ],
)  # fmt: skip
def test_it_opens_the_allowed_networks_and_no_more(networks: list[str], host: str, reached: bool) -> None:
    door = Door(allowed=tuple(ipaddress.ip_network(network) for network in networks))
    with Wire(answer) as four, Wire(answer, host="::1", port=four.port) as six, sending(door) as running:
        result = post(running, four.url_of(host))
        assert (result.status, result.error) == ((200, None) if reached else (None, Error.REFUSED_ADDRESS))
        assert four.connections + six.connections == int(reached)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "127.1", "[::ffff:127.0.0.1]", "loopback6.test", "mapped.test"])
def test_it_opens_everything_to_the_operators_own_url(host: str) -> None:
    with Wire(answer) as four, Wire(answer, host="::1", port=four.port), sending(Door(everything=True)) as running:
        assert post(running, four.url_of(host)).status == 200
