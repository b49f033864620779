"""The door: which addresses a user-supplied URL may lead to. Pure.

The check is made on the very address that is about to be connected to (see `http.py`), so it does not matter how the
URL spelled it or what DNS said earlier. Source of the rules: the IANA special-purpose registries, RFC 6890, and the
ranges that Python 3.11's `is_global` lets pass.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REFUSED_TOO = tuple(
    ipaddress.ip_network(network)
    for network in (
        "64:ff9b::/96",  # NAT64: leads to any IPv4 address
        "64:ff9b:1::/48",  # NAT64, local use
        "2002::/16",  # 6to4: leads to any IPv4 address
        "2001::/32",  # Teredo: leads to any IPv4 address
        "::/96",  # IPv4-compatible, deprecated
        "fec0::/10",  # site-local, deprecated
        "3fff::/20",  # documentation (RFC 9637)
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "168.63.129.16/32",  # Azure's host, which hands out a virtual machine's configuration: public in form alone
    )
)
# How the second half of an address starts that leads to the IPv4 address at its end (ISATAP, RFC 5214), whatever its network.
_ISATAP = (0x00005EFE, 0x02005EFE)
# All of IPv6 that is routed as unicast, by IANA's address space registry.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


@dataclass(frozen=True)
class Door:
    """Lets a connection through or says why not. `everything` is for URLs that are the operator's own word."""

    allowed: tuple[Network, ...] = field(default=())
    everything: bool = False

    def refusal(self, text: str) -> str | None:
        """Why this IP address must not be connected to, or None when it may."""
        if self.everything:
            return None
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return f"{text} is not an IP address"
        # The kernel connects to the IPv4 address in a mapped one, so that networks of IPv4 alone say what is allowed.
        inside = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        if _within(inside or address, self.allowed):
            return None
        return _refusal(inside or address, shown=f"{address} (which leads to {inside})" if inside else str(address))


def _refusal(address: Address, shown: str) -> str | None:
    routed = address.version == 4 or address in _GLOBAL_UNICAST
    if not routed or not address.is_global or address.is_multicast or _is_isatap(address) or _within(address, _REFUSED_TOO):
        return f"{shown} is not a public address"
    return None


def _is_isatap(address: Address) -> bool:
    return address.version == 6 and int(address) >> 32 & 0xFFFF_FFFF in _ISATAP


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
