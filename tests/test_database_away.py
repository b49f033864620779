"""Pages and the API while the database is away: a process of its own, whose database is a closed port, a folder, or not there in part."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jetrelay.bench.processes import free_port
from tests.whole import ROOT

ASK = """
import json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "jetrelay.settings"
django.setup()
from django.test import Client
client = Client(raise_request_exception=False, SERVER_NAME="localhost")
client.cookies["sessionid"] = "of-somebody"
answers = {}
for path in json.load(sys.stdin):
    response = client.get(path, headers={"Authorization": "Bearer jr_" + "a" * 40, "X-Request-Id": "asked-here"})
    answers[path] = (response.status_code, response.headers["Content-Type"], response.headers.get("Retry-After", ""), response.content.decode())
json.dump(answers, sys.stdout)
"""
PAGES = ("/", "/deliveries/", "/admin/", "/admin/delivery/event/", "/inbox/token", "/nowhere/", "/account/")


def ask(folder: Path, database: str, *paths: str) -> tuple[dict[str, Any], str]:
    """What a process with this database answers, and what it logs."""
    env = dict(os.environ) | {"DATABASE_URL": database, "BROKER_URL": "", "JETRELAY_DATA_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", ASK], env=env, cwd=ROOT, input=json.dumps(paths), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("kind", ["closed port", "folder"])
def test_it_says_that_the_database_does_not_answer(kind: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    database = f"postgres://jetrelay@127.0.0.1:{free_port()}/jetrelay" if kind == "closed port" else f"sqlite:///{tmp_path}/folder"
    answers, log = ask(tmp_path, database, *PAGES, "/api/v1/events")
    document = json.loads(answers["/api/v1/events"][3])
    assert (answers.pop("/api/v1/events")[:2], document["code"], document["request_id"]) == ([503, "application/problem+json"], "unavailable", "asked-here")
    for path, (status, content_type, retry_after, body) in answers.items():
        assert (path, status, content_type[:9], retry_after) == (path, 503, "text/html", "5")
        assert "The database does not answer" in body
    assert "could not be answered, because the database does not answer" in log


def test_it_hides_no_other_failure(tmp_path: Path) -> None:
    """A database that answers, and has none of our tables."""
    answers, log = ask(tmp_path, f"sqlite:///{tmp_path}/empty.sqlite3", "/", "/admin/", "/api/v1/events")
    assert {status for status, *_ in answers.values()} == {500}
    assert "The API failed on GET /api/v1/events" in log
    assert "no such table" in log
