"""Rows of the configuration: what is secret in them, how they are named, and that a change is noticed."""

from base64 import b64decode
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from subscriptions import validation
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


@pytest.mark.parametrize("field", ["secret", "previous_secret", "bearer_token", "extra_headers"])
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


@pytest.mark.parametrize("hours", [0.5, 24, 720])
def test_it_keeps_a_replaced_secret_for_as_long_as_is_chosen(hours: float) -> None:
    endpoint, before = make_endpoint(secret="old"), timezone.now()
    endpoint.replace_secret("new", timedelta(hours=hours))
    endpoint.save()
    expires = endpoint.refreshed().previous_secret_expires_at
    assert expires is not None
    assert before + timedelta(hours=hours) <= expires <= timezone.now() + timedelta(hours=hours)
    assert endpoint.secrets_at(expires - timedelta(microseconds=1)) == ["new", "old"]
    assert endpoint.secrets_at(expires) == ["new"]


def test_it_keeps_a_replaced_secret_for_a_day_unless_told_otherwise() -> None:
    endpoint, before = make_endpoint(secret="old"), timezone.now()
    endpoint.replace_secret("new")
    assert endpoint.secrets_at(before + timedelta(hours=24)) == ["new", "old"]
    assert endpoint.secrets_at(timezone.now() + timedelta(hours=24)) == ["new"]


def test_it_ends_a_leaked_secret_at_once() -> None:
    endpoint = make_endpoint(secret="old", previous_secret="older", previous_secret_expires_at=timezone.now() + timedelta(hours=1))
    endpoint.replace_secret("new", timedelta(0))
    assert (endpoint.secret, endpoint.previous_secret, endpoint.previous_secret_expires_at) == ("new", "", None)


def test_it_keeps_two_secrets_at_most_and_no_repeat() -> None:
    endpoint = make_endpoint(secret="old")
    endpoint.replace_secret("new")
    expires = endpoint.previous_secret_expires_at
    endpoint.replace_secret("new", timedelta(0))
    assert (endpoint.previous_secret, endpoint.previous_secret_expires_at) == ("old", expires)
    endpoint.replace_secret("newest")
    assert endpoint.secrets_at(timezone.now()) == ["newest", "new"]


@pytest.mark.parametrize("overlap", [timedelta(microseconds=-1), timedelta(days=30, microseconds=1)])
def test_it_refuses_an_overlap_out_of_bounds(overlap: timedelta) -> None:
    endpoint = make_endpoint(secret="old")
    with pytest.raises(ValueError, match="0 to 30 days"):
        endpoint.replace_secret("new", overlap)
    assert (endpoint.secret, endpoint.previous_secret) == ("old", "")


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
    # Enough that no lane stays empty by chance.
    endpoints = [make_endpoint() for _ in range(200)]
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
        ({"signature_scheme": "md5"}, "signature_scheme"),
        ({"extra_headers": "Host: elsewhere"}, "extra_headers"),
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
        ({"retry_schedule_s": [float("nan")]}, "retry_schedule_s"),
        ({"retry_strategy": "quadratic"}, "retry_strategy"),
        ({"retry_first_s": -0.1}, "retry_first_s"),
        ({"retry_first_s": 2_592_000.1}, "retry_first_s"),
        ({"retry_first_s": None}, "retry_first_s"),
        ({"retry_first_s": float("nan")}, "retry_first_s"),
        ({"retry_factor": 0.9}, "retry_factor"),
        ({"retry_factor": 100.1}, "retry_factor"),
        ({"retry_factor": float("nan")}, "retry_factor"),
        ({"retry_step_s": -1}, "retry_step_s"),
        ({"retry_step_s": float("inf")}, "retry_step_s"),
        ({"retry_longest_s": -1}, "retry_longest_s"),
        ({"retry_longest_s": 2_592_001}, "retry_longest_s"),
        ({"retry_longest_s": None, "retry_strategy": "linear"}, "retry_longest_s"),
        ({"retry_count": -1}, "retry_count"),
        ({"retry_count": 51}, "retry_count"),
        ({"retry_strategy": "exponential", "retry_first_s": 61, "retry_longest_s": 60}, "retry_longest_s"),
        ({"retry_strategy": "linear", "retry_first_s": 61, "retry_longest_s": 60}, "retry_longest_s"),
    ],
)
def test_it_refuses_a_wrong_endpoint_by_field(over: dict[str, Any], field: str) -> None:
    endpoint = Endpoint(**{"tenant": make_tenant(), "name": "x", "url": "https://example.com/"} | over)
    with pytest.raises(ValidationError) as caught:
        endpoint.full_clean()
    assert list(caught.value.message_dict) == [field]


