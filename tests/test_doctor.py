"""What `manage.py doctor` finds, check by check, each with a real cause. `test_doctor_at_work.py` runs the whole of it."""

import json
import resource
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import time_machine
from cryptography.fernet import Fernet
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from pytest_django import Settings

from delivery import leases
from delivery.leases import Holding, lane_lease
from delivery.models import AttemptTally, Delivery, Event, EventTally, Lease, StreamGap
from jetrelay import environment, horizon
from jetrelay.bench.processes import free_port
from jetrelay.doctor import broker, clock, configuration, database, destinations, disk, processes, programs, report, running, schema, stored
from jetrelay.doctor.finding import Finding, Level, ok, problem, warning
from jetrelay.doctor.registry import Check, checks
from jetrelay.front.served import FILES
from jetrelay.inbox.models import Inbox
from subscriptions.models import Endpoint
from tests.builders import make_api_source, make_delivery, make_endpoint, make_event, make_gap, make_health, make_host, make_source, make_subscription
from tests.crash.servers import Redis, Unavailable

OK, WARNING, PROBLEM, SKIPPED = Level.OK, Level.WARNING, Level.PROBLEM, Level.SKIPPED


def found(check: Callable[[], Iterable[Finding]]) -> list[tuple[Level, str]]:
    """Whatever is not well has advice."""
    findings = list(check())
    assert findings, "a check that says nothing cannot be told from one that did not run"
    assert all(bool(each.advice) == (each.level in (WARNING, PROBLEM)) for each in findings)
    return [(each.level, each.found) for each in findings]


def only(check: Callable[[], Iterable[Finding]]) -> tuple[Level, str]:
    (one,) = found(check)
    return one


def level(check: Callable[[], Iterable[Finding]]) -> Level:
    return only(check)[0]


def levels(check: Callable[[], Iterable[Finding]]) -> list[Level]:
    return [each for each, _ in found(check)]


# --- how checks are run and told -------------------------------------------------------------------------------------


@pytest.fixture
def hang() -> Iterator[Callable[[], Iterator[Finding]]]:
    """A check that says something and then nothing more."""
    never = threading.Event()

    def check() -> Iterator[Finding]:
        yield ok("so far")
        never.wait()

    yield check
    never.set()


def well() -> list[Finding]:
    return [ok("fine")]


def test_a_check_that_hangs_is_left_behind(hang: Callable[[], Iterator[Finding]]) -> None:
    findings = list(running.examine([Check("slow", hang, limit_s=0.1), Check("next", well)]))
    assert [(each.check, each.level) for each in findings] == [("slow", PROBLEM), ("next", OK)]
    assert "did not end" in findings[0].found


