"""Who really asks, where requests come through proxies of the operator's own.

Without this everybody behind a proxy has its address: the brake on guessing passwords would count
them all as one, and the audit log would name the proxy. What is said of it is believed as far as
the networks in JETRELAY_TRUSTED_PROXIES wrote it, and no further. Nor is anybody else believed who
says that a request came by https.

Proxies say it in `X-Forwarded-For` and `X-Forwarded-Proto`, or in `Forwarded` (RFC 7239). One that
sets the one lets the other through from whoever asks, so where both are there and differ, neither
is believed: the request is refused.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from jetrelay import forwarded

Answer = Callable[[HttpRequest], HttpResponseBase]

# Far more than there are proxies on any way: what a stranger wrote before them is not read.
MOST_HOPS = 32
# Characters of headers whose meaning is remembered.
_SHORT = 512

_FOR, _PROTO, _FORWARDED = "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_FORWARDED"
_CONTRADICTORY = (
    "Forwarded and X-Forwarded-{} say different things of this request, so neither is believed."
    " The proxy in front of Jetrelay has to set one of them and leave the other out.\n"
)


def behind_proxies(get_response: Answer) -> Answer:
    """Middleware.

    REMOTE_ADDR becomes the last address that no trusted proxy has, and a stranger's word on https
    goes unheard.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        meta = request.META
        peer = meta.get("REMOTE_ADDR", "")
        if is_trusted(peer):
            if contradiction := _contradiction(meta):
                words = _CONTRADICTORY.format(contradiction)
                return HttpResponse(words, status=400, content_type="text/plain; charset=utf-8")
            if protocol := _protocol(peer, meta):
                meta[_PROTO] = protocol
            else:
                meta.pop(_PROTO, None)
            meta["REMOTE_ADDR"] = asker_of(meta)
        else:
            meta.pop(_PROTO, None)
        return get_response(request)

    return middleware


def asker_of(environ: Mapping[str, Any]) -> str:
    """Who asks, by the head of a request."""
    peer: str = environ.get("REMOTE_ADDR", "")
    if not is_trusted(peer):
        return peer
    said = environ.get(_FOR, ""), environ.get(_FORWARDED, "")
    # A stranger writes what stands here: what is remembered of it has to be short.
    found = _asker if sum(map(len, said)) <= _SHORT else _asker.__wrapped__
    return found(peer, *said, tuple(settings.JETRELAY_TRUSTED_PROXIES))


@lru_cache(maxsize=4096)
def _asker(peer: str, forwarded_for: str, forwarded_: str, _networks: tuple[Any, ...]) -> str:
    if forwarded_for:
        return asker(peer, forwarded_for)
    return _nearest(peer, [hop.address for hop in forwarded.hops(forwarded_)])[0]


def asker(peer: str, forwarded_for: str) -> str:
    """The nearest address that is no trusted proxy's.

    The peer itself, where it is none or said nothing that can be read.

    Each proxy appends the address that it was asked from (RFC 7239, section 7.4, on
    X-Forwarded-For): read from the end, what a stranger has written stands behind the stranger's
    own address.
    """
    hops = [each for each in forwarded_for.rsplit(",", MOST_HOPS)[-MOST_HOPS:] if each.strip()]
    return _nearest(peer, [forwarded.address(each) for each in hops])[0]


def _nearest(peer: str, hops: list[str | None]) -> tuple[str, int]:
    """That address, and how many hops were believed to find it."""
    found, believed = peer, 0
    while believed < len(hops) and is_trusted(found):
        nearer = hops[-1 - believed]
        if nearer is None:
            break
        found, believed = nearer, believed + 1
    return found, believed


def is_trusted(address: str) -> bool:
    """Whether a proxy that the operator has named has this address."""
    networks = settings.JETRELAY_TRUSTED_PROXIES
    return bool(networks) and is_in(address, tuple(networks))


@lru_cache(maxsize=4096)
def is_in(address: str, networks: tuple[Any, ...]) -> bool:
    """Whether one of these networks has the address, however it is written."""
    plain = forwarded.plain(address)
    return plain is not None and any(ip_address(plain) in network for network in networks)


def _contradiction(meta: Mapping[str, Any]) -> str | None:
    """What the two headers differ in, where both are there: "For" or "Proto"."""
    if _FORWARDED not in meta:
        return None
    peer, hops = meta.get("REMOTE_ADDR", ""), forwarded.hops(meta[_FORWARDED])
    if _FOR in meta and asker(peer, meta[_FOR]) != _nearest(peer, [hop.address for hop in hops])[0]:
        return "For"
    said = _of_forwarded(peer, meta)
    return "Proto" if said and _PROTO in meta and said != _agreed(meta[_PROTO]) else None


def _protocol(peer: str, meta: Mapping[str, Any]) -> str | None:
    return _agreed(meta[_PROTO]) if _PROTO in meta else _of_forwarded(peer, meta)


def _agreed(values: str) -> str | None:
    """The one protocol that all proxies name.

    The first of several may be the client's own word, and the last that of a hop inside.
    """
    said = {each.strip().lower() for each in values.split(",")}
    return said.pop() if len(said) == 1 else None


def _of_forwarded(peer: str, meta: Mapping[str, Any]) -> str | None:
    """The protocol by which the nearest trusted proxy was asked by whoever asks."""
    hops = forwarded.hops(meta.get(_FORWARDED, ""))
    _, believed = _nearest(peer, [hop.address for hop in hops])
    return hops[-believed].protocol if believed else None
