from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import current_app
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import ModelEntry

from delivery.admin import BoundedPaginator
from delivery.models import (
    Attempt,
    AttemptTally,
    AttemptTotal,
    Delivery,
    EndpointHealth,
    Event,
    EventTally,
    EventTotal,
    Lease,
    RejectedFrame,
    Replay,
    StreamGap,
    StreamHost,
    TotalMark,
)
from jetrelay.api.models import IdempotentRequest
from jetrelay.inbox.models import Inbox, InboxMessage
from subscriptions.models import ApiKey, AuditEntry, ConfigVersion, Endpoint, EndpointPastState, Membership, Source, Subscription, Tenant, new_secret
from tests.builders import make_attempt, make_delivery, make_endpoint, make_event, make_gap, make_host, make_rejected, make_source, make_tenant

pytestmark = pytest.mark.django_db

TOKEN = "very-secret-token"
LOGS = [
    "event",
    "delivery",
    "attempt",
    "streamhost",
    "streamgap",
    "rejectedframe",
    "lease",
    "eventtally",
    "attempttally",
    "endpointhealth",
    "replay",
    "eventtotal",
    "attempttotal",
    "totalmark",
]


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


@pytest.fixture
def endpoint() -> Endpoint:
    """One row of everything around an endpoint."""
    now = timezone.now()
    endpoint = make_endpoint(bearer_token=TOKEN, url="https://example.com/hook")
    source = make_source()
    Subscription.objects.create(endpoint=endpoint, source=source)
    make_attempt(delivery=make_delivery(endpoint=endpoint, event=make_event(source=source, body=b"\xff\x00")))
    make_host(source=source)
    make_gap(source=source)
    make_rejected(source=source, head=b"\xff\x00")
    Lease.objects.create(name="lane-0", expires_at=now)
    EndpointHealth.objects.create(endpoint=endpoint, failures=2)
    Replay.objects.create(endpoint=endpoint)
    EventTally.objects.create(source=source, minute=now, kind="commit", type="a.b.c")
    AttemptTally.objects.create(endpoint=endpoint, minute=now, outcome="delivered", attempts=2, total_ms=3)
    EventTotal.objects.create(source=source, hour=now, received=2)
    AttemptTotal.objects.create(endpoint=endpoint, hour=now, outcome="delivered", attempts=2, total_us=3000)
    TotalMark.objects.create(tally="eventtally", until=now, closed=now)
    ApiKey.objects.create(tenant=endpoint.tenant, name="CI", visible_prefix="jr_abc", digest=b"\x01" * 32)
    Membership.objects.create(tenant=endpoint.tenant, user=User.objects.create_user("grace"))
    AuditEntry.note(endpoint.tenant, "key CI (jr_abc…)", "endpoint.pause", endpoint.public_id)
    EndpointPastState.objects.create(endpoint=endpoint, state="paused", from_at=now, to_at=now)
    IdempotentRequest.objects.create(tenant=endpoint.tenant, key="k", fingerprint=b"\x01", status=201, answer=f'{{"secret": "{endpoint.secret}"}}')
    InboxMessage.objects.create(inbox=Inbox.objects.create(endpoint=endpoint), verified=True, verdict="", body=b"\xff\x00")
    return endpoint


def ours() -> list[type[Any]]:
    return [model for label in ("subscriptions", "delivery", "inbox") for model in apps.get_app_config(label).get_models() if model is not ConfigVersion]


def url_of(page: str, row: Any = None) -> str:
    name = row if isinstance(row, str) else f"{row._meta.app_label}_{row._meta.model_name}"
    return reverse(f"admin:{name}_{page}", args=[] if isinstance(row, str) or page == "changelist" else [row.pk])


