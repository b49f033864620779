"""Runs a few child processes until told to stop: one terminal, one Ctrl-C, no child left behind.

The promises, each with a test in tests/test_supervisor.py:

- every line a child prints appears once, whole, behind the child's name;
- a child that dies is started again, after a wait that doubles while it keeps dying, and a line says so;
- SIGINT, SIGTERM or SIGHUP stops all children with SIGTERM; those that outlive the grace are named and killed;
- a second signal kills at once;
- if the supervisor itself is killed, the kernel sends SIGTERM to the children (Linux; elsewhere they live on).

Everything happens in the thread that calls `run`, the main one: a loop that sleeps in `select` until a child prints
or dies, a signal comes, or a wait is over. Linux ties the death signal to the thread that made the child, so moving
the spawning into another thread would stop the children when that thread ends.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from jetrelay.child_output import Lines, for_people, for_programs, print_line

# What a dead child may have left in its pipe is printed, but a stray heir of the pipe cannot keep us here.
MOST_LAST_WORDS = 1_048_576
# from <linux/prctl.h>
PR_SET_PDEATHSIG = 1

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COLOURS = ("36", "32", "35", "33", "34", "96", "92", "95")


@dataclass(frozen=True)
class Child:
    """A process to keep alive. `env` is its whole environment; None hands on the supervisor's own."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Timing:
    """Every wait of the supervisor, in seconds."""

    first_wait_s: float = 1
    longest_wait_s: float = 30
    # A child that lived this long is taken for well: its next death counts as the first.
    healthy_s: float = 30
    # Longer than a lane's slice of about 10 s, so that a worker always has time to settle what it sent.
    grace_s: float = 20
    # `make` passes on the signal that the terminal has already sent: two so close together are one request.
    same_signal_s: float = 0.5
    probe_every_s: float = 0.25


@dataclass(eq=False)
class _Slot:
    """A child and its present life, if it has one."""

    child: Child
    wait_s: float
    process: subprocess.Popen[bytes] | None = None
    lines: Lines = field(default_factory=Lines)
    started_at: float = 0.0
    start_at: float | None = 0.0


