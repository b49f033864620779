"""Addresses as proxies write them: `Forwarded` (RFC 7239), and one item of `X-Forwarded-For`."""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

# name=value, where a value is a token or in quotes; what separates pairs is ";", and elements ",".
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = r"(?:([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+)" + r'|"((?:[^"\\]|\\.)*)")'
_PAIR = re.compile(rf"\s*({_NAME})={_VALUE}\s*([;,]|\Z)")
_PORT = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[0-9.]+))(?::[0-9]{1,5}|:_[\w.-]+)?")
# Far more than there are proxies on any way.
MAX_LENGTH = 8192


class Hop(NamedTuple):
    """What one proxy says of the request that it got.

    No address where it hides it, or where it cannot be read.
    """

    address: str | None
    protocol: str | None


def hops(header: str) -> list[Hop]:
    """The elements, in their order. What cannot be read is one hop without an address.

    Nobody behind it is believed.
    """
    found, pairs, at = list[Hop](), dict[str, str](), 0
    if not header or len(header) > MAX_LENGTH:
        return [Hop(None, None)] if header else []
    while at < len(header):
        pair = _PAIR.match(header, at)
        if pair is None:
            rest = header[at:].lstrip()
            if rest and rest[0] not in ",;":
                # To the next comma nothing is known; nor is it known where a quote began.
                return [*found, Hop(None, None)]
            if rest[:1] == "," and pairs:
                found.append(_hop(pairs))
                pairs = {}
            at = len(header) - len(rest) + 1
            continue
        name, token, quoted, end = pair.groups()
        pairs[name.lower()] = token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
        if end != ";":
            found.append(_hop(pairs))
            pairs = {}
        at = pair.end()
    return [*found, _hop(pairs)] if pairs else found


def _hop(pairs: dict[str, str]) -> Hop:
    return Hop(address(pairs.get("for", "")), pairs.get("proto", "").lower() or None)


def address(text: str) -> str | None:
    """`192.0.2.1`, `192.0.2.1:4711`, `"[2001:db8::1]:4711"`, `2001:db8::1`.

    The plain address of it; None if there is none.
    """
    text = text.strip().strip('"').strip()
    with_port = _PORT.fullmatch(text)
    return plain((with_port["six"] or with_port["four"] or "") if with_port else text)


def plain(text: str) -> str | None:
    """The address as it is compared.

    An IPv4 address that is written as an IPv6 one is that IPv4 address.
    """
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or (IPv6Address(int(found)) if found.scope_id else found))
    return str(found)


@lru_cache(maxsize=4096)
def network_of(text: str) -> str:
    """Whom an address stands for; "none" where it is none.

    Whoever has one IPv6 address has a whole network of them (RFC 6177).
    """
    found = plain(text)
    if found is None:
        return "none"
    return str(ip_network((found, 64), strict=False)) if ":" in found else found
