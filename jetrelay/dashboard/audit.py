"""The audit log, for pages: who did what to which row, and from where.

    note(request, "endpoint.test", endpoint.public_id, endpoint.tenant_id, "passed")

Call it in the transaction of the deed. An action is named as the API names it, `noun.verb`. What goes through
`delivery/admin/acts.py` or the admin is noted there already.
"""

from collections.abc import Callable
from uuid import UUID

from django.http import HttpRequest, HttpResponseBase

from subscriptions.asked import asked_from
from subscriptions.models import AuditEntry, Tenant


def note(request: HttpRequest, action: str, target: str = "", tenant: Tenant | UUID | None = None, detail: str = "") -> AuditEntry:
    """Write down that whoever asks did this. `tenant`: whose row it was done to; None where it belongs to all, as the stream does."""
    return AuditEntry.note_by(request.user, tenant, action, target, detail)


def addressed(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: what is noted while a request is answered knows from where it was asked for."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        with asked_from(request.META.get("REMOTE_ADDR", "")):
            return get_response(request)

    return middleware
