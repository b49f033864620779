"""One endpoint: how it does, which renews itself, and what it is, which does not."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Prefetch
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from delivery.models import Delivery, Event
from delivery.standing import Standing, standing
from jetrelay.dashboard.access import HtmxRequest, members_page
from jetrelay.dashboard.endpoints import acting, figures, rows, terms
from subscriptions.models import Endpoint, EndpointPastState, Subscription

RECENT = 10
PAST_STATES = 10
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@require_safe
@members_page
def endpoint(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    found, now = _one(request, id), timezone.now()
    may_act, stands = request.access.may_act_in(found.tenant_id), standing(found, now)
    context = _doing(found) | {
        "may_act": may_act,
        "acts": acting.offered(found, stands) if may_act else [],
        "rotating": found.previous_secret_expires_at is not None and found.previous_secret_expires_at > now,
        "recover_since": f"{_missed_since(stands, now).astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        "retries": terms.retries(found),
        "limits": terms.limits(found),
        "subscriptions": [(each, terms.wish(each)) for each in Subscription.objects.filter(endpoint=found).select_related("source").order_by("id")],
    }
    return render(request, "dashboard/endpoints/endpoint.html", context)


@require_safe
@members_page
def endpoint_fragment(request: HtmxRequest, id: uuid.UUID) -> HttpResponse:
    return render(request, "dashboard/endpoints/_doing.html", _doing(_one(request, id)))


def _one(request: HtmxRequest, id: uuid.UUID) -> Endpoint:
    found = figures.with_debts(rows.seen(request).without_secrets()).select_related("tenant", "inbox", "health").defer("inbox__token").filter(pk=id).first()
    if found is None:
        raise Http404("No endpoint has this id: it may have been deleted.")
    return found


def _doing(endpoint: Endpoint) -> dict[str, Any]:
    """What changes by itself."""
    now = timezone.now()
    stands = standing(endpoint, now)
    failure, advice = terms.failure(stands)
    return {
        "endpoint": endpoint,
        "standing": stands,
        "breaker": terms.breaker(stands),
        "failure": failure,
        "advice": advice,
        "backlog": figures.counted(endpoint, "pending_count"),
        "dead": figures.counted(endpoint, "dead_count"),
        "oldest_due_at": _past(vars(endpoint)["oldest_due_at"], now),
        "hour": figures.last_hour(endpoint.pk, now),
        "answers": figures.answers(endpoint.pk),
        "answers_of": figures.ANSWERS_OF,
        "recent": _recent(endpoint),
        "past_states": list(EndpointPastState.objects.filter(endpoint=endpoint).order_by("-to_at")[:PAST_STATES]),
    }


def _missed_since(stands: Standing, now: datetime) -> datetime:
    """What the form of a recovery starts with: the trouble, as far as events are kept."""
    return max(stands.failing_since or now - DAY, now - timedelta(days=settings.JETRELAY_RETENTION_DAYS) + HOUR)


def _past(at: datetime | None, now: datetime) -> datetime | None:
    """What is due later waits for its retry, and is not late."""
    return at if at is not None and at <= now else None


def _recent(endpoint: Endpoint) -> list[Delivery]:
    events = Prefetch("event", Event.objects.only("id", "type", "kind", "operation"))
    found = list(Delivery.objects.filter(endpoint=endpoint.pk).prefetch_related(events).order_by("-id")[:RECENT])
    for each in found:
        each.endpoint = endpoint
    return found
