"""Where an installation reaches itself, on whatever address it listens."""

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from jetrelay import bootstrap
from jetrelay.bench.processes import free_port
from jetrelay.inbox.models import Inbox
from jetrelay.management.commands import up as up_command
from subscriptions import ourselves
from tests.threads import eventually
from tests.whole import ROOT, engines, up

HOSTS = {
    "127.0.0.1": "http://127.0.0.1:8000",
    "0.0.0.0": "http://127.0.0.1:8000",
    "192.0.2.7": "http://192.0.2.7:8000",
    "::1": "http://[::1]:8000",
    "[::1]": "http://[::1]:8000",
    "::": "http://[::1]:8000",
    "0:0:0:0:0:0:0:0": "http://[::1]:8000",
    "2001:db8::7": "http://[2001:db8::7]:8000",
    "localhost": "http://localhost:8000",
    "relay.lan": "http://relay.lan:8000",
}


@pytest.mark.parametrize("host", HOSTS)
def test_it_knows_its_url(host: str) -> None:
    assert ourselves.url(ourselves.bare(host), 8000) == HOSTS[host]


@pytest.mark.django_db
@pytest.mark.parametrize("host", [host for host in HOSTS if not host.startswith("[")])
def test_the_built_in_inbox_is_where_somebody_listens(host: str, settings: object) -> None:
    settings.HOST = host  # type: ignore[attr-defined]
    said = list(bootstrap.bootstrap())
    endpoint = Inbox.objects.get().endpoint
    assert endpoint.url.startswith(f"{HOSTS[host]}/inbox/")
    assert endpoint.url_is_operators
    assert f"{HOSTS[host]}/inbox/" in said[-1]
    # As on the next start, with another one.
    settings.HOST = "127.0.0.1"  # type: ignore[attr-defined]
    list(bootstrap.bootstrap())
    assert Inbox.objects.get().endpoint.url.startswith("http://127.0.0.1:8000/inbox/")


@pytest.mark.parametrize("host", ["*", ".example.com", "a b", "http://x", "x/y", "[relay]", "-x", "", "a" * 254])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="write an address or a name of this machine"):
        ourselves.bare(host)


@pytest.mark.parametrize(("host", "names"), [("192.0.2.7", ["192.0.2.7"]), ("relay.lan", ["relay.lan"]), ("2001:db8::7", ["[2001:db8::7]"]), ("::", [])])
def test_it_answers_to_the_name_by_which_it_reaches_itself(host: str, names: list[str], tmp_path: Path) -> None:
    code = "from jetrelay import settings; print(settings.ALLOWED_HOSTS[3:])"
    env = {"PATH": os.environ["PATH"], "JETRELAY_DATA_DIR": str(tmp_path), "JETRELAY_HOST": host}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str(names)


def test_its_program_says_whether_somebody_is_there(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "JETRELAY_HOST": "0.0.0.0", "PORT": str(free_port())}
    assert subprocess.run([sys.executable, "-m", "subscriptions.ourselves"], cwd=ROOT, env=env, check=False, timeout=60).returncode == 1


def test_the_server_is_given_an_address_where_a_name_is_set() -> None:
    """It takes no names."""
    assert {up_command.address_of(host) for host in ("localhost", "127.0.0.1", "::1")} <= {"127.0.0.1", "::1"}


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.whole
@pytest.mark.timeout(180)
@pytest.mark.parametrize("host", ["::1", "::", "localhost"])
def test_events_arrive_in_the_built_in_inbox(host: str, tmp_path: Path) -> None:
    if not _has_ipv6():
        pytest.skip("wants IPv6 on loopback")
    with engines("embedded", tmp_path / "data") as env, up(env | {"JETRELAY_HOST": host}, tmp_path / "up.log", "--demo") as program:
        shown = program.wait_for_output(r"Jetrelay is running: (\S+)/ with")[1]
        program.wait_for_output(r"Watch them arrive: (\S+)/inbox/")
        with closing(sqlite3.connect(tmp_path / "data" / "demo" / "jetrelay.sqlite3", timeout=30)) as database:
            eventually(lambda: database.execute("SELECT count(*) FROM delivery_attempt WHERE status = 200").fetchone()[0] > 0)
        port = int(shown.rpartition(":")[2])
        asking = [sys.executable, "-m", "subscriptions.ourselves"]
        assert subprocess.run(asking, cwd=ROOT, env=env | {"JETRELAY_HOST": host, "PORT": str(port)}, check=False, timeout=60).returncode == 0
        assert program.stop() == 0