def test_all_checks_together_take_a_bounded_time(hang: Callable[[], Iterator[Finding]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "WHOLE_S", 0.2)
    findings = list(running.examine([Check("slow", hang), Check("next", well)]))
    assert [(each.check, each.level) for each in findings] == [("slow", PROBLEM), ("next", SKIPPED)]


def test_a_check_that_fails_is_a_finding_and_stops_no_other() -> None:
    def fail() -> Iterator[Finding]:
        yield ok("so far")
        raise ZeroDivisionError("by nothing")

    findings = list(running.examine([Check("a", fail), Check("b", well, needs=("a",)), Check("c", well, needs=("b",)), Check("d", well)]))
    assert [(each.check, each.level) for each in findings] == [("a", PROBLEM), ("b", SKIPPED), ("c", SKIPPED), ("d", OK)]
    assert (findings[0].found, findings[2].found) == ("could not be looked at: ZeroDivisionError: by nothing", "not looked at, because of: b")


def test_what_a_check_needs_comes_before_it() -> None:
    names: list[str] = []
    for check in checks():
        assert set(check.needs) <= set(names)
        names.append(check.name)
    assert len(set(names)) == len(names)


def test_findings_are_told_as_lines_and_as_a_document() -> None:
    findings = [ok("fine"), warning("w " * 80, "do that"), problem("bad", "do this")]
    lines = [line for each in findings for line in report.lines(each)]
    assert all(len(line) <= report.WIDTH for line in lines)
    assert [line.strip() for line in lines if "->" in line] == ["-> do that", "-> do this"]
    assert report.summary(findings) == "3 findings: 1 ok, 1 warning, 1 problem."
    assert report.summary([*findings, *findings]) == "6 findings: 2 ok, 2 warnings, 2 problems."
    document = json.loads(json.dumps(report.document(findings, "1.2", "2026-01-01T00:00:00+00:00")))
    assert (document["healthy"], document["counts"]) == (False, {"ok": 1, "warning": 1, "problem": 1, "skipped": 0})
    assert document["findings"][0] == {"check": "", "level": "ok", "found": "fine", "advice": None}
    assert report.document(findings[:2], "1.2", "")["healthy"] is True


@pytest.mark.django_db(transaction=True)
def test_it_writes_nothing_to_postgresql_and_leaves_other_connections_as_they_are() -> None:
    def write() -> Iterator[Finding]:
        make_endpoint()
        yield ok("written")

    before = dict(connection.settings_dict["OPTIONS"])
    (finding,) = running.within_limit(Check("w", write, needs=("database",)))
    assert finding.level == (PROBLEM if connection.vendor == "postgresql" else OK)
    assert connection.settings_dict["OPTIONS"] == before


# --- programs and settings ---------------------------------------------------------------------------------------------


def test_what_this_suite_runs_on_is_well() -> None:
    assert level(programs.python) == level(programs.libcurl) == OK


def test_it_compares_what_is_installed_with_the_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "requirements.txt"
    monkeypatch.setattr(programs, "PINS", pins)
    assert level(programs.packages) == WARNING
    pins.write_text("# pins\nDjango==1.0 \\\n    --hash=sha256:abc\nno-such-thing==1\nold==1; python_version < '3'\npytest>=1  # ours\n")
    missing, other = found(programs.packages)
    assert missing == (PROBLEM, "not installed: no-such-thing==1")
    assert (other[0], other[1].startswith("not as pinned: Django "), other[1].endswith("(==1.0)")) == (WARNING, True, True)
    pins.write_text("pytest>=1\n")
    assert only(programs.packages) == (OK, "1 packages, as pinned")


def test_it_judges_how_many_files_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert level(programs.files) == (WARNING if 0 <= hard < FILES else OK)
    monkeypatch.setattr(programs, "FILES", hard + 1 if hard > 0 else FILES)
    assert level(programs.files) == (WARNING if hard > 0 else OK)


def test_it_judges_keys_and_shows_none(settings: Settings) -> None:
    settings.SECRET_KEY = "sekret"
    assert levels(configuration.keys) == [WARNING, OK]
    assert "sekret" not in str(found(configuration.keys))
    settings.SECRET_KEY = "abcdefgh" * 8
    assert only(configuration.keys) == (OK, "SECRET_KEY is set, and 1 encryption key")
    settings.SECRET_KEY, settings.JETRELAY_ENCRYPTION_KEYS = "", []
    assert levels(configuration.keys) == [PROBLEM, PROBLEM]


LOCAL = {"PUBLIC_URL": "", "HOST": "127.0.0.1", "ALLOWED_HOSTS": ["localhost", "127.0.0.1", "[::1]"], "DEBUG": False}
PUBLIC = {"PUBLIC_URL": "https://relay.example", "ALLOWED_HOSTS": ["relay.example"], "JETRELAY_TRUSTED_PROXIES": [ip_network("10.0.0.0/8")]}


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({}, [OK]),
        (PUBLIC, [OK]),
        ({"DEBUG": True}, [WARNING, OK]),
        (PUBLIC | {"DEBUG": True}, [PROBLEM, OK]),
        ({"HOST": "0.0.0.0"}, [WARNING, WARNING, OK]),
        (PUBLIC | {"HOST": "0.0.0.0"}, [OK]),
        (PUBLIC | {"HOST": "::", "JETRELAY_TRUSTED_PROXIES": []}, [WARNING, WARNING, OK]),
        ({"PUBLIC_URL": "http://relay.example"}, [WARNING, OK]),
        ({"PUBLIC_URL": "http://localhost:8000"}, [OK]),
        (PUBLIC | {"JETRELAY_TRUSTED_PROXIES": []}, [WARNING, OK]),
        (PUBLIC | {"JETRELAY_TRUSTED_PROXIES": [ip_network("0.0.0.0/0")]}, [PROBLEM, OK]),
        ({"JETRELAY_ALLOWED_NETWORKS": [ip_network("::/0")]}, [WARNING, OK]),
        (PUBLIC | {"ALLOWED_HOSTS": ["*"]}, [WARNING, OK]),
    ],
)
def test_it_judges_who_can_reach_it(over: dict[str, Any], expected: list[Level], settings: Settings) -> None:
    for name, value in (LOCAL | over).items():
        setattr(settings, name, value)
    assert levels(configuration.addresses) == expected