@pytest.mark.parametrize(
    "over",
    [
        {"retry_strategy": strategy, "retry_first_s": first, "retry_longest_s": longest, "retry_factor": factor, "retry_step_s": step, "retry_count": count}
        for strategy in Endpoint.RetryStrategy.values
        for first, longest, factor, step, count in [(0, 0, 1, 0, 0), (60, 60, 100, 2_592_000, 50), (2_592_000, 2_592_000, 1.5, 0.5, 1)]
    ]
    + [{"retry_strategy": "fixed", "retry_first_s": 61, "retry_longest_s": 60}, {"retry_first_s": 61, "retry_longest_s": 60}],
)
def test_it_takes_retries_up_to_their_bounds(over: dict[str, Any]) -> None:
    Endpoint(**{"tenant": make_tenant(), "name": "x", "url": "https://example.com/"} | over).full_clean()


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


# --- Extra headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("", ""),
        (" \n\r\n", ""),
        ("X-Api-Key: secret", "X-Api-Key: secret"),
        ("X-A:1\r\n\r\n  X-B \t:\t two words: and a colon \n", "X-A: 1\nX-B: two words: and a colon"),
        ("!#$%&'*+.^_`|~09azAZ-: ~!", "!#$%&'*+.^_`|~09azAZ-: ~!"),
        ("n" * 100 + ": v", "n" * 100 + ": v"),
        ("\n".join(f"X-{n}: v" for n in range(20)), "\n".join(f"X-{n}: v" for n in range(20))),
        ("X-Long: " + "v" * 4088, "X-Long: " + "v" * 4088),
        ("X-Host: a\nWebhooks: b\nX-Webhook-Source: c\nCookie: d=e", "X-Host: a\nWebhooks: b\nX-Webhook-Source: c\nCookie: d=e"),
    ],
)
def test_it_takes_headers_to_send_along(value: str, kept: str) -> None:
    endpoint = Endpoint(tenant=make_tenant(), name="x", url="https://example.com/", extra_headers=value)
    endpoint.full_clean()
    assert endpoint.extra_headers == kept
    assert validation.clean_headers(kept) == kept
    assert endpoint.extra_header_names == [line.split(": ")[0] for line in kept.splitlines()]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("k3y", "Line 1 is not a header"),
        (": k3y", "Line 1 is not a header"),
        ("X-A: b\nX B: k3y", "Line 2 is not a header"),
        ("X-Ä: k3y", "Line 1 is not a header"),
        ("X-A\0: k3y", "Line 1 is not a header"),
        ("n" * 101 + ": k3y", "Line 1 is not a header"),
        ("X-A:", "The value of the header 'X-A' is empty"),
        ("X-A: k3y\0", "The value of the header 'X-A' is empty or holds something other"),
        ("X-A: k3y\x7f", "something other than printable ASCII"),
        ("X-A: k3y\tb", "something other than printable ASCII"),
        ("X-A: k3yé", "something other than printable ASCII"),
        ("X-A: k3y\x85b: c", "something other than printable ASCII"),
        ("X-A: k3y\u2028b: c", "something other than printable ASCII"),
        ("X-A: k3y\x0bb: c", "something other than printable ASCII"),
        ("X-A: k3y\rk3y", "Line 2 is not a header"),
        ("X-A: k3y\nx-a: k3y", "The header 'x-a' is there twice"),
        ("X-A: " + "k3y" * 1400, "At most 20 headers of 4,096 characters in all"),
        ("X-Long: " + "k3y-" * 1022 + "v", "At most 20 headers of 4,096"),
        ("\n".join(f"X-{n}: k3y" for n in range(21)), "At most 20 headers"),
        ("Authorization: Basic k3y", "Use the bearer token instead."),
        *((f"{name}: k3y", "is set by Jetrelay or belongs to the connection") for name in (
            "host", "Content-Length", "CONTENT-TYPE", "Content-Encoding", "Transfer-Encoding", "TE", "Trailer", "Connection", "Keep-Alive", "Upgrade",
            "HTTP2-Settings", "Expect", "User-Agent", "Proxy-Authorization", "Proxy-Authenticate", "Proxy-Connection", "X-Webhook-Timestamp",
            "X-Webhook-Signature", "X-Hookstream-Signature", "webhook-id", "Webhook-Signature", "webhook-anything", "Svix-Id",
        )),
    ],
)  # fmt: skip
def test_it_refuses_headers_without_repeating_their_values(value: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        validation.clean_headers(value)
    assert words in caught.value.messages[0]
    assert "k3y" not in caught.value.messages[0]


def test_it_reads_no_secret_where_none_is_shown() -> None:
    make_endpoint(bearer_token="t", extra_headers="X-A: b")
    assert Endpoint.objects.without_secrets().get().get_deferred_fields() == {"secret", "previous_secret", "bearer_token", "extra_headers"}


# --- In the admin ------------------------------------------------------------------------------------------------------

KEY = "a-key-that-stays-hidden"


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def page_of(endpoint: Endpoint) -> str:
    return reverse("admin:subscriptions_endpoint_change", args=[endpoint.pk])


def change(staff: Client, endpoint: Endpoint, **over: Any) -> str:
    """Send the form of the endpoint's page back as it came, but for what is given. Returns what is shown then."""
    response = staff.get(page_of(endpoint))
    form = response.context["adminform"].form
    values = {bound.html_name: bound.value() for bound in form} | {bound.html_initial_name: bound.value() for bound in form if bound.field.show_hidden_initial}
    for formset in response.context["inline_admin_formsets"]:
        values |= {bound.html_name: bound.value() for bound in formset.formset.management_form}
    values = {name: value for name, value in values.items() if value is not None and value is not False}
    return staff.post(page_of(endpoint), values | over, follow=True).content.decode()


def test_its_page_shows_the_names_of_headers_and_no_values(staff: Client) -> None:
    endpoint = make_endpoint(extra_headers=f"X-Api-Key: {KEY}\nX-Env: testing-only", bearer_token="t0ken")
    for url in (page_of(endpoint), reverse("admin:subscriptions_endpoint_changelist")):
        html = staff.get(url).content.decode()
        for hidden in (KEY, "testing-only", "t0ken", endpoint.secret):
            assert hidden not in html
    assert "X-Api-Key: ***\nX-Env: ***" in staff.get(page_of(endpoint)).content.decode()


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("X-Api-Key: ***\r\nX-Env: ***", f"X-Api-Key: {KEY}\nX-Env: test"),
        ("x-env:***", "x-env: test"),
        ("X-Env: live\r\nX-Api-Key: ***\r\nX-New: 1", f"X-Env: live\nX-Api-Key: {KEY}\nX-New: 1"),
        ("", ""),
    ],
)
def test_its_page_keeps_headers_that_stay_masked(typed: str, kept: str, staff: Client) -> None:
    endpoint = make_endpoint(extra_headers=f"X-Api-Key: {KEY}\nX-Env: test")
    assert "was changed successfully" in change(staff, endpoint, extra_headers=typed)
    assert endpoint.refreshed().extra_headers == kept


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("X-New: ***", "&#x27;X-New&#x27; has none: write its value"),
        (KEY, "Line 1 is not a header"),
        (f"Host: {KEY}", "belongs to the connection"),
        (f"X-A: {KEY}\r\nX-A: {KEY}", "is there twice"),
        (f"X-A: {KEY}\0", "Null characters are not allowed"),
    ],
)
def test_its_page_says_what_is_wrong_with_headers_and_shows_no_value_again(typed: str, error: str, staff: Client) -> None:
    html = change(staff, endpoint := make_endpoint(extra_headers="X-Old: 1"), extra_headers=typed)
    assert error in html
    assert KEY not in html
    assert endpoint.refreshed().extra_headers == "X-Old: 1"