def form_of(client: Client, url: str) -> dict[str, Any]:
    """What a browser would send back unchanged."""
    response = client.get(url)
    form = response.context["adminform"].form
    values = {bound.html_name: bound.value() for bound in form if bound.name not in ("secret", "bearer_token")}
    for formset in response.context["inline_admin_formsets"]:
        for part in [formset.formset.management_form, *formset.formset.forms]:
            values |= {bound.html_name: bound.value() for bound in part}
    return {name: value for name, value in values.items() if value is not None and value is not False} | {"secret": "", "bearer_token": ""}


def test_it_shows_every_model_in_a_list_and_on_a_page_of_its_own(staff: Client, endpoint: Endpoint) -> None:
    for model in ours():
        assert admin.site.is_registered(model), model
        row = model.objects.first()
        for url in (url_of("changelist", row), url_of("change", row), url_of("changelist", row) + "?q=x"):
            response = staff.get(url)
            assert response.status_code == 200, url
            html = response.content.decode()
            assert TOKEN not in html
            assert endpoint.secret not in html


def test_it_never_changes_or_deletes_a_log(staff: Client, endpoint: Endpoint) -> None:
    for name in LOGS:
        row = apps.get_model("delivery", name).objects.first()
        assert staff.get(reverse(f"admin:delivery_{name}_add")).status_code == 403
        assert staff.post(url_of("change", row), {}).status_code == 403
        assert staff.post(url_of("delete", row), {"post": "yes"}).status_code == 403


def test_it_deletes_neither_tenants_nor_sources_nor_endpoints_nor_keys(staff: Client, endpoint: Endpoint) -> None:
    for model in (Tenant, Source, Endpoint, ApiKey):
        assert staff.post(url_of("delete", model._default_manager.first()), {"post": "yes"}).status_code == 403


def test_it_lists_deliveries_in_few_queries(staff: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(5):
        make_delivery(endpoint=make_endpoint(name=f"Endpoint {number}"))
    with django_assert_max_num_queries(8):
        staff.get(reverse("admin:delivery_delivery_changelist"))


def test_it_counts_pages_no_further_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedPaginator, "limit", 2)
    for _ in range(3):
        make_delivery()
    assert BoundedPaginator(Delivery.objects.all(), 1).num_pages == 2


def test_it_finds_rows_by_their_ids(staff: Client, endpoint: Endpoint) -> None:
    row = make_delivery(event=make_event(subject="did:plc:other"), endpoint=endpoint)
    for model, term, found in [
        ("delivery_delivery", row.public_id, row.public_id),
        ("delivery_delivery", row.event.public_id, row.public_id),
        ("delivery_delivery", str(row.pk), row.public_id),
        ("delivery_event", row.event.public_id, row.event.public_id),
        ("delivery_event", "did:plc:other", row.event.public_id),
        ("subscriptions_endpoint", endpoint.public_id, endpoint.public_id),
        ("subscriptions_endpoint", endpoint.pk.hex, endpoint.public_id),
        ("subscriptions_endpoint", "example.com", endpoint.public_id),
    ]:
        result = staff.get(reverse(f"admin:{model}_changelist"), {"q": term}).context["cl"].result_list
        assert [shown.public_id for shown in result] == [found], (model, term)


def test_it_replays_the_selected(staff: Client) -> None:
    rows = [make_delivery(state=Delivery.State.DEAD) for _ in range(2)]
    orphan = make_delivery(state=Delivery.State.DELIVERED)
    Event.objects.filter(pk=orphan.event_id)._raw_delete("default")
    data = {"action": "replay_selected", "_selected_action": [row.pk for row in [*rows, orphan]]}
    url = reverse("admin:delivery_delivery_changelist")
    asked = staff.post(url, data).content.decode()
    assert "2 deliveries will be put back in the queue." in asked
    assert "Selected: 1 delivered, 2 dead." in asked
    assert "1 delivery cannot be replayed: the event has been pruned" in asked
    assert rows[0].refreshed().state == Delivery.State.DEAD
    assert "2 put back in the queue" in staff.post(url, data | {"apply": "1"}, follow=True).content.decode()
    assert {row.refreshed().state for row in rows} == {Delivery.State.PENDING}
    assert orphan.refreshed().state == Delivery.State.DELIVERED


