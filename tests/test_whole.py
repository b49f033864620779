"""End to end: a real stream in, signed webhooks out, on the embedded engines and on PostgreSQL and Redis.

Signatures are judged by the `standardwebhooks` package, not by our own code.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psycopg
import pytest
from standardwebhooks import Webhook

from delivery.sources.jetstream import demo_events
from subscriptions.models import new_secret
from tests.receiver import Received, Receiver
from tests.whole import SHARED, Program, engines, playing, up

pytestmark = [pytest.mark.whole, pytest.mark.timeout(180)]

TOKEN = "a-bearer-token"


@pytest.fixture(params=["embedded", "postgres+redis"])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    with engines(request.param, tmp_path / "data") as ready:
        yield ready


@pytest.fixture(params=["recorded", "synthetic"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "recorded":
        recorded = SHARED / "v1_live_2026-07-04.ndjson"
        if not recorded.exists():
            pytest.skip("wants the recorded stream, which is not part of the project")
        return recorded
    return synthetic(tmp_path, 500)


def synthetic(folder: Path, count: int) -> Path:
    path = folder / "stream.ndjson"
    demo_events.write(path, count)
    return path


def commits(stream: Path, collections: tuple[str, ...]) -> list[bytes]:
    """The lines of the stream that a subscription to these collections wants."""
    lines = [line for line in stream.read_bytes().split(b"\n") if line]
    return [line for line in lines if json.loads(line)["kind"] == "commit" and json.loads(line)["commit"]["collection"].startswith(collections)]


def webhook(receiver: Receiver, secret: str, collections: str) -> dict[str, str]:
    return {"WEBHOOK_URL": receiver.url, "WEBHOOK_SECRET": secret, "WEBHOOK_BEARER_TOKEN": TOKEN, "JETSTREAM_COLLECTIONS": collections}


def bodies(requests: list[Received]) -> set[bytes]:
    return {request.body for request in requests}


def assert_genuine(requests: list[Received], secret: str) -> None:
    judge = Webhook(secret)
    for request in requests:
        judge.verify(request.body, dict(request.headers))
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("Jetrelay/")


def test_it_delivers_every_matching_event_byte_for_byte(env: dict[str, str], stream: Path, receiver: Receiver, tmp_path: Path) -> None:
    secret, owed = new_secret(), commits(stream, ("app.bsky.feed.", "app.bsky.graph.follow"))
    with playing(stream, env, tmp_path / "player.log") as url:
        whole = env | webhook(receiver, secret, "app.bsky.feed.*, app.bsky.graph.follow") | {"JETSTREAM_HOSTS": url}
        with up(whole, tmp_path / "up.log") as program:
            requests = receiver.wait_for(lambda got: len(got) >= len(owed))
            assert program.stop(signal.SIGINT) == 0, program.output
    assert sorted(request.body for request in requests) == sorted(owed)
    assert len({request.webhook_id for request in requests}) == len(owed)
    assert_genuine(requests, secret)
    assert len(receiver.requests) == len(owed)


def test_it_loses_nothing_when_worker_and_listener_are_killed(env: dict[str, str], receiver: Receiver, tmp_path: Path) -> None:
    stream, secret = synthetic(tmp_path, 3000), new_secret()
    owed = commits(stream, ("",))
    with playing(stream, env, tmp_path / "player.log", "--rate", "300") as url:
        whole = env | webhook(receiver, secret, "*") | {"JETSTREAM_HOSTS": url}
        with up(whole, tmp_path / "up.log") as program:
            receiver.wait_for(lambda got: len(got) >= 300)
            os.kill(program.child(" worker "), signal.SIGKILL)
            program.wait_for_output(r"worker .*ready", times=2)
            receiver.wait_for(lambda got: len(bodies(got)) >= 1000)
            os.kill(program.child("run_jetstream"), signal.SIGKILL)
            requests = receiver.wait_for(lambda got: bodies(got) >= set(owed), 60)
            assert program.stop(signal.SIGINT) == 0, program.output
    assert bodies(requests) == set(owed)
    ids: dict[bytes, set[str]] = {}
    for request in requests:
        ids.setdefault(request.body, set()).add(request.webhook_id)
    assert {len(each) for each in ids.values()} == {1}, "a repeat must share its webhook-id"
    assert_genuine(requests, secret)


def test_it_survives_a_restart_of_postgresql_and_a_flushed_broker(receiver: Receiver, tmp_path: Path) -> None:
    stream, secret = synthetic(tmp_path, 1500), new_secret()
    owed = commits(stream, ("",))
    with engines("postgres+redis", tmp_path / "data") as env, playing(stream, env, tmp_path / "player.log", "--rate", "300") as url:
        import redis

        whole = env | webhook(receiver, secret, "*") | {"JETSTREAM_HOSTS": url}
        with up(whole, tmp_path / "up.log") as program:
            receiver.wait_for(lambda got: len(got) >= 200)
            # What a restart does to everybody at once: all connections of this database end.
            with psycopg.connect(env["DATABASE_URL"], autocommit=True) as server:
                server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
            with redis.Redis.from_url(env["BROKER_URL"]) as broker:
                broker.flushdb()
            requests = receiver.wait_for(lambda got: bodies(got) >= set(owed), 60)
            assert program.stop(signal.SIGINT) == 0, program.output
    assert bodies(requests) == set(owed)


def test_it_shows_the_main_job_with_nothing_set(tmp_path: Path) -> None:
    stream = synthetic(tmp_path, 300)
    with (
        engines("embedded", tmp_path / "data") as env,
        playing(stream, env, tmp_path / "player.log") as url,
        up(env | {"JETSTREAM_HOSTS": url}, tmp_path / "up.log") as program,
    ):
        inbox = program.wait_for_output(r"app\.bsky\.actor\.profile\) go to the built-in inbox.*(http://\S+)")[1]
        program.wait_for_output("Jetrelay is running")
        wait_for_page(inbox, "Verified</span>")
        assert program.stop(signal.SIGINT) == 0


def test_it_prints_nothing_but_json_where_that_is_wanted(receiver: Receiver, tmp_path: Path) -> None:
    stream, secret = synthetic(tmp_path, 100), new_secret()
    owed = commits(stream, ("",))
    with engines("embedded", tmp_path / "data") as env, playing(stream, env, tmp_path / "player.log") as url:
        whole = env | webhook(receiver, secret, "*") | {"JETSTREAM_HOSTS": url, "JETRELAY_LOG_FORMAT": "json", "JETRELAY_LOG_REQUESTS": "1"}
        with up(whole, tmp_path / "up.log") as program:
            receiver.wait_for(lambda got: len(got) >= len(owed))
            program.wait_for_output("Jetrelay is running")
            program.wait_for_output('"path":"/health"')
            assert program.stop(signal.SIGINT) == 0, program.output
    lines = [json.loads(line) for line in program.output.splitlines()]
    assert {"up", "bootstrap", "web", "listener", "worker"} <= {line["process"] for line in lines}
    attempts = [line for line in lines if line["logger"] == "delivery.attempts"]
    assert sorted(line["event"] for line in attempts) == sorted(request.webhook_id for request in receiver.requests)
    assert {(line["process"], line["outcome"], line["task"]) for line in attempts} == {("worker", "delivered", "delivery.drain")}
    assert secret not in program.output
    assert TOKEN not in program.output
    assert "with the password (hidden)" in program.output


def test_it_names_the_demo_when_no_host_answers(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env, up(env | {"JETSTREAM_HOSTS": "ws://127.0.0.1:9/subscribe"}, tmp_path / "up.log") as program:
        program.wait_for_output(r"No Jetstream host has answered for 10 s .*make demo")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WEBHOOK_URL", "ftp://example.com", "WEBHOOK_URL: 'ftp://example.com' is not a URL"),
        ("WEBHOOK_URL", "https://example.com/hook", "WEBHOOK_URL is set, but nothing says what to send there"),
        ("JETSTREAM_COLLECTIONS", "app.bsky.fo*", "JETSTREAM_COLLECTIONS: 'app.bsky.fo*' is not a collection"),
        ("JETSTREAM_HOSTS", "https://example.com", "JETSTREAM_HOSTS: 'https://example.com' is not a URL"),
        ("JETSTREAM_DIDS", "alice.example", "JETSTREAM_DIDS: 'alice.example' is not a DID"),
        ("JETSTREAM_KINDS", "posts", "JETSTREAM_KINDS: 'posts' is not a kind"),
        ("WEBHOOK_SECRET", "hunter2", "WEBHOOK_SECRET: A signing secret is whsec_"),
        ("WEBHOOK_BEARER_TOKEN", "two words", "WEBHOOK_BEARER_TOKEN: A bearer token"),
        ("JETRELAY_ALLOWED_NETWORKS", "10.0.0.0/33", "JETRELAY_ALLOWED_NETWORKS: '10.0.0.0/33' is not valid"),
        ("JETRELAY_LANES", "many", "JETRELAY_LANES is 'many'"),
        ("DATABASE_URL", "mysql://localhost/x", "DATABASE_URL starts with 'mysql'"),
        ("BROKER_URL", "kafka://localhost", "BROKER_URL is not a Redis URL"),
        ("BROKER_URL", "redis://127.0.0.1:1/0", "BROKER_URL: Redis does not answer"),
        ("DATABASE_URL", "postgres://nobody:nothing@127.0.0.1:1/none", "The database could not be prepared"),
        ("PORT", "80000", "PORT is '80000'"),
    ],
)
def test_it_refuses_a_wrong_setting_by_name(name: str, value: str, words: str, tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env, Program("manage.py", "up", env=env | {name: value}, log=tmp_path / "up.log") as program:
        assert program.process.wait(30) == 1
        assert words in program.output
        assert "Traceback" not in program.output


def test_it_keeps_a_second_one_off_its_data(tmp_path: Path) -> None:
    with (
        engines("embedded", tmp_path / "data") as env,
        up(env | {"JETSTREAM_HOSTS": "ws://127.0.0.1:9/subscribe"}, tmp_path / "first.log") as first,
    ):
        first.wait_for_output("Jetrelay is running")
        with up(env, tmp_path / "second.log") as second:
            assert second.process.wait(30) == 1
            assert f"another `up` (process {first.process.pid}) uses" in second.output


def wait_for_page(url: str, words: str, timeout_s: float = 30) -> None:
    import requests

    deadline = monotonic() + timeout_s
    while words not in requests.get(url, timeout=5).text:
        assert monotonic() < deadline, f"{words!r} never stood on {url}"
