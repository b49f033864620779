"""A line for each attempt."""

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from django.db import DatabaseError
from django.utils import timezone

from delivery import attempt_log, lanes, settling
from delivery.engines.base import AttemptRow, Settlement
from delivery.models import Attempt, Delivery
from delivery.outcomes import Done
from delivery.retry import Outcome, Verdict
from jetrelay.logs.rendering import Formatter
from subscriptions.ids import new_id
from tests.builders import make_delivery
from tests.draining import LANE, endpoint_at, owe, replying
from tests.logged import logged
from tests.receiver import Receiver
from tests.threads import patiently
from tests.whole import Program


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    yield
    assert attempt_log.flush()


def done(outcome: Outcome = Outcome.DELIVERED, delivery: Delivery | None = None, status: int | None = 200, error: str = "") -> Done:
    id, event_id, endpoint_id = (delivery.id, delivery.event_id, delivery.endpoint_id) if delivery else (new_id(), new_id(), new_id())
    attempt = AttemptRow(new_id(), id, 2, timezone.now(), 0, 1, 0, 2, 12.345, status, error, "to a stranger", "", b"")
    return Done(endpoint_id, Verdict(outcome), Settlement(id, 0, status, error), attempt, event_id)


MIXED = [done(), done(Outcome.RETRY, status=None, error="timeout"), done(Outcome.DEAD, status=410)]


def noted(settings: Any, form: str, attempts: str, settled: list[Done] = MIXED) -> Any:
    settings.JETRELAY_LOG_FORMAT, settings.JETRELAY_LOG_ATTEMPTS = form, attempts
    with logged(form) as said:
        with structlog.contextvars.bound_contextvars(task_id="t1", lane=3):
            attempt_log.note(settled)
        assert attempt_log.flush()
    return said


def test_it_is_a_line_like_the_others(settings: Any) -> None:
    said = noted(settings, "json", "all")
    first, second, third = said.objects
    ids = {"event": f"evt_{MIXED[0].event_id.hex}", "delivery": f"dlv_{MIXED[0].settlement.id.hex}", "endpoint": f"ep_{MIXED[0].endpoint_id.hex}"}
    rest = {"attempt": 2, "outcome": "delivered", "status": 200, "error": None, "duration_ms": 12.3, "lane": 3, "task_id": "t1"}
    assert first | {"timestamp": ""} == {"timestamp": "", "level": "info", "logger": "delivery.attempts", "message": "attempt"} | ids | rest
    assert (second["level"], second["outcome"], second["status"], second["error"]) == ("warning", "retry", None, "timeout")
    assert (third["level"], third["outcome"], third["status"], third["error"]) == ("warning", "dead", 410, None)
    with logged("json") as other:
        logging.getLogger("delivery.attempts").info("attempt")
    assert list(first)[:4] == list(other.objects[0])[:4]
    assert len(first["timestamp"]) == len(other.objects[0]["timestamp"])


def test_it_is_a_line_for_people(settings: Any) -> None:
    said = noted(settings, "console", "all")
    event, delivery, endpoint = MIXED[1].event_id.hex, MIXED[1].settlement.id.hex, MIXED[1].endpoint_id.hex
    assert said.lines[1] == (
        f"WARNING delivery.attempts: attempt event=evt_{event} delivery=dlv_{delivery} endpoint=ep_{endpoint}"
        " attempt=2 outcome=retry error=timeout duration_ms=12.3 lane=3 task_id=t1"
    )


@pytest.mark.parametrize(("attempts", "outcomes"), [("all", ["delivered", "retry", "dead"]), ("failed", ["retry", "dead"]), ("none", [])])
def test_it_logs_what_is_wanted(attempts: str, outcomes: list[str], settings: Any) -> None:
    assert [line["outcome"] for line in noted(settings, "json", attempts).objects] == outcomes


@pytest.mark.parametrize(("level", "outcomes"), [("WARNING", ["retry", "dead"]), ("ERROR", [])])
def test_it_keeps_to_the_level(level: str, outcomes: list[str], settings: Any) -> None:
    package = logging.getLogger("delivery")
    before = package.level
    package.setLevel(level)
    try:
        assert [line["outcome"] for line in noted(settings, "json", "all").objects] == outcomes
    finally:
        package.setLevel(before)


def test_ids_are_written_in_full(settings: Any) -> None:
    small = done()._replace(event_id=UUID(int=1), endpoint_id=UUID(int=(1 << 128) - 1))
    (line,) = noted(settings, "json", "all", [small]).objects
    assert (line["event"], line["endpoint"]) == (f"evt_{'0' * 31}1", f"ep_{'f' * 32}")


