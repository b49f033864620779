"""From the data of 0.1.0 to this version, on both engines: nothing is lost, files are closed, and what lets in is kept otherwise."""

import contextlib
import json
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import requests
from standardwebhooks import Webhook

from jetrelay.bench.processes import free_port
from tests.receiver import Receiver
from tests.upgraded import MIGRATIONS, PASSWORD
from tests.whole import ROOT, Program, engines

pytestmark = pytest.mark.whole

KEYS = {"SECRET_KEY": "s" * 60, "JETRELAY_ENCRYPTION_KEYS": "A" * 43 + "="}
_COUNT = "import json, django; django.setup(); from django.apps import apps; from tests.upgraded import counted; print(json.dumps(counted(apps)))"


def run(*argv: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *argv], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(env: dict[str, str], query: str) -> list[Any]:
    if url := env.get("DATABASE_URL"):
        with psycopg.connect(url) as connection:
            return connection.execute(query).fetchall()
    with contextlib.closing(sqlite3.connect(Path(env["JETRELAY_DATA_DIR"]) / "jetrelay.sqlite3")) as connection:
        return connection.execute(query).fetchall()


def everything(folder: Path) -> list[Path]:
    """With PostgreSQL and Redis there may be nothing."""
    return [folder, *folder.rglob("*")] if folder.exists() else []


def test_it_names_migrations_that_there_are() -> None:
    for app, name in MIGRATIONS.items():
        folder = ROOT / ("jetrelay" if app in ("api", "inbox") else "") / app / "migrations"
        assert (folder / f"{name}.py").is_file()


@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_an_upgrade_from_0_1_0(kind: str, receiver: Receiver, tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    site = f"http://127.0.0.1:{port}"
    with engines(kind, data) as env:
        env |= KEYS | {"DJANGO_SETTINGS_MODULE": "jetrelay.settings", "PYTHONPATH": str(ROOT), "JETRELAY_ALLOWED_NETWORKS": "127.0.0.0/8"}
        env |= {"PORT": str(port), "JETSTREAM_HOSTS": "ws://127.0.0.1:9/subscribe"}
        before = json.loads(run("-m", "tests.upgraded", f"{receiver.url}/hook", str(port), env=env))
        assert all(before["rows"].values()), {table for table, keys in before["rows"].items() if not keys}
        assert cells(env, "SELECT session_key FROM django_session") == [(before["session"],)]
        for path in everything(data):
            path.chmod(0o755 if path.is_dir() else 0o644)

        said = run("manage.py", "migrate", "-v0", env=env)
        after = json.loads(run("-c", _COUNT, env=env))
        assert {table: set(keys) - set(after[table]) for table, keys in before["rows"].items() if set(keys) - set(after[table])} == {}
        assert {f"{stat.S_IMODE(path.stat().st_mode):o}" for path in everything(data)} <= {"700", "600"}
        assert not said

        log = tmp_path / "up.log"
        with Program("manage.py", "up", "--port", str(port), env=env, log=log) as program:
            program.wait_for_output("Jetrelay is running")
            assert f"{site}/inbox/{before['token']}" in program.output
            # What was pending is delivered, with the secret of old, and what was settled is not.
            arrived = receiver.wait_for(lambda got: len(got) >= 1)
            assert [request.body for request in arrived] == [b'{"number": 0}']
            Webhook(before["secret"]).verify(arrived[0].body, dict(arrived[0].headers))
            assert arrived[0].headers["authorization"] == "Bearer bearer-of-old"
            program_page = _inbox_page(site, before["token"])
            assert "evt_before" in program_page
            # The session is over, and says so; the password is not.
            old = requests.get(site, cookies={"sessionid": before["session"]}, timeout=10)
            assert "Your session has ended: sign in again." in old.text
            assert _signs_in(site)
            bearer = {"Authorization": f"Bearer {before['key']}"}
            listed = requests.get(f"{site}/api/v1/endpoints", headers=bearer, timeout=10).json()
            urls = {row["url"] for row in listed["data"]}
            assert urls == {f"{receiver.url}/hook", f"{site}/inbox/of/ep_{before['inbox_endpoint']}"}
            assert program.stop() == 0, program.output
        assert _open_words(env, before) == {}


def _inbox_page(site: str, token: str) -> str:
    """As soon as what was pending for it has arrived."""
    for _ in range(400):
        page = requests.get(f"{site}/inbox/{token}", timeout=10)
        assert page.status_code == 200
        if re.search(r'id="received">2<', page.text):
            return page.text
    raise AssertionError(page.text)


def _signs_in(site: str) -> bool:
    with requests.Session() as browser:
        page = browser.get(f"{site}/login/", timeout=10)
        form = {"csrfmiddlewaretoken": re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[0], "username": "ada", "password": PASSWORD}
        return browser.post(f"{site}/login/", form, headers={"Referer": site}, timeout=10).url == f"{site}/"


def _open_words(env: dict[str, str], before: dict[str, Any]) -> dict[str, list[str]]:
    """What let in at 0.1.0 and can be read somewhere: in a file, a table, or in what was deleted from one."""
    words = {name: before[name].encode() for name in ("session", "token", "key")}
    texts = {str(path): path.read_bytes() for path in Path(env["JETRELAY_DATA_DIR"]).rglob("*") if path.is_file()}
    if env.get("DATABASE_URL"):
        tables = [name for (name,) in cells(env, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        texts = {name: repr(cells(env, f'SELECT * FROM "{name}"')).encode() for name in tables}
    if url := env.get("BROKER_URL"):
        with redis.Redis.from_url(url) as broker:
            texts |= {str(key): key + (broker.dump(key) or b"") for key in broker.scan_iter()}
    found = {where: [name for name, word in words.items() if word in text] for where, text in texts.items()}
    return {where: names for where, names in found.items() if names}


def test_an_upgrade_says_that_sessions_end(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        env |= KEYS | {"DJANGO_SETTINGS_MODULE": "jetrelay.settings", "PYTHONPATH": str(ROOT)}
        run("-m", "tests.upgraded", "https://receiver.example/hook", "8000", env=env)
        port = free_port()
        with Program("manage.py", "up", "--port", str(port), env=env | {"JETSTREAM_HOSTS": "ws://127.0.0.1:9/subscribe"}, log=tmp_path / "log") as program:
            program.wait_for_output("Sessions that were ended: 1. .* has to sign in once more")
