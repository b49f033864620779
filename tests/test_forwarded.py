"""Addresses as proxies write them: `Forwarded` (RFC 7239), and items of `X-Forwarded-For`."""

import pytest

from jetrelay.forwarded import Hop, address, hops, network_of


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ('"192.0.2.1:4711"', "192.0.2.1"),
        ("192.0.2.1:_hidden", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        # One and the same address, which an IPv4 network has to match.
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        *(
            (text, None)
            for text in (
                "",
                "unknown",
                "_secret",
                "192.0.2",
                "192.0.2.1:x",
                "[192.0.2.1",
                "a.b.c.d",
                "1.2.3.4.5",
                "192.0.2.01",
                "::1]",
            )
        ),
    ],
)
def test_it_finds_the_plain_address(written: str, found: str | None) -> None:
    assert address(written) == found


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ("for=192.0.2.1", [Hop("192.0.2.1", None)]),
        ("For=192.0.2.1;Proto=HTTPS;by=10.0.0.1", [Hop("192.0.2.1", "https")]),
        ('for="[2001:db8::1]:4711" ; proto=https', [Hop("2001:db8::1", "https")]),
        (
            "for=192.0.2.1, for=10.0.0.2;proto=http",
            [Hop("192.0.2.1", None), Hop("10.0.0.2", "http")],
        ),
        ("for=unknown,for=_x", [Hop(None, None), Hop(None, None)]),
        # A comma in quotes is no end.
        ('for="a,b;for=192.0.2.1", for=192.0.2.2', [Hop(None, None), Hop("192.0.2.2", None)]),
        ('for="192\\.0.2.1"', [Hop("192.0.2.1", None)]),
        # Where nobody knows what belongs together, nobody is believed.
        ('for=192.0.2.1, for="192.0.2.2', [Hop("192.0.2.1", None), Hop(None, None)]),
        ("rubbish", [Hop(None, None)]),
        ("for=192.0.2.1 for=192.0.2.2", [Hop(None, None)]),
        # A pair that says nothing ends no less where its comma stands: what a stranger wrote never
        # joins what a proxy appends.
        ("proto=https;, for=203.0.113.9", [Hop(None, "https"), Hop("203.0.113.9", None)]),
        ("for=1.2.3.4;,for=5.6.7.8", [Hop("1.2.3.4", None), Hop("5.6.7.8", None)]),
        ("for=1.2.3.4; ;, ,for=5.6.7.8", [Hop("1.2.3.4", None), Hop("5.6.7.8", None)]),
        ("for=" + "1" * 10_000, [Hop(None, None)]),
    ],
)
def test_it_reads_forwarded(header: str, found: list[Hop]) -> None:
    assert hops(header) == found


def test_a_hostile_header_takes_no_time() -> None:
    for piece in ('a="', "a=b;", ",", ";", 'a="\\', "a=", " "):
        assert len(hops(piece * 2000)) <= 8192


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "none"),
        ("x:y", "none"),
    ],
)
def test_an_ipv6_address_stands_for_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
