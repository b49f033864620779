"""Two listeners as processes: one at work, one standing by, and the first one is killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from delivery.sources.jetstream import demo_events
from jetrelay.bench.ledger import Ledger
from tests.threads import eventually
from tests.whole import ROOT, Program, engines, playing

pytestmark = [pytest.mark.whole, pytest.mark.timeout(180)]

EVENTS = 40_000


@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_a_standby_takes_over_at_full_speed_and_nothing_is_missing(kind: str, tmp_path: Path) -> None:
    stream = tmp_path / "stream.ndjson"
    demo_events.write(stream, EVENTS)
    with engines(kind, tmp_path / "data") as env, playing(stream, env, tmp_path / "player.log") as v1:
        v2 = v1.replace("/subscribe", "/xrpc/network.bsky.jetstream.subscribeEvents")
        env |= {"SECRET_KEY": "standby", "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETSTREAM_HOSTS": f"{v1},{v2}"}
        env |= {"WEBHOOK_URL": "http://127.0.0.1:9/", "JETSTREAM_COLLECTIONS": "*", "JETSTREAM_KINDS": "commit,identity,account"}
        for command in ("migrate", "bootstrap"):
            subprocess.run([sys.executable, "manage.py", command], env=env, cwd=ROOT, check=True, capture_output=True, timeout=60)
        database = env.get("DATABASE_URL") or f"sqlite:///{tmp_path / 'data' / 'jetrelay.sqlite3'}"
        ledger = Ledger(database)
        with Program("manage.py", "run_jetstream", env=env, log=tmp_path / "first.log") as first:
            first.wait_for_output(r"connected")
            with Program("manage.py", "run_jetstream", env=env, log=tmp_path / "second.log") as second:
                second.wait_for_output(r"this one stands by")
                eventually(lambda: ledger.count_stored() > 0)
                assert ledger.count_stored() < EVENTS
                first.process.send_signal(signal.SIGKILL)
                first.process.wait(10)
                eventually(lambda: ledger.count_stored() == EVENTS)
                assert second.stop() == 0
        assert ledger.one("SELECT count(*) FROM delivery_event") == ledger.one("SELECT count(*) FROM delivery_delivery") == (EVENTS,)
        assert ledger.one("SELECT count(*) FROM delivery_streamgap") == (0,)