def test_it_replays_only_for_those_who_may(client: Client) -> None:
    row = make_delivery(state=Delivery.State.DEAD)
    onlooker = User.objects.create_user("eve", is_staff=True)
    onlooker.user_permissions.add(Permission.objects.get(codename="view_delivery"))
    client.force_login(onlooker)
    client.post(reverse("admin:delivery_delivery_changelist"), {"action": "replay_selected", "_selected_action": [row.pk], "apply": "1"})
    assert row.refreshed().state == Delivery.State.DEAD


def ask(client: Client, action: str, rows: list[StreamHost], **data: Any) -> str:
    data |= {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(reverse("admin:delivery_streamhost_changelist"), data, follow=True).content.decode()


def test_it_reconnects_hosts_and_resets_their_counters(staff: Client) -> None:
    rows = [make_host(events=5), make_host(events=5, seen_at=timezone.now() - timedelta(days=9))]
    other = make_host(events=5)
    assert "Asked to connect again to 2 hosts. The listener does it within a second or so." in ask(staff, "reconnect", rows)
    assert "The counters of 2 hosts start from zero." in ask(staff, "reset_counters", rows)
    assert [(row.reconnect_asked_at is not None, row.events) for row in StreamHost.objects.order_by("pk")] == [(True, 0), (True, 0), (False, 5)]
    assert StreamHost.objects.get(pk=other.pk).rewind_to is None


def test_it_asks_for_the_time_before_it_moves_a_cursor_back(staff: Client) -> None:
    row, other = make_host(host="wss://<b>one"), make_host(host="wss://other.example")
    html = ask(staff, "move_back", [row])
    assert "wss://&lt;b&gt;one" in html
    assert "other.example" not in html
    assert "The host is read again from this time on" in html
    html = ask(staff, "move_back", [row], apply="1", to="2026-11-20T10:00:00")
    assert "Asked to read 1 host again from 2026-11-20 10:00:00 UTC on." in html
    assert [each.rewind_to for each in (StreamHost.objects.get(pk=row.pk), StreamHost.objects.get(pk=other.pk))] == [
        datetime(2026, 11, 20, 10, tzinfo=UTC),
        None,
    ]


@pytest.mark.parametrize(
    ("to", "error"),
    [
        ("", "Say from which time on"),
        ("soon", "This is not a time"),
        ("2999-01-01T00:00", "lies in the future"),
        (f"{timezone.now():%Y-%m-%d %H:%M:%S}", "wss://late.example has only come to"),
    ],
)
def test_it_says_what_is_wrong_with_a_time_and_asks_again(staff: Client, to: str, error: str) -> None:
    rows = [make_host(), make_host(host="wss://late.example", reached_at=timezone.now() - timedelta(hours=5))]
    html = ask(staff, "move_back", rows, apply="1", to=to)
    assert error in html
    assert html.count('name="_selected_action"') == 2
    assert not StreamHost.objects.exclude(rewind_to=None).exists()


@pytest.mark.parametrize("action", ["reconnect", "move_back", "reset_counters"])
def test_it_steers_hosts_only_for_those_who_may(client: Client, action: str) -> None:
    row = make_host(events=5)
    onlooker = User.objects.create_user("eve", is_staff=True)
    onlooker.user_permissions.add(Permission.objects.get(codename="view_streamhost"))
    client.force_login(onlooker)
    ask(client, action, [row], apply="1", to="2026-11-20T10:00:00")
    assert StreamHost.objects.values_list("reconnect_asked_at", "rewind_to", "events").get() == (None, None, 5)


def test_it_finds_gaps_that_are_open(staff: Client) -> None:
    filled, gap = make_gap(filled_by="wss://other.example", filled_at=timezone.now()), make_gap()
    url = reverse("admin:delivery_streamgap_changelist")
    for query, found in [("filled=no", [gap]), ("filled=yes", [filled]), (f"q={gap.public_id}", [gap]), ("q=other.example", [filled]), ("", [gap, filled])]:
        assert list(staff.get(f"{url}?{query}").context["cl"].result_list) == found, query


@pytest.mark.parametrize("hosts", [1, 8])
def test_it_lists_the_stream_in_few_queries(staff: Client, django_assert_max_num_queries: Any, hosts: int) -> None:
    for _ in range(hosts):
        make_host()
        make_gap()
        make_rejected()
    for name in ("streamhost", "streamgap", "rejectedframe"):
        with django_assert_max_num_queries(8):
            staff.get(reverse(f"admin:delivery_{name}_changelist"))


def test_it_pauses_and_resumes_endpoints(staff: Client) -> None:
    endpoint, disabled = make_endpoint(), make_endpoint(state=Endpoint.State.DISABLED)
    version = ConfigVersion.current()
    url = reverse("admin:subscriptions_endpoint_changelist")
    staff.post(url, {"action": "pause", "_selected_action": [endpoint.pk, disabled.pk], "apply": "1"})
    assert (endpoint.refreshed().state, endpoint.state_reason) == (Endpoint.State.PAUSED, "paused by ada in the admin")
    assert disabled.refreshed().state == Endpoint.State.DISABLED
    assert ConfigVersion.current() > version
    staff.post(url, {"action": "resume", "_selected_action": [endpoint.pk, disabled.pk], "apply": "1"})
    assert endpoint.refreshed().state == Endpoint.State.ACTIVE
    assert disabled.refreshed().state == Endpoint.State.DISABLED


def test_it_keeps_secrets_when_their_boxes_stay_empty(staff: Client, endpoint: Endpoint) -> None:
    before, version, url = endpoint.secret, ConfigVersion.current(), url_of("change", endpoint)
    response = staff.post(url, form_of(staff, url) | {"name": "Renamed"})
    assert response.status_code == 302, response.context["errors"]
    endpoint.refresh_from_db()
    assert (endpoint.name, endpoint.secret, endpoint.bearer_token, endpoint.previous_secret) == ("Renamed", before, TOKEN, "")
    assert ConfigVersion.current() > version


def test_it_sets_new_secrets_and_lets_the_old_one_sign_for_a_while(staff: Client, endpoint: Endpoint) -> None:
    before, secret, url = endpoint.secret, new_secret(), url_of("change", endpoint)
    assert staff.post(url, form_of(staff, url) | {"secret": secret, "bearer_token": "another-token"}).status_code == 302
    endpoint.refresh_from_db()
    assert endpoint.bearer_token == "another-token"
    assert endpoint.secrets_at(timezone.now()) == [secret, before]
    html = staff.get(url).content.decode()
    assert f"ends in …{secret[-4:]}" in html
    assert secret not in html
    assert before not in html
    assert "another-token" not in html


def test_it_removes_the_bearer_token(staff: Client, endpoint: Endpoint) -> None:
    url = url_of("change", endpoint)
    assert staff.post(url, form_of(staff, url) | {"no_bearer_token": "on"}).status_code == 302
    assert endpoint.refreshed().bearer_token == ""


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"url": "ftp://example.com"}, "is not a URL of the kind wanted here"),
        ({"secret": "hunter2"}, "A signing secret is whsec_"),
        ({"bearer_token": "two words"}, "A bearer token is at most"),
        ({"retry_schedule_s": "[-1]"}, "Write a JSON list"),
        ({"retry_schedule_s": ""}, "Write a JSON list"),
        ({"subscriptions-0-collections": '["a b"]'}, "is not a collection"),
        ({"subscriptions-0-kinds": "[]"}, "This field is required"),
        ({"bearer_token": "new", "no_bearer_token": "on"}, "Either set a bearer token or remove it"),
    ],
)
def test_it_says_what_is_wrong_with_an_endpoint(staff: Client, endpoint: Endpoint, over: dict[str, str], error: str) -> None:
    url = url_of("change", endpoint)
    response = staff.post(url, form_of(staff, url) | over)
    assert response.status_code == 200
    html = response.content.decode()
    assert error in html
    assert "hunter2" not in html


