"""Beat as a process, before there is a database."""

import signal
from pathlib import Path

import pytest

from jetrelay.bench.processes import BEAT
from tests.whole import Program, engines

pytestmark = [pytest.mark.whole, pytest.mark.timeout(120)]


def test_it_waits_for_a_database_that_is_away_when_it_starts(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        away = env | {"SECRET_KEY": "beat", "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}
        with Program(*BEAT, env=away, log=tmp_path / "beat.log") as beat:
            beat.wait_for_output("beat waits for it before it starts")
            assert beat.stop(signal.SIGTERM) == 0, beat.output
            assert "Traceback" not in beat.output
