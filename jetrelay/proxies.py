"""Who really asks, where requests come through proxies of the operator's own.

Without this everybody behind a proxy has its address: the brake on guessing passwords would count them all as one, and the audit
log would name the proxy. The header is believed as far as the networks in JETRELAY_TRUSTED_PROXIES wrote it, and no further. Nor is
anybody else believed who says that a request came by https.
"""

from collections.abc import Callable
from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

Answer = Callable[[HttpRequest], HttpResponseBase]


def behind_proxies(get_response: Answer) -> Answer:
    """Middleware: REMOTE_ADDR becomes the last address that no trusted proxy has, and a stranger's X-Forwarded-Proto goes unheard."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if not _trusted(request.META.get("REMOTE_ADDR", "")):
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        if settings.JETRELAY_TRUSTED_PROXIES:
            request.META["REMOTE_ADDR"] = asker(request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_X_FORWARDED_FOR", ""))
        return get_response(request)

    return middleware


def asker(peer: str, forwarded_for: str) -> str:
    """The nearest address that is no trusted proxy's; the peer itself, where it is none or said nothing that can be read.

    Each proxy appends the address that it was asked from (RFC 7239, section 7.4, on X-Forwarded-For): read from the end,
    what a stranger has written stands behind the stranger's own address.
    """
    found = peer
    hops = [each.strip() for each in forwarded_for.split(",") if each.strip()]
    while hops and _trusted(found):
        nearer = hops.pop()
        if not _is_address(nearer):
            break
        found = nearer
    return found


def _trusted(address: str) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in settings.JETRELAY_TRUSTED_PROXIES)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
