"""Rows of the configuration: what is secret in them, how they are named, and that a change is noticed."""

from base64 import b64decode
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from subscriptions.fields import cipher
from subscriptions.ids import from_public, new_id, to_public
from subscriptions.models import SHARDS, ConfigVersion, Endpoint, Source, Subscription, new_secret
from tests.builders import make_endpoint, make_source, make_subscription, make_tenant, some_id

pytestmark = pytest.mark.django_db


def raw(column: str, endpoint: Endpoint) -> str:
    """What the database itself holds."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM subscriptions_endpoint WHERE url = %s", [endpoint.url])
        ((value,),) = cursor.fetchall()
    return str(value)


# --- Secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["secret", "previous_secret", "bearer_token"])
def test_it_keeps_secrets_encrypted(field: str) -> None:
    secret = new_secret()
    endpoint = make_endpoint(**{field: secret})
    kept = raw(field, endpoint)
    assert kept.startswith("gAAAA")
    assert secret not in kept
    assert secret.removeprefix("whsec_") not in kept
    assert getattr(endpoint.refreshed(), field) == secret


def test_it_encrypts_the_same_secret_differently_every_time() -> None:
    secret = new_secret()
    first, second = make_endpoint(secret=secret, url="https://one.example/"), make_endpoint(secret=secret, url="https://two.example/")
    assert raw("secret", first) != raw("secret", second)


def test_it_keeps_no_secret_as_nothing() -> None:
    assert raw("bearer_token", make_endpoint()) == ""


def test_it_decrypts_with_an_older_key(settings: Settings) -> None:
    endpoint = make_endpoint(secret=(secret := new_secret()))
    settings.JETRELAY_ENCRYPTION_KEYS = [Fernet.generate_key().decode(), *settings.JETRELAY_ENCRYPTION_KEYS]
    assert endpoint.refreshed().secret == secret
    endpoint.save()
    settings.JETRELAY_ENCRYPTION_KEYS = settings.JETRELAY_ENCRYPTION_KEYS[:1]
    assert endpoint.refreshed().secret == secret


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([Fernet.generate_key().decode()], "JETRELAY_ENCRYPTION_KEYS: none of the keys opens a stored secret"),
        ([], "JETRELAY_ENCRYPTION_KEYS is not set"),
        (["not a key"], "JETRELAY_ENCRYPTION_KEYS: each key is the URL-safe base64 of 32 bytes"),
    ],
)
def test_it_says_which_setting_is_wrong_when_a_secret_stays_shut(keys: list[str], words: str, settings: Settings) -> None:
    endpoint = make_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = keys
    with pytest.raises(ImproperlyConfigured, match=words):
        endpoint.refreshed()


def test_it_says_so_when_the_database_holds_what_was_never_encrypted() -> None:
    endpoint = make_endpoint()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE subscriptions_endpoint SET secret = 'whsec_plain'")
    with pytest.raises(ImproperlyConfigured, match="none of the keys opens"):
        endpoint.refreshed()


def test_it_makes_secrets_of_32_bytes() -> None:
    secret = new_secret()
    assert len(b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_secret()


def test_it_signs_with_both_secrets_during_a_rotation() -> None:
    now = timezone.now()
    endpoint = make_endpoint(secret="new", previous_secret="old", previous_secret_expires_at=now + timedelta(hours=1))
    assert endpoint.secrets_at(now) == ["new", "old"]
    assert endpoint.secrets_at(now + timedelta(minutes=59)) == ["new", "old"]
    assert endpoint.secrets_at(now + timedelta(hours=1)) == ["new"]


@pytest.mark.parametrize("over", [{}, {"previous_secret": "old"}, {"previous_secret_expires_at": timezone.now() + timedelta(hours=1)}])
def test_it_signs_with_one_secret_when_there_is_no_rotation(over: dict[str, Any]) -> None:
    assert make_endpoint(secret="new", **over).secrets_at(timezone.now()) == ["new"]


def test_its_cipher_opens_what_it_shut() -> None:
    assert cipher().decrypt(cipher().encrypt(b"x")) == b"x"


# --- The version of the configuration ----------------------------------------------------------------------------------


def rename(endpoint: Endpoint) -> None:
    endpoint.name = "other"
    endpoint.save()


def switch_off(endpoint: Endpoint) -> None:
    subscription = endpoint.subscriptions.get()
    subscription.active = False
    subscription.save()


@pytest.mark.parametrize(
    "change",
    [
        rename,
        switch_off,
        lambda _: make_endpoint(),
        lambda endpoint: make_subscription(endpoint=endpoint),
        lambda endpoint: endpoint.subscriptions.get().delete(),
        lambda endpoint: endpoint.delete(),
        lambda _: make_source().save(),
        lambda _: Endpoint.objects.all().set_state(Endpoint.State.PAUSED, "a test"),
    ],
)
def test_it_moves_its_version_with_every_change(change: Callable[[Endpoint], object]) -> None:
    endpoint = make_subscription().endpoint
    before = ConfigVersion.current()
    change(endpoint)
    assert ConfigVersion.current() > before


def test_it_moves_its_version_only_with_the_change() -> None:
    endpoint = make_subscription().endpoint
    before = ConfigVersion.current()

    def fails() -> None:
        with transaction.atomic():
            rename(endpoint)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert ConfigVersion.current() == before
    assert endpoint.refreshed().name != "other"


def test_it_starts_at_nothing_and_counts_up() -> None:
    ConfigVersion.objects.all().delete()
    assert ConfigVersion.current() == 0
    ConfigVersion.bump()
    ConfigVersion.bump()
    assert ConfigVersion.current() == 2


# --- Ids ---------------------------------------------------------------------------------------------------------------


def test_its_ids_rise() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {id.version for id in ids} == {7}


@pytest.mark.parametrize("make", [lambda: make_endpoint(), lambda: make_subscription(), lambda: make_tenant(), lambda: make_source()])
def test_it_finds_a_row_again_by_the_id_that_people_see(make: Callable[[], Any]) -> None:
    row = make()
    assert row.public_id.startswith(row.prefix + "_")
    assert type(row).objects.get(pk=from_public(row.public_id)) == row


@pytest.mark.parametrize("text", ["ep_" + "0" * 31 + "7", "0" * 31 + "7", "00000000-0000-0000-0000-000000000007", "  EP_" + "0" * 31 + "7\n"])
def test_it_reads_ids_in_every_dress(text: str) -> None:
    assert from_public(text) == some_id(7)
    assert from_public(to_public("ep", some_id(7))) == some_id(7)


@pytest.mark.parametrize("text", ["", "ep_", "7", "ep_" + "g" * 32, "ep_" + "0" * 33, "0" * 31, "ep_ep_" + "0" * 32, "'; DROP TABLE"])
def test_it_reads_no_id_where_there_is_none(text: str) -> None:
    assert from_public(text) is None


# --- Endpoints and subscriptions ---------------------------------------------------------------------------------------


def test_it_spreads_endpoints_over_the_lanes(settings: Settings) -> None:
    endpoints = [make_endpoint() for _ in range(60)]
    assert all(0 <= endpoint.shard < SHARDS for endpoint in endpoints)
    for lanes in (1, 3, 8):
        settings.JETRELAY_LANES = lanes
        found = [set(Endpoint.objects.in_lane(lane)) for lane in range(lanes)]
        assert sum(map(len, found)) == len(endpoints)
        assert all(endpoint in found[endpoint.lane] for endpoint in endpoints)
        assert all(found)


def test_it_shows_a_tenant_its_own_endpoints() -> None:
    mine, theirs = make_endpoint(), make_endpoint(tenant=make_tenant(slug="other", name="Other"))
    assert list(Endpoint.objects.for_tenant(mine.tenant)) == [mine]
    assert list(Endpoint.objects.for_tenant(theirs.tenant)) == [theirs]


def test_it_says_since_when_and_why_an_endpoint_is_held() -> None:
    endpoint, before = make_endpoint(), timezone.now()
    assert Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.PAUSED, "a test") == 1
    assert Endpoint.objects.filter(pk=endpoint.pk).set_state(Endpoint.State.PAUSED, "another reason") == 0
    endpoint.refresh_from_db()
    assert (endpoint.state, endpoint.state_reason) == (Endpoint.State.PAUSED, "a test")
    assert endpoint.state_changed_at >= before
    assert list(Endpoint.objects.active()) == []


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://user:password@example.com/"}, "url"),
        ({"url": "https://example.com/" + "ü" * 400}, "url"),
        ({"secret": "hunter2"}, "secret"),
        ({"bearer_token": "two words"}, "bearer_token"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": 301}, "timeout_s"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"retry_jitter_percent": 26}, "retry_jitter_percent"),
        ({"retry_on": "never"}, "retry_on"),
        ({"retry_schedule_s": "30"}, "retry_schedule_s"),
        ({"retry_schedule_s": [-1]}, "retry_schedule_s"),
        ({"retry_schedule_s": [True]}, "retry_schedule_s"),
        ({"retry_schedule_s": ["30"]}, "retry_schedule_s"),
        ({"retry_schedule_s": [30 * 86_400 + 1]}, "retry_schedule_s"),
        ({"retry_schedule_s": [1] * 51}, "retry_schedule_s"),
    ],
)
def test_it_refuses_a_wrong_endpoint_by_field(over: dict[str, Any], field: str) -> None:
    endpoint = Endpoint(**{"tenant": make_tenant(), "name": "x", "url": "https://example.com/"} | over)
    with pytest.raises(ValidationError) as caught:
        endpoint.full_clean()
    assert list(caught.value.message_dict) == [field]


def test_it_keeps_a_url_in_its_canonical_form() -> None:
    endpoint = Endpoint(tenant=make_tenant(), name="x", url="https://BÜCHER.example", retry_schedule_s=[])
    endpoint.full_clean()
    assert endpoint.url == "https://xn--bcher-kva.example/"


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"collections": []}, "collections"),
        ({"collections": ["app.bsky.fo*"]}, "collections"),
        ({"collections": "*"}, "collections"),
        ({"collections": {"a": 1}}, "collections"),
        ({"collections": [1]}, "collections"),
        ({"dids": ["alice"]}, "dids"),
        ({"operations": ["put"]}, "operations"),
        ({"kinds": ["posts"]}, "kinds"),
        ({"kinds": []}, "kinds"),
    ],
)
def test_it_refuses_a_wrong_subscription_by_field(over: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Subscription(endpoint=make_endpoint(), source=make_source(), **over).full_clean()
    assert list(caught.value.message_dict) == [field]


def test_it_keeps_lists_clean_and_without_repeats() -> None:
    subscription = Subscription(endpoint=make_endpoint(), source=make_source(), collections=[" app.x.* ", "app.x.*"], operations=["CREATE"], kinds=["Commit"])
    subscription.full_clean()
    assert (subscription.collections, subscription.operations, subscription.kinds, subscription.dids) == (["app.x.*"], ["create"], ["commit"], [])


def test_it_refuses_the_source_of_another_tenant() -> None:
    other = make_tenant(slug="other", name="Other")
    source = Source.objects.create(tenant=other, kind=Source.Kind.API, name="theirs")
    with pytest.raises(ValidationError, match="belongs to another tenant"):
        Subscription(endpoint=make_endpoint(), source=source).full_clean()


def test_it_shows_no_subscription_of_another_tenant_to_a_source() -> None:
    mine, other = make_tenant(), make_tenant(slug="other", name="Other")
    source = Source.objects.create(tenant=mine, kind=Source.Kind.API, name="mine")
    seen = make_subscription(source=source, endpoint=make_endpoint(tenant=mine))
    make_subscription(source=source, endpoint=make_endpoint(tenant=other))
    make_subscription(source=source, endpoint=make_endpoint(tenant=mine), active=False)
    assert list(Subscription.objects.of(source)) == [seen]


# --- URLs that are the operator's own word -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "url", "trusted"),
    [
        ("environment", "http://localhost:3000/hook", True),
        ("environment", "http://localhost:3001/hook", False),
        ("person", "http://localhost:3000/hook", False),
        ("inbox", "http://localhost:3000/hook", False),
        ("inbox", "http://127.0.0.1:8000/inbox/token", True),
        ("inbox", "http://127.0.0.1:8001/inbox/token", False),
        ("inbox", "http://127.0.0.1:8000/admin/", False),
        ("environment", "http://127.0.0.1:8000/inbox/token", False),
        ("person", "http://127.0.0.1:8000/inbox/token", False),
    ],
)
def test_it_trusts_a_private_url_only_where_the_environment_names_it(origin: str, url: str, trusted: bool, settings: Settings) -> None:
    settings.WEBHOOK_URL = "http://localhost:3000/hook"
    endpoint = Endpoint(origin=origin, url=url)
    assert endpoint.url_is_operators is trusted
    settings.WEBHOOK_URL = ""
    assert endpoint.url_is_operators is (trusted and origin == "inbox")


def test_it_trusts_no_url_when_the_environment_names_none(settings: Settings) -> None:
    settings.WEBHOOK_URL = ""
    assert Endpoint(origin="environment", url="").url_is_operators is False


def test_its_ids_are_made_here_and_not_by_the_database() -> None:
    assert isinstance(Endpoint().id, UUID)
