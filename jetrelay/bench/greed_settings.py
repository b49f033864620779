"""The product's settings for `names` of `bench greed`: some host names are never found.

A process cannot be given a DNS server that does not answer, and a benchmark sends nothing to
strangers; so the C library's function is stood in for, below everything that is the product's.
Names below `silent.test` take as long as the C library waits; those below `answered.test` are this
machine.
"""

import socket
from time import sleep
from typing import Any

from jetrelay.settings import *  # noqa: F403

SILENT, ANSWERED = ".silent.test", ".answered.test"
# What glibc takes with its defaults: 5 s, twice, for each of three servers.
WAIT_S = 30.0

_look_up = socket.getaddrinfo


def _stand_in(host: Any, *args: Any, **kwargs: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if isinstance(name, str) and name.endswith(SILENT):
        sleep(WAIT_S)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    if isinstance(name, str) and name.endswith(ANSWERED):
        return _look_up("127.0.0.1", *args, **kwargs)
    return _look_up(host, *args, **kwargs)


socket.getaddrinfo = _stand_in