def test_it_adds_an_endpoint_with_its_subscription(staff: Client) -> None:
    tenant, source, secret = make_tenant(), make_source(), new_secret()
    url = url_of("add", "subscriptions_endpoint")
    data = form_of(staff, url) | {"tenant": tenant.pk, "name": "New", "url": "https://bücher.example/hook"}
    lists = {"collections": '["app.bsky.feed.*"]', "dids": "", "operations": "", "kinds": '["commit"]', "active": "on", "source": source.pk}
    data |= {"secret": secret, "subscriptions-TOTAL_FORMS": 1} | {f"subscriptions-0-{name}": value for name, value in lists.items()}
    response = staff.post(url, data)
    assert response.status_code == 302, response.context["errors"]
    made = Endpoint.objects.get()
    assert (made.url, made.secret, made.origin) == ("https://xn--bcher-kva.example/hook", secret, Endpoint.Origin.PERSON)
    subscription = made.subscriptions.get()
    assert (subscription.collections, subscription.dids, subscription.operations) == (["app.bsky.feed.*"], [], [])


def test_it_makes_a_secret_for_a_new_endpoint_and_shows_it_once(staff: Client) -> None:
    url = url_of("add", "subscriptions_endpoint")
    data = form_of(staff, url) | {"tenant": make_tenant().pk, "name": "New", "url": "https://receiver.example/hook"}
    shown = staff.post(url, data, follow=True).content.decode()
    made = Endpoint.objects.get()
    assert made.secret in shown
    assert made.secret not in staff.get(url_of("change", made)).content.decode()


