"""Owners of a lane that do not live long: a program that forks one for each line it reads. Started as a process by tests.

    read:   <kind> <lane> <lease in seconds>
    write:  its process id, then "stopped" if it has stopped itself, then "gone"

| kind | what happens to it |
|---|---|
| killable | nothing, unless somebody kills it |
| unsettled | it kills itself when it is about to settle for the first time |
| frozen | it stops itself when it is about to settle for the first time, until somebody lets it go on |

Its requests carry its kind and process id where the version stands, so that a receiver can tell whose they are, however late they come.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import django
from django.conf import settings

if TYPE_CHECKING:
    from delivery.outcomes import Done

ENDS = {"unsettled": signal.SIGKILL, "frozen": signal.SIGSTOP}


def live(kind: str, lane: int, lease_s: float) -> None:
    from delivery import crew, lanes, settling, tenure

    settings.VERSION = f"{kind}-{os.getpid()}"
    tenure.LINGER_S, crew.MAX_POLL_S, tenure.LEASE_S = 0.05, 0.025, lease_s
    if kind in ENDS:

        def settle(finished: "Sequence[Done]", also: Callable[[], None] = lambda: None) -> None:
            vars(crew)["settle"] = settling.settle
            os.kill(os.getpid(), ENDS[kind])
            settling.settle(finished, also)

        vars(crew)["settle"] = settle
    while lanes.drain(lane):
        pass


def main(database: str) -> None:
    settings.DATABASES["default"]["NAME"] = database
    for line in sys.stdin:
        kind, lane, lease_s = line.split()
        pid = os.fork()
        if not pid:
            try:
                live(kind, int(lane), float(lease_s))
            finally:
                os._exit(0)
        print(pid, flush=True)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            print("stopped", flush=True)
            os.waitpid(pid, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")
    django.setup()
    main(sys.argv[1])
