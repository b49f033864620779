"""The audit log: who sees which entries of it, and how they find them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from delivery.models import Delivery
from delivery.prune import Pruner
from jetrelay.dashboard.people import audit_log
from jetrelay.dashboard.people.audit_log import PAGE
from subscriptions.asked import address, asked_from
from subscriptions.ids import first_id
from subscriptions.models import AuditEntry, Membership, Tenant
from tests.builders import id_of, make_api_key, make_delivery, make_endpoint, make_event, make_host, make_member, make_replay, make_subscription, make_tenant

pytestmark = pytest.mark.django_db

OWNER, MEMBER, VIEWER = Membership.Role.OWNER, Membership.Role.MEMBER, Membership.Role.VIEWER


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant(slug="ours", name="Ours")


@pytest.fixture
def owner(client: Client, tenant: Tenant) -> Client:
    client.force_login(make_member(tenant, OWNER, username="grace"))
    return client


def text(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def shown(client: Client, query: str = "") -> list[str]:
    return re.findall(r'<tr id="(aud_\w+)"', text(client.get(f"/audit/{query}")))


def note(tenant: Tenant | None, actor: str = "user grace", action: str = "endpoint.pause", target: str = "", **over: Any) -> AuditEntry:
    return AuditEntry.note(tenant, actor, action, target, **over)


def note_at(at: datetime, tenant: Tenant) -> AuditEntry:
    id = UUID(int=first_id(at).int | 1)
    return AuditEntry.objects.create(id=id, at=at, tenant=tenant, actor="user grace", action="endpoint.pause")


# --- Who sees what -------------------------------------------------------------------------------------------------------


def test_everybody_sees_what_was_done_in_their_tenants(client: Client, tenant: Tenant) -> None:
    ours, theirs, everybodys = note(tenant), note(make_tenant(slug="theirs")), note(None, action="stream.reconnect")
    for role in Membership.Role:
        client.force_login(make_member(tenant, role))
        assert shown(client) == [ours.public_id]
    client.force_login(User.objects.create_superuser("ada"))
    assert shown(client) == [everybodys.public_id, theirs.public_id, ours.public_id]


def test_owners_see_from_where(client: Client, tenant: Tenant) -> None:
    note(tenant, address="192.0.2.7")
    for role, seen in ((OWNER, True), (MEMBER, False), (VIEWER, False)):
        client.force_login(make_member(tenant, role))
        assert ("192.0.2.7" in text(client.get("/audit/"))) is seen


def test_it_shows_what_people_wrote_as_text(owner: Client, tenant: Tenant) -> None:
    note(tenant, actor="key <b>\u202e (jr_…)", detail="<script>alert(1)</script>")
    html = text(owner.get("/audit/"))
    assert "<bdi>key &lt;b&gt;\u202e (jr_…)</bdi>" in html
    assert "<bdi>&lt;script&gt;" in html


def test_it_leads_to_what_was_done_something_to(owner: Client, tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant=tenant)
    delivery, event = make_delivery(endpoint=endpoint), make_event()
    key, replay = make_api_key(tenant=tenant, scopes=["events:read"])[0], make_replay(tenant=tenant)
    links = {
        endpoint: f"/endpoints/{endpoint.public_id}/",
        delivery: f"/deliveries/{delivery.public_id}/",
        event: f"/events/{event.public_id}/",
        key: f"/keys/{key.public_id}/",
        tenant: "/members/",
    }
    for row in (*links, replay):
        note(tenant, target=row.public_id)
    html = text(owner.get("/audit/"))
    assert [link for link in links.values() if f'href="{link}" title=' not in html] == []
    (to_replay,) = re.findall(rf'href="(/replays/[^"]*)" title="{replay.public_id}"', html)
    assert replay.public_id in to_replay
    assert "javascript:" not in html


@pytest.mark.parametrize("target", ["javascript:alert(1)", "sub_0197", "ep_0197", "host.example", ""])
def test_what_has_no_page_is_text(owner: Client, tenant: Tenant, target: str) -> None:
    entry = note(tenant, target=target)
    assert f'id="to-{entry.public_id}"' not in text(owner.get("/audit/"))


# --- Finding -------------------------------------------------------------------------------------------------------------


def test_it_filters_by_who_what_and_to_what(owner: Client, tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant=tenant)
    pause = note(tenant, "user Grace", "endpoint.pause", endpoint.public_id)
    resume = note(tenant, "key CI (jr_abc…)", "endpoint.resume", endpoint.public_id)
    replay = note(tenant, "key CI (jr_abc…)", "delivery.replay", "dlv_1")
    for query, found in {
        "?actor=grace": [pause],
        "?actor=jr_abc": [replay, resume],
        "?action=endpoint": [resume, pause],
        "?action=endpoint.resume": [resume],
        f"?target={endpoint.public_id}": [resume, pause],
        f"?target={endpoint.public_id}&actor=CI": [resume],
        "?target=ep_": [],
        "?actor=%00": [replay, resume, pause],
    }.items():
        assert shown(owner, query) == [entry.public_id for entry in found], query
    assert "No entry matches these filters" in text(owner.get("/audit/?actor=nobody"))


def test_it_filters_by_time_in_utc(owner: Client, tenant: Tenant) -> None:
    day = datetime(2026, 3, 4, tzinfo=UTC)
    early, late = note_at(day + timedelta(hours=8), tenant), note_at(day + timedelta(hours=16), tenant)
    for query, found in {
        "?since=2026-03-04T08:00:00&until=2026-03-04T16:00:00": [early],
        "?since=2026-03-04": [late, early],
        "?until=2026-03-04": [],
        "?since=2026-03-04T12:00": [late],
        "?since=2026-03-04T17:00%2B02:00": [late],
        "?until=2026-03-04T12:00": [early],
    }.items():
        assert shown(owner, query) == [entry.public_id for entry in found], query
    assert 'value="2026-03-04T12:00:00"' in text(owner.get("/audit/?since=2026-03-04T12:00"))


@pytest.mark.parametrize("query", ["since=yesterday", "until=2026-13-40", "since=0001-01-01", "until=9999-12-31T23:59:59", "before=x"])
def test_it_says_what_of_the_url_it_does_not_understand(owner: Client, tenant: Tenant, query: str) -> None:
    entry = note(tenant)
    assert "is not a" in text(owner.get(f"/audit/?{query}"))
    assert shown(owner, f"?{query}") == [entry.public_id]


def test_it_goes_page_by_page_and_keeps_the_filters(owner: Client, tenant: Tenant) -> None:
    made = [note(tenant) for _ in range(PAGE + 2)]
    note(tenant, "user alan")
    html = text(owner.get("/audit/?actor=grace"))
    (older,) = re.findall(r'rel="next" href="([^"]+)"', html)
    assert shown(owner, older.replace("&amp;", "&")) == [made[1].public_id, made[0].public_id]
    assert "no older ones" in text(owner.get(f"/audit/?before={made[0].public_id}"))


def test_a_filter_looks_no_further_than_it_may_and_says_so(owner: Client, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "LOOKED_AT", 3)
    oldest = note(tenant, "user alan")
    for _ in range(5):
        note(tenant)
    html = text(owner.get("/audit/?actor=alan"))
    assert "Look further back" in html
    assert "None of the entries that were looked at matches" in html
    (further,) = re.findall(r'rel="next" href="([^"]+)"', html)
    assert shown(owner, further.replace("&amp;", "&")) == [oldest.public_id]
    assert "Look further back" not in text(owner.get(f"/audit/{further.replace('&amp;', '&')}"))


def test_a_list_costs_the_same_however_long(owner: Client, tenant: Tenant, django_assert_num_queries: Any) -> None:
    for _ in range(PAGE):
        note(tenant, target=make_endpoint(tenant=tenant).public_id)
    # Session, user, memberships, entries; with a filter, first how far it looks.
    with django_assert_num_queries(4):
        text(owner.get("/audit/"))
    with django_assert_num_queries(5):
        text(owner.get("/audit/?actor=grace"))


def test_it_says_what_stands_here_before_anything_does(owner: Client) -> None:
    assert "Nothing has been done yet" in text(owner.get("/audit/"))


# --- From where ----------------------------------------------------------------------------------------------------------


def test_an_address_is_that_of_the_request_alone() -> None:
    assert address() is None
    with asked_from("192.0.2.7"):
        assert AuditEntry.note(None, "x", "a.b").address == "192.0.2.7"
        assert AuditEntry.note(None, "x", "a.b", address="192.0.2.8").address == "192.0.2.8"
    with asked_from("a Unix socket"):
        assert AuditEntry.note(None, "x", "a.b").address is None
    assert address() is None


# --- What staff do in the admin ------------------------------------------------------------------------------------------


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def action(client: Client, model: str, name: str, *rows: Any, **data: str) -> None:
    chosen = {"action": name, "_selected_action": [str(row.pk) for row in rows], "apply": "1"} | data
    assert client.post(reverse(f"admin:{model}_changelist"), chosen, REMOTE_ADDR="192.0.2.7").status_code in (200, 302)


def noted() -> list[tuple[Any, ...]]:
    assert set(AuditEntry.objects.values_list("actor", "address")) <= {("user ada", "192.0.2.7")}
    return list(AuditEntry.objects.order_by("pk").values_list("tenant__slug", "action", "target"))


def test_what_is_done_to_endpoints_in_the_admin_is_written_down(staff: Client, tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant=tenant)
    action(staff, "subscriptions_endpoint", "pause", endpoint)
    action(staff, "subscriptions_endpoint", "rotate_secrets", endpoint, overlap_h="1")
    action(staff, "subscriptions_endpoint", "reveal_secret", endpoint)
    action(staff, "subscriptions_endpoint", "delete_endpoints", endpoint)
    acts = ["pause", "rotate-secret", "reveal-secret", "delete"]
    assert noted() == [("ours", f"endpoint.{act}", endpoint.public_id) for act in acts]
    assert not any("whsec_" in detail for detail in AuditEntry.objects.values_list("detail", flat=True))
    # Its history in the admin stays as it was.
    assert LogEntry.objects.count() == 4


def test_what_is_replayed_in_the_admin_is_written_down_for_each_tenant(staff: Client, tenant: Tenant) -> None:
    other = make_tenant(slug="theirs")
    ours = [make_delivery(endpoint=make_endpoint(tenant=tenant), state=Delivery.State.DEAD) for _ in range(2)]
    theirs = make_delivery(endpoint=make_endpoint(tenant=other), state=Delivery.State.DEAD)
    action(staff, "delivery_delivery", "replay_selected", *ours, theirs)
    assert sorted(noted()) == [("ours", "delivery.replay", ""), ("theirs", "delivery.replay", theirs.public_id)]
    AuditEntry.objects.all().delete()
    Delivery.objects.update(state=Delivery.State.DEAD)
    action(staff, "delivery_delivery", "dismiss_selected", theirs)
    action(staff, "delivery_delivery", "dismiss_selected", theirs)
    assert noted() == [("theirs", "delivery.dismiss", theirs.public_id)]


def test_replays_keys_and_the_stream_in_the_admin_are_written_down(staff: Client, tenant: Tenant) -> None:
    replay, key = make_replay(tenant=tenant), make_api_key(tenant=tenant, scopes=["events:read"])[0]
    action(staff, "delivery_delivery", "replay_matching")
    (asked,) = AuditEntry.objects.values_list("target", flat=True)
    action(staff, "delivery_replay", "cancel_selected", replay)
    action(staff, "delivery_replay", "cancel_selected", replay)
    action(staff, "subscriptions_apikey", "revoke", key)
    action(staff, "delivery_streamhost", "reconnect", make_host())
    expected = [(None, "replay.replay", asked), ("ours", "replay.cancel", replay.public_id), ("ours", "key.revoke", key.public_id)]
    assert noted() == [*expected, (None, "stream.reconnect", "")]


def test_what_the_admins_forms_do_is_written_down(staff: Client, tenant: Tenant) -> None:
    grace = User.objects.create_user("grace")
    wish: dict[str, Any] = {"tenant": tenant.pk, "user": grace.pk, "role": "owner"}
    here: Any = {"REMOTE_ADDR": "192.0.2.7"}
    staff.post(reverse("admin:subscriptions_membership_add"), wish, **here)
    membership = Membership.objects.get()
    staff.post(reverse("admin:subscriptions_membership_change", args=[membership.pk]), wish | {"role": "viewer"}, **here)
    staff.post(reverse("admin:subscriptions_membership_delete", args=[membership.pk]), {"post": "yes"}, **here)
    subscription = make_subscription(endpoint=make_endpoint(tenant=tenant))
    action(staff, "subscriptions_subscription", "delete_selected", subscription, post="yes")
    acts = [("membership.create", ""), ("membership.change", ""), ("membership.delete", ""), ("subscription.delete", subscription.public_id)]
    assert noted() == [("ours", *act) for act in acts]
    assert "Changed Role" in AuditEntry.objects.get(action="membership.change").detail


def test_passwords_and_superusers_of_the_admin_are_written_down(staff: Client) -> None:
    grace = User.objects.create_user("grace")
    new = {"password1": "a-long-password", "password2": "a-long-password", "usable_password": "true"}
    staff.post(reverse("admin:auth_user_password_change", args=[grace.pk]), new, REMOTE_ADDR="192.0.2.7")
    assert Client().login(username="grace", password="a-long-password")
    assert noted() == [(None, "user.change", "")]
    assert "grace" in AuditEntry.objects.get().detail
    assert "a-long-password" not in AuditEntry.objects.get().detail


# --- For how long --------------------------------------------------------------------------------------------------------


def test_it_is_pruned_after_its_days(tenant: Tenant, settings: Any) -> None:
    settings.JETRELAY_AUDIT_DAYS = 2
    _, young = (AuditEntry.objects.create(id=id_of(timedelta(days=2, minutes=minutes)), actor="x", action="a.b") for minutes in (1, -1))
    report = Pruner().run(lambda seconds: False)
    assert report is not None
    assert report.counts == {"audit entries": 1}
    assert list(AuditEntry.objects.all()) == [young]


def test_it_says_for_how_long_it_is_kept(owner: Client) -> None:
    assert "kept for 365 days" in text(owner.get("/audit/"))
