"""`/keys`: made, rotated and revoked by programs. No key gives away more than it has."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from subscriptions.keys import SCOPES
from subscriptions.models import ApiKey, AuditEntry
from tests.api import Api, api_of
from tests.builders import make_api_key

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

DAY = timedelta(days=1)


@pytest.fixture
def api() -> Api:
    return api_of()


def make(api: Api, **over: Any) -> Any:
    return api.post("keys", {"name": "billing", "scopes": ["events:read"]} | over)


def in_z(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def test_a_key_is_made_and_shown_once(api: Api) -> None:
    made = make(api, scopes=["keys:read", "events:read", "events:read"])
    assert made.status == 201
    text, row = made.json["key"], ApiKey.objects.get(name="billing")
    assert api.key
    assert made.json == {
        "id": row.public_id,
        "name": "billing",
        "visible_prefix": text[:10],
        "state": "live",
        "scopes": ["events:read", "keys:read"],
        "rate_limit_per_s": None,
        "created_at": in_z(row.created_at),
        "created_by": f"key {api.key}",
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
        "key": text,
    }
    # It sees itself, and nobody sees its text again.
    shown = Api(text).get(f"keys/{row.public_id}")
    assert shown.json["last_used_at"].endswith("Z")
    assert text not in shown.text + api.get("keys").text
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target) == ("key.create", row.public_id)
    assert text not in entry.detail


def test_keys_are_listed_with_their_states(api: Api) -> None:
    now = timezone.now()
    make_api_key(name="expired", expires_at=now - DAY)
    make_api_key(name="revoked", revoked_at=now)
    assert [(key["name"], key["state"]) for key in api.get("keys").json["data"]] == [("revoked", "revoked"), ("expired", "expired"), ("a key", "live")]


def test_no_key_gives_away_a_scope_that_it_has_not() -> None:
    poor = api_of(scopes=["keys:write", "keys:read", "events:read"])
    for scope in SCOPES:
        answer = make(poor, scopes=["events:read", scope])
        assert (answer.status == 201) == (scope in ("keys:write", "keys:read", "events:read")), scope
        if answer.status != 201:
            assert answer.pointers == ["/scopes"]
            assert scope in answer.json["detail"]
    rich, _ = make_api_key(scopes=["events:read", "secrets:read"])
    assert poor.post(f"keys/{rich.public_id}/rotate").problem == (403, "missing_scope")
    assert rich.refreshed().expires_at is None


def test_no_key_outlives_itself() -> None:
    ends = timezone.now() + DAY
    short = api_of(expires_at=ends)
    assert make(short).json["expires_at"] == in_z(ends)
    assert make(short, expires_at=in_z(ends - timedelta(hours=1))).json["expires_at"] == in_z(ends - timedelta(hours=1))
    assert make(short, expires_at=in_z(ends + timedelta(seconds=1))).pointers == ["/expires_at"]
    longer, _ = make_api_key()
    assert short.post(f"keys/{longer.public_id}/rotate").problem == (422, "invalid")
    assert longer.refreshed().expires_at is None
    assert short.key
    assert short.post(f"keys/{short.key.public_id}/rotate").json["expires_at"] == in_z(ends)


def test_no_key_gives_away_a_greater_number_of_requests() -> None:
    slow = api_of(rate_limit_per_s=5)
    assert make(slow).json["rate_limit_per_s"] == 5
    assert make(slow, rate_limit_per_s=4).json["rate_limit_per_s"] == 4
    assert make(slow, rate_limit_per_s=6).pointers == ["/rate_limit_per_s"]
    for limit in (None, 6):
        faster, _ = make_api_key(rate_limit_per_s=limit)
        assert slow.post(f"keys/{faster.public_id}/rotate").problem == (422, "invalid")


def test_a_key_of_the_installations_limit_gives_away_no_more(api: Api) -> None:
    """One that has no limit of its own has that of JETRELAY_API_RATE_LIMIT, and not none."""
    assert make(api, rate_limit_per_s=200).json["rate_limit_per_s"] == 200
    assert make(api, rate_limit_per_s=201).pointers == ["/rate_limit_per_s"]
    faster, _ = make_api_key(rate_limit_per_s=201)
    assert api.post(f"keys/{faster.public_id}/rotate").problem == (422, "invalid")


def test_a_key_is_rotated_with_an_overlap(api: Api) -> None:
    old, old_text = make_api_key(name="billing", scopes=["events:read"], rate_limit_per_s=7)
    made = api.post(f"keys/{old.public_id}/rotate", {"overlap_s": 60})
    assert (made.status, made.json["name"], made.json["scopes"], made.json["rate_limit_per_s"]) == (201, "billing", ["events:read"], 7)
    assert [Api(text).get("events").status for text in (old_text, made.json["key"])] == [200, 200]
    assert timedelta(0) < (old.refreshed().expires_at or timezone.now()) - timezone.now() <= timedelta(minutes=1)
    assert (AuditEntry.objects.get().action, AuditEntry.objects.get().target) == ("key.rotate", old.public_id)
    at_once = api.post(f"keys/{made.json['id']}/rotate", {"overlap_s": 0}).json["key"]
    assert [Api(text).get("events").status for text in (made.json["key"], at_once)] == [401, 200]
    for overlap in (-1, 30 * 86_400 + 1, 1.5, "60", None):
        assert api.post(f"keys/{old.public_id}/rotate", {"overlap_s": overlap}).pointers == ["/overlap_s"]


def test_a_key_is_rotated_once(api: Api) -> None:
    old, _ = make_api_key()
    made = api.post(f"keys/{old.public_id}/rotate")
    ends = old.refreshed().expires_at
    again = api.post(f"keys/{old.public_id}/rotate")
    assert again.problem == (409, "wrong_state")
    assert "rotate the key that replaced it" in again.json["detail"]
    assert (made.json["expires_at"], old.refreshed().expires_at, ApiKey.objects.count()) == (None, ends, 3)


@pytest.mark.parametrize("over", [{"revoked_at": timezone.now()}, {"expires_at": timezone.now() - DAY}])
def test_a_key_that_has_ended_is_not_rotated(over: dict[str, Any], api: Api) -> None:
    key, _ = make_api_key(**over)
    assert api.post(f"keys/{key.public_id}/rotate").problem == (409, "wrong_state")
    assert ApiKey.objects.count() == 2


def test_a_key_is_revoked_for_good(api: Api) -> None:
    key, text = make_api_key()
    assert Api(text).get("keys").status == 200
    first, again = (api.delete(f"keys/{key.public_id}") for _ in range(2))
    assert (first.status, first.json["state"], again.json) == (200, "revoked", first.json)
    assert Api(text).get("keys").status == 401
    assert [entry.action for entry in AuditEntry.objects.all()] == ["key.revoke"]
    assert api.key
    assert api.delete(f"keys/{api.key.public_id}").status == 200
    assert api.get("keys").status == 401


def test_what_is_no_key_says_why(api: Api) -> None:
    for over, pointer in (
        ({"name": ""}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"name": "a\u0000"}, "/name"),
        ({"name": None}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": "events:read"}, "/scopes"),
        ({"scopes": ["everything"]}, "/scopes/0"),
        ({"scopes": [["events:read"]]}, "/scopes/0"),
        ({"scopes": None}, "/scopes"),
        ({"expires_at": in_z(timezone.now() - DAY)}, "/expires_at"),
        ({"expires_at": "2026-01-01"}, "/expires_at"),
        ({"expires_at": 1}, "/expires_at"),
        ({"rate_limit_per_s": 0}, "/rate_limit_per_s"),
        ({"rate_limit_per_s": 1.5}, "/rate_limit_per_s"),
        ({"rate_limit_per_s": 10**400}, "/rate_limit_per_s"),
        ({"tenant": "x"}, "/tenant"),
        ({"key": "jr_x"}, "/key"),
    ):
        assert (make(api, **over).pointers, over) == ([pointer], over)
    assert api.post("keys").pointers == ["/name", "/scopes"]
    assert ApiKey.objects.count() == 1
