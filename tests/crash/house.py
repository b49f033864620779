"""What runs: the processes of an installation, as they run in production, and who starts them again."""

import contextlib
import json
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Self

import psycopg
from cryptography.fernet import Fernet

from jetrelay.bench.processes import BEAT, WORKER
from subscriptions.validation import V1_PATH, V2_PATH
from tests.crash.receivers import Receiver, receiving
from tests.crash.servers import PATIENCE_S, Postgres, Redis
from tests.crash.stream import WISHES
from tests.whole import ROOT, Program, engines

# A process that ended is started again after this long, as any supervisor does.
RESTART_S = 1.0
_WATCH_EVERY_S = 0.5
_TRACEBACK = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(.*)", re.MULTILINE)


class Slot:
    """A process that is meant to run. Whoever ends or stops it on purpose holds the lock meanwhile."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.ended_by_itself: list[str] = []
        self._argv, self._env, self._folder = argv, env, folder
        self._starts = 0
        self.program = self._new()

    def _new(self) -> Program:
        self._starts += 1
        return Program(*self._argv, env=self._env, log=self._folder / f"{self.name}-{self._starts}.log")

    def start(self) -> None:
        self.program = self._new()

    def signal(self, number: signal.Signals) -> None:
        self.program.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.program.process.wait()

    def look(self) -> None:
        """Start it again if it has ended although nobody wanted it to."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            code = self.program.process.poll()
            if code is not None:
                self.ended_by_itself.append(f"{self.name} ended by itself with code {code}; its last words: {self.program.output.strip()[-400:]}")
                self.start()
        finally:
            self.lock.release()

    @property
    def tracebacks(self) -> Counter[str]:
        """The errors that its processes did not expect, by the line below each traceback."""
        texts = (log.read_text(errors="replace") for log in sorted(self._folder.glob(f"{self.name}-*.log")))
        return Counter(line[:200] for text in texts for line in _TRACEBACK.findall(text))

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        self.program.__exit__()


@dataclass
class House:
    postgres: Postgres
    redis: Redis
    receivers: dict[str, Receiver]
    # The player needs no database.
    env: Mapping[str, str]
    folder: Path
    # Held by faults that take one of them away.
    postgres_lock: threading.Lock = field(default_factory=threading.Lock)
    redis_lock: threading.Lock = field(default_factory=threading.Lock)
    workers: list[Slot] = field(default_factory=list)
    listeners: list[Slot] = field(default_factory=list)
    beats: list[Slot] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        self._run(["manage.py", "migrate", "-v0"])
        self._run(["-m", "tests.crash.endpoints"], json.dumps({name: each.url for name, each in self.receivers.items()}))

    def _run(self, argv: Sequence[str], text: str = "") -> None:
        done = subprocess.run([sys.executable, *argv], input=text, env=dict(self.env), cwd=ROOT, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")

    @property
    def slots(self) -> list[Slot]:
        return [*self.listeners, *self.workers, *self.beats]

    @contextlib.contextmanager
    def running(self, stream: Path, rate: float, wire: str) -> Iterator[Self]:
        """With all processes, which are started again when they end, and are gone afterwards."""
        watch = threading.Thread(target=self._watch, name="watch", daemon=True)
        player_env = dict(self.env) | {"DATABASE_URL": "", "BROKER_URL": ""}
        player = Program("manage.py", "play_jetstream", str(stream), "--port", "0", "--rate", str(rate), env=player_env, log=self.folder / "player.log")
        try:
            url = player.wait_for_output(r"listening on (ws://\S+) and")[1]
            self._start(url if wire == "v1" else url.removesuffix(V1_PATH) + V2_PATH)
            watch.start()
            yield self
        finally:
            self._closing.set()
            if watch.is_alive():
                watch.join()
            # All at once: each takes a moment to end in good order.
            with ThreadPoolExecutor() as pool:
                list(pool.map(Slot.end, self.slots))
            player.__exit__()

    def _start(self, url: str) -> None:
        env = dict(self.env) | {"JETSTREAM_HOSTS": url}
        self.workers = [Slot(f"worker{number}", [*WORKER, "-n", f"worker{number}@%h"], env, self.folder) for number in (1, 2)]
        self.beats = [Slot("beat", BEAT, env, self.folder)]
        for worker in self.workers:
            worker.program.wait_for_output(r" ready\.")
        # Last, because the play begins with them.
        self.listeners = [Slot(f"listener{number}", ["manage.py", "run_jetstream"], env, self.folder) for number in (1, 2)]

    def _watch(self) -> None:
        while not self._closing.wait(_WATCH_EVERY_S):
            for slot in self.slots:
                slot.look()

    # --- who does what ------------------------------------------------------------------------------------------

    def busiest_worker(self, chance: random.Random) -> Slot:
        """The worker that owns most lanes now; any, while the database cannot say."""
        return self._owner(self.workers, "lane:%", chance)

    def active_listener(self, chance: random.Random) -> Slot:
        return self._owner(self.listeners, "listener:%", chance)

    def _owner(self, slots: Sequence[Slot], leases: str, chance: random.Random) -> Slot:
        sql = "SELECT owner FROM delivery_lease WHERE name LIKE %s AND expires_at > now() GROUP BY owner ORDER BY count(*) DESC"
        with contextlib.suppress(psycopg.Error), self.postgres.connect() as server:
            for (owner,) in server.execute(sql, [leases]):
                for slot in slots:
                    if str(owner).endswith(f":{slot.program.process.pid}"):
                        return slot
        return chance.choice(slots)

    def ask(self, sql: str) -> tuple[int, ...] | None:
        """One row of numbers; None while the database is away."""
        with contextlib.suppress(psycopg.Error), self.postgres.connect() as server:
            row = server.execute(sql).fetchone()
            return tuple(int(str(value or 0)) for value in row) if row else None
        return None

    def wait_for_events(self) -> None:
        """Until the listener has saved how far it has come: from then on it may die."""
        deadline = monotonic() + PATIENCE_S
        while not (self.ask("SELECT count(*) FROM delivery_streamhost WHERE cursor IS NOT NULL") or (0,))[0]:
            if monotonic() > deadline:
                raise TimeoutError("nothing was stored:\n" + "\n".join(slot.program.output[-1000:] for slot in self.slots))
            sleep(0.1)


@contextlib.contextmanager
def house(folder: Path, seed: int) -> Iterator[House]:
    """Servers of its own, receivers, and a database that is ready."""
    with (
        Postgres(folder) as postgres,
        Redis(folder) as redis,
        receiving([(wish.name, wish.flaky) for wish in WISHES], seed) as receivers,
        engines("embedded", folder / "data") as env,
    ):
        ours = {
            "SECRET_KEY": secrets.token_urlsafe(50),
            "JETRELAY_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "JETRELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "DATABASE_URL": postgres.url,
            "BROKER_URL": redis.url,
        }
        built = House(postgres, redis, receivers, env | ours, folder)
        built.prepare()
        yield built