def test_the_admins_log_holds_nothing_secret(staff: Client, caplog: pytest.LogCaptureFixture) -> None:
    secret, before = new_secret(), new_secret()
    endpoint = make_endpoint(secret=before, bearer_token="the-old-token", extra_headers="X-Api-Key: the-old-key")
    shown = change(staff, endpoint, secret=secret, bearer_token="the-new-token", extra_headers=f"X-Api-Key: {KEY}", signature_scheme="timestamped")
    assert "was changed successfully" in shown
    (entry,) = LogEntry.objects.all()
    assert entry.change_message == '[{"changed": {"fields": ["Signature scheme", "set a signing secret", "set a bearer token", "extra headers"]}}]'
    assert entry.object_repr == endpoint.name
    for hidden in (secret, before, "the-old-token", "the-new-token", "the-old-key", KEY):
        assert hidden not in repr(LogEntry.objects.values().get())
        assert hidden not in caplog.text
        assert hidden not in shown
    endpoint.refresh_from_db()
    assert (endpoint.secret, endpoint.bearer_token, endpoint.extra_headers) == (secret, "the-new-token", f"X-Api-Key: {KEY}")


def test_the_admins_log_names_only_what_was_changed(staff: Client) -> None:
    endpoint = make_endpoint(bearer_token="t", extra_headers="X-A: 1\nX-B: 2")
    change(staff, endpoint, name="Renamed", extra_headers="X-A: ***\r\nX-B: ***")
    assert LogEntry.objects.get().change_message == '[{"changed": {"fields": ["Name"]}}]'
    assert endpoint.refreshed().extra_headers == "X-A: 1\nX-B: 2"


