"""Benchmarks, as an operator starts them: one JSON document, and nothing left behind."""

import contextlib
import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep
from typing import Any

import psycopg
import pytest
import redis

from jetrelay.bench import page_walk
from jetrelay.bench.interface import options_of
from jetrelay.bench.registry import BENCHMARKS
from jetrelay.bench.scratch import database
from tests.test_members import METHODS
from tests.whole import ROOT, engines

EVENTS = 500
UNITS = ("_per_delivery", "_queries", "_per_s", "_s", "_ms", "_bytes", "_percent", "_blocks")
COUNTS = {"baseline_ratio", "ratio", "events", "requests", "delivered", "attempts", "owed", "drained", "endpoints", "subscriptions"}
COUNTS |= {
    *("unaccounted", "lost", "duplicates", "metrics_differ", "pruned", "pages_failed", "gaps", "dead", "samples"),
    "stored",
    "connections",
    "workers",
    "held",
    "greedy_tenants",
    "few_endpoints_per_event",
    "many_endpoints_per_event",
    "pending",
    "deep_pending",
    "settled",
    "rounds",
    "deliveries",
}
STREAM = ("--events", str(EVENTS))


def bench(env: dict[str, str], name: str, folder: Path, *options: str) -> dict[str, Any]:
    """Run it with temporary files in this folder, and see that nothing of it is left. Returns its document."""
    folder.mkdir()
    argv = [sys.executable, "manage.py", "bench", name, "--json", *options]
    started = env | {"SECRET_KEY": "bench", "TMPDIR": str(folder)}
    with subprocess.Popen(argv, env=started, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, said = process.communicate(timeout=110)
        finally:
            # Where it takes too long it may tidy up all the same.
            process.terminate()
    assert process.returncode == 0, said
    assert_nothing_is_left(env, process.pid, folder)
    (line,) = out.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["name"] == name
    assert found["ratio"] > 0
    assert not [key for key, value in found.items() if isinstance(value, int | float) and key not in COUNTS and not key.endswith(UNITS)]
    return found


def assert_nothing_is_left(env: dict[str, str], pid: int, folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []
    if env.get("DATABASE_URL", "").startswith("postgres"):
        with psycopg.connect(env["DATABASE_URL"]) as server:
            # Others may be at it on this server.
            assert server.execute(f"SELECT datname FROM pg_database WHERE datname LIKE 'jetrelay_bench_{pid}_%'").fetchall() == []


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that were told to put temporary files into this folder (Linux; empty elsewhere)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
    return found


def assert_measured(found: dict[str, Any]) -> None:
    assert found["events"] == found["delivered"] == found["attempts"] == EVENTS
    assert 0 < found["ratio"] < 2
    assert found["ratio"] == pytest.approx(found["pipeline_events_per_s"] / found["limit_requests_per_s"], abs=0.01)
    assert found["baseline_ratio"] == pytest.approx(found["pipeline_events_per_s"] / found["baseline_per_s"], abs=0.1, rel=0.02)
    assert 0 < found["stored_seconds_s"] <= found["seconds_s"]
    assert found["mean_body_bytes"] > 100


def test_it_measures_the_limit(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        found = bench(env, "limit", tmp_path / "tmp", *STREAM)
    assert (found["ratio"], found["requests"]) == (1.0, EVENTS)
    assert found["limit_requests_per_s"] == pytest.approx(EVENTS / found["seconds_s"], rel=0.05)


@pytest.mark.whole
def test_it_measures_the_pipeline_on_the_embedded_engines(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        found = bench(env, "pipeline", tmp_path / "tmp", *STREAM, "--baseline", "100")
    assert_measured(found)
    assert found["database"] == "sqlite"
    # The installation's own database was not touched: there is none yet.
    assert not (tmp_path / "data" / "jetrelay.sqlite3").exists()


@pytest.mark.whole
def test_it_measures_the_pipeline_on_postgresql_and_redis(tmp_path: Path) -> None:
    with engines("postgres+redis", tmp_path / "data") as env, psycopg.connect(env["DATABASE_URL"]) as server, redis.Redis.from_url(env["BROKER_URL"]) as broker:
        found = bench(env, "pipeline", tmp_path / "tmp", *STREAM, "--baseline", "100")
        assert server.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        assert broker.dbsize() == 0
    assert_measured(found)
    assert found["database"].startswith("postgres")


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_it_measures_a_backlog_beside_one_task_for_each_delivery(kind: str, tmp_path: Path) -> None:
    with engines(kind, tmp_path / "data") as env:
        found = bench(env, "drain", tmp_path / "tmp", "--deliveries", "2000", "--baseline", "100")
    assert found["ratio"] == pytest.approx(found["drain_per_s"] / found["limit_requests_per_s"], abs=0.01)
    assert found["baseline_ratio"] == pytest.approx(found["drain_per_s"] / found["baseline_per_s"], abs=0.1, rel=0.02)
    assert found["baseline_per_s"] == max(found["baseline_prefork_per_s"], found["baseline_threads_per_s"]) > 0


@pytest.mark.whole
@pytest.mark.parametrize(("kind", "wire"), [("embedded", "v1"), ("postgres+redis", "v2")])
def test_it_measures_the_intake(kind: str, wire: str, tmp_path: Path) -> None:
    with engines(kind, tmp_path / "data") as env:
        found = bench(env, "intake", tmp_path / "tmp", *STREAM, "--wire", wire)
    assert found["events"] == found["owed"] == EVENTS
    assert found["ratio"] == pytest.approx(found["stored_events_per_s"] / found["decoded_events_per_s"], abs=0.01)
    assert (found["wire"], found["database"].startswith("postgres")) == (wire, kind != "embedded")
    assert 10_000_000 < found["rss_at_half_bytes"] <= found["peak_rss_bytes"]


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_it_measures_healthy_endpoints_alone_and_beside_bad_neighbours(kind: str, tmp_path: Path) -> None:
    # More than any machine drains meanwhile.
    small = ("--endpoints", "4", "--seconds", "2", "--hanging", "3", "--backlog", "100", "--drain-per-s", "20000")
    with engines(kind, tmp_path / "data") as env:
        found = bench(env, "isolation", tmp_path / "tmp", *small)
    assert found["ratio"] == pytest.approx(found["beside_p95_ms"] / found["alone_p95_ms"], rel=0.05)
    assert 0 < found["alone_p50_ms"] <= found["alone_p95_ms"] <= found["alone_p99_ms"]
    assert 0 < found["delivered"] <= 2 * 4 * 4 * 2 + 8
    # The backlog was being sent all the while, and there was more of it.
    assert found["drained"] > 0
    assert found["owed"] > 0


@pytest.mark.whole
def test_it_measures_a_well_behaved_tenant_beside_a_greedy_one(tmp_path: Path) -> None:
    small = ("--seconds", "1", "--alone", "1", "--only", "keys")
    with engines("embedded", tmp_path / "data") as env:
        found = bench(env, "greed", tmp_path / "tmp", *small)
    (row,) = found["rows"].values()
    assert list(found["rows"]) == ["keys"]
    assert (found["greedy_tenants"], found["held"]) == (1, int(row["verdict"] == "holds"))
    assert found["ratio"] == row["ratio"]
    assert row["ratio"] == pytest.approx(row["beside_p95_ms"] / row["alone_p95_ms"], rel=0.1)
    assert 0 < row["alone_p50_ms"] <= row["alone_p95_ms"]
    assert 0 < row["beside_p50_ms"] <= row["beside_p95_ms"]
    assert min(row[what] for what in ("stored_p95_ms", "health_ms", "page_ms")) > 0
    assert min(row["web_mb"], row["worker_mb"]) > 10


@pytest.mark.parametrize("order", ["none", "subject"])
def test_it_measures_deliveries_beside_a_session_that_is_idle_in_a_transaction(order: str, tmp_path: Path) -> None:
    with engines("postgres+redis", tmp_path / "data") as env:
        found = bench(env, "bystander", tmp_path / "tmp", "--per-s", "40", "--endpoints", "2", "--seconds", "2", "--idle", "1", "--order", order)
    assert found["ratio"] == pytest.approx(found["beside_p95_ms"] / found["alone_p95_ms"], rel=0.05)
    assert found["delivered"] > 0
    assert found["beside_entries_per_delivery"] > 0


@pytest.mark.whole
def test_it_says_so_when_the_backlog_does_not_last(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    argv = [sys.executable, "manage.py", "bench", "isolation", "--endpoints", "1", "--seconds", "1", "--hanging", "1", "--backlog", "1", "--drain-per-s", "1"]
    with engines("embedded", tmp_path / "data") as env:
        env |= {"SECRET_KEY": "bench", "TMPDIR": str(folder)}
        done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1
    assert "give a larger --drain-per-s" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_it_measures_many_endpoints(kind: str, tmp_path: Path) -> None:
    small = ("--endpoints", "20", "--per-s", "2", "--seconds", "2", "--events", "1000", "--subscriptions", "1000")
    with engines(kind, tmp_path / "data") as env:
        found = bench(env, "fanout", tmp_path / "tmp", *small)
    assert (found["endpoints"], found["offered_per_s"], found["subscriptions"]) == (20, 40, 1000)
    assert 0 < found["delivered"] <= 100
    assert found["delivered_per_s"] > 0
    assert 0 < found["delivered_p50_ms"] <= found["delivered_p95_ms"]


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_it_measures_ingest_beside_a_transaction_for_each_request(kind: str, tmp_path: Path) -> None:
    with engines(kind, tmp_path / "data") as env:
        found = bench(env, "ingest", tmp_path / "tmp", "--connections", "4", "--seconds", "1")
    assert found["ratio"] == pytest.approx(found["ingest_events_per_s"] / found["single_events_per_s"], rel=0.1)
    assert 0 < found["events"] <= found["stored"]
    assert 0 < found["ingest_p50_ms"] <= found["ingest_p95_ms"]
    assert found["client"] == ("wrk" if shutil.which("wrk") else "libcurl")


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_it_measures_the_gateway_from_the_post_to_the_delivery(kind: str, tmp_path: Path) -> None:
    small = ("--connections", "4", "--seconds", "1", "--requests", "500")
    with engines(kind, tmp_path / "data") as env:
        # Without wrk, whether it is installed or not.
        found = bench(env | {"PATH": str(tmp_path)}, "gateway", tmp_path / "tmp", *small)
    assert found["ratio"] == pytest.approx(found["gateway_events_per_s"] / found["limit_requests_per_s"], abs=0.01)
    assert found["delivered"] > 0
    assert 0 < found["delivered_p50_ms"] <= found["delivered_p95_ms"]
    assert found["client"] == "libcurl"


def test_it_measures_matching_by_few_and_by_many(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        found = bench(env, "matching", tmp_path / "tmp", "--events", "2000", "--subscriptions", "10000")
    assert found["many_matched_events_per_s"] > 0
    # What an event costs may depend on how many want it, so as many must want it in both.
    assert found["few_endpoints_per_event"] == pytest.approx(found["many_endpoints_per_event"], rel=0.15)
    assert found["few_endpoints_per_event"] > 2


@pytest.mark.whole
def test_it_measures_how_fast_shallow_and_deep_tables_drain(tmp_path: Path) -> None:
    small = ("--shallow", "2000", "--deep", "20000", "--settled", "20000", "--rounds", "1")
    with engines("postgres+redis", tmp_path / "data") as env:
        found = bench(env, "depth", tmp_path / "tmp", *small)
    rates = [found[f"{case}_per_s"] for case in ("shallow", "deep", "settled")]
    assert found["ratio"] == pytest.approx(max(rates) / min(rates), abs=0.01)


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_it_measures_every_page(kind: str, tmp_path: Path) -> None:
    with engines(kind, tmp_path / "data") as env:
        found = bench(env, "pages", tmp_path / "tmp", "--deliveries", "1000", "--endpoints", "20", "--rounds", "1")
    pages = found["pages"]
    assert len(pages) > 100
    assert all(page["queries"] > 0 and 0 < page["p50_ms"] <= page["p95_ms"] for page in pages.values())
    assert found["slowest_p95_ms"] == pages[found["slowest"]]["p95_ms"] == max(page["p95_ms"] for page in pages.values())
    assert found["ratio"] == pytest.approx(found["slowest_p95_ms"] / 200, abs=0.001)
    named = {page.name for page in page_walk.PAGES}
    assert named == {name for name, method in METHODS.items() if "get" in method}
    for seen in (
        "deliveries?state=dead as ada",
        "deliveries?state=dead as grace",
        "admin:delivery_event_changelist?q={subject}",
        "admin:admin_logentry_changelist",
    ):
        assert seen in pages


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["embedded", "postgres+redis"])
def test_it_soaks(kind: str, tmp_path: Path) -> None:
    small = ("--minutes", "0.15", "--rate", "200", "--warm-up", "2", "--keep", "3", "--every", "1", "--samples", str(tmp_path / "samples"))
    with engines(kind, tmp_path / "data") as env:
        found = bench(env, "soak", tmp_path / "tmp", *small)
    samples = [json.loads(line) for line in (tmp_path / "samples").read_text().splitlines()]
    assert len(samples) == found["samples"] > 5
    assert {"web", "web/1", "worker", "beat", "player", "listener"} <= found["processes"].keys()
    assert found["ratio"] == pytest.approx(1 + found["processes"][found["worst_process"]]["growth_percent"] / 100, abs=0.001)
    assert [found[name] for name in ("unaccounted", "lost", "duplicates", "metrics_differ", "pages_failed", "gaps", "dead")] == [0] * 7
    assert found["stored"] == found["delivered"] > 1000
    # What was over went, and what was not stayed.
    assert 0 < found["pruned"] < found["stored"]
    assert found["claim_last_ms"] > 0
    assert set(found["tables"]) >= ({"file"} if kind == "embedded" else {"delivery_event", "delivery_delivery", "delivery_attempt", "delivery_due"})
    for process in samples[-1]["processes"].values():
        assert process["resident"] > process["own"] > 1_000_000
        assert process["files"] > 2


def test_it_says_when_a_soak_is_too_short(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        argv = [sys.executable, "manage.py", "bench", "soak", "--minutes", "1", "--rate", "100"]
        done = subprocess.run(argv, env=env | {"SECRET_KEY": "bench"}, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Give more --minutes" in done.stderr


@pytest.mark.whole
def test_it_keeps_a_database_of_pages_that_has_a_name(tmp_path: Path) -> None:
    name = f"jetrelay_kept_{secrets.token_hex(4)}"
    small = ("--deliveries", "300", "--endpoints", "10", "--rounds", "1", "--database", name)
    with engines("postgres+redis", tmp_path / "data") as env, psycopg.connect(env["DATABASE_URL"], autocommit=True) as server:
        try:
            for folder in ("first", "second"):
                bench(env | {"JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "="}, "pages", tmp_path / folder, *small)
            with psycopg.connect(env["DATABASE_URL"].rpartition("/")[0] + f"/{name}") as kept:
                assert kept.execute("SELECT count(*) FROM delivery_delivery").fetchone() == (300,)
        finally:
            server.execute(f"DROP DATABASE IF EXISTS {name}")


def test_it_fills_no_other_engine_than_postgresql(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        argv = [sys.executable, "manage.py", "bench", "depth"]
        done = subprocess.run(argv, env=env | {"SECRET_KEY": "bench"}, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "set DATABASE_URL to postgres://" in done.stderr


def test_it_tries_each_of_them_here() -> None:
    tried = set(re.findall(r'bench\(.*?"([a-z]+)", tmp_path', Path(__file__).read_text()))
    assert set(BENCHMARKS) - tried == set()


def test_its_document_has_a_row_for_each_with_its_options() -> None:
    rows = dict(re.findall(r"^\| `([a-z]+)` \| (`--[^|]*) \|", (ROOT / "benchmarks" / "README.md").read_text(), re.MULTILINE))
    for name, measure in BENCHMARKS.items():
        options = {f"--{option.name.replace('_', '-')} {_shown(option.default)}".strip() for option in options_of(measure)}
        assert set(re.findall(r"`([^`]+)`", rows.pop(name))) == options
    assert rows == {}


def _shown(default: str | float) -> str:
    return default if isinstance(default, str) else f"{default:.15g}"


def test_it_speaks_to_people_too(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        argv = [sys.executable, "manage.py", "bench", "limit", "--events", "100"]
        done = subprocess.run(argv, env=env | {"SECRET_KEY": "bench"}, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    figures = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert (figures["name"], figures["requests"]) == ("limit", "100")


@pytest.mark.parametrize("arguments", [["nothing"], [], ["limit", "--events", "many"], ["limit", "--events", "0"], ["limit", "--wire", "v1"]])
def test_it_says_what_it_can_measure(arguments: list[str], tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        done = subprocess.run(
            [sys.executable, "manage.py", "bench", *arguments], env=env | {"SECRET_KEY": "bench"}, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2
    assert "usage: manage.py bench" in done.stderr


@pytest.mark.whole
@pytest.mark.parametrize(
    ("number", "words", "last"), [(signal.SIGINT, "intake --events 60000", "run_jetstream"), (signal.SIGTERM, "gateway --requests 100", "granian")]
)
def test_it_leaves_nothing_behind_when_it_is_interrupted(number: signal.Signals, words: str, last: str, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    with engines("postgres+redis", tmp_path / "data") as env:
        argv = [sys.executable, "-u", "manage.py", "bench", *words.split()]
        started = env | {"SECRET_KEY": "bench", "TMPDIR": str(folder)}
        with subprocess.Popen(argv, env=started, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            # Processes have no event to wait for: until the last of them has started.
            while not any(last in line for line in processes_of(folder)):
                assert process.poll() is None
                sleep(0.02)
            process.send_signal(number)
            # Twice, as an impatient person does: the second must not cut the tidying up short.
            process.send_signal(number)
            try:
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
        assert (process.returncode, said.splitlines()[-1]) == (128 + number, f"{number.name}: stopped, and nothing is left behind.")
        assert_nothing_is_left(env, process.pid, folder)


@pytest.mark.whole
def test_it_drops_its_database_though_the_server_is_still_at_work_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with engines("postgres+redis", tmp_path / "data") as env:
        monkeypatch.setenv("DATABASE_URL", env["DATABASE_URL"])
        with database() as url:
            # As of a process that was killed: nobody waits for the answer any more.
            visitor = psycopg.connect(url, autocommit=True)
            visitor.pgconn.send_query(b"SELECT pg_sleep(100)")
        with psycopg.connect(env["DATABASE_URL"]) as server:
            assert server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [visitor.info.dbname]).fetchall() == []
        visitor.close()


def test_it_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    with engines("embedded", tmp_path / "data") as env:
        env |= {"SECRET_KEY": "bench", "TMPDIR": str(folder), "BROKER_URL": "redis://127.0.0.1:9/0"}
        argv = [sys.executable, "manage.py", "bench", "pipeline", "--events", "10", "--json"]
        done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert list(folder.iterdir()) == []
