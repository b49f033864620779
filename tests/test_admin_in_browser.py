"""The admin in a real browser: under the site's policy, by typing and by clicking, wide and narrow. Skipped where Chromium or Playwright is missing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from delivery.models import AttemptTally, AttemptTotal, Delivery, EventTally, EventTotal, Lease, TotalMark
from jetrelay.api.models import IdempotentRequest
from jetrelay.inbox.models import Inbox, InboxMessage
from subscriptions.models import AuditEntry, Endpoint, EndpointPastState, Membership
from tests.browser import CHROMIUM, PASSWORD, REFUSED, chromium
from tests.builders import (
    make_api_key,
    make_attempt,
    make_delivery,
    make_endpoint,
    make_event,
    make_gap,
    make_health,
    make_host,
    make_rejected,
    make_replay,
    make_source,
    make_subscription,
    make_tenant,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, expect
else:
    expect = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed").expect

__all__ = ["chromium"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

DELIVERIES = "/admin/delivery/delivery/"
ENDPOINTS = "/admin/subscriptions/endpoint/"
WIDE = 220


@pytest.fixture
def page(chromium: "Browser", live_server: Any) -> "Iterator[Page]":
    """A page of a superuser who has just signed in. Nothing may be refused by the policy or fail on the way."""
    cache.clear()
    User.objects.create_superuser("ada", password=PASSWORD)
    context = chromium.new_context(base_url=live_server.url)
    complaints: list[str] = []
    page = context.new_page()
    page.set_default_timeout(10_000)
    context.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") and REFUSED not in message.text else None)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    page.goto("/admin/")
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Administration").wait_for()
    yield page
    context.close()
    assert complaints == []


def make_one_of_everything() -> None:
    """Long, so that it shows what does not fit."""
    now, long = timezone.now(), "w" * WIDE
    endpoint = make_health(endpoint=make_endpoint(name=long[:100], url=f"https://receiver.example/{long}"), reason=long).endpoint
    source = make_source()
    make_subscription(endpoint=endpoint, source=source)
    event = make_event(source=source, type=f"a.b.{long}", subject=f"did:plc:{long}", body=long.encode())
    make_attempt(delivery=make_delivery(endpoint=endpoint, event=event, state=Delivery.State.DEAD), response_headers=long, response_body=long.encode())
    make_host(source=source, host=f"wss://{long}.example")
    make_gap(source=source, host=f"wss://{long}.example")
    make_rejected(source=source, reason=long)
    make_replay(endpoint=endpoint)
    make_api_key()
    Lease.objects.create(name="lane-0", owner=long[:100], expires_at=now)
    EventTally.objects.create(source=source, minute=now, kind="commit", type=f"a.b.{long}")
    AttemptTally.objects.create(endpoint=endpoint, minute=now, outcome="delivered")
    EventTotal.objects.create(source=source, hour=now)
    AttemptTotal.objects.create(endpoint=endpoint, hour=now, outcome="delivered")
    TotalMark.objects.create(tally="eventtally", until=now, closed=now)
    Membership.objects.create(tenant=endpoint.tenant, user=User.objects.get())
    AuditEntry.note(endpoint.tenant, long[:200], "endpoint.pause", endpoint.public_id, long)
    EndpointPastState.objects.create(endpoint=endpoint, state="paused", from_at=now, to_at=now)
    IdempotentRequest.objects.create(tenant=endpoint.tenant, key=long, fingerprint=b"\x01", status=201)
    InboxMessage.objects.create(inbox=Inbox.objects.create(endpoint=endpoint), verified=True, verdict=long[:200], body=b"\xff")
    Group.objects.create(name="operators")
    LogEntry.objects.log_actions(User.objects.get().pk, [endpoint], CHANGE, "Paused.", single_object=True)
    interval, crontab = IntervalSchedule.objects.create(every=2, period="hours"), CrontabSchedule.objects.create(hour="4")
    PeriodicTask.objects.create(name="sweep", task="delivery.sweep", interval=interval, last_run_at=now)
    PeriodicTask.objects.create(name="mine", task="delivery.prune", crontab=crontab)


def everything() -> list[str]:
    """A list, a row and, where there is one, the form of a new row of every table."""
    urls = ["/admin/", "/admin/delivery/", "/admin/password_change/"]
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        row = model._default_manager.first()
        assert row is not None, model
        urls += [reverse(f"{name}_changelist"), reverse(f"{name}_change", args=[row.pk]), reverse(f"{name}_history", args=[row.pk])]
    return urls


def test_every_page_keeps_the_policy_and_fits_a_narrow_screen(page: "Page") -> None:
    make_one_of_everything()
    page.set_viewport_size({"width": 360, "height": 800})
    too_wide = []
    for url in everything():
        answer = page.goto(url)
        assert answer is not None
        assert answer.status == 200, url
        assert answer.headers["content-security-policy"].startswith("default-src 'self';"), url
        if page.evaluate("document.documentElement.scrollWidth") > 360:
            too_wide.append(url)
    assert too_wide == []


def test_the_forms_for_new_rows_keep_the_policy(page: "Page") -> None:
    make_one_of_everything()
    for model, model_admin in admin.site._registry.items():
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")
        answer = page.goto(url)
        assert answer is not None
        assert answer.status in (200, 403), url
        assert (answer.status == 200) == (f"{url}" in page.url and "<form" in page.content() and page.locator("[name=_save]").count() > 0), model_admin


def test_it_finds_an_endpoint_by_typing_and_lists_its_deliveries(page: "Page") -> None:
    mine = make_delivery(endpoint=make_endpoint(name="Billing"))
    make_delivery(endpoint=make_endpoint(name="Other"))
    page.goto(f"{DELIVERIES}?state=pending")
    expect(page.locator("#result_list tbody tr")).to_have_count(2)
    page.locator("#changelist-filter .select2-selection").click()
    page.locator(".select2-search__field").fill("bill")
    page.locator(".select2-results__option", has_text="Billing").click()
    page.locator("#changelist-filter form", has=page.locator("#filter-endpoint")).get_by_role("button", name="Show").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.locator("#result_list")).to_contain_text(mine.public_id)
    assert "state=pending" in page.url
    page.go_back()
    expect(page.locator("#result_list tbody tr")).to_have_count(2)


def test_it_chooses_a_day_and_an_hour_of_it(page: "Page") -> None:
    make_delivery()
    now = timezone.now()
    page.goto(DELIVERIES)
    page.get_by_label("Any day").fill(f"{now:%Y-%m-%d}")
    page.locator("#changelist-filter form", has=page.get_by_label("Any day")).get_by_role("button", name="Show").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.get_by_role("link", name=f"{(now.hour + 12) % 24:02d}:00 to").click()
    expect(page.locator(".paginator")).to_contain_text("0 deliveries")


def test_it_asks_before_it_pauses_those_that_are_ticked_on_a_narrow_screen(page: "Page") -> None:
    first, second = make_endpoint(name="First"), make_endpoint(name="Second", state=Endpoint.State.DISABLED)
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(ENDPOINTS)
    for box in page.locator("input.action-select").all():
        box.check()
    page.get_by_label("Action:").select_option("pause")
    page.locator("#changelist .actions button[name=index]").click()
    expect(page.locator("#content")).to_contain_text("1 of 2 endpoints selected")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".messagelist")).to_contain_text("First: paused.")
    assert (first.refreshed().state, second.refreshed().state) == ("paused", "disabled")


def test_it_adds_an_endpoint_with_a_subscription_whose_source_is_typed(page: "Page") -> None:
    make_tenant(name="Bakery")
    make_source(name="Jetstream")
    page.goto(f"{ENDPOINTS}add/")
    page.get_by_label("Name:").fill("New")
    page.get_by_label("Url:").fill("https://receiver.example/hook")
    page.get_by_text("Add another Subscription").click()
    box = page.locator("#subscriptions-0")
    expect(box.locator(".select2-selection")).to_contain_text("Jetstream")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".secrets")).to_contain_text("The signing secret of New is whsec_")
    assert Endpoint.objects.get().subscriptions.count() == 1


def test_a_popup_hands_its_row_back(page: "Page") -> None:
    page.goto(f"{ENDPOINTS}add/")
    with page.expect_popup() as opened:
        page.locator("#add_id_tenant").click()
    popup = opened.value
    popup.get_by_label("Name:").press_sequentially("Bakery")
    expect(popup.get_by_label("Slug:")).to_have_value("bakery")
    popup.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".field-tenant .select2-selection")).to_contain_text("Bakery")
