"""API keys on their pages: everybody of a tenant sees them, owners make, rotate and revoke them, and none is seen twice."""

import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from jetrelay.dashboard.people.api_keys import PAGE
from subscriptions import keys
from subscriptions.models import ApiKey, AuditEntry, Membership, Tenant
from tests.builders import make_api_key, make_member, make_tenant

pytestmark = pytest.mark.django_db

OWNER, MEMBER, VIEWER = Membership.Role.OWNER, Membership.Role.MEMBER, Membership.Role.VIEWER
WISH = {"name": "billing", "scopes": ["events:read", "events:write"]}


@pytest.fixture
def owner(client: Client) -> Client:
    client.force_login(make_member(role=OWNER, username="grace"))
    return client


def text(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response
    return str(response.content.decode())


def shown_in(html: str) -> str:
    (found,) = re.findall(r'<code id="secret" data-hides-s="\d+">(jr_[\w-]+)</code>', html)
    return str(found)


def test_it_makes_a_key_that_opens_the_api_and_shows_it_once(owner: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    response = owner.post("/keys/new/", WISH)
    secret, key = shown_in(text(response)), ApiKey.objects.get()
    assert "no-store" in response["Cache-Control"]
    assert (key.name, key.scopes, key.created_by, key.expires_at) == ("billing", ["events:read", "events:write"], "user grace", None)
    found = keys.find(secret)
    assert found is not None
    assert found.key_id == key.pk
    elsewhere = "".join(text(owner.get(url)) for url in ("/keys/", f"/keys/{key.public_id}/", "/audit/", "/"))
    kept = "".join(str(session.get_decoded()) for session in Session.objects.all()) + str(AuditEntry.objects.values()) + caplog.text
    assert key.visible_prefix in elsewhere
    assert secret not in elsewhere + kept + str(response.headers)


def test_it_is_written_down_who_made_it_and_from_where(owner: Client) -> None:
    owner.post("/keys/new/", WISH, REMOTE_ADDR="192.0.2.7")
    key, entry = ApiKey.objects.get(), AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target, entry.tenant, entry.address) == ("user grace", "key.create", key.public_id, key.tenant, "192.0.2.7")
    assert entry.detail == f"{key}: events:read, events:write"


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"name": " "}, "Say what the key is for"),
        ({"scopes": []}, "tick what it is to do"),
        ({"scopes": ["stream:write"]}, "stream:write is not one of the available choices"),
        ({"scopes": ["everything"]}, "everything is not one of the available choices"),
        ({"expires_at": "2020-01-01T00:00"}, "This time has passed"),
        ({"expires_at": "soon"}, "This is not a time"),
    ],
)
def test_it_says_what_of_a_wish_cannot_be(owner: Client, over: dict[str, Any], words: str) -> None:
    assert words in text(owner.post("/keys/new/", WISH | over))
    assert not ApiKey.objects.exists()


def test_the_operators_scopes_are_not_offered() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    make_tenant()
    html = text(client.get("/keys/new/"))
    assert "stream:read" in html
    assert "stream:write" not in html


def test_a_key_ends_when_it_was_said_to(owner: Client) -> None:
    at = (timezone.now() + timedelta(days=30)).replace(second=0, microsecond=0)
    assert "works until" in text(owner.post("/keys/new/", WISH | {"expires_at": f"{at:%Y-%m-%dT%H:%M}"}))
    assert ApiKey.objects.get().expires_at == at


def test_it_rotates_with_an_overlap(owner: Client) -> None:
    old, before = make_api_key(scopes=["events:read"])
    secret = shown_in(text(owner.post(f"/keys/{old.public_id}/rotate/", {"overlap_h": "1"})))
    made = ApiKey.objects.exclude(pk=old.pk).get()
    ends = old.refreshed().expires_at
    assert ends is not None
    assert timedelta(minutes=59) < ends - timezone.now() <= timedelta(hours=1)
    assert [found.key_id for found in (keys.find(before), keys.find(secret)) if found] == [old.pk, made.pk]
    assert (made.scopes, made.name, made.created_by) == (old.scopes, old.name, "user grace")
    assert list(AuditEntry.objects.values_list("action", "target", "detail")) == [("key.rotate", old.public_id, f"by {made.public_id}")]