def test_its_page_sets_a_retry_strategy_and_says_what_is_wrong_with_it(staff: Client) -> None:
    endpoint = make_endpoint()
    numbers = {"retry_first_s": "10", "retry_factor": "2", "retry_longest_s": "5", "retry_count": "7"}
    assert "The longest wait is shorter than the first one." in change(staff, endpoint, retry_strategy="exponential", **numbers)
    assert "A wait is 0 to 2,592,000 seconds (30 days)." in change(staff, endpoint, retry_strategy="linear", retry_step_s="-1")
    assert "The factor is 1 to 100" in change(staff, endpoint, retry_factor="0")
    assert "There are 0 to 50 retries." in change(staff, endpoint, retry_count="51")
    assert endpoint.refreshed().retry_strategy == "schedule"
    assert "was changed successfully" in change(staff, endpoint, retry_strategy="exponential", **numbers | {"retry_longest_s": "50"})
    endpoint.refresh_from_db()
    assert (endpoint.retry_strategy, endpoint.retry_first_s, endpoint.retry_factor, endpoint.retry_longest_s, endpoint.retry_count) == (
        "exponential",
        10,
        2,
        50,
        7,
    )


def rotate(client: Client, *endpoints: Endpoint, **over: Any) -> str:
    data = {"action": "rotate_secrets", "_selected_action": [endpoint.pk for endpoint in endpoints], "apply": "1", "overlap_h": "24"} | over
    return client.post(reverse("admin:subscriptions_endpoint_changelist"), data, follow=True).content.decode()