def test_it_names_variables_that_nothing_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.unknown():
        monkeypatch.delenv(name)
    assert level(configuration.misspelt) == OK
    monkeypatch.setenv("JETRELAY_PUBLIC_ULR", "https://relay.example")
    assert only(configuration.misspelt) == (WARNING, "nothing reads JETRELAY_PUBLIC_ULR")


def test_it_judges_settings_that_do_not_go_together(settings: Settings) -> None:
    assert level(configuration.retention) == OK
    settings.JETRELAY_DEAD_LETTER_DAYS = 1
    assert level(configuration.retention) == WARNING
    settings.CELERY_BROKER_URL = "redis://127.0.0.1/0"
    assert level(configuration.engines) == (OK if connection.vendor == "postgresql" else WARNING)
    settings.CELERY_BROKER_URL = "filesystem://localhost"
    assert level(configuration.engines) == (WARNING if connection.vendor == "postgresql" else OK)


def test_it_passes_on_what_django_says(settings: Settings) -> None:
    assert only(configuration.django) == (OK, "no issues")
    settings.PUBLIC_URL = "https://relay.example"
    # The tests' own settings are not those of a site that is open to others.
    assert (WARNING, "security.W009") in [(each, words.partition(":")[0]) for each, words in found(configuration.django)]


# --- database ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def whoever_was_here_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests roll back, some of them 100,000 rows: what they leave for vacuum is no matter to those that use this."""
    monkeypatch.setattr(database, "MANY_DEAD", 10**9)


@pytest.mark.django_db
@pytest.mark.usefixtures("whoever_was_here_before")
def test_a_database_that_is_well() -> None:
    told = levels(database.database)
    assert (told[-1], PROBLEM in told) == (OK, False)
    assert level(database.transactions) == OK
    for check in (database.connections, database.vacuum, database.indexes):
        assert level(check) == (OK if connection.vendor == "postgresql" else SKIPPED)
    assert level(schema.migrations) == OK


@pytest.mark.django_db
def test_migrations_that_are_missing_or_from_a_newer_version() -> None:
    recorder = MigrationRecorder(connection)
    ((_, newest),) = MigrationLoader(connection).graph.leaf_nodes("delivery")
    recorder.record_unapplied("delivery", newest)
    assert (level(schema.migrations), f"delivery.{newest}" in only(schema.migrations)[1]) == (PROBLEM, True)
    recorder.record_applied("delivery", newest)
    recorder.record_applied("delivery", "9999_from_the_future")
    # Of a package that is not here: none of our affair.
    recorder.record_applied("elsewhere", "0001_initial")
    assert only(schema.migrations) == (PROBLEM, "1 applied that this version does not know: delivery.9999_from_the_future")
    recorder.migration_qs.all().delete()
    assert only(schema.migrations) == (PROBLEM, "the database has none of Jetrelay's tables")


