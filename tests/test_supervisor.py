"""The supervisor, with real processes and real signals; at the end, what `manage.py up` has it run.

Each test starts a supervisor in a process of its own and waits for what it prints. Nothing sleeps for a fixed time:
children say when they are ready, and every wait has a deadline that only a failure reaches.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from django.core.management import CommandError

from jetrelay.child_output import LONGEST_LINE, Lines
from jetrelay.management.commands import up
from jetrelay.supervisor import Child, Supervisor, Timing

DEADLINE_S = 20

RUNNER = """
import json, sys
from jetrelay.supervisor import Child, Supervisor, Timing
children, timing = json.load(sys.stdin)
sys.exit(Supervisor([Child(name, argv) for name, argv in children.items()], timing=Timing(**timing)).run())
"""

# Prints its process id, then waits for a signal for as long as it takes.
SLEEPER = "import os, signal; print('ready', os.getpid(), flush=True); signal.pause()"
DEAF = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', os.getpid(), flush=True)\nwhile True: signal.pause()"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


class Running:
    """A supervisor in its own process, and the lines it has printed so far."""

    def __init__(self, children: dict[str, list[str]], **timing: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([children, timing]).encode())
        self.process.stdin.close()
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.decode().rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text: str) -> str:
        """The next line that contains `text`."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                line = self._queue.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                pytest.fail(f"{text!r} was not printed. Printed: {self.lines}")
            self.lines.append(line)
            if text in line:
                return line

    def pid_of(self, name: str) -> int:
        while True:
            line = self.wait_for("ready ")
            if line.startswith(name):
                return int(line.rpartition(" ")[2])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the supervisor to end by itself; its exit code."""
        code = self.process.wait(DEADLINE_S)
        while (line := self._queue.get(timeout=DEADLINE_S)) is not None:
            self.lines.append(line)
        return code

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    begun: list[Running] = []

    def begin(children: dict[str, list[str]], **timing: float) -> Running:
        begun.append(Running(children, **timing))
        return begun[-1]

    yield begin
    for running in begun:
        running.clean_up()


def gone(pid: int) -> bool:
    """Whether the process ends within the deadline. A zombie that nobody reaps has ended too."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stops_all_children_on_one_signal(start: Callable[..., Running], number: int) -> None:
    running = start({"web": python(SLEEPER), "worker": python(SLEEPER)})
    pids = [int(running.wait_for("ready ").rpartition(" ")[2]) for _ in range(2)]
    running.signal(number)
    assert running.end() == 0
    assert all(gone(pid) for pid in pids)
    assert running.lines[-2:] == ["up     | stopping", "up     | stopped"]


def test_it_prefixes_lines_with_a_padded_name(start: Callable[..., Running]) -> None:
    running = start({"web": python("print('one'); print('two')\n" + SLEEPER), "listener": python(SLEEPER)})
    assert running.wait_for("one") == "web      | one"
    assert running.wait_for("two") == "web      | two"


def test_it_starts_a_dead_child_again_and_doubles_the_wait(start: Callable[..., Running]) -> None:
    running = start({"web": python("raise SystemExit(3)")}, first_wait_s=0.01, longest_wait_s=0.03)
    assert running.wait_for("exited") == "up  | web exited with code 3; starting it again in 0.01 s"
    assert running.wait_for("exited") == "up  | web exited with code 3; starting it again in 0.02 s"
    assert running.wait_for("exited") == "up  | web exited with code 3; starting it again in 0.03 s"
    assert running.wait_for("exited") == "up  | web exited with code 3; starting it again in 0.03 s"
    running.signal(signal.SIGINT)
    assert running.end() == 0


def test_it_forgets_earlier_deaths_of_a_child_that_lived_long_enough(start: Callable[..., Running]) -> None:
    running = start({"web": python("raise SystemExit(3)")}, first_wait_s=0.01, healthy_s=0)
    for _ in range(3):
        assert running.wait_for("exited").endswith("again in 0.01 s")


def test_it_names_the_signal_that_killed_a_child_and_leaves_the_others_alone(start: Callable[..., Running]) -> None:
    running = start({"web": python(SLEEPER)}, first_wait_s=0.01)
    first = running.pid_of("web")
    os.kill(first, signal.SIGKILL)
    assert running.wait_for("killed") == "up  | web was killed by SIGKILL; starting it again in 0.01 s"
    assert running.pid_of("web") != first


def test_it_says_that_a_program_does_not_exist_and_tries_again(start: Callable[..., Running]) -> None:
    running = start({"web": ["/nowhere/at-all"], "worker": python(SLEEPER)}, first_wait_s=0.01)
    assert "web cannot be started" in running.wait_for("/nowhere/at-all")
    running.wait_for("again in 0.02 s")
    running.signal(signal.SIGTERM)
    assert running.end() == 0


