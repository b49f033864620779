"""Two listeners as processes: one at work, one standing by, and the first one is killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from delivery.sources.jetstream import demo_events
from jetrelay.bench.ledger import Ledger
from jetrelay.bench.processes import free_port
from subscriptions.validation import V1_PATH, V2_PATH
from tests.threads import eventually
from tests.whole import ROOT, Program, engines, playing

pytestmark = [pytest.mark.whole, pytest.mark.timeout(180)]

EVENTS = 60_000


@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_a_standby_takes_over_at_full_speed_and_nothing_is_missing(kind: str, tmp_path: Path) -> None:
    stream, port = tmp_path / "stream.ndjson", free_port()
    demo_events.write(stream, EVENTS)
    v1 = f"ws://127.0.0.1:{port}{V1_PATH}"
    with engines(kind, tmp_path / "data") as env:
        env |= {"SECRET_KEY": "standby", "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETSTREAM_HOSTS": f"{v1},ws://127.0.0.1:{port}{V2_PATH}"}
        env |= {"WEBHOOK_URL": "http://127.0.0.1:9/", "JETSTREAM_COLLECTIONS": "*", "JETSTREAM_KINDS": "commit,identity,account"}
        for command in ("migrate", "bootstrap"):
            subprocess.run([sys.executable, "manage.py", command], env=env, cwd=ROOT, check=True, capture_output=True, timeout=60)
        ledger = Ledger(env.get("DATABASE_URL") or f"sqlite:///{tmp_path / 'data' / 'jetrelay.sqlite3'}")
        with Program("manage.py", "run_jetstream", env=env, log=tmp_path / "first.log") as first:
            first.wait_for_output("Next attempt in")
            with Program("manage.py", "run_jetstream", env=env, log=tmp_path / "second.log") as second:
                second.wait_for_output("this one stands by")
                # Only now is there a stream: the first one must be killed before it has stored all of it.
                with playing(stream, env, tmp_path / "player.log", "--port", str(port)):
                    eventually(lambda: ledger.count_stored() > 0)
                    first.process.send_signal(signal.SIGKILL)
                    first.process.wait(10)
                    assert ledger.count_stored() < EVENTS
                    eventually(lambda: ledger.count_stored() == EVENTS)
                    assert second.stop() == 0
        assert ledger.one("SELECT count(*) FROM delivery_event") == ledger.one("SELECT count(*) FROM delivery_delivery") == (EVENTS,)
        assert ledger.one("SELECT count(*) FROM delivery_streamgap") == (0,)