@pytest.mark.postgresql
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SET default_transaction_isolation = 'serializable'", (PROBLEM, "transactions are serializable by default")),
        ("SET synchronous_commit = off", (WARNING, "synchronous_commit is off")),
    ],
)
def test_settings_of_postgresql_that_break_promises(statement: str, expected: tuple[Level, str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
    assert expected in found(database.database)


@pytest.mark.postgresql
@pytest.mark.django_db
@pytest.mark.usefixtures("whoever_was_here_before")
def test_a_table_that_is_never_vacuumed() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE delivery_delivery SET (autovacuum_enabled = false)")
    assert only(database.vacuum) == (PROBLEM, "autovacuum is switched off for delivery_delivery")


@pytest.fixture
def beside() -> Iterator["psycopg.Connection[Any]"]:
    """Another connection to the tests' database."""
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "dbname": "NAME"}
    where: dict[str, Any] = {key: connection.settings_dict[name] or None for key, name in names.items()}
    with psycopg.connect(autocommit=True, **where) as made:
        yield made


@pytest.mark.postgresql
@pytest.mark.django_db
def test_tables_with_more_dead_rows_than_live_ones(beside: "psycopg.Connection[Any]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MANY_DEAD", 5)
    patients = {"doctors_patient": (8, 6), "doctors_visitor": (20, 13), "doctors_friend": (20, 9), "doctors_neighbour": (5, 5)}
    try:
        for name, (rows, deleted) in patients.items():
            beside.execute(f"CREATE TABLE {name} WITH (autovacuum_enabled = false) AS SELECT a FROM generate_series(1, {rows}) AS a")
            beside.execute(f"DELETE FROM {name} WHERE a <= {deleted}")
        # What a session has counted is seen by others when it next reports.
        beside.execute("SELECT pg_stat_force_next_flush()")
        told = [words for level, words in found(database.vacuum) if level == WARNING and words.startswith("doctors_")]
        assert told == ["doctors_visitor has 13 dead rows and 7 live ones", "doctors_patient has 6 dead rows and 2 live ones"]
    finally:
        beside.execute(f"DROP TABLE {', '.join(patients)}")


@pytest.mark.postgresql
@pytest.mark.django_db
def test_an_index_whose_building_was_cut_off(beside: "psycopg.Connection[Any]") -> None:
    beside.execute("CREATE TABLE doctors_patient AS SELECT 1 AS a FROM generate_series(1, 2)")
    try:
        with pytest.raises(psycopg.errors.UniqueViolation):
            beside.execute("CREATE UNIQUE INDEX CONCURRENTLY doctors_index ON doctors_patient (a)")
        assert only(database.indexes) == (PROBLEM, "invalid: doctors_index")
    finally:
        beside.execute("DROP TABLE doctors_patient")


@pytest.mark.postgresql
@pytest.mark.django_db
def test_a_transaction_that_stays_open(beside: "psycopg.Connection[Any]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(horizon, "LONG_S", 0)
    with beside.transaction():
        beside.execute("SELECT 1")
        told = only(database.transactions)
    assert (told[0], "idle in transaction" in told[1]) == (WARNING, True)
    assert "nothing that was settled since can be cleaned up: process" in told[1]


def test_a_log_that_cannot_begin_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "patient.sqlite3"
    monkeypatch.setattr(horizon, "holders", lambda: horizon.of_sqlite(file))
    with closing(sqlite3.connect(file)) as writer, closing(sqlite3.connect(file)) as reader:
        writer.execute("PRAGMA journal_mode = wal")
        writer.execute("CREATE TABLE doctors_patient (a)")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM doctors_patient").fetchall()
        for _ in range(3):
            writer.execute("INSERT INTO doctors_patient VALUES (zeroblob(1 << 20))")
            writer.commit()
        assert horizon.holders() == []
        monkeypatch.setattr(horizon, "LARGE_WAL", 1 << 20)
        (found,) = list(database.transactions())
    assert (found.level, "patient.sqlite3-wal has 3 MB" in found.found) == (WARNING, True)
    assert "reader that never ends" in found.advice


@pytest.mark.postgresql
@pytest.mark.django_db
def test_connections_that_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FEW_CONNECTIONS", 10**6)
    assert level(database.connections) == WARNING
    monkeypatch.setattr(database, "NO_CONNECTIONS", 10**6)
    assert level(database.connections) == PROBLEM


# --- clock -------------------------------------------------------------------------------------------------------------


@pytest.mark.postgresql
@pytest.mark.django_db
@pytest.mark.parametrize(("off_s", "expected"), [(0, OK), (60, WARNING), (-60, WARNING), (400, PROBLEM), (-400, PROBLEM)])
def test_a_clock_that_is_not_the_databases(off_s: float, expected: Level) -> None:
    connection.ensure_connection()
    with time_machine.travel(timezone.now() + timedelta(seconds=off_s), tick=True):
        told = only(clock.of_database)
    assert told[0] == expected
    assert ("ahead of" in told[1], "behind" in told[1]) == (off_s > 0, off_s < 0)


@pytest.mark.django_db
@pytest.mark.parametrize(("lag_s", "expected"), [(0.2, OK), (5000.0, OK), (-20.0, WARNING), (-400.0, PROBLEM)])
def test_events_from_the_future(lag_s: float, expected: Level) -> None:
    assert level(clock.of_stream) == SKIPPED
    make_host(lag_s=lag_s)
    make_host(lag_s=-9999.0, seen_at=timezone.now() - timedelta(hours=1))
    assert level(clock.of_stream) == expected


# --- broker ------------------------------------------------------------------------------------------------------------


def test_a_broker_of_files(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CELERY_BROKER_TRANSPORT_OPTIONS = {"data_folder_in": str(tmp_path)}
    monkeypatch.setattr(broker, "MANY_WAKES", 2)
    for number in range(3):
        (tmp_path / f"{number:020d}_{number:032x}.lanes.msg").write_text("{}")
    assert levels(broker.broker) == [WARNING, OK]
    assert len(list(tmp_path.iterdir())) == 3
    settings.CELERY_BROKER_TRANSPORT_OPTIONS = {"data_folder_in": str(tmp_path / "gone")}
    assert level(broker.broker) == PROBLEM


def test_a_redis_that_is_not_there_or_says_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CELERY_BROKER_URL = f"redis://:p4ss@127.0.0.1:{free_port()}/3"
    told = only(broker.broker)
    assert (told[0], "does not answer" in told[1], "p4ss" in told[1]) == (PROBLEM, True, False)
    monkeypatch.setattr(broker, "_TIMEOUTS", {"socket_connect_timeout": 0.2, "socket_timeout": 0.2})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert level(broker.broker) == PROBLEM


@pytest.mark.postgresql
def test_a_redis_that_throws_keys_away_and_then_ends(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "MANY_WAKES", 2)
    try:
        server = Redis(tmp_path)
    except Unavailable as missing:
        pytest.skip(f"wants {missing}")
    server.start()
    try:
        settings.CELERY_BROKER_URL = server.url
        assert level(broker.broker) == OK
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.lpush("lanes", "a", "b", "c")
            told = found(broker.broker)
            assert client.keys() == [b"lanes"]
    finally:
        server.end(server.fast)
    assert [each for each, _ in told] == [WARNING, WARNING, OK]
    assert ["allkeys-lru" in told[0][1], "3 in lanes" in told[1][1]] == [True, True]
    assert level(broker.broker) == PROBLEM


# --- processes ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_beat() -> None:
    assert only(processes.beat) == (PROBLEM, "beat has never run")
    every = IntervalSchedule.objects.create(every=1, period="seconds")
    row = PeriodicTask.objects.create(name="sweep", task="delivery.sweep", interval=every)
    assert level(processes.beat) == OK
    PeriodicTask.objects.filter(pk=row.pk).update(date_changed=timezone.now() - timedelta(days=1), last_run_at=timezone.now() - timedelta(hours=3))
    assert only(processes.beat) == (PROBLEM, "beat was last heard of 3 hours ago")
    PeriodicTask.objects.filter(pk=row.pk).update(last_run_at=timezone.now() - timedelta(minutes=4), enabled=False)
    assert found(processes.beat) == [(WARNING, "switched off by hand: sweep"), (OK, "beat was heard of 4 minutes ago")]


@pytest.mark.django_db
def test_a_worker_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ANSWER_S", 0.3)
    assert level(processes.worker) == PROBLEM


@pytest.mark.django_db
def test_a_listener_whose_lease_has_run_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody renews the lease of this test; `test_wrong_dates.py` has one that is.
    monkeypatch.setattr(processes, "RENEWED_S", 0.0)
    assert level(processes.listener) == SKIPPED
    source = make_source()
    make_subscription(source=source, endpoint=make_endpoint(state="unverified"))
    assert level(processes.listener) == SKIPPED
    # What it is owed is stored while it is paused.
    make_subscription(source=source, endpoint=make_endpoint(state="paused"))
    assert level(processes.listener) == PROBLEM
    Holding(f"listener:{source.id}", 60).take()
    settings.JETSTREAM_HOSTS = ["wss://another.example/subscribe"]
    stale, told = found(processes.listener)
    assert stale[0] == PROBLEM
    assert told[1].endswith("listens to Jetstream, and is connected to no host yet")
    here, away = make_host(source=source), make_host(source=source, connected_since=None, problem="refused")
    told = found(processes.listener)[1]
    assert (told[0], told[1].endswith(f"listens to {here.host}, which JETSTREAM_HOSTS does not name here")) == (WARNING, True)
    settings.JETSTREAM_HOSTS = [here.host, away.host]
    assert levels(processes.listener)[1:] == [WARNING, OK]
    settings.JETSTREAM_HOSTS = [away.host]
    assert found(processes.listener)[1] == (PROBLEM, f"{away.host} is not connected: refused")
    Lease.objects.update(expires_at=timezone.now() - timedelta(minutes=5))
    told = only(processes.listener)
    assert (told[0], told[1].startswith("nobody listens to Jetstream, since ")) == (PROBLEM, True)


@pytest.mark.django_db
def test_two_machines_on_engines_for_one(settings: Settings) -> None:
    # No longer than a lease is taken for, or it is a wrong date that holds nothing.
    now, a_while = timezone.now(), timedelta(seconds=leases.LONGEST_S / 2)
    assert level(processes.machines) == SKIPPED
    for lane, owner, expires_at in ((1, "one:12", now + a_while), (2, "one:13", now + a_while), (3, "gone:14", now - a_while)):
        Lease.objects.create(name=lane_lease(lane), owner=owner, expires_at=expires_at)
    assert only(processes.machines) == (OK, "at work: one")
    Lease.objects.create(name=lane_lease(4), owner="two:12", expires_at=now + a_while)
    told = only(processes.machines)
    assert (told[0], told[1].startswith("one, two are at work on ")) == (PROBLEM, True)
    settings.CELERY_BROKER_URL = "redis://127.0.0.1/0"
    assert level(processes.machines) == (OK if connection.vendor == "postgresql" else PROBLEM)


@pytest.mark.django_db
def test_a_lane_with_due_work_and_no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOOK_AGAIN_S", 0.0)
    assert only(processes.lanes) == (OK, "nothing is due")
    endpoint = make_endpoint(shard=3, name="hook")
    make_delivery(endpoint=endpoint, due_at=timezone.now() - timedelta(hours=4))
    assert found(processes.lanes) == [
        (PROBLEM, "work is due in lane 3, and nobody owns it"),
        (WARNING, f"hook ({endpoint.public_id}) has a delivery that was due 4 hours ago"),
    ]
    Holding(lane_lease(3), 60).take()
    assert level(processes.lanes) == WARNING
    Delivery.objects.update(due_at=timezone.now() - timedelta(seconds=2))
    assert level(processes.lanes) == OK
    # What waits for a breaker is not due for anybody.
    make_health(endpoint=endpoint)
    assert only(processes.lanes) == (OK, "nothing is due")


# --- endpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_hosts_that_lead_nowhere_or_where_nothing_may_go(settings: Settings) -> None:
    settings.JETRELAY_ALLOWED_NETWORKS = []
    assert level(destinations.names) == SKIPPED
    make_endpoint(name="gone", url="https://nowhere.invalid/hook")
    make_endpoint(name="home", url="http://localhost:3000/hook")
    make_endpoint(name="paused", url="https://paused.invalid/hook", state=Endpoint.State.PAUSED)
    settings.WEBHOOK_URL = "http://127.0.0.1:3000/own"
    make_endpoint(name="own", url=settings.WEBHOOK_URL, origin=Endpoint.Origin.ENVIRONMENT)
    lost, refused = found(destinations.names)
    assert (lost[0], refused[0]) == (WARNING, WARNING)
    assert lost[1].startswith("1 of 3 hosts cannot be found (")
    assert lost[1].endswith("): gone (nowhere.invalid)")
    assert refused[1].startswith("1 endpoint may not be connected to (")
    assert refused[1].endswith(" is not a public address): home (localhost)")
    settings.JETRELAY_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
    Endpoint.objects.filter(name="gone").delete()
    assert only(destinations.names) == (OK, "2 hosts found, and may be connected to")


@pytest.mark.django_db
def test_a_name_server_that_knows_nobody() -> None:
    make_endpoint(url="https://one.invalid/hook")
    assert level(destinations.names) == WARNING
    make_endpoint(url="https://two.invalid/hook")
    assert only(destinations.names) == (PROBLEM, "no host of any endpoint can be found")


def test_it_waits_for_no_name_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def look_up(host: str) -> list[str]:
        if host == "slow.example":
            never.wait()
        return ["192.0.2.1"]

    monkeypatch.setattr(destinations, "system_look_up", look_up)
    assert destinations.look_up(["slow.example", "quick.example"], 0.3) == {"quick.example": ["192.0.2.1"]}
    never.set()


@pytest.mark.django_db
def test_it_looks_up_so_many_hosts_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "MOST_HOSTS", 1)
    for number in (1, 2, 3):
        make_endpoint(url=f"http://127.0.0.{number}:3000/")
    assert found(destinations.names) == [(SKIPPED, "2 more hosts were not looked up"), (OK, "1 host found, and may be connected to")]


@pytest.mark.django_db
def test_endpoints_that_are_held() -> None:
    assert level(destinations.held) == SKIPPED
    make_endpoint()
    assert only(destinations.held) == (OK, "1 active, none is held")
    make_endpoint(name="off", state=Endpoint.State.DISABLED, state_reason="410 Gone")
    make_health(endpoint=make_endpoint(name="down"), reason="503 Service Unavailable")
    make_endpoint(state=Endpoint.State.UNVERIFIED)
    assert found(destinations.held) == [
        (WARNING, "1 disabled: off (receiver.example) (410 Gone)"),
        (WARNING, "1 with an open breaker: down (receiver.example) (503 Service Unavailable)"),
        (WARNING, "1 have not answered their challenge"),
    ]


@pytest.mark.django_db
def test_an_inbox_that_others_can_read(settings: Settings) -> None:
    settings.HOST, settings.ALLOWED_HOSTS = "127.0.0.1", ["localhost"]
    assert only(destinations.inbox) == (OK, "there is none")
    Inbox.objects.create(endpoint=make_endpoint())
    assert level(destinations.inbox) == OK
    settings.ALLOWED_HOSTS = ["localhost", "relay.example"]
    assert level(destinations.inbox) == WARNING


# --- what is stored ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_secrets_that_no_key_opens_and_others_under_an_older_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, (old,) = make_endpoint(), settings.JETRELAY_ENCRYPTION_KEYS
    assert only(stored.encryption) == (OK, "1 stored secrets are under the first key")
    settings.JETRELAY_ENCRYPTION_KEYS = [Fernet.generate_key().decode(), old]
    assert only(stored.encryption) == (WARNING, "1 of 1 stored secrets are under an older key")
    settings.JETRELAY_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    assert only(stored.encryption) == (PROBLEM, f"no key opens what is stored as endpoint secret: 1 of them, such as that of {endpoint.public_id}")
    settings.JETRELAY_ENCRYPTION_KEYS = []
    assert level(stored.encryption) == PROBLEM
    settings.JETRELAY_ENCRYPTION_KEYS = [old]
    monkeypatch.setattr(stored, "SURVEY_S", -1.0)
    assert only(stored.encryption)[1].endswith("(of the first 0; there are more)")


@pytest.mark.django_db
def test_gaps_in_the_stream() -> None:
    assert only(stored.gaps) == (OK, "none is open")
    gap = make_gap(host="wss://host.example/subscribe", reason="it no longer had it")
    told = only(stored.gaps)
    assert (told[0], told[1].endswith("UTC at wss://host.example/subscribe: it no longer had it")) == (WARNING, True)
    StreamGap.objects.filter(pk=gap.pk).update(acknowledged_at=timezone.now())
    assert only(stored.gaps) == (OK, "none is open, but for 1 that somebody has acknowledged")


@pytest.mark.django_db
def test_sums_that_do_not_come_out() -> None:
    source, endpoint, minute = make_api_source(), make_endpoint(), timezone.now().replace(second=0, microsecond=0)
    EventTally.objects.create(source=source, minute=minute, kind="api", type="a", received=9, stored=4, duplicate=3, unmatched=1, invalid=1)
    AttemptTally.objects.create(endpoint=endpoint, minute=minute, outcome="delivered", attempts=2, ms_5=1, ms_over=1)
    lost = make_event()
    make_delivery(endpoint=endpoint)
    make_delivery(event=lost)
    assert only(stored.accounting) == (OK, "9 events received and 2 attempts made, all accounted for")
    EventTally.objects.update(stored=1)
    AttemptTally.objects.update(ms_5=0)
    Event.objects.filter(pk=lost.pk)._raw_delete("default")
    assert found(stored.accounting) == [
        (PROBLEM, "3 events are unaccounted for"),
        (PROBLEM, "1 attempts are unaccounted for"),
        (PROBLEM, "1 pending deliveries have no event"),
    ]


def test_a_data_directory_that_cannot_be_used(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DATA_DIR, settings.CELERY_BROKER_URL = tmp_path, "redis://127.0.0.1/0"
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.postgresql")
    assert PROBLEM not in levels(disk.disk)
    monkeypatch.setattr(disk, "LITTLE", 1 << 60)
    assert level(disk.disk) == WARNING
    monkeypatch.setattr(disk, "TOO_LITTLE", 1 << 60)
    assert level(disk.disk) == PROBLEM
    settings.DATA_DIR = tmp_path / "gone"
    assert level(disk.disk) == OK
    settings.CELERY_BROKER_URL = "filesystem://localhost"
    assert only(disk.disk) == (PROBLEM, f"{tmp_path}/gone cannot be written to: No such file or directory")
