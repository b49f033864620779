"""Log lines: their form, what is bound to them, and that a stranger cannot write one."""

import contextlib
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import structlog
from celery.app.trace import build_tracer
from django.test import Client

from jetrelay.celery import app
from jetrelay.logs import masking
from jetrelay.logs.rendering import LONGEST_LINE, Formatter
from jetrelay.logs.requests import logged as logging_requests
from jetrelay.logs.stream import Handler
from jetrelay.management.commands import up
from tests.logged import FORMS, logged
from tests.whole import ROOT, Program, engines

logger = logging.getLogger("delivery.trial")


def test_it_writes_one_json_object_a_line() -> None:
    with logged("json") as said, structlog.contextvars.bound_contextvars(request_id="req_1"):
        logger.warning("Lane %d waits.", 3, extra={"rows": 7})
    (line,) = said.objects
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {"level": "warning", "logger": "delivery.trial", "message": "Lane 3 waits.", "rows": 7, "request_id": "req_1"}


def test_it_writes_lines_for_people() -> None:
    with logged("console") as said, structlog.contextvars.bound_contextvars(lane=3):
        logger.warning("It is %s.", "late", extra={"why": "no reason"})
    assert said.text == 'WARNING delivery.trial: It is late. lane=3 why="no reason"\n'


@pytest.mark.parametrize("form", FORMS)
def test_it_takes_what_structlog_is_told(form: str) -> None:
    with logged(form) as said:
        structlog.get_logger("jetrelay.trial").bind(lane=2).warning("It is late.", rows=7)
    if form == "json":
        assert said.objects[0] | {"timestamp": ""} == {
            "timestamp": "",
            "level": "warning",
            "logger": "jetrelay.trial",
            "message": "It is late.",
            "lane": 2,
            "rows": 7,
        }
    else:
        assert said.text == "WARNING jetrelay.trial: It is late. lane=2 rows=7\n"