def test_it_tells_listeners_of_deleted_subscriptions(staff: Client, endpoint: Endpoint) -> None:
    version = ConfigVersion.current()
    ids = list(Subscription.objects.values_list("pk", flat=True))
    staff.post(reverse("admin:subscriptions_subscription_changelist"), {"action": "delete_selected", "_selected_action": ids, "post": "yes"})
    assert not Subscription.objects.exists()
    assert ConfigVersion.current() > version


def test_it_tells_listeners_of_a_subscription_deleted_on_its_endpoints_page(staff: Client, endpoint: Endpoint) -> None:
    url = url_of("change", endpoint)
    staff.post(url, form_of(staff, url) | {"subscriptions-0-DELETE": "on"})
    assert not Subscription.objects.exists()


def test_it_revokes_keys_and_makes_none(staff: Client, endpoint: Endpoint) -> None:
    key = ApiKey.objects.get()
    url, data = reverse("admin:subscriptions_apikey_changelist"), {"action": "revoke", "_selected_action": [key.pk]}
    assert "1 key of 1 selected will be revoked." in staff.post(url, data).content.decode()
    assert not key.refreshed().revoked_at
    assert "1 revoked." in staff.post(url, data | {"apply": "1"}, follow=True).content.decode()
    assert key.refreshed().revoked_at
    assert LogEntry.objects.get().change_message == "Revoked."
    assert "All of these have been revoked already." in staff.post(url, data).content.decode()
    for state, found in (("revoked", [key]), ("live", []), ("expired", [])):
        assert list(staff.get(url, {"state": state}).context["cl"].result_list) == found
    assert staff.get(reverse("admin:subscriptions_apikey_add")).status_code == 403


