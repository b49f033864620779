"""What is said again and again: in full once, then in words, then counted."""

import gc
import logging
import weakref

import pytest

from jetrelay.logs import repeats
from jetrelay.logs.repeats import Repeats


def record(words: str, *args: object, level: int = logging.ERROR, error: Exception | None = None) -> logging.LogRecord:
    return logging.LogRecord("x", level, __file__, 1, words, args, (type(error), error, None) if error else None)


def said(made: Repeats, *records: logging.LogRecord, at: float = 0.0) -> list[str]:
    return [each.getMessage() + (" + trace" if each.exc_info else "") for one in records for each in made.passed(one, at)]


def test_a_failure_has_its_traceback_once() -> None:
    made = Repeats()
    failures = [record("failed %d", number, error=OSError("full")) for number in range(1_000)]
    assert said(made, *failures) == ["failed 0 + trace", "failed 1", "failed 2"]
    assert said(made, failures[0], at=30.0) == []
    assert said(made, failures[7], at=61.0) == ["In the last 61 s 998 more lines like this one were left out: failed 0", "failed 7 + trace"]


def test_the_same_words_are_said_three_times_and_others_go_on() -> None:
    made = Repeats()
    assert said(made, *[record("away", level=logging.WARNING)] * 9) == ["away"] * 3
    assert said(made, record("another")) == ["another"]
    assert said(made, *(record("Endpoint %d", number) for number in range(50))) == [f"Endpoint {number}" for number in range(50)]


def test_another_failure_is_another_matter() -> None:
    made = Repeats()
    errors = (OSError("full"), OSError("gone"), ValueError("full"))
    assert [said(made, record("failed", error=error)) for error in errors] == [["failed + trace"]] * 3
    tasks = [logging.LogRecord("x", 40, __file__, 1, "Task %(name)s", ({"name": name},), (OSError, OSError("full"), None)) for name in ("a", "b")]
    assert said(made, *tasks) == ["Task a + trace", "Task b + trace"]


def test_what_is_left_out_is_told_by_whatever_comes_next() -> None:
    made = Repeats()
    said(made, *[record("away")] * 5)
    told = said(made, record("fine", level=logging.INFO), at=repeats.WINDOW_S)
    assert told == ["In the last 60 s 2 more lines like this one were left out: away", "fine"]
    assert said(made, record("fine", level=logging.INFO), at=200.0) == ["fine"]


def test_what_is_no_trouble_is_never_left_out() -> None:
    made = Repeats()
    assert len(said(made, *[record("request", level=logging.INFO)] * 500)) == 500
    lines = record("", level=logging.WARNING)
    lines.lines = "many\n"
    assert len(said(made, *[lines] * 500)) == 500


def test_one_pen_writes_so_many_lines_a_minute_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Repeats()
    assert len(said(made, *(record("%d", number) for number in range(1_000)))) == repeats.ALIKE
    # However many texts there are, the memory and the tracebacks are bounded.
    monkeypatch.setattr(repeats, "MOST", 10)
    for number in range(100):
        said(made, record(f"{number}", error=OSError(f"{number}")))
    assert len(made._kinds) == 10
    assert len(made._traces) == repeats.TRACES


def test_what_one_pen_left_out_is_told_in_one_line() -> None:
    made = Repeats()
    said(made, *(record("%d", number) for number in range(600)))
    (told, *_) = said(made, record("fine", level=logging.INFO), at=repeats.WINDOW_S)
    assert told == "In the last 60 s 500 more lines like this one were left out: 0"


def test_the_first_failure_of_its_kind_is_told_however_much_its_pen_has_written() -> None:
    made = Repeats()
    said(made, *(record("%s: %s", "Service Unavailable", f"/{number}") for number in range(200)))
    assert said(made, record("%s: %s", "Internal Server Error", "/x", error=ValueError("new"))) == ["Internal Server Error: /x + trace"]


def test_what_made_room_for_others_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST", 4)
    made = Repeats()
    said(made, *[record("away")] * 9)
    told = said(made, *(record(f"{number}") for number in range(5)))
    assert "In the last 0 s 6 more lines like this one were left out: away" in told


def test_arguments_that_do_not_fit_cost_no_line() -> None:
    (one,) = Repeats().passed(record("%d", "x"), 0.0)
    assert one.msg == "%d"


def test_nothing_is_remembered_of_what_a_line_was_made_from() -> None:
    """A traceback holds its frames, and they a whole request."""

    class Body:
        pass

    body, made = Body(), Repeats()
    gone = weakref.ref(body)
    try:
        raise OSError("full", body)
    except OSError as error:
        failure = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed on %s", (body,), (type(error), error, error.__traceback__))
    assert len(said(made, *[failure] * 9)) == repeats.FAILURES
    del failure, body
    gc.collect()
    assert gone() is None