def test_it_kills_a_child_that_outlives_the_grace_and_says_which(start: Callable[..., Running]) -> None:
    running = start({"deaf": python(DEAF), "web": python(SLEEPER)}, grace_s=0.3)
    pids = [int(running.wait_for("ready ").rpartition(" ")[2]) for _ in range(2)]
    running.signal(signal.SIGTERM)
    assert running.end() == 1
    assert "up   | not stopped after 0.3 s: deaf; killing" in running.lines
    assert all(gone(pid) for pid in pids)


def test_it_kills_at_once_when_asked_a_second_time(start: Callable[..., Running]) -> None:
    running = start({"deaf": python(DEAF)}, grace_s=1000, same_signal_s=0)
    pid = running.pid_of("deaf")
    running.signal(signal.SIGINT)
    running.wait_for("stopping")
    running.signal(signal.SIGINT)
    assert running.end() == 1
    assert gone(pid)


def test_it_takes_two_signals_close_together_for_one(start: Callable[..., Running]) -> None:
    slow = "import os, signal, sys\ndef stop(*_):\n print('settling', flush=True); input(); sys.exit(0)\n"
    slow = slow.replace("input()", "__import__('time').sleep(0.2)") + "signal.signal(signal.SIGTERM, stop)\n" + SLEEPER
    running = start({"worker": python(slow)}, same_signal_s=1000)
    running.pid_of("worker")
    running.signal(signal.SIGINT)
    running.wait_for("settling")
    running.signal(signal.SIGTERM)
    assert running.end() == 0


def test_it_stops_when_the_signal_comes_while_children_are_being_started(start: Callable[..., Running]) -> None:
    running = start({f"child{number}": python(SLEEPER) for number in range(5)})
    running.wait_for("ready ")
    running.signal(signal.SIGINT)
    assert running.end() == 0


def test_it_takes_a_dead_childs_own_children_along(start: Callable[..., Running]) -> None:
    parent = f"import subprocess, sys; print('ready', subprocess.Popen([sys.executable, '-c', {DEAF!r}], stdout=-3).pid, flush=True)"
    running = start({"web": python(parent)}, first_wait_s=1000)
    grandchild = running.pid_of("web")
    running.wait_for("exited with code 0")
    assert gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a child's life to its parent's")
def test_it_takes_its_children_along_when_it_is_killed(start: Callable[..., Running]) -> None:
    running = start({"web": python(SLEEPER), "worker": python(SLEEPER)})
    pids = [int(running.wait_for("ready ").rpartition(" ")[2]) for _ in range(2)]
    running.signal(signal.SIGKILL)
    assert all(gone(pid) for pid in pids)


def test_it_shows_garbage_without_breaking(start: Callable[..., Running]) -> None:
    garbage = r"import os, sys; w = sys.stdout.buffer.write; w(b'\xff\xfe caf\xc3\xa9 \x1b[2J\x00\r\n'); w(b'x' * 100_000 + b'\n'); w('זנב'.encode())"
    running = start({"web": python(garbage)}, first_wait_s=1000)
    assert running.wait_for("caf") == "web | \ufffd\ufffd café \\x1b[2J\\x00"
    running.wait_for("exited with code 0")
    pieces = [line.removeprefix("web | ") for line in running.lines if "xxx" in line]
    assert "".join(pieces) == "x" * 100_000
    assert max(map(len, pieces)) == LONGEST_LINE
    # What had no newline when the child died.
    assert "web | זנב" in running.lines


def test_it_prints_all_that_a_dying_child_said(start: Callable[..., Running]) -> None:
    running = start({"web": python("for i in range(20_000): print('line', i)")}, first_wait_s=1000)
    running.wait_for("exited with code 0")
    assert [line for line in running.lines if "line" in line] == [f"web | line {i}" for i in range(20_000)]


def test_it_keeps_the_children_when_nobody_reads_its_output(start: Callable[..., Running], tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    code = f"import pathlib, time\nprint('first', flush=True)\nfor i in range(1000): print('more', flush=True)\npathlib.Path({str(mark)!r}).touch()\n{SLEEPER}"
    process = subprocess.Popen([sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([{"web": python(code)}, {}]).encode())
    process.stdin.close()
    process.stdout.readline()
    process.stdout.close()
    deadline = time.monotonic() + DEADLINE_S
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert mark.exists()
    process.send_signal(signal.SIGTERM)
    process.wait(DEADLINE_S)


def test_it_asks_the_probe_until_it_says_yes() -> None:
    answers = [False, False, True, False]
    lines: list[str] = []
    supervisor = Supervisor([Child("web", python(SLEEPER))], lines.append, timing=Timing(probe_every_s=0.01), colour=False)

    def probe() -> bool:
        answer = answers.pop(0)
        if answer:
            supervisor.say("well")
            os.kill(os.getpid(), signal.SIGTERM)
        return answer

    supervisor.probe = probe
    assert supervisor.run() == 0
    assert answers == [False]
    assert "up  | well" in lines


def test_it_puts_the_signal_handlers_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
    supervisor = Supervisor([Child("web", python(SLEEPER))], lambda line: None, colour=False)

    def probe() -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return True

    supervisor.probe = probe
    assert supervisor.run() == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)] == before


