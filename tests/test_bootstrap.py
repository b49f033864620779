"""What an installation starts with, and that starting again changes only what the environment changed."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings

from delivery import endpoints
from jetrelay.bootstrap import ADMIN, QUIET_COLLECTION, bootstrap
from jetrelay.inbox.models import Inbox
from subscriptions.models import ConfigVersion, Endpoint, Source, Subscription, Tenant, new_secret
from tests.builders import DID, POST, make_delivery, make_endpoint, make_subscription

pytestmark = pytest.mark.django_db

HOOK = "http://localhost:3000/hook"
LIKE = "app.bsky.feed.like"


@pytest.fixture(autouse=True)
def _environment(settings: Settings) -> None:
    """Nothing set."""
    settings.WEBHOOK_URL = settings.WEBHOOK_SECRET = settings.WEBHOOK_BEARER_TOKEN = ""
    settings.JETSTREAM_COLLECTIONS, settings.JETSTREAM_DIDS, settings.JETSTREAM_KINDS = [], [], ["commit"]


def start(settings: Settings, **environment: Any) -> str:
    for name, value in environment.items():
        setattr(settings, name, value)
    return "\n".join(bootstrap())


def webhook() -> Endpoint:
    return Endpoint.objects.get(origin=Endpoint.Origin.ENVIRONMENT)


def inbox() -> Endpoint:
    return Endpoint.objects.get(origin=Endpoint.Origin.INBOX)


def wishes() -> dict[str, tuple[list[str], list[str], list[str]]]:
    """What each endpoint wants now."""
    return {one.endpoint.origin: (one.collections, one.dids, one.kinds) for one in Subscription.objects.active().select_related("endpoint")}


# --- A first start -----------------------------------------------------------------------------------------------------


def test_it_makes_what_an_installation_needs(settings: Settings) -> None:
    said = start(settings)
    assert Tenant.objects.get().slug == "default"
    assert Source.objects.get(tenant=None).kind == Source.Kind.JETSTREAM
    user = get_user_model().objects.get()
    (password,) = re.findall(rf"Sign in as {ADMIN} with the password (\S+) \(shown only now", said)
    assert user.is_superuser
    assert user.is_staff
    assert user.check_password(password)


def test_it_shows_the_main_job_in_the_inbox_when_nothing_is_set(settings: Settings) -> None:
    said = start(settings, PORT=8123)
    url = f"http://127.0.0.1:8123/inbox/{Inbox.objects.get().token}"
    assert inbox().url == f"http://127.0.0.1:8123/inbox/of/{inbox().public_id}"
    assert f"events ({QUIET_COLLECTION}) go to the built-in inbox. Watch them arrive: {url}" in said
    assert wishes() == {"inbox": ([QUIET_COLLECTION], [], ["commit"])}
    assert inbox().url_is_operators


def test_it_sends_the_inbox_what_the_environment_names(settings: Settings) -> None:
    start(settings, JETSTREAM_COLLECTIONS=[POST], JETSTREAM_KINDS=["commit", "identity"])
    assert wishes() == {"inbox": ([POST], [], ["commit", "identity"])}
    start(settings, JETSTREAM_COLLECTIONS=[], JETSTREAM_DIDS=[DID])
    assert wishes() == {"inbox": (["*"], [DID], ["commit", "identity"])}


def test_it_makes_one_endpoint_of_the_environment(settings: Settings) -> None:
    secret = new_secret()
    said = start(
        settings, WEBHOOK_URL=HOOK, WEBHOOK_SECRET=secret, WEBHOOK_BEARER_TOKEN="token", JETSTREAM_COLLECTIONS=[POST, "app.bsky.graph.*"], JETSTREAM_DIDS=[DID]
    )
    endpoint = webhook()
    assert (endpoint.url, endpoint.secret, endpoint.bearer_token, endpoint.state) == (HOOK, secret, "token", Endpoint.State.ACTIVE)
    assert wishes() == {"environment": ([POST, "app.bsky.graph.*"], [DID], ["commit"])}
    assert f"Events go to {HOOK}" in said
    assert secret not in said
    assert endpoint.url_is_operators
    assert not Inbox.objects.exists()


def test_it_shows_a_secret_that_it_made_once(settings: Settings) -> None:
    said = start(settings, WEBHOOK_URL=HOOK, JETSTREAM_COLLECTIONS=["*"])
    assert webhook().secret in said
    assert "whsec_" not in start(settings)


def test_it_sends_everything_of_the_accounts_when_only_accounts_are_named(settings: Settings) -> None:
    start(settings, WEBHOOK_URL=HOOK, JETSTREAM_DIDS=[DID])
    assert wishes() == {"environment": (["*"], [DID], ["commit"])}


def test_it_keeps_an_administrator_who_is_there(settings: Settings) -> None:
    get_user_model().objects.create_superuser("somebody", password="somebody's password")
    assert "Sign in" not in start(settings)
    assert get_user_model().objects.count() == 1


def test_its_command_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("bootstrap")
    assert "go to the built-in inbox" in capsys.readouterr().out


# --- Starting again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"JETSTREAM_COLLECTIONS": [POST]},
        {"WEBHOOK_URL": HOOK, "JETSTREAM_COLLECTIONS": ["*"]},
        {"WEBHOOK_URL": HOOK, "JETSTREAM_COLLECTIONS": [POST, LIKE], "JETSTREAM_DIDS": [DID], "JETSTREAM_KINDS": ["commit", "account"]},
        {"WEBHOOK_URL": HOOK, "JETSTREAM_COLLECTIONS": [POST], "WEBHOOK_SECRET": new_secret(), "WEBHOOK_BEARER_TOKEN": "token"},
    ],
)
def test_it_changes_nothing_the_second_time(environment: dict[str, Any], settings: Settings) -> None:
    start(settings, **environment)
    version = ConfigVersion.current()
    rows = list(Endpoint.objects.values()), list(Subscription.objects.values()), list(Inbox.objects.values())
    said = start(settings)
    assert ConfigVersion.current() == version
    assert (list(Endpoint.objects.values()), list(Subscription.objects.values()), list(Inbox.objects.values())) == rows
    assert "password" not in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"JETSTREAM_COLLECTIONS": [LIKE]}, ([LIKE], [], ["commit"])),
        ({"JETSTREAM_DIDS": [DID]}, ([POST], [DID], ["commit"])),
        ({"JETSTREAM_KINDS": ["identity"]}, ([POST], [], ["identity"])),
    ],
)
def test_it_follows_a_change_of_what_is_wanted(change: dict[str, Any], expected: tuple[list[str], list[str], list[str]], settings: Settings) -> None:
    start(settings, WEBHOOK_URL=HOOK, JETSTREAM_COLLECTIONS=[POST])
    version = ConfigVersion.current()
    start(settings, **change)
    assert wishes() == {"environment": expected}
    assert ConfigVersion.current() > version
    assert Subscription.objects.count() == 1


def test_it_follows_a_change_of_url_and_token(settings: Settings) -> None:
    start(settings, WEBHOOK_URL=HOOK, WEBHOOK_BEARER_TOKEN="token", JETSTREAM_COLLECTIONS=["*"])
    before = webhook()
    start(settings, WEBHOOK_URL="https://example.com/other", WEBHOOK_BEARER_TOKEN="")
    endpoint = webhook()
    assert (endpoint.pk, endpoint.secret, endpoint.shard) == (before.pk, before.secret, before.shard)
    assert (endpoint.url, endpoint.bearer_token) == ("https://example.com/other", "")
    assert endpoint.url_is_operators
    assert not before.url_is_operators


def test_it_follows_a_change_of_port(settings: Settings) -> None:
    start(settings, PORT=8123)
    token = Inbox.objects.get().token
    said = start(settings, PORT=8124)
    assert inbox().url.startswith("http://127.0.0.1:8124/inbox/of/")
    assert f"Watch them arrive: http://127.0.0.1:8124/inbox/{token}" in said


def test_it_signs_with_both_secrets_for_a_day_after_a_change(settings: Settings) -> None:
    old, new = new_secret(), new_secret()
    start(settings, WEBHOOK_URL=HOOK, WEBHOOK_SECRET=old, JETSTREAM_COLLECTIONS=["*"])
    assert webhook().secrets_at(timezone.now()) == [old]
    start(settings, WEBHOOK_SECRET=new)
    assert webhook().secrets_at(timezone.now()) == [new, old]
    assert webhook().secrets_at(timezone.now() + timedelta(hours=25)) == [new]
    start(settings)
    assert webhook().secrets_at(timezone.now()) == [new, old]


def test_it_keeps_the_secret_when_the_variable_goes_away(settings: Settings) -> None:
    secret = new_secret()
    start(settings, WEBHOOK_URL=HOOK, WEBHOOK_SECRET=secret, JETSTREAM_COLLECTIONS=["*"])
    assert "whsec_" not in start(settings, WEBHOOK_SECRET="")
    assert webhook().secrets_at(timezone.now()) == [secret]


# --- WEBHOOK_URL comes and goes ----------------------------------------------------------------------------------------


def test_it_hands_over_to_the_inbox_and_back(settings: Settings) -> None:
    start(settings, WEBHOOK_URL=HOOK, JETSTREAM_COLLECTIONS=[POST])
    owed = make_delivery(endpoint=webhook())

    start(settings, WEBHOOK_URL="")
    assert (webhook().state, webhook().state_reason) == (Endpoint.State.PAUSED, "WEBHOOK_URL is no longer set")
    assert not webhook().url_is_operators
    assert owed.refreshed().state == owed.State.PENDING
    assert wishes() == {"inbox": ([POST], [], ["commit"])}

    start(settings, WEBHOOK_URL=HOOK)
    assert (webhook().state, webhook().state_reason) == (Endpoint.State.ACTIVE, "")
    assert (inbox().state, inbox().state_reason) == (Endpoint.State.PAUSED, "WEBHOOK_URL is set")
    assert wishes() == {"environment": ([POST], [], ["commit"])}

    start(settings, WEBHOOK_URL="")
    assert inbox().state == Endpoint.State.ACTIVE
    assert wishes() == {"inbox": ([POST], [], ["commit"])}
    assert Endpoint.objects.count() == 2
    version = ConfigVersion.current()
    start(settings)
    assert ConfigVersion.current() == version


@pytest.mark.parametrize("state", [Endpoint.State.PAUSED, Endpoint.State.DISABLED])
def test_it_leaves_an_endpoint_held_that_a_person_held(state: str, settings: Settings) -> None:
    start(settings, WEBHOOK_URL=HOOK, JETSTREAM_COLLECTIONS=[POST])
    Endpoint.objects.filter(pk=webhook().pk).set_state(state, "held by somebody")
    start(settings)
    start(settings, WEBHOOK_URL="")
    start(settings, WEBHOOK_URL=HOOK)
    assert (webhook().state, webhook().state_reason) == (state, "held by somebody")


def test_it_leaves_the_endpoints_of_people_alone(settings: Settings) -> None:
    mine = make_subscription(endpoint=make_endpoint(url=HOOK))
    for url in (HOOK, "", HOOK):
        start(settings, WEBHOOK_URL=url, JETSTREAM_COLLECTIONS=[LIKE])
        assert (mine.refreshed().active, mine.collections, mine.endpoint.refreshed().state) == (True, ["*"], Endpoint.State.ACTIVE)
        # The same URL, but not the environment's endpoint: it may not be private.
        assert not mine.endpoint.url_is_operators


# --- Endpoints that people changed -------------------------------------------------------------------------------------


def test_it_leaves_an_endpoint_disabled_that_somebody_disabled(settings: Settings) -> None:
    start(settings, WEBHOOK_URL=HOOK, JETSTREAM_COLLECTIONS=[POST])
    endpoints.disable(Endpoint.objects.all(), "disabled by ada")
    start(settings)
    assert (webhook().state, webhook().state_reason) == (Endpoint.State.DISABLED, "disabled by ada")


@pytest.mark.parametrize("environment", [{"WEBHOOK_URL": HOOK}, {"WEBHOOK_URL": ""}])
def test_it_makes_another_endpoint_for_one_that_was_deleted_while_nothing_asked_for_it(environment: dict[str, str], settings: Settings) -> None:
    start(settings, **environment, JETSTREAM_COLLECTIONS=[POST])
    first = Endpoint.objects.get()
    settings.WEBHOOK_URL = "" if environment["WEBHOOK_URL"] else HOOK
    endpoints.delete(first)
    start(settings, **environment)
    second = Endpoint.objects.present().get()
    assert (second.origin, second.state, bool(second.secret)) == (first.origin, Endpoint.State.ACTIVE, True)
    assert second.subscriptions.get().active
    assert not first.subscriptions.get().active
