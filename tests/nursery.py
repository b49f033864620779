"""Owners of a lane that tests may kill and freeze: see `mortal_owner.py`."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection

from tests.draining import LANE
from tests.whole import ROOT

PATIENCE_S = 60


class Nursery:
    """The program that they come from. One lives at a time."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", "tests.mortal_owner", str(connection.settings_dict["NAME"])]
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()

    @contextmanager
    def owner(self, kind: str, lease_s: float) -> Iterator["Owner"]:
        """A new one, which is gone at the end."""
        assert self._process.stdin
        print(kind, LANE, lease_s, file=self._process.stdin, flush=True)
        owner = Owner(f"{kind}-", int(self.said()), self)
        owner.name += str(owner.pid)
        try:
            yield owner
        finally:
            if owner.state != "gone":
                os.kill(owner.pid, signal.SIGKILL)
            while owner.state != "gone":
                owner.wait()

    def said(self) -> str:
        assert self._process.stdout
        assert select.select([self._process.stdout], [], [], PATIENCE_S)[0], "the nursery says nothing"
        return self._process.stdout.readline().strip()


@dataclass
class Owner:
    name: str
    pid: int
    nursery: Nursery
    state: str = "alive"

    def wait(self) -> str:
        """Wait until it is stopped or gone."""
        self.state = self.nursery.said()
        return self.state

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