def test_a_second_click_hands_out_no_key_that_dies_with_the_old_one(owner: Client) -> None:
    old, _ = make_api_key(scopes=["events:read"])
    owner.post(f"/keys/{old.public_id}/rotate/", {"overlap_h": "24"})
    made, ends = ApiKey.objects.exclude(pk=old.pk).get(), old.refreshed().expires_at
    html = text(owner.post(f"/keys/{old.public_id}/rotate/", {"overlap_h": "24"}))
    assert "This key was rotated at" in html
    assert "rotate the key that replaced it, or revoke this one and make a new one" in html
    assert "/rotate/" not in text(owner.get(f"/keys/{old.public_id}/"))
    assert (ApiKey.objects.count(), old.refreshed().expires_at, AuditEntry.objects.count()) == (2, ends, 1)
    # The way out for whoever never saw the first one's answer.
    secret = shown_in(text(owner.post(f"/keys/{made.public_id}/rotate/", {"overlap_h": "0"})))
    found = keys.find(secret)
    assert found is not None
    assert found.expires_at is None


def test_a_rotation_without_overlap_ends_the_old_one(owner: Client) -> None:
    old, before = make_api_key(scopes=["events:read"])
    owner.post(f"/keys/{old.public_id}/rotate/", {"overlap_h": "0"})
    assert keys.find(before) is None


@pytest.mark.parametrize("over", [{"revoked_at": timezone.now()}, {"expires_at": timezone.now() - timedelta(seconds=1)}], ids=["revoked", "expired"])
def test_what_has_ended_is_not_rotated(owner: Client, over: dict[str, Any]) -> None:
    old, _ = make_api_key(scopes=["events:read"], **over)
    assert "/rotate/" not in text(owner.get(f"/keys/{old.public_id}/"))
    owner.post(f"/keys/{old.public_id}/rotate/", {"overlap_h": "24"})
    assert ApiKey.objects.count() == 1
    assert not AuditEntry.objects.exists()


def test_an_owner_does_not_come_to_hold_what_only_the_operator_gives_away(owner: Client) -> None:
    stream, _ = make_api_key(scopes=["events:read", "stream:write"])
    assert "only whoever runs this Jetrelay can rotate it" in text(owner.get(f"/keys/{stream.public_id}/"))
    text(owner.post(f"/keys/{stream.public_id}/rotate/", {"overlap_h": "24"}), 403)
    assert ApiKey.objects.count() == 1
    ada = Client()
    ada.force_login(User.objects.create_superuser("ada"))
    shown_in(text(ada.post(f"/keys/{stream.public_id}/rotate/", {"overlap_h": "24"})))


def test_it_revokes_once_that_is_confirmed(owner: Client) -> None:
    key, secret = make_api_key(scopes=["events:read"])
    assert "Tick the box to confirm" in text(owner.post(f"/keys/{key.public_id}/revoke/"))
    assert keys.find(secret) is not None
    html = text(owner.post(f"/keys/{key.public_id}/revoke/", {"sure": "on"}, follow=True))
    assert "opens nothing any more" in html
    assert keys.find(secret) is None
    assert [entry.action for entry in AuditEntry.objects.all()] == ["key.revoke"]
    assert "was revoked already" in text(owner.post(f"/keys/{key.public_id}/revoke/", {"sure": "on"}, follow=True))
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize("role", [MEMBER, VIEWER])
def test_members_and_viewers_look_and_do_nothing(client: Client, role: str) -> None:
    key, secret = make_api_key(name="billing", scopes=["events:read"])
    client.force_login(make_member(role=role))
    for url in ("/keys/", f"/keys/{key.public_id}/"):
        html = text(client.get(url))
        assert "billing" in html
        assert not any(words in html for words in ("/keys/new/", "/rotate/", "/revoke/"))
    for url, data in {"/keys/new/": WISH, f"/keys/{key.public_id}/rotate/": {"overlap_h": "0"}, f"/keys/{key.public_id}/revoke/": {"sure": "on"}}.items():
        text(client.post(url, data), 403)
    assert ApiKey.objects.count() == 1
    assert keys.find(secret) is not None


