"""The door: which addresses may be connected to."""

import ipaddress
import re

import pytest

from delivery.destinations.addresses import Door
from jetrelay import environment

REFUSED = {
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"],
    "link-local": ["169.254.0.1", "169.254.169.254", "fe80::1", "febf::1"],
    "carrier-grade NAT": ["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    "unique local": ["fc00::1", "fd00::1", "fd00:ec2::254", "fdff:ffff::1"],
    "site-local": ["fec0::1", "feff::1"],
    "IETF protocol assignments": ["192.0.0.1", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.255", "2001:2::1", "2001:10::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "3fff:fff::1"],
    "benchmarking": ["198.18.0.1", "198.19.255.255"],
    "6to4 relays": ["192.88.99.1"],
    "multicast": ["224.0.0.1", "224.1.2.3", "239.255.255.255", "233.252.0.1", "ff02::1", "ff0e::1", "ff05::2"],
    "reserved": ["240.0.0.1", "255.255.255.254", "100::1", "4000::1", "5f00::1", "e000::1"],
    "broadcast": ["255.255.255.255"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:192.0.0.9", "::ffff:224.0.0.1", "::ffff:0.0.0.0"],
    "IPv4-compatible": ["::127.0.0.1", "::8.8.8.8"],
    "IPv4-translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "64:ff9b:1:ffff::10.0.0.1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:808:808::1"],
    "Teredo": ["2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "ISATAP": ["2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1", "fe80::5efe:808:808", "2001:db8::5efe:808:808"],
    "Azure's host": ["168.63.129.16", "::ffff:168.63.129.16"],
    "with a zone": ["fe80::1%eth0", "fe80::1%2", "::1%lo", "::ffff:127.0.0.1%lo"],
}

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "2003::1",
    "::ffff:8.8.8.8",
    "168.63.129.15",
    "168.63.129.17",
    "2606:4700::5eff:7f00:1",
    "2606:4700::100:5efe:7f00:1",
]


@pytest.mark.parametrize(("range", "text"), [(name, text) for name, texts in REFUSED.items() for text in texts])
def test_it_refuses(range: str, text: str) -> None:
    refusal = Door().refusal(text)
    assert refusal is not None
    assert refusal.endswith("is not a public address")
    assert str(ipaddress.ip_address(text.partition("%")[0])) in refusal


@pytest.mark.parametrize("text", PUBLIC)
def test_it_lets_public_addresses_pass(text: str) -> None:
    assert Door().refusal(text) is None


@pytest.mark.parametrize(
    "text", ["", "localhost", "example.com", "127.0.0.1.", "127.1", "0x7f.1", "2130706433", "1.2.3.4/32", "::1::", "8.8.8.8 ", "8.8.8.8%eth0"]
)
def test_it_refuses_what_is_no_address(text: str) -> None:
    assert Door().refusal(text) == f"{text} is not an IP address"


def test_it_says_which_address_is_refused() -> None:
    assert Door().refusal("10.1.2.3") == "10.1.2.3 is not a public address"


def test_it_says_where_a_mapped_address_leads() -> None:
    assert Door().refusal("::ffff:10.1.2.3") == "::ffff:a01:203 (which leads to 10.1.2.3) is not a public address"


@pytest.mark.parametrize(
    ("network", "text", "passes"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("10.0.0.0/8", "127.0.0.1", False),
        ("10.0.0.0/8", "::ffff:127.0.0.1", False),
        ("10.0.0.0/8", "64:ff9b::a01:203", False),
        ("10.0.0.0/8", "2002:a01:203::1", False),
        ("10.0.0.0/8", "::10.1.2.3", False),
        ("10.0.0.7/32", "10.0.0.7", True),
        ("10.0.0.7/32", "10.0.0.8", False),
        ("0.0.0.0/0", "169.254.169.254", True),
        ("0.0.0.0/0", "::1", False),
        ("::1/128", "::1", True),
        ("::1/128", "::2", False),
        ("::1/128", "127.0.0.1", False),
        ("fd00::/8", "fd12::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("64:ff9b::/96", "64:ff9b::a01:203", True),
        ("::/0", "127.0.0.1", False),
        # A mapped address is one of IPv4, whatever it looks like.
        ("::/0", "::ffff:127.0.0.1", False),
        ("::/0", "::ffff:8.8.8.8", True),
        ("2606:4700::/32", "2606:4700::5efe:7f00:1", True),
        ("168.63.129.16/32", "168.63.129.16", True),
    ],
)
def test_it_opens_named_networks_and_nothing_else(network: str, text: str, passes: bool) -> None:
    assert (Door(allowed=(ipaddress.ip_network(network),)).refusal(text) is None) is passes


def test_it_opens_each_of_several_networks() -> None:
    door = Door(allowed=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128")))
    assert [door.refusal(text) is None for text in ("10.0.0.1", "::1", "127.0.0.1")] == [True, True, False]


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1%eth0", "8.8.8.8"])
def test_it_lets_everything_pass_where_the_operator_named_the_url(text: str) -> None:
    assert Door(everything=True).refusal(text) is None


def test_it_is_one_door_when_the_rules_are_the_same() -> None:
    network = ipaddress.ip_network("10.0.0.0/8")
    assert len({Door(), Door(), Door(everything=True), Door(allowed=(network,)), Door(allowed=(network,))}) == 3


# --- JETRELAY_ALLOWED_NETWORKS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("fd00::/8", "fd00::/8"),
        ("FD00::/8", "fd00::/8"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_it_reads_networks(text: str, found: str) -> None:
    assert str(environment.network(text)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localhost", "write a network in CIDR notation, such as 10.0.0.0/8 or fd00::/8"),
        ("10", "in CIDR notation"),
        ("10.0.0.0/33", "in CIDR notation"),
        ("10.0.0.0/-1", "in CIDR notation"),
        ("10.0.0.0/", "in CIDR notation"),
        ("10.0.0.0/8/8", "in CIDR notation"),
        ("10.0.0.0-10.0.0.9", "in CIDR notation"),
        ("10.*", "in CIDR notation"),
        ("010.0.0.0/8", "in CIDR notation"),
        ("127.0.0.1:80", "in CIDR notation"),
        ("http://10.0.0.1/", "in CIDR notation"),
        ("[::1]", "in CIDR notation"),
        ("10.0.0.1/8", "bits beyond /8: write 10.0.0.0/8"),
        ("fd00::1/64", "bits beyond /64: write fd00::/64"),
        ("::ffff:10.0.0.0/104", "write the plain IPv4 or IPv6 network"),
        ("fe80::1%eth0", "write the plain IPv4 or IPv6 network"),
    ],
)
def test_it_says_how_a_network_is_written(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        environment.network(text)
