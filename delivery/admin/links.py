"""Links from one row of the admin to others: to one row by its id, or to a list of those that belong to it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from subscriptions.ids import PublicModel, to_public


def to_row(model: type[PublicModel], id: UUID) -> SafeString:
    """By its public id. It may have been pruned: the admin then says so."""
    return format_html('<a href="{}">{}</a>', reverse(f"admin:{_name(model)}_change", args=[id]), to_public(model.prefix, id))


def to_list(model: type[Model], words: str, query: Mapping[str, Any]) -> SafeString:
    return format_html('<a href="{}?{}">{}</a>', reverse(f"admin:{_name(model)}_changelist"), urlencode(query), words)


def several(*links: SafeString) -> SafeString:
    return format_html_join(" · ", "{}", ((link,) for link in links))


def _name(model: type[Model]) -> str:
    return f"{model._meta.app_label}_{model._meta.model_name}"


def to(url: str, words: str) -> SafeString:
    return format_html('<a href="{}"><bdi>{}</bdi></a>', url, words)
