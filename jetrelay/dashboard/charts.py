"""Charts as geometry: numbers in, places on a plane out. Pure. `templates/_chart.html` draws one, with the same numbers as a table behind it.

A chart is read by its title, its summary and its table; the drawing says the same once more, for those who see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import NamedTuple

WIDTH, HEIGHT = 600.0, 120.0
# Between two bars.
_GAP = 0.15


class Series(NamedTuple):
    """One value for each moment; None where there is none. `tone` is a CSS class."""

    name: str
    tone: str
    values: Sequence[float | None]


class Bar(NamedTuple):
    tone: str
    y: float
    height: float


class Slot(NamedTuple):
    """One moment: its bars, one on the other, and its numbers in words."""

    label: str
    x: float
    width: float
    bars: Sequence[Bar]
    cells: Sequence[str]

    @property
    def words(self) -> str:
        return f"{self.label}: {', '.join(self.cells)}"


class Line(NamedTuple):
    """`path` is the `d` of an SVG path: a stroke for each stretch without a hole."""

    tone: str
    path: str


@dataclass(frozen=True)
class Chart:
    id: str
    title: str
    series: Sequence[Series]
    slots: Sequence[Slot]
    lines: Sequence[Line]
    # What the upper edge stands for, in words.
    top: str
    summary: str

    @property
    def empty(self) -> bool:
        return not any(value for each in self.series for value in each.values)

    @property
    def first(self) -> str:
        return self.slots[0].label

    @property
    def last(self) -> str:
        return self.slots[-1].label


def bars(id: str, title: str, labels: Sequence[str], series: Sequence[Series], words: Callable[[float], str]) -> Chart:
    """The values of each moment stacked, the first series at the bottom."""
    totals = [sum(each.values[place] or 0 for each in series) for place in range(len(labels))]
    top = ceiling(max(totals, default=0))
    width = WIDTH / max(1, len(labels))
    slots = [
        Slot(label, place * width + width * _GAP / 2, width * (1 - _GAP), _stack(series, place, top), _cells(series, place, words))
        for place, label in enumerate(labels)
    ]
    return Chart(id, title, series, slots, (), words(top), _summary(labels, totals, words))


def lines(id: str, title: str, labels: Sequence[str], series: Sequence[Series], words: Callable[[float], str]) -> Chart:
    """A line for each series; where a value is missing it is broken."""
    values = [max((each.values[place] or 0 for each in series), default=0) for place in range(len(labels))]
    top = ceiling(max(values, default=0))
    width = WIDTH / max(1, len(labels))
    slots = [Slot(label, place * width, width, (), _cells(series, place, words)) for place, label in enumerate(labels)]
    return Chart(id, title, series, slots, [Line(each.tone, _path(each.values, width, top)) for each in series], words(top), _summary(labels, values, words))


def sparkline(values: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float, Sequence[Bar]]]:
    """(x, width, bars) on a plane of 100 by 20, for (good, bad) of each moment; at the same scale all along."""
    top = max((good + bad for good, bad in values), default=0) or 1
    width = 100 / max(1, len(values))
    drawn = []
    for place, (good, bad) in enumerate(values):
        high, low = 20 * good / top, 20 * bad / top
        drawn.append((place * width, width * (1 - _GAP), [Bar("good", 20 - high, high), Bar("bad", 20 - high - low, low)]))
    return drawn


def ceiling(highest: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, … that is no smaller; 1 for nothing."""
    if highest <= 0:
        return 1.0
    size: float = 10.0 ** floor(log10(highest))
    return next(step * size for step in (1, 2, 5, 10) if step * size >= highest * (1 - 1e-9))


def _stack(series: Sequence[Series], place: int, top: float) -> list[Bar]:
    stacked, y = [], HEIGHT
    for each in series:
        height = HEIGHT * (each.values[place] or 0) / top
        if height > 0:
            y -= height
            stacked.append(Bar(each.tone, y, height))
    return stacked


def _path(values: Sequence[float | None], width: float, top: float) -> str:
    steps, pen = [], "M"
    for place, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        x, y = (place + 0.5) * width, HEIGHT * (1 - value / top)
        steps.append(f"{pen}{x:.1f} {y:.1f}")
        # A lone point would have no length to be drawn.
        alone = pen == "M" and (place + 1 == len(values) or values[place + 1] is None)
        if alone:
            steps.append(f"L{x + 1:.1f} {y:.1f}")
        pen = "L"
    return "".join(steps)


def _cells(series: Sequence[Series], place: int, words: Callable[[float], str]) -> list[str]:
    return [f"{each.name} {'–' if (value := each.values[place]) is None else words(value)}" for each in series]


def _summary(labels: Sequence[str], totals: Sequence[float], words: Callable[[float], str]) -> str:
    if not any(totals):
        return "Nothing in this time."
    highest = max(range(len(totals)), key=totals.__getitem__)
    return f"From {labels[0]} to {labels[-1]}: at most {words(totals[highest])}, at {labels[highest]}; last {words(totals[-1])}."
