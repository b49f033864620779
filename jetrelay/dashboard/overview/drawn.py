"""The charts of the overview: which numbers stand in which chart, and in which words."""

from datetime import datetime, timedelta

from jetrelay.dashboard import words
from jetrelay.dashboard.charts import Chart, Series, bars, lines
from jetrelay.dashboard.latency import quantile_ms
from jetrelay.dashboard.overview.series import Steps

# The step that runs is too young before this to say how much comes in a minute.
_YOUNGEST = timedelta(seconds=15)


def drawn(events: Steps, attempts: Steps, now: datetime) -> list[Chart]:
    return [_incoming(events, now), _outgoing(attempts, now), _latency(attempts)]


def _incoming(steps: Steps, now: datetime) -> Chart:
    kinds = (("stored", "good"), ("unmatched", "other"), ("duplicate", "still"), ("invalid", "bad"))
    return bars("chart-events", "Events per minute", steps.labels, [Series(name, tone, _a_minute(steps, name, now)) for name, tone in kinds], words.rate)


def _outgoing(steps: Steps, now: datetime) -> Chart:
    kinds = (("delivered", "good"), ("failed", "bad"))
    return bars("chart-attempts", "Attempts per minute", steps.labels, [Series(name, tone, _a_minute(steps, name, now)) for name, tone in kinds], words.rate)


def _latency(steps: Steps) -> Chart:
    series = [
        Series(name, tone, [quantile_ms(row, share) for row in steps.histograms()]) for name, tone, share in (("p95", "wait", 0.95), ("p50", "good", 0.5))
    ]
    return lines("chart-latency", "Attempt time", steps.labels, series, words.milliseconds)


def _a_minute(steps: Steps, name: str, now: datetime) -> list[float | None]:
    spent = [max(_YOUNGEST, min(steps.span.step, now - start)) / timedelta(minutes=1) for start in steps.starts]
    return [(value or 0) / minutes for value, minutes in zip(steps.values(name), spent, strict=True)]
