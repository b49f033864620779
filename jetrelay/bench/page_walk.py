"""Requests every page many times, and says how long the site took for each and how many queries it asked. Runs beside `week.py`, in the same database."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from delivery import interpreter
from delivery.models import Delivery, Event, Replay
from subscriptions.ids import new_id, to_public
from subscriptions.models import ApiKey, Endpoint

# Who asks: a superuser, who sees all tenants, and an owner in one of them.
ADA, GRACE = "ada", "grace"


@dataclass(frozen=True)
class Page:
    """A page by the name of its URL. `row` names those of the `rows()` that stand in its path; `{…}` in the query stands for the public id of another."""

    name: str
    query: str = ""
    row: str = ""
    who: tuple[str, ...] = (ADA, GRACE)


# The dashboard's pages. One that is added to its URLs gets a line here.
PAGES: tuple[Page, ...] = (
    Page("overview"),
    Page("overview", "span=week"),
    Page("events_fragment"),
    Page("outcomes_fragment"),
    Page("charts_fragment", "span=day"),
    Page("collections_fragment"),
    Page("events"),
    Page("events", "type=app.bsky.nothing"),
    Page("events", "q=found+nowhere"),
    Page("events", "subject={subject}"),
    Page("events", "last=1d&operation=delete"),
    Page("event", row="event"),
    Page("event_fragment", row="event"),
    Page("event_body", row="event"),
    Page("tail"),
    Page("tail_fragment"),
    Page("deliveries"),
    Page("deliveries", "state=dead"),
    Page("deliveries", "state=pending"),
    Page("deliveries", "state=cancelled"),
    Page("deliveries", "type=app.bsky.nothing"),
    Page("deliveries", "before={middle}"),
    Page("deliveries", "endpoint={busy}"),
    Page("deliveries", "endpoint={busy}&state=dead"),
    Page("deliveries", "endpoint={quiet}&state=pending"),
    Page("deliveries", "q={event}"),
    Page("deliveries_selected"),
    Page("delivery", row="delivery"),
    Page("delivery", row="dead"),
    Page("delivery_fragment", row="dead"),
    Page("delivery_attempt", row="dead attempt"),
    Page("delivery_attempt_body", row="dead attempt"),
    Page("endpoints"),
    Page("endpoints", "state=paused"),
    Page("endpoints", "q=receiver-7"),
    Page("endpoint", row="busy"),
    Page("endpoint", row="quiet"),
    Page("endpoint_fragment", row="busy"),
    Page("endpoint_new"),
    Page("endpoint_edit", row="busy"),
    Page("endpoint_delete", row="busy"),
    Page("endpoint_secret", row="busy"),
    Page("endpoint_rotate", row="busy"),
    Page("endpoint_signature", row="busy"),
    Page("subscription_new", row="busy"),
    Page("subscription_edit", row="busy subscription"),
    Page("subscription_remove", row="busy subscription"),
    Page("replays"),
    Page("replays_fragment"),
    Page("replay", row="replay"),
    Page("replay_fragment", row="replay"),
    Page("replay_new"),
    Page("replay_new", "action=replay&delivery_state=dead"),
    Page("stream"),
    Page("hosts_fragment"),
    Page("gaps_fragment"),
    Page("rejected_fragment"),
    Page("keys"),
    Page("key_new"),
    Page("key", row="key"),
    Page("members"),
    Page("member_new"),
    Page("member", row="membership"),
    Page("audit"),
    Page("audit", "action=endpoint.pause"),
    Page("account"),
)
# The admin's lists and rows are found by themselves; these are what may be asked of its long lists.
ADMIN: tuple[Page, ...] = tuple(
    Page(f"admin:{name}_changelist", query, who=(ADA,))
    for name, queries in {
        "delivery_event": ("p=200", "q={event}", "q={subject}", "time=today", "time=week", "source={source}", "kind=identity", "operation=delete"),
        "delivery_delivery": (
            "p=200", "q={delivery}", "q={event}", "q={busy}", "q=receiver-7.example", "q=receiver-", "time=yesterday", "state=pending", "state=delivered",
            "state=dead", "state=cancelled", "state=dead&time=yesterday", "endpoint={busy}", "endpoint={quiet}", "endpoint={busy}&state=dead",
            "endpoint={busy}&state=pending", "endpoint={busy}&state=delivered", "endpoint={busy}&state=cancelled",
        ),
        "delivery_attempt": ("p=200", "q={attempt}", "q={dead}", "outcome=refused", "outcome=unanswered", "time=hour"),
        "delivery_attempttally": ("p=200", "outcome=dead", "endpoint={busy}", "time=today"),
        "delivery_eventtally": ("p=200", "kind=identity", "q=app.bsky.feed.post"),
        "delivery_replay": ("state=running", "q={busy}"),
        "subscriptions_auditentry": ("q={busy}", "q=endpoint.pause", "tenant={tenant}"),
        "subscriptions_endpoint": ("q={busy}", "q=receiver-7", "state__exact=paused", "tenant={tenant}", "all="),
        "subscriptions_subscription": ("q=receiver-7", "endpoint={busy}"),
        "subscriptions_endpointpaststate": ("endpoint={busy}",),
    }.items()
    for query in queries
)  # fmt: skip


@dataclass
class Visit:
    """One page, asked for by one person."""

    label: str
    url: str
    client: Client
    queries: int = 0
    ms: list[float] = field(default_factory=list)

    def look(self) -> None:
        """Once, unmeasured: what a process makes at its first request is made then."""
        with CaptureQueriesContext(connection) as asked:
            answer = self.client.get(self.url, follow=True)
        if answer.status_code != 200:
            raise CommandError(f"{self.url} answered {answer.status_code}.")
        self.queries = len(asked)

    def measure(self) -> None:
        started = perf_counter()
        self.client.get(self.url, follow=True)
        self.ms.append((perf_counter() - started) * 1000)

    def figures(self) -> dict[str, float]:
        rising = sorted(self.ms)
        return {"p50_ms": round(rising[len(rising) // 2], 1), "p95_ms": round(rising[int(len(rising) * 0.95)], 1), "queries": self.queries}


def walk(rounds: int, path: str) -> None:
    """Ask for every page so many times, in turns, so that what else the machine does meets all of them; write the figures to a file."""
    visits = list(_visits())
    for visit in visits:
        visit.look()
    # As `wsgi.py` does.
    interpreter.collect_rarely()
    for _ in range(rounds):
        for visit in visits:
            visit.measure()
    Path(path).write_text(json.dumps({visit.label: visit.figures() for visit in visits}))


def rows() -> dict[str, Any]:
    """Rows that pages are about, by name. The first endpoint has a third of all deliveries, the last next to none."""
    newest = Delivery.objects.order_by("-id")[0]
    dead = Delivery.objects.filter(state=Delivery.State.DEAD).order_by("endpoint", "id")[0]
    endpoints = Endpoint.objects.order_by("id")
    event = Event.objects.get(pk=newest.event_id)
    first, last = Delivery.objects.order_by("id")[0].pk.int, newest.pk.int
    busy = endpoints[0]
    found: dict[str, Any] = {"delivery": newest, "event": event, "source": event.source, "dead": dead}
    found |= {"busy": busy, "tenant": busy.tenant, "quiet": endpoints.reverse()[0]}
    found |= {"attempt": dead.attempts.all()[0], "subject": event.subject, "middle": to_public(Delivery.prefix, type(new_id())(int=(first + last) // 2))}
    return found | _of_tenant(busy)


def _of_tenant(endpoint: Endpoint) -> dict[str, Any]:
    """A subscription of this endpoint; and of its tenant a replay, a key and a membership."""
    tenant = endpoint.tenant
    return {
        "subscription": endpoint.subscriptions.all()[0],
        "replay": Replay.objects.for_tenant(tenant)[0],
        "key": ApiKey.objects.for_tenant(tenant)[0],
        "membership": tenant.memberships.all()[0],
    }


def _visits() -> Iterator[Visit]:
    found, clients = rows(), {name: _client(name) for name in (ADA, GRACE)}
    ids = {name: getattr(row, "public_id", row) for name, row in found.items()}
    mine = {ADA: found, GRACE: found | _rows_of(GRACE)}
    for page in (*PAGES, *ADMIN):
        for who in page.who:
            url = reverse(page.name, args=[mine[who][row].pk for row in page.row.split()])
            query = page.query.format(**ids)
            label = f"{page.name}{f' {page.row}' if page.row else ''}{f'?{page.query}' if query else ''}"
            yield Visit(f"{label} as {who}" if len(page.who) > 1 else label, f"{url}?{query}" if query else url, clients[who])
    yield Visit("admin:index", reverse("admin:index"), clients[ADA])
    for model in sorted(admin.site._registry, key=lambda each: each._meta.label_lower):
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield Visit(f"{name}_changelist", reverse(f"{name}_changelist"), clients[ADA])
        if row := model._default_manager.order_by("-pk").values_list("pk", flat=True).first():
            yield Visit(f"{name}_change", reverse(f"{name}_change", args=[row]), clients[ADA])


def _rows_of(username: str) -> dict[str, Any]:
    """What a member may look at: the like of the `rows()` in their first tenant."""
    endpoints = Endpoint.objects.filter(tenant__memberships__user__username=username).order_by("id")
    delivery = Delivery.objects.filter(endpoint=endpoints[0]).order_by("-id")[0]
    dead = Delivery.objects.filter(endpoint__in=list(endpoints.values_list("pk", flat=True)), state=Delivery.State.DEAD).order_by("endpoint", "id")[0]
    found: dict[str, Any] = {"busy": endpoints[0], "quiet": endpoints.reverse()[0], "delivery": delivery, "dead": dead, "event": delivery.event}
    return found | {"attempt": dead.attempts.all()[0]} | _of_tenant(endpoints[0])


def _client(username: str) -> Client:
    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.get(username=username))
    return client
