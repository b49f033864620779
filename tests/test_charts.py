"""Charts are geometry: where each bar and line stands, what its numbers are called, and what is said in words."""

import pytest

from jetrelay.dashboard import charts
from jetrelay.dashboard.charts import HEIGHT, Series, bars, ceiling, lines, sparkline
from jetrelay.dashboard.latency import BUCKETS, quantile_ms

LABELS = ["10:00", "10:01", "10:02"]


def whole(value: float) -> str:
    return f"{value:g}"


@pytest.mark.parametrize(("highest", "top"), [(0, 1), (0.03, 0.05), (1, 1), (1.1, 2), (20, 20), (21, 50), (73, 100), (100, 100), (101, 200), (4_999, 5_000)])
def test_it_ends_at_the_next_round_number(highest: float, top: float) -> None:
    assert ceiling(highest) == pytest.approx(top)


def test_it_stacks_the_values_of_a_moment() -> None:
    chart = bars("c", "Events", LABELS, [Series("stored", "good", [5, 0, 10]), Series("failed", "bad", [5, 0, 0])], whole)
    assert chart.top == "10"
    first, second, third = chart.slots
    assert [(bar.tone, bar.y, bar.height) for bar in first.bars] == [("good", HEIGHT / 2, HEIGHT / 2), ("bad", 0, HEIGHT / 2)]
    assert second.bars == []
    assert [(bar.y, bar.height) for bar in third.bars] == [(0, HEIGHT)]
    assert first.x + first.width <= second.x


def test_it_says_in_words_what_it_draws() -> None:
    chart = bars("c", "Events", LABELS, [Series("stored", "good", [1, 7, 2])], whole)
    assert chart.summary == "From 10:00 to 10:02: at most 7, at 10:01; last 2."
    assert [slot.words for slot in chart.slots] == ["10:00: stored 1", "10:01: stored 7", "10:02: stored 2"]


def test_it_says_that_there_was_nothing() -> None:
    chart = lines("c", "Time", LABELS, [Series("p50", "good", [None, None, None])], whole)
    assert (chart.empty, chart.summary, chart.lines[0].path) == (True, "Nothing in this time.", "")
    assert chart.slots[0].cells == ["p50 –"]


def test_a_line_breaks_where_there_is_no_value() -> None:
    chart = lines("c", "Time", [*LABELS, "10:03"], [Series("p50", "good", [10, None, 5, 10])], whole)
    # A lone point, a hole, then a stroke from half height to the top.
    assert chart.lines[0].path == "M75.0 0.0L76.0 0.0M375.0 60.0L525.0 0.0"


def test_a_sparkline_has_one_scale_for_good_and_bad() -> None:
    (_, _, (good, bad)), (_, _, (other, none)) = sparkline([(3, 1), (1, 0)])
    assert (good.y, good.height, bad.y, bad.height) == (5, 15, 0, 5)
    assert (other.height, none.height) == (5, 0)
    assert charts.sparkline([]) == []


def histogram(**counts: float) -> list[float]:
    return [counts.get(bucket, 0) for bucket in BUCKETS]


@pytest.mark.parametrize(
    ("counts", "share", "ms"),
    [
        ({}, 0.5, None),
        ({"ms_10": 4}, 0.5, 7.5),
        ({"ms_10": 4}, 1, 10),
        ({"ms_5": 50, "ms_250": 50}, 0.5, 5),
        ({"ms_5": 50, "ms_250": 50}, 0.95, 235),
        ({"ms_over": 3}, 0.95, 30_000),
    ],
)
def test_a_quantile_lies_within_its_bucket(counts: dict[str, float], share: float, ms: float | None) -> None:
    found = quantile_ms(histogram(**counts), share)
    assert found == (None if ms is None else pytest.approx(ms))