class Supervisor:
    """Runs `children` until a stop signal comes.

    `write` gets each line without its newline. `probe` may be set before `run`: it is asked again and again until it
    returns True (then never more), a place to notice that the children are up. It must not take longer than about a
    second, because nothing else happens meanwhile. In `json` each line is an object with the child's name as `process`.
    """

    def __init__(
        self,
        children: Sequence[Child],
        write: Callable[[str], None] = print_line,
        *,
        timing: Timing | None = None,
        colour: bool | None = None,
        name: str = "up",
        json: bool = False,
    ) -> None:
        self._timing = timing or Timing()
        self._slots = [_Slot(child, self._timing.first_wait_s) for child in children]
        self._write = write
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ if colour is None else colour
        self.probe: Callable[[], bool] | None = None
        self._probe_due_at = 0.0
        self._name = name
        self._json = json
        self._width = max(len(name), *(len(child.name) for child in children))
        self._selector = selectors.DefaultSelector()
        self._stop_asked: list[float] = []
        self._kill_at: float | None = None
        self._had_to_kill = False

    def run(self) -> int:
        """Block until all children have stopped. 0 if each stopped by itself, 1 if one had to be killed."""
        with self._signals_wake_us():
            try:
                while not (self._stop_asked and not self._alive()):
                    self._start_due()
                    self._sleep()
                    self._reap()
                    self._stop_or_kill()
                    self._ask_probe()
            finally:
                self._kill_rest()
        self.say("stopped")
        return 1 if self._had_to_kill else 0

    def say(self, text: str) -> None:
        """Print a line of the supervisor's own. In JSON an empty one, which is there for the eye, is left out."""
        if self._json and not text:
            return
        self._print(self._name, text, "1")

    # --- Signals ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _signals_wake_us(self) -> Iterator[None]:
        """Handlers only take notes, so that no signal can come at a bad moment; the pipe ends the sleep."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._selector.register(reader, selectors.EVENT_READ)
        old_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # Started by nohup, SIGHUP is ignored, and that is a wish.
        wanted = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN or s is not signal.SIGHUP]
        old = {s: signal.signal(s, self._note_stop) for s in wanted}
        old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_fd)
            self._selector.close()
            os.close(reader)
            os.close(writer)

    def _note_stop(self, *_: object) -> None:
        self._stop_asked.append(time.monotonic())

    # --- The loop's steps ------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for slot in self._slots:
            # Looked at before each one: a stop may come while the one before is being started.
            if not self._stop_asked and slot.start_at is not None and slot.start_at <= time.monotonic():
                self._start(slot)

    def _sleep(self) -> None:
        for key, _ in self._selector.select(self._time_to_next()):
            if isinstance(key.data, _Slot):
                self._read(key.data, key.fd)
            else:
                os.read(key.fd, 4096)

    def _time_to_next(self) -> float | None:
        moments = [slot.start_at for slot in self._slots if slot.start_at is not None and not self._stop_asked]
        if self._kill_at is not None:
            moments.append(self._kill_at)
        if self.probe is not None and not self._stop_asked:
            moments.append(self._probe_due_at)
        if self._stop_asked and self._kill_at is None:
            return 0
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _reap(self) -> None:
        for slot in self._alive():
            if slot.process is not None and slot.process.poll() is not None:
                self._bury(slot, slot.process)

    def _stop_or_kill(self) -> None:
        if not self._stop_asked or not self._alive():
            return
        now = time.monotonic()
        if self._kill_at is None:
            self._kill_at = now + self._timing.grace_s
            self._ask_to_stop()
        elif now >= self._kill_at:
            names = ", ".join(slot.child.name for slot in self._alive())
            self.say(f"not stopped after {self._timing.grace_s:g} s: {names}; killing")
            self._kill_rest()
        elif self._stop_asked[-1] - self._stop_asked[0] > self._timing.same_signal_s:
            self.say("asked twice: killing what is left")
            self._kill_rest()

    def _ask_probe(self) -> None:
        if self.probe is None or self._stop_asked or time.monotonic() < self._probe_due_at:
            return
        if self.probe():
            self.probe = None
        self._probe_due_at = time.monotonic() + self._timing.probe_every_s

    # --- A child's life --------------------------------------------------------------------------------------------

    def _alive(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.process is not None]

    def _start(self, slot: _Slot) -> None:
        slot.start_at = None
        slot.started_at = time.monotonic()
        slot.lines = Lines()
        try:
            # A session of its own, so that a terminal's Ctrl-C reaches the supervisor alone.
            slot.process = subprocess.Popen(
                list(slot.child.argv),
                env=slot.child.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
                preexec_fn=_dies_with_its_parent(),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._plan_restart(slot, f"{slot.child.name} cannot be started ({error})")
            return
        if slot.process.stdout is not None:
            os.set_blocking(slot.process.stdout.fileno(), False)
            self._selector.register(slot.process.stdout, selectors.EVENT_READ, slot)

    def _ask_to_stop(self) -> None:
        self.say("stopping")
        for slot in self._alive():
            if slot.process is not None:
                slot.process.terminate()

    def _kill_rest(self) -> None:
        """Kill and reap every child that still lives, with its own children."""
        for slot in self._alive():
            if slot.process is not None:
                self._had_to_kill = True
                _kill_group(slot.process.pid)
                slot.process.wait()
                self._close_pipe(slot, slot.process)
                slot.process = None

    def _bury(self, slot: _Slot, process: subprocess.Popen[bytes]) -> None:
        # A child's own children would hold its port and its pipe: they do not outlive it.
        _kill_group(process.pid)
        self._close_pipe(slot, process)
        slot.process = None
        if not self._stop_asked:
            self._plan_restart(slot, f"{slot.child.name} {_ending(process.returncode)}")

    def _plan_restart(self, slot: _Slot, what: str) -> None:
        now = time.monotonic()
        if now - slot.started_at >= self._timing.healthy_s:
            slot.wait_s = self._timing.first_wait_s
        slot.start_at = now + slot.wait_s
        self.say(f"{what}; starting it again in {slot.wait_s:g} s")
        slot.wait_s = min(slot.wait_s * 2, self._timing.longest_wait_s)

    # --- What children print ---------------------------------------------------------------------------------------

    def _read(self, slot: _Slot, fd: int) -> int:
        """Print what is there; the number of bytes, 0 when there is nothing (more)."""
        try:
            data = os.read(fd, 65_536)
        except BlockingIOError:
            return 0
        if not data:
            self._selector.unregister(fd)
        for line in slot.lines.feed(data, final=not data):
            self._print(slot.child.name, line)
        return len(data)

    def _close_pipe(self, slot: _Slot, process: subprocess.Popen[bytes]) -> None:
        pipe = process.stdout
        if pipe is None:
            return
        seen = 0
        while pipe.fileno() in self._selector.get_map() and seen < MOST_LAST_WORDS:
            count = self._read(slot, pipe.fileno())
            seen += count
            if not count:
                break
        if pipe.fileno() in self._selector.get_map():
            self._selector.unregister(pipe)
            for line in slot.lines.feed(b"", final=True):
                self._print(slot.child.name, line)
        pipe.close()

    def _print(self, name: str, text: str, colour: str = "") -> None:
        if self._json:
            with suppress(OSError):
                self._write(for_programs(name, text))
            return
        prefix = f"{name:<{self._width}} |"
        if self._colour:
            prefix = f"\033[{colour or self._colour_of(name)}m{prefix}\033[0m"
        # Whoever read our output may be gone (`up | head`): that is no reason to stop the children.
        with suppress(OSError):
            self._write(f"{prefix} {for_people(text)}")

    def _colour_of(self, name: str) -> str:
        names = [slot.child.name for slot in self._slots]
        return COLOURS[names.index(name) % len(COLOURS)]


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _kill_group(pid: int) -> None:
    # PermissionError: what macOS says of a group in which only the dead are left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _dies_with_its_parent() -> Callable[[], None] | None:
    """What a child does between fork and exec so that it gets SIGTERM when the supervisor dies; None outside Linux.

    Looked up before the fork: after it, only the call itself is safe.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        # The parent may have died before the call above: then no signal would ever come.
        if os.getppid() != parent:
            os._exit(1)

    return in_child