def test_it_has_a_traceback_as_text_and_for_people_below_a_bar() -> None:
    for form in FORMS:
        with logged(form) as said:
            try:
                raise ValueError("first\nERROR second: forged")
            except ValueError:
                logger.exception("It failed.")
        if form == "json":
            assert said.objects[0]["exception"].endswith("ValueError: first\nERROR second: forged")
        else:
            head, *rest = said.lines
            assert head == "ERROR delivery.trial: It failed."
            assert rest[-2:] == ["  | ValueError: first", "  | ERROR second: forged"]
            assert all(line.startswith("  | ") for line in rest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\x1b[2K\x1b[1G", "\x9b1G", "\u202e", "\ud800"])
def test_no_stranger_begins_a_line_or_moves_a_cursor(end: str, form: str) -> None:
    forged = f'{end}{{"level":"error","message":"forged"}}{end}ERROR delivery.forged: x'
    with logged(form) as said:
        logger.warning("A name: %s.", forged, extra={"name_of": forged, f"a{end}b": 1, "nested": {forged: [forged]}})
        structlog.get_logger("jetrelay.trial").warning(forged, more=forged)
    assert said.text.count("\n") == 2
    assert len(said.lines) == 2
    assert all(line.isprintable() for line in said.lines)
    assert (
        [line.partition(" ")[0] for line in said.lines] == ["WARNING"] * 2 if form == "console" else [each["level"] for each in said.objects] == ["warning"] * 2
    )


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@pytest.mark.parametrize("form", FORMS)
def test_it_says_so_when_a_line_cannot_be_made(form: str) -> None:
    with logged(form) as said:
        logger.warning("%d rows", "many")
        logger.warning("It is %s.", Unspeakable())
        logger.warning("It is.", extra={"it": Unspeakable(), "n": float("nan"), "big": 1 << 80, "bytes": b"\xff"})
        logger.warning(Unspeakable())
    assert len(said.lines) == 4
    assert "'%d rows' (its arguments are left out: TypeError)" in said.text
    assert "Unspeakable that cannot be shown: RuntimeError" in said.text
    assert form == "console" or len(said.objects) == 4


def test_a_line_is_never_longer_than_the_supervisor_takes() -> None:
    for message in ("x" * 100_000, "\0" * 100_000, "\U000e0001" * 100_000):
        with logged("json") as said:
            logger.warning(message, extra={f"n{number}": message for number in range(40)})
        assert len(said.text) <= LONGEST_LINE
        assert said.objects[0]["level"] == "warning"


def test_it_logs_what_ends_a_process_or_a_thread(tmp_path: Path) -> None:
    code = (
        "import django, threading; django.setup()\n"
        "def fail(): raise ValueError('in a thread: password=hunter2')\n"
        "thread = threading.Thread(target=fail, name='t'); thread.start(); thread.join()\n"
        "import warnings; warnings.warn('secret=hunter2')\n"
        "raise ValueError('at the end: postgres://ada:hunter2@db/x')"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "jetrelay.settings", "JETRELAY_LOG_FORMAT": "json", "DATABASE_URL": ""}
    with Program("-c", code, env=env, log=tmp_path / "log") as program:
        assert program.process.wait(30) == 1
    found = [json.loads(line) for line in program.output.splitlines()]
    assert [(line["level"], line["logger"]) for line in found] == [("error", "jetrelay"), ("warning", "py.warnings"), ("critical", "jetrelay")]
    assert "hunter2" not in program.output


@pytest.mark.parametrize("debug", ["", "1"])
def test_nothing_that_logs_goes_another_way(debug: str, tmp_path: Path) -> None:
    code = (
        "import django; django.setup(); import logging, jetrelay.wsgi\n"
        "for name, logger in [('root', logging.root), *logging.root.manager.loggerDict.items()]:\n"
        "    for handler in getattr(logger, 'handlers', ()):\n"
        "        if not isinstance(handler, logging.NullHandler): print(f'{name}:{type(handler).__module__}')"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "jetrelay.settings", "JETRELAY_DEBUG": debug, "DATABASE_URL": ""}
    with Program("-c", code, env=env, log=tmp_path / "log") as program:
        assert program.process.wait(30) == 0, program.output
    assert sorted(program.output.split()) == ["_granian:jetrelay.logs.stream", "root:jetrelay.logs.stream"]


@pytest.mark.whole
def test_celery_and_granian_print_nothing_but_json(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as ready:
        env = ready | {"SECRET_KEY": "only-for-this-test", "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETRELAY_LOG_FORMAT": "json"}
        away = env | {"DATABASE_URL": "postgres://nobody:hunter2@127.0.0.1:1/none"}
        argv = {child.name: child.argv[1:] for child in up.children(env, "127.0.0.1", 8000, None)}
        with (
            Program(*argv["worker"], env=env, log=tmp_path / "worker.log") as worker,
            Program(*argv["beat"], env=away, log=tmp_path / "beat.log") as beat,
            # An application that cannot be had: what Python prints of that is its own, what the server says is not.
            Program(*up.granian("127.0.0.1", 0, application="jetrelay.nothing:application")[1:], env=env, log=tmp_path / "web.log") as web,
        ):
            worker.wait_for_output("ready")
            assert worker.stop(signal.SIGTERM) == 0, worker.output
            beat.wait_for_output("beat waits for it")
            assert beat.stop(signal.SIGTERM) == 0, beat.output
            web.wait_for_output("Unexpected exit")
    lines = [line for program in (worker, beat) for line in program.output.splitlines() if line]
    found = [json.loads(line) for line in [*lines, *(line for line in web.output.splitlines() if "Unexpected exit" in line)]]
    assert {"celery.apps.worker", "celery.worker", "jetrelay.beat", "_granian"} <= {line["logger"] for line in found}
    assert all({"timestamp", "level", "logger", "message"} <= line.keys() for line in found)
    assert not any("hunter2" in line for line in lines)


@pytest.mark.whole
@pytest.mark.parametrize("form", FORMS)
def test_a_worker_and_beat_end_when_they_are_told_to_though_nobody_reads_what_they_say(form: str, tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as ready:
        env = ready | {"SECRET_KEY": "only-for-this-test", "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "=", "JETRELAY_LOG_FORMAT": form}
        argv = {child.name: child.argv for child in up.children(env, "127.0.0.1", 8000, None)}
        away = {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}
        # Celery says that it is ready where it is asked to say so much.
        for name, says, over in (("worker", b"ready", {}), ("beat", b"beat waits for it", away)):
            reader, writer = os.pipe()
            chatty = [*argv[name], "--loglevel", "INFO"]
            process = subprocess.Popen(chatty, env=env | over, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, start_new_session=True)
            try:
                read = b""
                while says not in read:
                    assert select.select([reader], [], [], 60)[0], read
                    read += os.read(reader, 65_536)
                os.set_blocking(writer, False)
                with contextlib.suppress(BlockingIOError):
                    while os.write(writer, b"x" * 512):
                        pass
                os.set_blocking(writer, True)
                process.terminate()
                assert process.wait(40) == 0
            finally:
                process.kill()
                process.wait()
                os.close(reader)
                os.close(writer)


# --- the id of a request ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "4bf92f3577b34da6a3ce929d0e0e4736", "a-b_c.d", "x" * 64])
def test_a_request_keeps_the_id_that_it_came_with(given: str) -> None:
    assert Client().get("/api/v1/nothing", headers={"X-Request-ID": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\nb", "a\n", "é", "<b>", '"', "-a", "jr_abcdefghijklmnop", "whsec_x"])
def test_an_id_that_is_none_is_replaced(given: str) -> None:
    answer = Client().get("/api/v1/nothing", headers={"X-Request-ID": given})
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.django_db
def test_the_id_is_in_what_is_logged_meanwhile_and_in_nothing_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("some failure")

    monkeypatch.setattr("jetrelay.inbox.views.get_object_or_404", fail)
    with logged("json") as said:
        answer = Client(raise_request_exception=False).post("/inbox/a-token", headers={"X-Request-ID": "mine"})
        logger.warning("after")
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "mine")
    *meanwhile, after = said.objects
    assert meanwhile
    assert {line.get("request_id") for line in meanwhile} == {"mine"}
    assert "request_id" not in after


def test_the_id_of_a_task_is_in_what_it_logs_and_in_nothing_after() -> None:
    @app.task(name="trial.logs")
    def work() -> None:
        logger.warning("meanwhile")

    with logged("json") as said:
        build_tracer(work.name, work, app=app)("an-id", (), {}, {})
        logger.warning("after")
    assert [(line["message"], line.get("task"), line.get("task_id")) for line in said.objects] == [("meanwhile", "trial.logs", "an-id"), ("after", None, None)]


def test_a_request_has_a_line_without_its_secrets() -> None:
    def site(_environ: object, start_response: object) -> list[bytes]:
        start_response("404 Not Found", [("X-Request-Id", "mine")])  # type: ignore[operator]
        return [b""]

    with logged("json") as said:
        for path in ("/inbox/a-token", "/inbox/a-token/messages/", "/welcome/MQ/a-token/", "/events/\nforged"):
            logging_requests(site)({"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": "q=a-token"}, lambda *_: None)
    assert "a-token" not in said.text
    assert [line["path"] for line in said.objects] == ["/inbox/(hidden)", "/inbox/(hidden)", "/welcome/(hidden)", "/events/\nforged"]
    assert {(line["method"], line["status"], line["request_id"]) for line in said.objects} == {("GET", 404, "mine")}


# --- the stream -----------------------------------------------------------------------------------------------------


def handler_to(descriptor: int) -> Handler:
    handler = Handler()
    handler.setStream(os.fdopen(descriptor, "w"))
    handler.setFormatter(Formatter("console"))
    return handler


def record(message: str) -> logging.LogRecord:
    # What is no trouble is not counted, however often it comes (`test_repeats.py`).
    return logging.LogRecord("delivery.trial", logging.INFO, "", 0, message, (), None)


def test_nobody_who_reads_is_no_reason_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetrelay.logs.stream.PATIENCE_S", 0.0)
    reader, writer = os.pipe()
    handler = handler_to(writer)
    try:
        for number in range(2_000):
            handler.emit(record(f"{number} " + "x" * 200))
        assert handler.left_out > 0
        written = 2_000 - handler.left_out
        os.set_blocking(reader, False)
        read = b""
        while len(read.splitlines()) < written:
            read += os.read(reader, 65_536)
        # Whole lines, in their order; and once somebody reads, more of them, after what is missing.
        assert [line.split()[2] for line in read.splitlines()] == [b"%d" % number for number in range(written)]
        handler.emit(record("again"))
        handler.emit(record("and again"))
        notice = b"WARNING jetrelay.logs.stream: %d lines are left out here: nobody was reading." % handler.left_out
        assert os.read(reader, 65_536).splitlines() == [notice, b"INFO delivery.trial: again", b"INFO delivery.trial: and again"]
    finally:
        os.close(reader)
        handler.stream.close()


def test_a_line_that_was_torn_does_not_spoil_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetrelay.logs.stream.PATIENCE_S", 0.0)
    reader, writer = os.pipe()
    handler = handler_to(writer)
    try:
        long = record("")
        long.lines = "x" * 200_000
        handler.emit(long)
        handler.emit(long)
        assert handler.left_out > 0
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(reader, 65_536):
                pass
        handler.emit(record("again"))
        assert os.read(reader, 65_536).splitlines()[-1] == b"INFO delivery.trial: again"
    finally:
        os.close(reader)
        handler.stream.close()


def test_a_reader_that_is_gone_raises_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    handler = handler_to(writer)
    os.close(reader)
    handler.emit(record("one"))
    handler.stream.close()
    handler.emit(record("two"))
    assert handler.left_out == 2
    assert capfd.readouterr().err == ""


def test_lines_of_many_threads_do_not_mix() -> None:
    reader, writer = os.pipe()
    handler = handler_to(writer)
    found: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as file:
            found.extend(file)

    reading = threading.Thread(target=read)
    reading.start()
    threads = [threading.Thread(target=lambda mark=mark: [handler.handle(record(mark * 3_000)) for _ in range(20)]) for mark in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.stream.close()
    reading.join()
    assert sorted(line.split()[2] for line in found) == sorted(mark.encode() * 3_000 for mark in "abcd" for _ in range(20))


def test_the_process_knows_its_own_secrets() -> None:
    assert sys.modules["django.conf"].settings.JETRELAY_ENCRYPTION_KEYS[0] in masking._values
