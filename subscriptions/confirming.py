"""The page between a list in the admin and what is done to the rows that were selected there: it says how many there are, and what will become of them."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

# Named on the page; the rest is a number.
_NAMED = 20


def confirmed(request: HttpRequest) -> bool:
    """Whether this is the answer to the page."""
    return "apply" in request.POST


def ask(
    model_admin: "admin.ModelAdmin[Any]",
    request: HttpRequest,
    title: str,
    lines: Sequence[str],
    rows: "QuerySet[Any]",
    *,
    possible: bool = True,
    happens: str = "",
    fields: Iterable[Any] = (),
    button: str = "",
) -> HttpResponse:
    """Ask before `title` is done. `lines` are the counts, `happens` is what comes of it, and nothing can be done unless it is `possible`."""
    named = list(rows[: _NAMED + 1])
    across = request.POST.get("select_across") == "1"
    context = {
        "title": title,
        "opts": model_admin.opts,
        "lines": lines,
        "happens": happens,
        "possible": possible,
        "fields": fields,
        "button": button or title,
        "named": [(str(row), reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])) for row in named[:_NAMED]],
        "more": len(named) > _NAMED,
        "action": request.POST["action"],
        # All that the list shows, or those that were ticked.
        "across": across,
        "selected": [] if across else request.POST.getlist(ACTION_CHECKBOX_NAME),
    }
    return TemplateResponse(request, "admin/confirm_selected.html", model_admin.admin_site.each_context(request) | context)


def counted(count: int, singular: str, plural: str = "") -> str:
    """`1 key`, `2,000 keys`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"
