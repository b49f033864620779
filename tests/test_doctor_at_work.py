"""`manage.py doctor` as an operator runs it: on an installation that is well, and on some that are not."""

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from jetrelay.bench.processes import free_port
from tests.builders import frame
from tests.hosts import playing
from tests.whole import ROOT, engines, up

# Far above what its own limits add up to on a busy machine; what hangs would take for ever.
BOUND_S = 110
# How long an installation may take to settle after its page answers, in runs of the doctor.
RUNS = 12


def doctor(env: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "manage.py", "doctor", *options], env=dict(env), cwd=ROOT, capture_output=True, text=True, timeout=BOUND_S)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def examined(env: Mapping[str, str]) -> tuple[int, dict[str, list[tuple[str, str]]], dict[str, Any]]:
    """Exit code, (level, what was found) by check, and the whole document."""
    done = doctor(env, "--json")
    document = json.loads(done.stdout)
    found: dict[str, list[tuple[str, str]]] = {}
    for each in document["findings"]:
        found.setdefault(each["check"], []).append((each["level"], each["found"]))
    assert document["healthy"] is (done.returncode == 0)
    return done.returncode, found, document


def manage(env: Mapping[str, str], *words: str) -> None:
    done = subprocess.run([sys.executable, "manage.py", *words], env=dict(env), cwd=ROOT, capture_output=True, text=True, timeout=BOUND_S)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "postgresql"])
def test_an_installation_that_is_well(kind: str, tmp_path: Path) -> None:
    port = str(free_port())
    with playing([frame(number) for number in range(5)]) as url, engines(kind, tmp_path / "data") as env:
        env |= {"JETSTREAM_HOSTS": url, "PORT": port, "JETSTREAM_COLLECTIONS": "*"}
        with up(env, tmp_path / "up.log", "--port", port) as program:
            for line in ("Jetrelay is running", "subscribe: connected", "celery@.* ready"):
                program.wait_for_output(line)
            for _ in range(RUNS):
                code, found, document = examined(env)
                if code == 0:
                    break
            assert code == 0, document
            assert found["worker"][-1][0] == found["beat"][-1][0] == found["listener"][-1][0] == found["names"][-1][0] == "ok"
            assert not [name for name, told in found.items() if told[-1][1].startswith("could not be looked at")]
            shown = doctor(env).stdout
            assert shown.splitlines()[-1].startswith(f"{sum(map(len, found.values()))} findings: ")


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        env |= {"JETRELAY_LANES": "many"}
        code, found, _ = examined(env)
        assert (code, found["settings"]) == (1, [("problem", "JETRELAY_LANES is 'many': use a whole number from 1 to 256.")])
        assert found["packages"]
        done = doctor(env)
    assert (done.returncode, "problem  settings" in done.stdout, "1 problem." in done.stdout) == (1, True, True)


def test_a_data_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with engines("embedded", tmp_path / "file" / "data") as env:
        code, found, _ = examined(env)
    assert (code, found["settings"][0][0], "JETRELAY_DATA_DIR" in found["settings"][0][1]) == (1, "problem", True)


def test_engines_that_take_connections_and_say_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as postgresql, socket.create_server(("127.0.0.1", 0)) as redis, engines("embedded", tmp_path / "data") as env:
        env |= {
            "DATABASE_URL": f"postgres://jetrelay:p4ss@127.0.0.1:{postgresql.getsockname()[1]}/jetrelay",
            "BROKER_URL": f"redis://:p4ss@127.0.0.1:{redis.getsockname()[1]}/0",
        }
        # No keys either, and nowhere to keep them.
        code, found, document = examined(env)
    assert code == 1
    assert [found[name][0][0] for name in ("database", "broker")] == ["problem", "problem"]
    assert [level for level, _ in found["keys"]] == ["problem", "problem"]
    assert {found[name][0] for name in ("migrations", "lanes", "encryption", "names")} == {("skipped", "not looked at, because of: database")}
    assert "p4ss" not in json.dumps(document)


def test_a_port_that_is_closed(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        env |= {"DATABASE_URL": f"postgres://jetrelay@127.0.0.1:{free_port()}/jetrelay", "BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
        code, found, _ = examined(env)
    assert (code, "refused" in found["database"][0][1], "refused" in found["broker"][0][1]) == (1, True, True)


@pytest.mark.whole
def test_an_installation_where_nothing_was_done_right(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        env |= {"SECRET_KEY": secrets.token_urlsafe(50), "JETRELAY_ENCRYPTION_KEYS": Fernet.generate_key().decode()}
        code, found, _ = examined(env)
        file = tmp_path / "data" / "jetrelay.sqlite3"
        assert (code, found["database"], file.exists()) == (1, [("problem", f"there is no file {file}")], False)
        file.touch()
        code, found, _ = examined(env)
        assert (code, found["migrations"]) == (1, [("problem", "the database has none of Jetrelay's tables")])
        assert found["lanes"][0][1].startswith("a table or a column is missing, see migrations")

        manage(env, "migrate", "-v0")
        manage(env, "bootstrap")
        manage(env, "migrate", "-v0", "delivery", "0007")
        env["JETRELAY_ENCRYPTION_KEYS"] = Fernet.generate_key().decode()
        code, found, _ = examined(env)
    assert code == 1
    assert "not applied: delivery.0008_gap_acknowledged" in found["migrations"][0][1]
    assert found["encryption"][0][1].startswith("no key opens what is stored as endpoint secret: 1 of them")
    assert found["beat"] == [("problem", "beat has never run")]
    assert found["worker"][0][0] == found["listener"][0][0] == "problem"
