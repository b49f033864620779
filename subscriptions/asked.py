"""From which address this thread is asked for what it does: for whatever is written down about it, however deep below a view.

Only the site's middleware says so (`jetrelay/dashboard/audit.py`); commands and workers are asked by nobody.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_address

_address: ContextVar[str | None] = ContextVar("asked_from", default=None)


@contextmanager
def asked_from(address: str) -> Iterator[None]:
    """For as long as this lasts. What is no address (a Unix socket has none) is kept as none."""
    try:
        known: str | None = str(ip_address(address))
    except ValueError:
        known = None
    token = _address.set(known)
    try:
        yield
    finally:
        _address.reset(token)


def address() -> str | None:
    return _address.get()
