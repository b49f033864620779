"""Quotas: what would go beyond one is refused with words, wherever somebody asks for it; and two who ask at once find room for one."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from delivery import ingest, owing
from delivery.models import Delivery, Event, Replay
from delivery.outbox import Outbox
from jetrelay.doctor import stored
from subscriptions import allowance, keys
from subscriptions.models import ApiKey, AuditEntry, Endpoint, Membership, Source, Subscription, Tenant
from tests.api import Answer, Api, api_of
from tests.builders import (
    id_of,
    make_api_source,
    make_delivery,
    make_endpoint,
    make_incoming,
    make_member,
    make_posted,
    make_replay,
    make_source,
    make_subscription,
    make_tenant,
    some_id,
)
from tests.threads import Elsewhere

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

URL = "https://receiver.example/hook"
FULL = (409, "quota_exceeded")
WAIT = (429, "quota_exceeded")


@pytest.fixture(autouse=True)
def _unchallenged(settings: Settings) -> None:
    settings.JETRELAY_VERIFY_ENDPOINTS = False


@pytest.fixture
def api() -> Api:
    return api_of()


@pytest.fixture
def owner(client: Client) -> Client:
    client.force_login(make_member(role=Membership.Role.OWNER, username="grace"))
    return client


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def html(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def told(name: str, most: int) -> str:
    """How every refusal begins, whoever is told."""
    return f"Quota reached: a tenant may have {most:,} {allowance.QUOTAS[name].of}"


def form_of(client: Client, url: str, /, **over: Any) -> dict[str, Any]:
    """What a browser would send back of the admin's form, but for what is given."""
    response = client.get(url)
    form = response.context["adminform"].form
    values = {bound.html_name: bound.value() for bound in form}
    for formset in response.context["inline_admin_formsets"]:
        for part in [formset.formset.management_form, *formset.formset.forms]:
            values |= {bound.html_name: bound.value() for bound in part}
    return {name: value for name, value in values.items() if value is not None and value is not False} | over


# --- The API ---------------------------------------------------------------------------------------


def ask(api: Api, name: str) -> Answer:
    """Ask for one more of these."""
    endpoint = Endpoint.objects.order_by("id").first()
    match name:
        case "endpoints":
            return api.post("endpoints", {"url": URL})
        case "subscriptions" | "subscriptions_per_endpoint":
            assert endpoint
            return api.post("subscriptions", {"endpoint": endpoint.public_id, "types": ["a"]})
        case "sources":
            return api.post("sources", {"name": f"source {Source.objects.count()}"})
        case "keys" | "new_keys_per_hour":
            return api.post("keys", {"name": "k", "scopes": ["events:read"]})
        case "replays":
            return api.post("replays", {"state": "dead"})
        case "audit_entries_per_day":
            return api.post(f"endpoints/{make_endpoint().public_id}/pause", {})
        case "answers" | "answer_bytes":
            number = make_endpoint().public_id
            return api.post("subscriptions/preview", {"types": ["a"]}, headers={"Idempotency-Key": number})
    raise AssertionError(name)