def test_an_owner_of_one_tenant_is_nobody_in_another(client: Client) -> None:
    ours, theirs, third = (make_tenant(slug=slug, name=slug) for slug in ("ours", "theirs", "third"))
    user = make_member(ours, OWNER)
    Membership.objects.create(tenant=theirs, user=user, role=MEMBER)
    client.force_login(user)
    seen, hidden = (make_api_key(tenant=tenant, scopes=["events:read"])[0] for tenant in (theirs, third))
    # With one tenant to choose there is no choice, whatever stands in the request.
    client.post("/keys/new/", WISH | {"tenant": theirs.public_id})
    assert ApiKey.objects.filter(name="billing").get().tenant == ours
    for act, data in {"rotate": {"overlap_h": "0"}, "revoke": {"sure": "on"}}.items():
        text(client.post(f"/keys/{seen.public_id}/{act}/", data), 403)
        text(client.post(f"/keys/{hidden.public_id}/{act}/", data), 404)
    assert ApiKey.objects.live().count() == 3
    assert "third" not in text(client.get("/keys/"))


def test_an_owner_of_several_says_for_which_one(client: Client) -> None:
    tenants = [make_tenant(slug=slug, name=slug) for slug in ("ours", "theirs", "third")]
    user = make_member(tenants[0], OWNER)
    Membership.objects.create(tenant=tenants[1], user=user, role=OWNER)
    client.force_login(user)
    assert "third" not in text(client.get("/keys/new/"))
    assert "Choose a tenant" in text(client.post("/keys/new/", WISH))
    assert "it is not yours" in text(client.post("/keys/new/", WISH | {"tenant": tenants[2].public_id}))
    client.post("/keys/new/", WISH | {"tenant": tenants[1].public_id})
    assert ApiKey.objects.get().tenant == tenants[1]


def test_it_filters_by_state_and_goes_page_by_page(owner: Client) -> None:
    made = [make_api_key(name=f"number {number}", scopes=["events:read"])[0] for number in range(PAGE + 1)]
    gone, _ = make_api_key(name="gone", scopes=["events:read"], revoked_at=timezone.now())
    over, _ = make_api_key(name="over", scopes=["events:read"], expires_at=timezone.now() - timedelta(days=1))
    for state, shown in {"revoked": [gone], "expired": [over], "live": made[1:]}.items():
        html = text(owner.get(f"/keys/?state={state}"))
        assert set(re.findall(r'<tr id="(\w+)"', html)) == {key.public_id for key in shown}
    assert f"?state=live&amp;before={made[1].public_id}" in html
    assert re.findall(r'<tr id="(\w+)"', text(owner.get(f"/keys/?state=live&before={made[1].public_id}"))) == [made[0].public_id]
    assert "There is no state “lost”" in text(owner.get("/keys/?state=lost"))
    assert "is not a key" in text(owner.get("/keys/?before=x"))
    assert "no older ones" in text(owner.get(f"/keys/?before={made[0].public_id}"))


def test_it_shows_names_as_text(owner: Client) -> None:
    key, _ = make_api_key(name="<b>\u202egnillib", scopes=["events:read"])
    for url in ("/keys/", f"/keys/{key.public_id}/"):
        assert "<bdi>&lt;b&gt;\u202egnillib</bdi>" in text(owner.get(url))


def test_it_says_what_to_do_where_there_is_none(client: Client, owner: Client) -> None:
    assert 'href="/keys/new/"' in text(owner.get("/keys/"))
    client.force_login(make_member(role=VIEWER))
    assert "An owner of your tenant can make one" in text(client.get("/keys/"))


def test_a_list_costs_the_same_however_long(owner: Client, django_assert_num_queries: Any) -> None:
    for _ in range(10):
        make_api_key(scopes=["events:read"])
    # Session, user, memberships, keys.
    with django_assert_num_queries(4):
        text(owner.get("/keys/"))


def test_a_superuser_makes_one_for_any_tenant(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada"))
    for slug in ("one", "two"):
        make_tenant(slug=slug)
    client.post("/keys/new/", WISH | {"tenant": Tenant.objects.get(slug="two").public_id})
    assert ApiKey.objects.get().tenant.slug == "two"
