"""Filters of the pages of endpoints."""

from django import template

from delivery.explain import explain
from delivery.models import LATENCY_BOUNDS_MS
from jetrelay.dashboard import words
from jetrelay.dashboard.endpoints.figures import Answer

register = template.Library()


@register.filter
def bound(ms: int | None, attempts: int) -> str:
    """The upper bound of a percentile. The last bucket of the histogram has none."""
    if ms is None and attempts:
        return f"> {words.milliseconds(LATENCY_BOUNDS_MS[-1])}"
    return words.milliseconds(ms)


@register.filter
def answered(answer: Answer) -> str:
    return explain(answer.status, answer.error).words
