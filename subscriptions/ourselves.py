"""Where this machine reaches the web server of its own installation, whatever address that listens on. Needs no Django.

    url("0.0.0.0", 8000)    http://127.0.0.1:8000
    url("::", 8000)         http://[::1]:8000
    url("relay.lan", 8000)  http://relay.lan:8000

As a program it asks `/health` there, for a container's own check: 0 if all is well, else 1.
"""

import http.client
import os
import re
import sys
from ipaddress import IPv6Address, ip_address

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63}){0,9}", re.IGNORECASE)


def bare(host: str) -> str:
    """The host as sockets have it: without the brackets of a URL. Raises ValueError for what is neither an address nor a name."""
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ip_address(inner)
    except ValueError:
        if len(host) > 253 or not _NAME.fullmatch(host):
            raise ValueError("write an address or a name of this machine, such as 127.0.0.1, 0.0.0.0, ::1 or relay.lan") from None
        return host
    return inner


def reachable(host: str) -> str:
    """An address at which somebody on this machine finds what listens on `host`: every address is none, so it is loopback's."""
    try:
        address = ip_address(bare(host))
    except ValueError:
        return bare(host)
    if not address.is_unspecified:
        return str(address)
    return "::1" if isinstance(address, IPv6Address) else "127.0.0.1"


def in_url(host: str) -> str:
    """The host as URLs and `Host` headers have it."""
    return f"[{host}]" if ":" in host else host


def url(host: str, port: int) -> str:
    """Without a slash at the end."""
    return f"http://{in_url(reachable(host))}:{port}"


def answers(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether the web process is up and well."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=timeout_s)
    try:
        # Named so that it is allowed, whatever address the web process listens on.
        connection.request("GET", "/health", headers={"Host": "localhost"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not answers(os.environ.get("JETRELAY_HOST") or "127.0.0.1", int(os.environ.get("PORT") or 8000), 4.0))