def test_it_colours_each_name_on_a_terminal() -> None:
    lines: list[str] = []
    supervisor = Supervisor([Child("web", [])], lines.append, colour=True)
    supervisor.say("hello")
    assert lines == ["\033[1mup  |\033[0m hello"]


def test_lines_keep_a_character_that_arrives_in_two_pieces() -> None:
    lines = Lines()
    assert lines.feed("é".encode()[:1]) == []
    assert lines.feed("é".encode()[1:] + b"\n") == ["é"]
    assert lines.feed(b"", final=True) == []


# --- manage.py up ----------------------------------------------------------------------------------------------------


def environment(own: dict[str, str], stream_port: int | None = None) -> dict[str, str]:
    return up.child_environment(own, Path("/srv/data"), "127.0.0.1", 8123, stream_port)


def test_up_tells_its_children_where_the_data_and_the_code_are() -> None:
    env = environment({"PATH": "/bin", "PYTHONPATH": "/mine", "WEBHOOK_URL": "http://localhost:3000/"})
    assert env["JETRELAY_DATA_DIR"] == "/srv/data"
    assert env["PORT"] == "8123"
    assert env["PYTHONPATH"].split(os.pathsep) == [str(Path(__file__).resolve().parent.parent), "/mine"]
    assert env["WEBHOOK_URL"] == "http://localhost:3000/"
    assert "JETSTREAM_HOSTS" not in env


def test_a_demo_never_touches_real_data_or_real_endpoints() -> None:
    own = dict.fromkeys([*up.NOT_IN_A_DEMO, "JETSTREAM_HOSTS"], "mine")
    env = environment(own, stream_port=6123)
    assert "mine" not in env.values()
    assert env["JETRELAY_DATA_DIR"] == "/srv/data/demo"
    assert env["JETSTREAM_HOSTS"] == "ws://127.0.0.1:6123/subscribe,ws://127.0.0.1:6123/xrpc/network.bsky.jetstream.subscribeEvents"


def test_a_demo_plays_everything_unless_told_otherwise() -> None:
    env = environment({}, stream_port=6123)
    assert (env["JETSTREAM_COLLECTIONS"], env["JETSTREAM_KINDS"]) == ("*", "commit,identity,account")
    env = environment({"JETSTREAM_COLLECTIONS": "app.bsky.feed.*", "JETSTREAM_KINDS": "commit"}, stream_port=6123)
    assert (env["JETSTREAM_COLLECTIONS"], env["JETSTREAM_KINDS"]) == ("app.bsky.feed.*", "commit")


def test_up_runs_the_parts_and_a_demo_one_more() -> None:
    assert [child.name for child in up.children({}, "127.0.0.1", 8123, None)] == ["web", "listener", "worker", "beat"]
    demo = up.children({}, "127.0.0.1", 8123, 6123)
    assert [child.name for child in demo] == ["stream", "web", "listener", "worker", "beat"]
    assert demo[0].argv[-4:] == ["play_jetstream", "--demo", "--port", "6123"]


def test_up_starts_nothing_when_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Nothing was started: port {port} .* --port or PORT"):
            up.check_port_is_free("127.0.0.1", port)


def test_up_refuses_an_address_that_is_not_ours() -> None:
    with pytest.raises(CommandError, match=r"203\.0\.113\.7"):
        up.check_port_is_free("203.0.113.7", 8123)


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "", "\u0663"])
def test_up_refuses_what_is_no_port(value: str) -> None:
    # Not through the command: if this ever failed, everything would start.
    with pytest.raises(ArgumentTypeError, match="is not a port"):
        up.port_number(value)


def test_up_announces_the_site_once_it_is_well() -> None:
    answers = [503, 200]
    hosts = []

    class Web(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append((self.path, self.headers["Host"]))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    said: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Web) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        probe = up.announcement(said.append, "0.0.0.0", server.server_port, demo=False)
        assert (probe(), said) == (False, [])
        assert probe()
        server.shutdown()
        thread.join()
    assert f"Jetrelay is running: http://127.0.0.1:{server.server_port}/" in said
    assert hosts == [("/health", "localhost")] * 2


def test_up_waits_quietly_for_a_site_that_is_not_there() -> None:
    said: list[str] = []
    assert not up.announcement(said.append, "127.0.0.1", up.free_port(), demo=False)()
    assert said == []
