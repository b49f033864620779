"""The units in deploy/systemd: systemd understands them, and they start what `manage.py up` starts."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands

from jetrelay.management.commands import up
from tests.whole import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("jetrelay*.*"))
SERVICES = {path.stem: path for path in UNITS if path.suffix == ".service"}
LASTING = sorted(set(SERVICES) - {"jetrelay-migrate"})
BIN = "/opt/jetrelay/.venv/bin/"


def lines(name: str) -> list[tuple[str, str]]:
    """Every assignment of a unit: some keys may be given several times."""
    found = (line.partition("=") for line in SERVICES[name].read_text().splitlines() if "=" in line and not line.startswith("#"))
    return [(key, value) for key, _, value in found]


def command(name: str) -> list[str]:
    """What it runs, behind the name of the program."""
    (line,) = (value for key, value in lines(name) if key == "ExecStart")
    assert line.startswith(BIN)
    return shlex.split(line)[1:]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_they_are_understood(tmp_path: Path) -> None:
    # What they start is where this environment is, and not where an operator would put it.
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace(BIN, f"{sys.prefix}/bin/").replace("/opt/jetrelay", str(ROOT)))
    names = [str(tmp_path / path.name.replace("@.", "@1.")) for path in UNITS if path.suffix != ".example"]
    (tmp_path / "jetrelay-worker@1.service").write_text((tmp_path / "jetrelay-worker@.service").read_text())
    done = subprocess.run(["systemd-analyze", "--man=no", "verify", *names], capture_output=True, text=True, timeout=60, check=False)
    # It also looks at what the system itself has installed, which is none of ours.
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "jetrelay" in line]
    assert ours == []


@pytest.mark.parametrize("name", LASTING)
def test_they_last_and_end_in_peace(name: str) -> None:
    unit = dict(lines(name))
    assert (unit["Restart"], unit["StartLimitIntervalSec"], unit["Type"]) == ("always", "0", "exec")
    assert (unit["KillSignal"], unit["KillMode"], unit["TimeoutStopSec"]) == ("SIGTERM", "mixed", "30s")
    assert unit["WantedBy"] == unit["PartOf"] == "jetrelay.target"


def test_they_are_hardened_alike() -> None:
    of_the_web, *others = ([line for line in lines(name) if line[0].startswith(("Protect", "Restrict", "SystemCall", "NoNew", "Cap"))] for name in SERVICES)
    assert ("ProtectSystem", "strict") in of_the_web
    assert ("NoNewPrivileges", "yes") in of_the_web
    assert [other for other in others if other != of_the_web] == []


def test_they_start_what_up_starts() -> None:
    under_up = {child.name: list(child.argv[1:]) for child in up.children({}, "${JETRELAY_HOST}", 8000, None)}
    worker = command("jetrelay-worker@")
    named = worker.index("--hostname")
    assert ["-m", "celery", *worker[:named], *worker[named + 2 :]] == under_up["worker"]
    assert ["-m", "celery", *command("jetrelay-beat")] == under_up["beat"]
    assert command("jetrelay-listener")[-1:] == under_up["listener"][-1:]
    web = [word.replace("/opt/jetrelay", str(settings.BASE_DIR)) for word in command("jetrelay-web")]
    assert sorted([*web, "-m", "granian", "--no-access-log"]) == sorted("${PORT}" if word == "8000" else word for word in under_up["web"])


def test_the_database_is_prepared_by_commands_that_exist() -> None:
    commands = [shlex.split(value)[2] for key, value in lines("jetrelay-migrate") if key == "ExecStart"]
    assert commands == ["migrate", "bootstrap"]
    assert set(commands) <= set(get_commands())


def test_the_example_of_an_environment_names_settings() -> None:
    text = (ROOT / "deploy" / "systemd" / "jetrelay.env.example").read_text()
    names = {line.lstrip("#").partition("=")[0] for line in text.splitlines() if "=" in line and not line.startswith("# ")}
    source = "".join((ROOT / "jetrelay" / name).read_text() for name in ("settings.py", "environment.py"))
    assert {"SECRET_KEY", "JETRELAY_ENCRYPTION_KEYS", "DATABASE_URL", "BROKER_URL"} <= names
    assert [name for name in names if f'"{name}"' not in source] == []