COUNTED = [name for name in allowance.QUOTAS if name not in ("members", "deliveries_per_event", "pending_deliveries", "requests_per_s", "answer_bytes")]
WAITED_FOR = ("new_keys_per_hour", "audit_entries_per_day", "answers")


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", COUNTED)
def test_the_api_refuses_one_too_many_and_says_what_to_do(name: str, own: bool, api: Api, settings: Settings) -> None:
    endpoint = make_endpoint()
    # What is there already: an endpoint, a key, and a source once it is asked for.
    there = {"endpoints": 1, "keys": 1, "new_keys_per_hour": 1, "sources": 1}.get(name, 0)
    most = there + 2
    if own:
        Tenant.objects.update(quotas={name: most})
        keys.forget()
    else:
        setattr(settings, allowance.QUOTAS[name].setting, most)
    assert [ask(api, name).status // 100 for _ in range(2)] == [2, 2], name
    answer = ask(api, name)
    assert answer.problem == (WAIT if name in WAITED_FOR else FULL)
    assert answer.json["detail"].startswith(told(name, most))
    assert allowance.QUOTAS[name].setting in answer.json["detail"]
    assert ("Retry-After" in answer.headers) is (name in WAITED_FOR)
    assert endpoint.refreshed().state == Endpoint.State.ACTIVE


def test_no_endpoint_is_made_without_room_for_its_subscriptions(api: Api, settings: Settings) -> None:
    settings.JETRELAY_MAX_SUBSCRIPTIONS_PER_ENDPOINT = 2
    wanted: dict[str, Any] = {"url": URL, "subscriptions": [{"types": [name]} for name in "abc"]}
    assert api.post("endpoints", wanted).problem == FULL
    assert not Endpoint.objects.exists()
    assert api.post("endpoints", wanted | {"subscriptions": wanted["subscriptions"][:2]}).status == 201


def test_what_is_deleted_makes_room(api: Api, settings: Settings) -> None:
    settings.JETRELAY_MAX_ENDPOINTS = settings.JETRELAY_MAX_SUBSCRIPTIONS = 1
    made = api.post("endpoints", {"url": URL, "subscriptions": [{"types": ["a"]}]})
    assert ask(api, "endpoints").problem == FULL
    assert api.delete(f"endpoints/{made.json['id']}").status == 200
    assert api.post("endpoints", {"url": URL, "subscriptions": [{"types": ["a"]}]}).status == 201


def test_another_tenant_has_room_of_its_own(api: Api, settings: Settings) -> None:
    settings.JETRELAY_MAX_ENDPOINTS = 1
    assert ask(api, "endpoints").status == 201
    assert ask(api, "endpoints").problem == FULL
    assert ask(api_of(make_tenant(slug="other")), "endpoints").status == 201


def test_a_key_that_is_replaced_needs_no_room_and_many_are_not_made_at_once(api: Api, settings: Settings) -> None:
    settings.JETRELAY_MAX_KEYS = 1
    settings.JETRELAY_MAX_NEW_KEYS_PER_HOUR = 3
    assert ask(api, "keys").problem == FULL
    for _ in range(2):
        assert api.key is not None
        made = api.post(f"keys/{api.key.public_id}/rotate", {}).json
        api = Api(made["key"], ApiKey.objects.latest("id"))
    assert api.key is not None
    answer = api.post(f"keys/{api.key.public_id}/rotate", {})
    assert answer.problem == WAIT
    assert 3500 < int(answer.headers["Retry-After"]) <= 3600


def test_what_ends_something_is_possible_when_the_audit_log_is_full(api: Api, settings: Settings) -> None:
    assert api.key is not None
    endpoint = make_endpoint()
    settings.JETRELAY_MAX_AUDIT_ENTRIES_PER_DAY = 1
    AuditEntry.note(endpoint.tenant, "x", "y")
    assert api.post(f"endpoints/{endpoint.public_id}/test", {}).problem == WAIT
    assert api.patch(f"endpoints/{endpoint.public_id}", {"name": "b"}).problem == WAIT
    assert api.post("events", {"type": "a", "data": 1}).status == 202
    assert api.post("subscriptions/preview", {"types": ["a"]}).status == 200
    assert api.delete(f"endpoints/{endpoint.public_id}").status == 200
    assert api.delete(f"keys/{api.key.public_id}").status == 200


def test_entries_of_yesterday_do_not_count(api: Api, settings: Settings) -> None:
    settings.JETRELAY_MAX_AUDIT_ENTRIES_PER_DAY = 1
    entry = AuditEntry.note(make_tenant(), "x", "y")
    AuditEntry.objects.filter(pk=entry.pk).update(id=some_id(1))
    assert ask(api, "audit_entries_per_day").status == 200


def test_answers_are_kept_for_so_many_bytes_and_what_is_kept_is_still_answered(api: Api, settings: Settings) -> None:
    body, key = {"types": ["a"]}, {"Idempotency-Key": "first"}
    first = api.post("subscriptions/preview", body, headers=key)
    settings.JETRELAY_MAX_ANSWER_BYTES = 10
    answer = ask(api, "answer_bytes")
    assert answer.problem == WAIT
    assert 86_000 < int(answer.headers["Retry-After"]) <= 86_400
    assert api.post("subscriptions/preview", body, headers=key).content == first.content
    assert api.post("subscriptions/preview", body).status == 200


def test_all_keys_of_a_tenant_share_a_rate(settings: Settings) -> None:
    settings.JETRELAY_MAX_REQUESTS_PER_S = 1
    settings.JETRELAY_API_RATE_LIMIT = 1
    some, more, other = api_of(), api_of(), api_of(make_tenant(slug="other"))
    statuses = [each.get("endpoints").status for _ in range(6) for each in (some, more)]
    # A window may end meanwhile.
    assert 10 <= statuses.count(200) <= 12
    answers = [each.get("endpoints") for _ in range(10) for each in (some, more)]
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.problem == (429, "too_many_requests")
    assert other.get("endpoints").status == 200


# --- Posting ---------------------------------------------------------------------------------------


def post(api: Api, **over: Any) -> Answer:
    return api.post("events", {"type": "a", "data": 1} | over)


def test_a_posted_event_that_would_owe_too_much_is_refused_and_the_others_are_stored(api: Api, settings: Settings) -> None:
    source = make_api_source()
    for number in range(3):
        make_subscription(source=source, endpoint=make_endpoint(), collections=["a", "b"][: 1 + (number < 2)], kinds=["api"])
    settings.JETRELAY_MAX_DELIVERIES_PER_EVENT = 2
    refused = post(api)
    assert refused.problem == FULL
    assert refused.json["detail"].startswith(told("deliveries_per_event", 2))
    assert not Event.objects.exists()
    assert post(api, type="b").json["deliveries"] == 2
    batch = api.post("events/batch", {"events": [{"type": type, "data": 1} for type in "abab"]})
    assert (batch.status, [each["status"] for each in batch.json["data"]]) == (207, ["refused", "stored"] * 2)
    settings.JETRELAY_MAX_DELIVERIES_PER_EVENT = 3
    assert post(api, id="once").json["deliveries"] == 3
    settings.JETRELAY_MAX_DELIVERIES_PER_EVENT = 2
    # What is stored is stored, whatever it would owe today.
    assert post(api, id="once").json["status"] == "duplicate"
    stats = api.get("stats").json["posted_events"]
    assert stats["received"] == stats["stored"] + stats["duplicate"] + stats["unmatched"] + stats["invalid"] == 4


def test_the_stream_owes_whatever_is_subscribed(settings: Settings) -> None:
    source = make_source()
    settings.JETRELAY_MAX_DELIVERIES_PER_EVENT = settings.JETRELAY_MAX_PENDING_DELIVERIES = 1
    for _ in range(3):
        make_subscription(source=source)
    assert Outbox(source).publish([make_incoming()]).stored == 1
    assert Delivery.objects.count() == 3


def test_whoever_owes_too_much_posts_nothing_more_until_some_is_delivered(api: Api, settings: Settings) -> None:
    settings.JETRELAY_MAX_PENDING_DELIVERIES = 3
    endpoint = make_endpoint()
    make_subscription(source=make_api_source(), endpoint=endpoint, kinds=["api"])
    assert [post(api).status for _ in range(3)] == [202] * 3
    for answer in (post(api), api.post("events/batch", {"events": [{"type": "a", "data": 1}]})):
        assert answer.problem == WAIT
        assert answer.headers["Retry-After"] == str(owing.WAIT_S)
        assert answer.json["detail"].startswith(told("pending_deliveries", 3))
    assert post(api_of(make_tenant(slug="other"))).status == 202
    # The stream goes on.
    make_subscription(source=make_source(), endpoint=endpoint)
    Outbox(make_source()).publish([make_incoming()])
    assert Delivery.objects.pending().count() == 4
    Delivery.objects.update(state=Delivery.State.DELIVERED)
    owing.forget()
    assert post(api).status == 202


def test_what_is_owed_is_counted_now_and_then_and_not_for_each_post(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(owing, "monotonic", lambda: now[0])
    make_subscription(source=make_api_source(), kinds=["api"])
    post(api)

    def counts(posts: int) -> int:
        with CaptureQueriesContext(connection) as queries:
            for _ in range(posts):
                assert post(api).status == 202
        return sum("subscriptions_tenant tenant" in query["sql"] for query in queries)

    assert counts(20) == 0
    now[0] += owing.GOOD_S + 0.1
    assert counts(20) == 1


def test_while_one_counts_the_others_go_on_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(owing, "monotonic", lambda: now[0])
    tenant = make_tenant().pk
    assert (owing.known(tenant, 10), owing.owed(tenant, 10), owing.known(tenant, 10)) == (None, 0, 0)
    now[0] += owing.GOOD_S + 0.1
    # Whoever is refused an answer is the one to look; while it does, and no longer than that, the others have one.
    assert owing.known(tenant, 10) is None
    owing._counts[tenant].looked_for = True
    assert (owing.known(tenant, 10), owing.owed(tenant, 10)) == (0, 0)
    now[0] += owing.GOOD_S
    assert owing.known(tenant, 10) is None
    # Of one that owes as much as it may, nobody takes it for granted.
    owing.look(tenant, 10)
    owing.added(tenant, 10)
    assert (owing.known(tenant, 10), owing.owed(tenant, 10)) == (None, 10)


def test_a_count_goes_one_further_than_the_quota_and_reads_what_is_pending_alone() -> None:
    tenant = make_tenant()
    for state in (0, 0, 0, 1, 2, 3):
        make_delivery(state=state)
    make_delivery(endpoint=make_endpoint(tenant=make_tenant(slug="other")))
    make_delivery(endpoint=make_endpoint(state=Endpoint.State.DELETED))
    assert [owing.count(tenant.pk, most) for most in (0, 1, 2, 3, 100)] == [1, 2, 3, 3, 3]
    assert owing.count(some_id(7), 5) == 0
    with CaptureQueriesContext(connection) as queries:
        owing.count(tenant.pk, 5)
    sql = next(query["sql"] for query in queries if "subscriptions_tenant" in query["sql"])
    with connection.cursor() as cursor, CaptureQueriesContext(connection):
        if connection.vendor == "postgresql":
            # As where the statistics say that this table is small.
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{sql}")
        plan = str(cursor.fetchall())
    assert "delivery_due" in plan
    assert "Seq Scan on delivery_delivery" not in plan


def test_replays_wait_while_too_much_is_owed(api: Api, settings: Settings) -> None:
    delivery = make_delivery(state=Delivery.State.DEAD)
    settings.JETRELAY_MAX_PENDING_DELIVERIES = 1
    make_delivery(endpoint=delivery.endpoint)
    assert api.post("replays", {"state": "dead"}).problem == WAIT
    assert api.post("replays", {"action": "dismiss"}).status == 202


# --- Pages, admin, commands --------------------------------------------------------------------------


def test_a_page_says_at_its_form_that_there_is_no_room_for_an_endpoint(owner: Client, settings: Settings) -> None:
    settings.JETRELAY_MAX_ENDPOINTS = 1
    filled = {"url": URL, "name": "n", "source": make_source().public_id, "collections": "a.b.c", "kinds": ["commit"]}
    make_endpoint()
    assert told("endpoints", 1) in html(owner.post("/endpoints/new/", filled))
    settings.JETRELAY_MAX_ENDPOINTS, settings.JETRELAY_MAX_SUBSCRIPTIONS = 2, 0
    assert told("subscriptions", 0) in html(owner.post("/endpoints/new/", filled))
    assert Endpoint.objects.count() == 1


def test_a_page_says_at_its_form_that_there_is_no_room_for_a_subscription(owner: Client, settings: Settings) -> None:
    settings.JETRELAY_MAX_SUBSCRIPTIONS_PER_ENDPOINT = 1
    endpoint = make_subscription().endpoint
    filled = {"source": make_source().public_id, "collections": "a.b.c", "kinds": ["commit"]}
    response = owner.post(f"/endpoints/{endpoint.public_id}/subscriptions/new/", filled)
    assert told("subscriptions_per_endpoint", 1) in html(response)
    assert Subscription.objects.count() == 1


def test_a_page_says_at_its_form_that_there_is_no_room_for_a_key(owner: Client, settings: Settings) -> None:
    settings.JETRELAY_MAX_KEYS = 1
    wish = {"name": "k", "scopes": ["events:read"]}
    html(owner.post("/keys/new/", wish))
    assert told("keys", 1) in html(owner.post("/keys/new/", wish))
    settings.JETRELAY_MAX_NEW_KEYS_PER_HOUR = 1
    (key,) = ApiKey.objects.all()
    assert told("new_keys_per_hour", 1) in html(owner.post(f"/keys/{key.public_id}/rotate/", {"overlap_h": "24"}))
    assert key.refreshed().rotated_at is None


@pytest.mark.parametrize("account", ["new", "existing"])
def test_a_page_says_at_its_form_that_there_is_no_room_for_a_member(account: str, owner: Client, settings: Settings) -> None:
    settings.JETRELAY_MAX_MEMBERS = 1
    User.objects.create_user("there", password="a-long-password")
    name = {"new": "somebody", "existing": "there"}[account]
    response = owner.post("/members/new/", {"account": account, "username": name, "role": "member"})
    assert told("members", 1) in html(response)
    assert (Membership.objects.count(), User.objects.count()) == (1, 2)


def test_a_page_says_at_its_form_that_there_is_no_room_for_a_replay(owner: Client, settings: Settings) -> None:
    settings.JETRELAY_MAX_REPLAYS = 1
    make_replay()
    assert told("replays", 1) in html(owner.post("/replays/new/", {"action": "replay"}))
    Replay.objects.update(state=Replay.State.FINISHED)
    assert owner.post("/replays/new/", {"action": "replay"}).status_code == 302


def test_the_admin_says_at_its_forms_that_there_is_no_room(staff: Client, settings: Settings) -> None:
    endpoint, user = make_subscription().endpoint, make_member()
    source = make_api_source()
    over: dict[str, dict[str, Any]] = {
        "endpoint": {"tenant": endpoint.tenant_id, "name": "n", "url": URL},
        "subscription": {"endpoint": endpoint.pk, "source": source.pk, "collections": '["a"]', "kinds": '["api"]'},
        "source": {"tenant": endpoint.tenant_id, "name": "another", "kind": "api"},
        "membership": {"tenant": endpoint.tenant_id, "user": User.objects.get(username="ada").pk, "role": "viewer"},
    }
    names = {"endpoint": "endpoints", "subscription": "subscriptions", "source": "sources", "membership": "members"}
    for name in names.values():
        setattr(settings, allowance.QUOTAS[name].setting, 1)
    for model, given in over.items():
        url = reverse(f"admin:subscriptions_{model}_add")
        filled = form_of(staff, url, **given)
        assert told(names[model], 1) in html(staff.post(url, filled)), model
        setattr(settings, allowance.QUOTAS[names[model]].setting, 2)
        assert staff.post(url, filled).status_code in (200, 302)
    assert [model.objects.count() for model in (Endpoint, Subscription, Source, Membership)] == [2, 2, 3, 2]
    assert user.memberships.count() == 1


def test_the_admin_counts_rows_beside_their_parent(staff: Client, settings: Settings) -> None:
    settings.JETRELAY_MAX_SUBSCRIPTIONS_PER_ENDPOINT = settings.JETRELAY_MAX_MEMBERS = 1
    endpoint = make_subscription().endpoint
    make_member()
    url = reverse("admin:subscriptions_endpoint_change", args=[endpoint.pk])
    row = {"source": make_source().pk, "collections": '["a.b.c"]', "kinds": '["commit"]'}
    filled = form_of(staff, url, **{"subscriptions-TOTAL_FORMS": 2}, **{f"subscriptions-1-{name}": value for name, value in row.items()})
    assert told("subscriptions_per_endpoint", 1) in html(staff.post(url, filled))
    # One goes, and another comes.
    assert staff.post(url, filled | {"subscriptions-0-DELETE": "on"}).status_code == 302
    url = reverse("admin:subscriptions_tenant_change", args=[endpoint.tenant_id])
    row = {"user": User.objects.get(username="ada").pk, "role": "viewer"}
    filled = form_of(staff, url, **{"memberships-TOTAL_FORMS": 2}, quotas="{}", **{f"memberships-1-{name}": value for name, value in row.items()})
    assert told("members", 1) in html(staff.post(url, filled))
    assert Membership.objects.count() == 1


def test_an_operator_gives_a_tenant_quotas_of_its_own(staff: Client, settings: Settings) -> None:
    tenant = make_tenant()
    url = reverse("admin:subscriptions_tenant_change", args=[tenant.pk])
    for wrong, words in (
        ("[1]", "Write a JSON object"),
        ('{"cats": 1}', "&#x27;cats&#x27; is no quota"),
        ('{"keys": -1}', "a whole number from 0"),
        ('{"keys": true}', "a whole number from 0"),
        ('{"keys": "7"}', "a whole number from 0"),
    ):
        assert words in html(staff.post(url, form_of(staff, url, quotas=wrong))), wrong
    for none in ("", "[]", "null", "{}"):
        assert staff.post(url, form_of(staff, url, quotas=none)).status_code == 302
        assert tenant.refreshed().quotas == {}
    assert staff.post(url, form_of(staff, url, quotas='{"endpoints": 1}')).status_code == 302
    make_endpoint()
    assert ask(api_of(), "endpoints").problem == FULL
    assert "(used up)" in html(staff.get(url))
    assert "(its own)" in html(staff.get(url))


def test_a_command_says_that_there_is_no_room(settings: Settings) -> None:
    settings.JETRELAY_MAX_KEYS = settings.JETRELAY_MAX_REPLAYS = 0
    tenant = make_tenant()
    with pytest.raises(CommandError, match="Quota reached: a tenant may have 0 live keys"):
        call_command("create_api_key", tenant.slug)
    with pytest.raises(CommandError, match="Quota reached: a tenant may have 0 replays"):
        call_command("replay", endpoint=make_endpoint().public_id)
    # Over all tenants is the operator's.
    call_command("replay")


# --- What is used ------------------------------------------------------------------------------------


def fill() -> None:
    endpoint = make_subscription(endpoint=make_endpoint()).endpoint
    make_endpoint(state=Endpoint.State.DELETED)
    make_api_source()
    make_member()
    make_delivery(endpoint=endpoint)
    make_replay()
    AuditEntry.note(endpoint.tenant, "x", "y")


def test_the_api_says_what_is_used(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    api.post("subscriptions/preview", {"types": ["a"]}, headers={"Idempotency-Key": "k"})
    found = {row["name"]: row for row in api.get("quotas").json["data"]}
    used = {name: row["used"] for name, row in found.items()}
    assert used.pop("answer_bytes") > 50
    assert used == {
        "endpoints": 1,
        "subscriptions": 1,
        "subscriptions_per_endpoint": None,
        "sources": 1,
        "keys": 1,
        "new_keys_per_hour": 1,
        "members": 1,
        "deliveries_per_event": None,
        "pending_deliveries": 1,
        "replays": 1,
        "audit_entries_per_day": 1,
        "answers": 1,
        "requests_per_s": None,
    }
    assert {name: row["most"] for name, row in found.items()} == {name: quota.default for name, quota in allowance.QUOTAS.items()}
    monkeypatch.setattr("jetrelay.usage.COUNTED", 1)
    make_delivery(endpoint=Endpoint.objects.earliest("id"))
    row = next(row for row in api.get("quotas").json["data"] if row["name"] == "pending_deliveries")
    assert (row["used"], row["more"]) == (1, True)


def test_the_members_page_says_what_is_used_and_costs_the_same_for_many_tenants(staff: Client) -> None:
    fill()
    with CaptureQueriesContext(connection) as few:
        page = html(staff.get("/members/"))
    assert page.count("Pending deliveries") == 1
    for number in range(10):
        make_endpoint(tenant=make_tenant(slug=f"t{number}"))
    with CaptureQueriesContext(connection) as many:
        assert html(staff.get("/members/")).count("Pending deliveries") == 11
    assert len(many) <= len(few)


def test_a_viewer_sees_what_their_own_tenant_uses(client: Client) -> None:
    make_tenant(slug="other", name="Other")
    client.force_login(make_member(role=Membership.Role.VIEWER))
    assert html(client.get("/members/")).count("Pending deliveries") == 1


def test_doctor_names_a_tenant_that_has_used_one_up(settings: Settings) -> None:
    fill()
    assert [each.level for each in stored.used_up()] == ["ok"]
    settings.JETRELAY_MAX_PENDING_DELIVERIES = 1
    (found,) = stored.used_up()
    assert (found.level, found.found) == ("warning", "default may have 1 pending deliveries, and has used them up")
    assert "JETRELAY_MAX_PENDING_DELIVERIES" in found.advice


# --- Numbers that cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize("own", [None, [], {"endpoints": 1.5}, {"endpoints": None}, {"": 1}, {"endpoints": 10**10}])
def test_a_tenants_own_quotas_are_checked(own: Any) -> None:
    with pytest.raises(ValidationError):
        allowance.validate(own)


def test_every_quota_is_a_setting_of_one_family() -> None:
    for name, quota in allowance.QUOTAS.items():
        assert quota.setting == f"JETRELAY_MAX_{name.upper()}"
        assert quota.default > 0
        json.dumps({name: quota.default})


# --- At the same time ----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["endpoints", "subscriptions", "sources", "keys", "new_keys_per_hour", "replays"])
def test_of_those_who_ask_at_once_so_many_are_let_in_as_there_is_room_for(name: str, settings: Settings) -> None:
    api, endpoint = api_of(), make_endpoint()
    make_api_source()
    there = {"endpoints": 1, "keys": 1, "new_keys_per_hour": 1, "sources": 1}.get(name, 0)
    setattr(settings, allowance.QUOTAS[name].setting, there + 2)
    start = threading.Barrier(6)

    def one(number: int) -> Answer:
        start.wait(30)
        if name == "sources":
            return Api(api.text).post("sources", {"name": f"source {number}"})
        return ask(Api(api.text), name)

    calls = [Elsewhere(lambda number=number: one(number)) for number in range(6)]  # type: ignore[misc]
    statuses = sorted(call.result().status for call in calls)
    assert statuses[:2] in ([201, 201], [202, 202])
    assert set(statuses[2:]) <= {409, 429}
    assert endpoint.refreshed().state == Endpoint.State.ACTIVE


@pytest.mark.django_db(transaction=True)
def test_an_event_that_is_refused_takes_nobody_with_it(settings: Settings) -> None:
    source = make_api_source()
    settings.JETRELAY_MAX_DELIVERIES_PER_EVENT = 1
    for _ in range(2):
        make_subscription(source=source, endpoint=make_endpoint(), collections=["wide"], kinds=["api"])
    committer = ingest.OneByOne()
    accepted = committer.publish(source, [make_posted(type="wide"), make_posted(type="narrow")])
    assert [(each.refused, each.stored) for each in accepted] == [(2, False), (0, True)]
    assert Event.objects.count() == 1


def test_a_lapse_of_time_is_counted_from_the_oldest(settings: Settings, api: Api) -> None:
    settings.JETRELAY_MAX_NEW_KEYS_PER_HOUR = 1
    assert ask(api, "keys").problem == WAIT
    ApiKey.objects.filter(pk=api.key.pk).update(id=id_of(timedelta(minutes=50)))  # type: ignore[union-attr]
    keys.forget()
    assert 500 < int(ask(api, "keys").headers["Retry-After"]) <= 600
    ApiKey.objects.update(id=id_of(timedelta(minutes=61)))
    keys.forget()
    assert ask(api, "keys").status == 201
