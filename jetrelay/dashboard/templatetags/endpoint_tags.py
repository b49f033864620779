"""Filters of the pages of endpoints."""

from django import template

from delivery.explain import explain
from jetrelay.dashboard.endpoints.figures import Answer

register = template.Library()


@register.filter
def answered(answer: Answer) -> str:
    return explain(answer.status, answer.error).words
