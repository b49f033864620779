"""Gaps and rejected frames, page by page: where each list begins is in the URL."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlencode

from delivery.models import RejectedFrame, StreamGap
from subscriptions.ids import from_public, to_public

PAGE = 20

Row = TypeVar("Row")


@dataclass(frozen=True)
class Place:
    """Both lists stand on one page. `problem` says in words what of the URL was not understood."""

    gaps_before: uuid.UUID | None = None
    frames_before: int | None = None
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        gap, frame = query.get("gaps_before", ""), query.get("frames_before", "")
        # Longer numbers are no ids.
        place = cls(from_public(gap), int(frame) if frame.isascii() and frame.isdigit() and len(frame) < 19 else None)
        if gap and place.gaps_before is None:
            return replace(place, problem=f"“{gap[:40]}” is not a gap's id: the newest are shown.")
        if frame and place.frames_before is None:
            return replace(place, problem=f"“{frame[:40]}” is not a frame's number: the newest are shown.")
        return place

    def query(self) -> str:
        parts = {"gaps_before": to_public(StreamGap.prefix, self.gaps_before) if self.gaps_before else "", "frames_before": self.frames_before}
        return urlencode({name: value for name, value in parts.items() if value})


@dataclass(frozen=True)
class Page(Generic[Row]):
    """`older` is the place of the next page, None after the last; `newest` that of the first, None on it."""

    rows: list[Row]
    newest: Place | None
    older: Place | None


def gaps(place: Place) -> Page[StreamGap]:
    rows = StreamGap.objects.order_by("-id")
    if place.gaps_before:
        rows = rows.filter(pk__lt=place.gaps_before)
    return _page(list(rows[: PAGE + 1]), place, "gaps_before")


def rejected_frames(place: Place) -> Page[RejectedFrame]:
    rows = RejectedFrame.objects.order_by("-id")
    if place.frames_before is not None:
        rows = rows.filter(pk__lt=place.frames_before)
    return _page(list(rows[: PAGE + 1]), place, "frames_before")


def _page(rows: list[Any], place: Place, before: str) -> Page[Any]:
    first: dict[str, Any] = {before: None}
    newest = replace(place, **first) if getattr(place, before) is not None else None
    return Page(rows[:PAGE], newest, replace(place, **first | {before: rows[PAGE - 1].pk}) if len(rows) > PAGE else None)
