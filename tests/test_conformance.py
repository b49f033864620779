"""The running API against its own OpenAPI document: Schemathesis makes up requests, and judges every answer."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.utils import timezone

from delivery.models import Delivery, Replay
from subscriptions import keys
from subscriptions.models import Endpoint, Source
from tests import web
from tests.builders import make_attempt, make_delivery, make_endpoint, make_event, make_gap, make_health, make_host, make_source, make_subscription, make_tenant
from tests.conformance import NOBODY
from tests.crowd import database_url
from tests.whole import ROOT

# Without it a few requests that are always the same; with it, so many of each operation, each time others.
EXAMPLES = os.environ.get("TEST_EXAMPLES")
CHOICE = ["--max-examples", EXAMPLES] if EXAMPLES else ["--max-examples", "4", "--seed", "1", "--generation-deterministic"]
HOST = "wss://host.example/subscribe"

pytestmark = [pytest.mark.whole, pytest.mark.django_db(transaction=True)]


@contextmanager
def serving(log: Path) -> Iterator[str]:
    """The web process alone, as `manage.py up` starts it: nothing delivers. Gives its URL."""
    # Nothing on loopback may be sent to either, which the other tests allow.
    env = {name: value for name, value in os.environ.items() if name != "JETRELAY_ALLOWED_NETWORKS"}
    env |= {"DATABASE_URL": database_url(), "JETRELAY_VERIFY_ENDPOINTS": "false"}
    with web.serving(env, log) as running:
        yield running.url


def made_key() -> tuple[str, str]:
    """A key that may do everything, and its id."""
    text = StringIO()
    call_command("create_api_key", *(f"--scope={scope}" for scope in keys.SCOPES), rate_limit=1_000_000, name="conformance", stdout=text, stderr=StringIO())
    found = keys.find(text.getvalue().strip())
    assert found is not None
    return text.getvalue().strip(), f"key_{found.key_id.hex}"


def rows() -> dict[str, list[str]]:
    """Some of everything. Gives their ids, by prefix."""
    now, tenant, jetstream = timezone.now(), make_tenant(), make_source()
    posted = [Source.objects.create(tenant=tenant, kind=Source.Kind.API, name=f"Source {number}", keep_unmatched=True) for number in range(3)]
    endpoints = [make_endpoint(url=f"{NOBODY}{number}") for number in range(20)]
    for endpoint, state in zip(endpoints, [*Endpoint.State.values[:4]] * 3, strict=False):
        Endpoint.objects.filter(pk=endpoint.pk).update(state=state)
    make_health(endpoint=endpoints[0])
    subscriptions = [make_subscription(endpoint=endpoint, source=jetstream) for endpoint in endpoints[:8]]
    subscriptions += [make_subscription(endpoint=endpoint, source=posted[0], kinds=["api"]) for endpoint in endpoints[8:16]]
    events = [make_event(source=jetstream) for _ in range(10)]
    deliveries = [
        make_delivery(event=event, endpoint=endpoint, state=state) for event in events for endpoint, state in zip(endpoints, Delivery.State, strict=False)
    ]
    for delivery in deliveries[:10]:
        make_attempt(delivery=delivery, status=500)
    replays = [Replay.objects.create(tenant=tenant, since=now - timedelta(hours=1), state=state) for state in Replay.State.values * 3]
    spare = [keys.issue(tenant, f"spare {number}", keys.SCOPES, rate_limit_per_s=9)[0] for number in range(10)]
    make_host(host=HOST)
    make_gap()
    found: dict[str, list[str]] = {}
    for row in [*posted, *endpoints, *subscriptions, *events, *deliveries, *replays, *spare]:
        found.setdefault(row.prefix, []).append(row.public_id)
    return found


@pytest.mark.timeout(0 if EXAMPLES else 300)
def test_it_answers_as_its_schema_says(tmp_path: Path) -> None:
    ids = rows()
    text, id = made_key()
    told = {"IDS": json.dumps(ids), "KEY": text, "KEY_ID": id, "HOST": HOST, "EVERY": "0" if EXAMPLES else "10"}
    env = os.environ | {"SCHEMATHESIS_HOOKS": "tests.conformance"} | {f"CONFORMANCE_{name}": value for name, value in told.items()}
    with serving(tmp_path / "server.log") as url:
        command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={ROOT / 'tests' / 'conformance.toml'}", "run", f"{url}/api/schema"]
        options = ["--checks", "all", "--continue-on-failure", "--no-color", *CHOICE]
        done = subprocess.run([*command, *options], cwd=tmp_path, env=env | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # What nobody may be sent: see conformance.py.
    assert [endpoint.url for endpoint in Endpoint.objects.exclude(state=Endpoint.State.DELETED) if not endpoint.url.startswith(NOBODY)] == []
