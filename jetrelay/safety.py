"""What browsers are told with every answer, whoever makes it: a page, the admin, the API, a static file, an error, a lane before Django.

Django's own middleware says most of it, but not for what is answered in front of it, nor where another middleware answers first.
"""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

Answer = Callable[[HttpRequest], HttpResponseBase]

# Nothing here asks for any of these; the clipboard is left to the pages, which copy commands and addresses to it.
_PERMISSIONS = ("accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "magnetometer", "microphone", "midi", "payment", "usb")


def _headers() -> dict[str, str]:
    found = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": settings.X_FRAME_OPTIONS,
        "Referrer-Policy": settings.SECURE_REFERRER_POLICY,
        "Cross-Origin-Opener-Policy": settings.SECURE_CROSS_ORIGIN_OPENER_POLICY,
        "Permissions-Policy": ", ".join(f"{name}=()" for name in _PERMISSIONS),
    }
    if settings.SECURE_HSTS_SECONDS:
        # The proxy that ends TLS need not say so: over plain HTTP a browser does not heed it (RFC 6797, section 8.1).
        found["Strict-Transport-Security"] = f"max-age={settings.SECURE_HSTS_SECONDS}"
    return found


HEADERS = _headers()
# As WSGI wants them.
HEADER_LINES = list(HEADERS.items())


def with_safety_headers(get_response: Answer) -> Answer:
    """Middleware: what an answer says itself stands."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        for name, value in HEADER_LINES:
            response.headers.setdefault(name, value)
        return response

    return middleware
