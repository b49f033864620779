"""`manage.py run_jetstream` as a process, before there is anything to listen to."""

import signal
from pathlib import Path

import pytest

from tests.whole import Program, engines

pytestmark = [pytest.mark.whole, pytest.mark.timeout(120)]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    with engines("embedded", tmp_path / "data") as ready:
        return ready | {"SECRET_KEY": "only-for-this-test", "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "="}


def test_it_waits_for_a_database_that_is_away_when_it_starts(env: dict[str, str], tmp_path: Path) -> None:
    away = env | {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}
    with Program("manage.py", "run_jetstream", env=away, log=tmp_path / "listener.log") as listener:
        listener.wait_for_output("the listener waits for it before it starts")
        assert listener.stop(signal.SIGTERM) == 0, listener.output
        assert "Traceback" not in listener.output


def test_it_begins_once_the_database_is_there(env: dict[str, str], tmp_path: Path) -> None:
    with Program("manage.py", "run_jetstream", env=env, log=tmp_path / "listener.log") as listener:
        # An empty file: no tables yet.
        listener.wait_for_output("the listener waits for it before it starts")
        with Program("manage.py", "migrate", "-v0", env=env, log=tmp_path / "migrate.log") as migrate:
            assert migrate.process.wait(60) == 0, migrate.output
        # Tables, and nothing in them: now it can say what is missing.
        assert listener.process.wait(30) == 1
        assert "There is no Jetstream source yet: run `manage.py bootstrap` first" in listener.output
