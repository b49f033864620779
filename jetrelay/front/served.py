"""How granian is started wherever Jetrelay is: by `manage.py up`, systemd, containers and by hand.

Needs no Django.
"""

APPLICATION = "jetrelay.rsgi:application"

# So many connections may be open at once.
CONNECTIONS = 4096
# Each may be sent a file; and there are databases, logs and what Python opens. A server that may
# open no more of them stops accepting, for good.
FILES = 2 * CONNECTIONS + 256
# A head has to be here in this time, and a connection that is kept has to be used again.
HEAD_MS = 15_000
# What is read ahead of one connection, and so the longest head (about).
BUFFER_BYTES = 64 * 1024

LIMITS = [
    # HTTP/2 without TLS is spoken by no proxy that does not ask for it, and while a server waits to
    # see which one it is, no time limit runs.
    *("--http", "1"),
    *("--http1-header-read-timeout", str(HEAD_MS)),
    *("--http1-buffer-size", str(BUFFER_BYTES)),
    *("--backlog", str(CONNECTIONS)),
    *("--backpressure", str(CONNECTIONS)),
]