@pytest.mark.django_db
def test_what_was_not_committed_has_no_line(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.JETRELAY_LOG_FORMAT, settings.JETRELAY_LOG_ATTEMPTS = "json", "all"
    settled = [done(delivery=make_delivery())]

    def fail() -> None:
        raise DatabaseError("away")

    with logged("json") as said:
        with pytest.raises(DatabaseError):
            settling.settle(settled, fail)
        assert attempt_log.flush()
        assert said.text == ""
        settling.settle(settled)
        assert attempt_log.flush()
    assert Attempt.objects.count() == len(said.objects) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_a_lane_logs_each_of_its_attempts_once(settings: Any, receiver: Receiver) -> None:
    settings.JETRELAY_LOG_FORMAT, settings.JETRELAY_LOG_ATTEMPTS = "json", "all"
    with Receiver() as failing:
        failing.answer = replying(500)
        owe(endpoint_at(receiver), 20)
        owe(endpoint_at(failing), 2)
        with logged("json") as said:
            lanes.drain(LANE)
            assert attempt_log.flush()
    found = [line for line in said.objects if line["logger"] == "delivery.attempts"]
    made = {f"dlv_{attempt.delivery_id.hex}": attempt for attempt in Attempt.objects.select_related("delivery")}
    assert sorted(line["delivery"] for line in found) == sorted(made)
    for line in found:
        attempt = made[line["delivery"]]
        assert (line["event"], line["endpoint"]) == (f"evt_{attempt.delivery.event_id.hex}", f"ep_{attempt.delivery.endpoint_id.hex}")
        assert (line["status"], line["attempt"], line["duration_ms"]) == (attempt.status, 1, pytest.approx(attempt.total_ms, abs=0.051))
    assert {line["outcome"] for line in found} == {"delivered", "retry"}


class Slow(logging.Handler):
    """A log that is not read before somebody says so."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.reached = threading.Event(), threading.Event()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.reached.set()
        self.reads.wait(30)
        self.texts.append(Formatter("json").format(record))


def test_a_log_that_is_not_read_holds_up_nobody(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.JETRELAY_LOG_FORMAT, settings.JETRELAY_LOG_ATTEMPTS = "json", "all"
    monkeypatch.setattr(attempt_log, "MOST_WAITING", 10)
    slow = Slow()
    attempt_log.logger.addHandler(slow)
    try:
        attempt_log.note([done()] * 3)
        assert slow.reached.wait(30)
        for _ in range(5):
            attempt_log.note([done()] * 3)
        slow.reads.set()
        assert attempt_log.flush(30)
    finally:
        attempt_log.logger.removeHandler(slow)
    assert sum(text.count('"message":"attempt"') for text in slow.texts) == 9
    assert any("9 attempts have no line in it" in text for text in slow.texts)


def test_a_process_that_ends_writes_what_waits(tmp_path: Path) -> None:
    code = (
        "import django; django.setup()\n"
        "from delivery import attempt_log; from tests.test_attempt_log import MIXED\n"
        "for _ in range(100): attempt_log.note(MIXED)"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "jetrelay.settings", "JETRELAY_LOG_FORMAT": "json", "DATABASE_URL": ""}
    with Program("-c", code, env=env, log=tmp_path / "log") as program:
        assert program.process.wait(30) == 0, program.output
    assert [json.loads(line)["outcome"] for line in program.output.splitlines()] == ["delivered", "retry", "dead"] * 100


def test_it_goes_on_after_a_failure(settings: Any) -> None:
    settings.JETRELAY_LOG_FORMAT, settings.JETRELAY_LOG_ATTEMPTS = "json", "all"
    broken = done()._replace(event_id=None)  # type: ignore[arg-type] # that is the mistake
    assert "Attempts could not be logged." in noted(settings, "json", "all", [broken]).text
    assert len(noted(settings, "json", "all", [done()]).objects) == 1


def test_it_goes_on_after_a_fork(settings: Any) -> None:
    settings.JETRELAY_LOG_FORMAT, settings.JETRELAY_LOG_ATTEMPTS = "json", "all"
    noted(settings, "json", "all")
    writer = attempt_log._writer
    assert writer._thread is not None
    # What a fork leaves of a thread: nothing that is alive.
    writer._thread = threading.Thread(target=os.getpid)
    assert len(noted(settings, "json", "all").objects) == 3
    patiently(lambda: writer._thread is not None and writer._thread.is_alive())