def test_it_links_to_the_pages_and_back(staff: Client, endpoint: Endpoint) -> None:
    row = Delivery.objects.get()
    assert f'href="/deliveries/{row.public_id}/"' in staff.get(url_of("change", row)).content.decode()
    for found, page in [
        (endpoint, f"/endpoints/{endpoint.public_id}/"),
        (row.event, f"/events/{row.event.public_id}/"),
        (Attempt.objects.get(), f"/deliveries/{row.public_id}/"),
        (Subscription.objects.get(), f"/endpoints/{endpoint.public_id}/"),
        (Replay.objects.get(), "/replays/"),
        (ApiKey.objects.get(), "/keys/"),
        (AuditEntry.objects.get(), "/audit/"),
        (Membership.objects.get(), "/members/"),
    ]:
        assert f'href="{page}"' in staff.get(url_of("change", found)).content.decode(), page
    assert f'href="{url_of("change", row)}"' in staff.get(f"/deliveries/{row.public_id}/").content.decode()
    host, gap, rejected = StreamHost.objects.get(), StreamGap.objects.get(), RejectedFrame.objects.get()
    stream = staff.get("/stream/").content.decode()
    for found, place in ((host, f"host-{host.pk}"), (gap, "gaps"), (rejected, "rejected")):
        assert f'href="/stream/#{place}"' in staff.get(url_of("change", found)).content.decode()
        assert f'href="{url_of("changelist", found)}"' in stream
    assert f'href="{url_of("change", host)}"' in stream
    assert '<a href="/">Jetrelay</a>' in staff.get("/admin/").content.decode()


# --- Schedules -----------------------------------------------------------------------------------------------------------

TASKS = "/admin/django_celery_beat/periodictask/"


def write_schedules() -> None:
    """As beat does whenever it starts."""
    for name, entry in settings.CELERY_BEAT_SCHEDULE.items():
        ModelEntry.from_entry(name, app=current_app, **entry)


@pytest.fixture
def schedules() -> dict[str, PeriodicTask]:
    """What beat writes when it starts, and one that an operator added."""
    write_schedules()
    PeriodicTask.objects.create(name="mine", task="delivery.prune", interval=IntervalSchedule.objects.create(every=2, period="hours"))
    return {task.name: task for task in PeriodicTask.objects.all()}


def test_beat_keeps_what_the_settings_say_of_each_schedule_and_enables_it(schedules: dict[str, PeriodicTask]) -> None:
    assert set(schedules) == {*settings.CELERY_BEAT_SCHEDULE, "mine"}
    PeriodicTask.objects.update(enabled=False)
    write_schedules()
    entries: dict[str, Any] = settings.CELERY_BEAT_SCHEDULE
    for name, entry in entries.items():
        task = PeriodicTask.objects.get(name=name)
        assert (task.enabled, task.expire_seconds, task.queue) == (True, entry["options"]["expire_seconds"], "default"), name
        assert ModelEntry(task, app=current_app).options["expires"] == entry["options"]["expire_seconds"]
        assert task.description
    assert not PeriodicTask.objects.get(name="mine").enabled


def test_it_shows_schedules_and_leaves_ours_alone(staff: Client, schedules: dict[str, PeriodicTask]) -> None:
    html = staff.get(TASKS).content.decode()
    for shown in ("Wakes every lane that has work due", "5 min", "Jetrelay&#x27;s own", "added here", "beat writes them here anew whenever it starts"):
        assert shown in html
    ours, mine = schedules["sweep"], schedules["mine"]
    assert staff.post(url_of("change", ours), {"name": "x"}).status_code == 403
    assert staff.post(url_of("delete", ours), {"post": "yes"}).status_code == 403
    assert staff.get(url_of("change", mine)).context["has_change_permission"]
    everything = [task.pk for task in schedules.values()]
    staff.post(TASKS, {"action": "disable_tasks", "_selected_action": everything})
    staff.post(TASKS, {"action": "delete_selected", "_selected_action": everything, "post": "yes"})
    assert set(PeriodicTask.objects.filter(enabled=True).values_list("name", flat=True)) == set(settings.CELERY_BEAT_SCHEDULE)
    assert PeriodicTask.objects.count() == len(schedules)