@pytest.mark.parametrize(
    ("chosen", "hours", "log"),
    [({}, 24, "24 hours"), ({"overlap_h": "24"}, 24, "24 hours"), ({"overlap_h": "1"}, 1, "1 hour"), ({"overlap_h": "168"}, 168, "7 days")],
)
def test_the_admin_rotates_a_secret_and_shows_it_once(chosen: dict[str, str], hours: int, log: str, staff: Client, caplog: pytest.LogCaptureFixture) -> None:
    endpoint, other = make_endpoint(bearer_token="t0ken"), make_endpoint()
    old, version, before = endpoint.secret, ConfigVersion.current(), timezone.now()
    shown = rotate(staff, endpoint, **chosen)
    endpoint.refresh_from_db()
    assert endpoint.secret != old
    assert validation.clean_secret(endpoint.secret) == endpoint.secret
    assert f"The new signing secret of {endpoint.name} is {endpoint.secret} (shown only now" in shown
    assert f"Both secrets sign until {endpoint.previous_secret_expires_at:%Y-%m-%d %H:%M} UTC." in shown
    assert endpoint.secrets_at(timezone.now()) == [endpoint.secret, old]
    assert endpoint.previous_secret_expires_at is not None
    assert before + timedelta(hours=hours) <= endpoint.previous_secret_expires_at <= timezone.now() + timedelta(hours=hours)
    assert ConfigVersion.current() > version
    assert other.refreshed().secret == other.secret
    entry = LogEntry.objects.values().get()
    assert entry["change_message"] == f"Rotated the signing secret; the old one stays valid for {log}."
    again = staff.get(reverse("admin:subscriptions_endpoint_changelist")).content.decode() + staff.get(page_of(endpoint)).content.decode()
    for hidden in (endpoint.secret, old):
        assert hidden not in again + repr(entry) + caplog.text
    assert old not in shown
    # What was shown is not kept on the server either.
    assert not any(endpoint.secret in str(session.get_decoded()) for session in Session.objects.all())


def test_the_admin_ends_a_leaked_secret_at_once_even_during_a_rotation(staff: Client) -> None:
    endpoint = make_endpoint()
    rotate(staff, endpoint)
    shown = rotate(staff, endpoint, overlap_h="0")
    endpoint.refresh_from_db()
    assert (endpoint.previous_secret, endpoint.previous_secret_expires_at) == ("", None)
    assert f"{endpoint.secret} (shown only now: give it to the receiver). The old one is no longer valid." in shown


def test_the_admin_says_which_secret_signs_where_there_is_room_for_one(staff: Client) -> None:
    shown = rotate(staff, make_endpoint(signature_scheme="hookstream"))
    assert "This scheme has room for one signature: the old secret signs until" in shown


def test_the_admin_does_not_rotate_what_would_break_a_receiver(staff: Client, settings: Settings) -> None:
    first, second = make_endpoint(), make_endpoint()
    named = make_endpoint(origin=Endpoint.Origin.ENVIRONMENT)
    before = {endpoint: endpoint.secret for endpoint in (first, second, named)}
    settings.WEBHOOK_SECRET = new_secret()
    assert "is WEBHOOK_SECRET: change it in the environment" in rotate(staff, named)
    assert {endpoint: endpoint.refreshed().secret for endpoint in before} == before
    settings.WEBHOOK_SECRET = ""
    assert "(shown only now" in rotate(staff, named)
    secret = named.refreshed().secret
    assert "is under way until" in rotate(staff, named)
    rotate(staff, first, overlap_h="-5")
    assert (named.refreshed().secret, first.refreshed().secret) == (secret, before[first])
    Endpoint.objects.update(previous_secret_expires_at=timezone.now())
    assert "(shown only now" in rotate(staff, named)


def test_the_admin_rotates_for_those_who_may_change_endpoints(client: Client) -> None:
    endpoint, onlooker = make_endpoint(), User.objects.create_user("eve", is_staff=True)
    onlooker.user_permissions.add(Permission.objects.get(codename="view_endpoint"))
    client.force_login(onlooker)
    rotate(client, endpoint)
    assert endpoint.refreshed().secret == endpoint.secret