def test_it_leaves_the_intervals_of_ours_alone(staff: Client, schedules: dict[str, PeriodicTask]) -> None:
    ours, mine = (schedules[name].interval for name in ("sweep", "mine"))
    html = staff.get(url_of("changelist", "django_celery_beat_intervalschedule")).content.decode()
    assert "sweep" in html
    for row, status in ((ours, 403), (mine, 302)):
        assert staff.post(url_of("change", row), {"every": "3", "period": "days"}).status_code == status
        assert staff.post(url_of("delete", row), {"post": "yes"}).status_code == status
    data = {"action": "delete_selected", "_selected_action": [ours.pk], "post": "yes"}
    staff.post(url_of("changelist", "django_celery_beat_intervalschedule"), data)
    assert PeriodicTask.objects.get(name="sweep").interval == ours


# --- The index, and the policy -------------------------------------------------------------------------------------------


def test_its_index_names_every_table_once_in_groups(staff: Client) -> None:
    groups = staff.get("/admin/").context["app_list"]
    assert [group["name"] for group in groups[:3]] == ["Events and deliveries", "Endpoints", "Stream"]
    named = [model["model"] for group in groups for model in group["models"]]
    assert len(named) == len(set(named))
    assert set(named) == set(admin.site._registry)
    # What another app brings along comes last, under its own name.
    assert all(not group["app_url"] for group in groups)


def test_its_index_leaves_out_what_somebody_may_not_see(client: Client) -> None:
    onlooker = User.objects.create_user("eve", is_staff=True)
    onlooker.user_permissions.add(Permission.objects.get(codename="view_delivery"))
    client.force_login(onlooker)
    assert [(group["name"], len(group["models"])) for group in client.get("/admin/").context["app_list"]] == [("Events and deliveries", 1)]
    # The filter by endpoint would name what they may not see.
    assert "filter-endpoint" not in client.get("/admin/delivery/delivery/").content.decode()


@pytest.mark.parametrize("url", ["/admin/", "/admin/login/", "/admin/auth/user/", "/nowhere/", "/admin/nowhere/", "/login/"])
def test_every_page_has_a_strict_policy(staff: Client, url: str) -> None:
    policy = staff.get(url, follow=True)["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_a_form_that_was_refused_has_a_policy_too() -> None:
    refused = Client(enforce_csrf_checks=True).post("/login/", {"username": "ada", "password": "x"})
    assert refused.status_code == 403
    assert refused["Content-Security-Policy"].startswith("default-src 'self';")


def test_what_is_no_page_has_no_policy(client: Client) -> None:
    assert "Content-Security-Policy" not in client.get("/health")


def test_it_finds_a_request_by_its_idempotency_key(staff: Client, endpoint: Endpoint) -> None:
    url = url_of("changelist", "api_idempotentrequest")
    assert [row.key for row in staff.get(url, {"q": "k"}).context["cl"].result_list] == ["k"]
    assert list(staff.get(url, {"q": "other"}).context["cl"].result_list) == []


def test_it_cannot_choose_a_tenant_or_a_source_from_a_list_of_all(staff: Client) -> None:
    for number in range(3):
        make_tenant(slug=f"t{number}", name=f"Tenant number {number}")
    for page in ("subscriptions_endpoint", "subscriptions_source", "subscriptions_membership", "subscriptions_subscription"):
        for url in (url_of("add", page), url_of("changelist", page)):
            assert "Tenant number" not in staff.get(url).content.decode(), url
    url = f"{reverse('admin:autocomplete')}?app_label=subscriptions&model_name=endpoint&field_name=tenant&term=number 1"
    assert [found["text"] for found in staff.get(url).json()["results"]] == ["Tenant number 1"]
    chosen = Tenant.objects.get(slug="t1")
    assert "Tenant number 1" in staff.get(url_of("changelist", "subscriptions_endpoint"), {"tenant": chosen.public_id}).content.decode()
