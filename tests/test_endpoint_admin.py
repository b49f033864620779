"""What staff do to endpoints in the admin: what is shown, what is logged, and what never is."""

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.db.models.signals import pre_save
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from delivery.admin import rotating
from delivery.models import Delivery, EndpointHealth
from subscriptions.models import Endpoint, Subscription, new_secret
from tests.builders import make_delivery, make_endpoint, make_health, make_subscription
from tests.receiver import Handler, Received, Receiver

pytestmark = pytest.mark.django_db

LIST = reverse("admin:subscriptions_endpoint_changelist")
ADD = reverse("admin:subscriptions_endpoint_add")
EVERY_ACT = ["pause", "resume", "disable", "enable", "reset_breaker", "verify", "send_test", "rotate_secrets", "reveal_secret", "delete_endpoints"]
State = Endpoint.State


@pytest.fixture
def staff(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada"))
    return client


def ask(client: Client, action: str, *chosen: Endpoint, **data: Any) -> str:
    data |= {"action": action, "_selected_action": [endpoint.pk for endpoint in chosen]}
    return client.post(LIST, data, follow=True).content.decode()


def page_of(endpoint: Endpoint) -> str:
    return reverse("admin:subscriptions_endpoint_change", args=[endpoint.pk])


def logged() -> list[tuple[str, int]]:
    return list(LogEntry.objects.order_by("pk").values_list("change_message", "action_flag"))


@pytest.mark.parametrize(
    ("act", "state", "to", "entry"),
    [
        ("pause", State.ACTIVE, State.PAUSED, "Paused."),
        ("resume", State.PAUSED, State.ACTIVE, "Resumed."),
        ("disable", State.ACTIVE, State.DISABLED, "Disabled."),
        ("enable", State.DISABLED, State.ACTIVE, "Enabled."),
        ("reset_breaker", State.ACTIVE, State.ACTIVE, "Breaker reset."),
    ],
)
def test_it_does_what_it_is_asked_and_logs_it(act: str, state: State, to: State, entry: str, staff: Client) -> None:
    endpoint = make_health(endpoint=make_endpoint(name="Mine", state=state)).endpoint
    other = make_endpoint(name="<b>Theirs", state=State.UNVERIFIED)
    asked = ask(staff, act, endpoint, other)
    assert "1 of 2 endpoints selected" in asked
    assert "&lt;b&gt;Theirs" in asked
    assert (endpoint.refreshed().state, logged()) == (state, [])
    assert f"Mine: {entry.lower()}" in ask(staff, act, endpoint, other, apply="1")
    assert endpoint.refreshed().state == to
    assert logged() == [(entry, CHANGE)]
    assert EndpointHealth.objects.get().version == 1


def test_it_says_so_and_logs_nothing_where_nothing_changes(staff: Client) -> None:
    held = make_endpoint(state=State.UNVERIFIED)
    for act in ("pause", "resume", "disable", "enable", "reset_breaker"):
        for asked in ({}, {"apply": "1"}):
            html = ask(staff, act, held, **asked)
            assert "Nothing was" in html or "nothing to reset" in html
            assert 'name="apply"' not in html
    assert held.refreshed().state == State.UNVERIFIED
    assert logged() == []


@pytest.mark.parametrize("act", EVERY_ACT)
def test_it_asks_only_for_those_who_may(act: str, client: Client, receiver: Receiver) -> None:
    endpoint = make_endpoint(url=receiver.url)
    before = Endpoint.objects.values().get()
    onlooker = User.objects.create_user("eve", is_staff=True)
    onlooker.user_permissions.add(Permission.objects.get(codename="view_endpoint"))
    client.force_login(onlooker)
    html = ask(client, act, endpoint, apply="1")
    assert endpoint.secret not in html
    assert Endpoint.objects.values().get() == before
    assert receiver.requests == []
    assert logged() == []


@pytest.mark.parametrize("act", ["verify", "send_test", "reveal_secret"])
def test_it_does_one_at_a_time_what_has_to_be_carried_or_waited_for(act: str, staff: Client, receiver: Receiver) -> None:
    rows = [make_endpoint(url=receiver.url) for _ in range(2)]
    html = ask(staff, act, *rows)
    assert "Select one endpoint." in html
    assert not any(row.secret in html for row in rows)
    assert receiver.requests == []
    assert logged() == []


# --- How an endpoint stands ----------------------------------------------------------------------------------------------


def test_it_shows_how_an_endpoint_stands_in_the_list_and_on_its_page(staff: Client) -> None:
    endpoint = make_health(open_until=timezone.now() + timedelta(minutes=5), failing_since=timezone.now().replace(year=2026, month=3, day=4)).endpoint
    for url in (LIST, page_of(endpoint)):
        html = staff.get(url).content.decode()
        for shown in ("open until", "then one probe", "2026-03-04 ", "503 Service Unavailable"):
            assert shown in html, (url, shown)


def test_it_lists_endpoints_in_few_queries(staff: Client, django_assert_max_num_queries: Any) -> None:
    for _ in range(5):
        make_health()
        make_endpoint()
    with django_assert_max_num_queries(8):
        staff.get(LIST)


def save(client: Client, endpoint: Endpoint, **over: str) -> None:
    form = client.get(page_of(endpoint)).context["adminform"].form
    values = {name: form[name].value() for name in form.fields if name != "no_bearer_token"}
    shown = {name: "" if value is None else value for name, value in values.items() if value is not False}
    formset = {"subscriptions-TOTAL_FORMS": 0, "subscriptions-INITIAL_FORMS": 0}
    response = client.post(page_of(endpoint), shown | formset | {"secret": "", "bearer_token": ""} | over)
    assert response.status_code == 302, response.context["errors"]


def test_its_page_has_the_policies(staff: Client) -> None:
    endpoint = make_endpoint()
    save(staff, endpoint, rate_limit_per_s="2.5", priority="2", ordered="on", batch_size="50", batch_wait_ms="250")
    endpoint.refresh_from_db()
    assert (endpoint.rate_limit_per_s, endpoint.priority, endpoint.ordered) == (2.5, Endpoint.Priority.HIGH, True)
    assert (endpoint.batch_size, endpoint.batch_wait_ms) == (50, 250)


def test_its_page_leaves_the_state_to_whoever_changes_it_meanwhile(staff: Client) -> None:
    def disable(**_: Any) -> None:
        Endpoint.objects.update(state=State.DISABLED, state_reason="410 Gone")

    endpoint = make_endpoint()
    pre_save.connect(disable, sender=Endpoint)
    try:
        save(staff, endpoint, name="Renamed")
    finally:
        pre_save.disconnect(disable, sender=Endpoint)
    assert (endpoint.refreshed().name, endpoint.state, endpoint.state_reason) == ("Renamed", State.DISABLED, "410 Gone")


# --- Verification and test events --------------------------------------------------------------------------------------


def test_it_verifies_an_endpoint_and_says_what_came(staff: Client, receiver: Receiver) -> None:
    endpoint = make_endpoint(url=receiver.url, state=State.UNVERIFIED)
    assert "The answer was 200 OK, “ok”." in ask(staff, "verify", endpoint)
    receiver.answer = lambda handler, received: handler.reply(200, received.body)
    assert "The endpoint is active now." in ask(staff, "verify", endpoint)
    assert endpoint.refreshed().state == State.ACTIVE
    assert logged() == [("Challenged: failed.", CHANGE), ("Challenged: passed.", CHANGE)]


def test_it_sends_a_test_event_and_shows_the_answer(staff: Client, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(500, b"<b>broken</b>")
    html = ask(staff, "send_test", make_endpoint(url=receiver.url))
    assert "500 Internal Server Error, “&lt;b&gt;broken&lt;/b&gt;”" in html
    assert logged() == [("Sent a test event: failed.", CHANGE)]


# --- Secrets -----------------------------------------------------------------------------------------------------------


def test_it_reveals_a_secret_once_and_logs_that_it_did(staff: Client) -> None:
    endpoint = make_endpoint()
    assert endpoint.secret in ask(staff, "reveal_secret", endpoint)
    assert endpoint.secret not in staff.get(LIST).content.decode()
    assert logged() == [("Revealed the signing secret", CHANGE)]


def test_a_secret_is_in_the_answer_to_whoever_asked_and_in_no_message(staff: Client) -> None:
    """A message waits in a cookie for the next page, whoever opens it."""
    endpoint = make_endpoint()
    chosen = {"action": "reveal_secret", "_selected_action": [endpoint.pk]}
    new = {"tenant": endpoint.tenant_id, "name": "New", "url": "https://receiver.example/new"}
    form = staff.get(ADD).context["adminform"].form
    filled = {bound.html_name: bound.value() for bound in form if bound.value() not in (None, "", False)}
    inline = {f"subscriptions-{name}_FORMS": 0 for name in ("TOTAL", "INITIAL")}
    answers = [staff.post(LIST, chosen), staff.post(ADD, filled | new | inline)]
    secrets = [endpoint.secret, Endpoint.objects.get(name="New").secret]
    for answer, secret in zip(answers, secrets, strict=True):
        assert secret in answer.content.decode()
    kept = [*(cookie.value for cookie in staff.cookies.values()), f"{dict(staff.session)}"]
    assert not [secret for secret in secrets for text in kept if secret in text]
    assert not [secret for secret in secrets if secret in staff.get(LIST).content.decode()]


def test_it_reveals_nothing_to_a_link(staff: Client) -> None:
    endpoint = make_endpoint()
    html = staff.get(LIST, {"action": "reveal_secret", "_selected_action": str(endpoint.pk)}, follow=True).content.decode()
    assert endpoint.secret not in html
    assert logged() == []


def test_no_secret_is_anywhere_but_in_the_messages_that_are_meant_to_show_it(
    staff: Client, receiver: Receiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def echo(handler: Handler, received: Received) -> None:
        handler.reply(500, "\n".join(received.headers.values()).encode())

    receiver.answer = echo
    typed, token, key = new_secret(), "a-very-secret-token", "an-extra-secret-key"
    endpoint = make_endpoint(url=receiver.url, state=State.UNVERIFIED, bearer_token=token, extra_headers=f"A-Key: {key}")
    first = endpoint.secret
    with caplog.at_level(logging.DEBUG):
        refused = staff.post(
            page_of(endpoint),
            {"name": "", "url": "nonsense", "secret": typed, "bearer_token": "two secret words", "extra_headers": f"A-Key: {key}\nhidden-words"},
        )
        assert refused.status_code == 200
        told = [refused.content.decode(), ask(staff, "verify", endpoint), ask(staff, "send_test", endpoint)]
        told.append(ask(staff, "rotate_secrets", endpoint))
        rotated = ask(staff, "rotate_secrets", endpoint, apply="1", overlap_h="24")
        second = endpoint.refreshed().secret
        revealed = ask(staff, "reveal_secret", endpoint)
        told += [staff.get(url).content.decode() for url in (LIST, page_of(endpoint), f"{page_of(endpoint).removesuffix('change/')}history/", "/endpoints/")]
    assert len(receiver.requests) == 2
    assert second in rotated
    assert second in revealed
    secret = [first, typed, token, key, "two secret words", "hidden-words"]
    kept = [*told, caplog.text, *capfd.readouterr(), *(message for message, _ in logged()), f"{[vars(record) for record in caplog.records]}"]
    for text in [*kept, rotated, revealed]:
        assert not [word for word in secret if word in text]
    for text in kept:
        assert second not in text


def test_it_rotates_the_secrets_of_several_and_shows_each_once(staff: Client) -> None:
    rows = [make_endpoint(name=name) for name in ("One", "Two")]
    asked = ask(staff, "rotate_secrets", *rows)
    assert "2 endpoints will sign with a new secret." in asked
    assert logged() == []
    response = staff.post(LIST, {"action": "rotate_secrets", "_selected_action": [row.pk for row in rows], "apply": "1", "overlap_h": "1"})
    shown = response.content.decode()
    for row in rows:
        before = row.secret
        assert before != row.refreshed().secret
        assert f"The new signing secret of {row.name} is {row.secret}" in shown
        assert row.previous_secret == before
    assert "no-store" in response["Cache-Control"]
    assert len(logged()) == 2
    # Sent once more, by a reload: the first new secret has to stay valid.
    again = ask(staff, "rotate_secrets", *rows, apply="1", overlap_h="1")
    assert "A rotation of One is under way" in again
    assert [row.secret for row in rows] == [row.refreshed().secret for row in rows]


def test_it_rotates_no_more_than_somebody_can_carry(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating, "MOST", 1)
    rows = [make_endpoint() for _ in range(2)]
    html = ask(staff, "rotate_secrets", *rows, apply="1", overlap_h="24")
    assert "2 endpoints are selected: select 1 at most." in html
    assert [row.secret for row in rows] == [row.refreshed().secret for row in rows]


# --- Deleting ----------------------------------------------------------------------------------------------------------


def test_it_says_what_a_deletion_costs_before_it_does_it(staff: Client) -> None:
    endpoint, other = make_endpoint(name="<b>Mine"), make_endpoint(name="Theirs")
    for _ in range(3):
        make_delivery(endpoint=endpoint)
    html = ask(staff, "delete_endpoints", endpoint)
    assert "&lt;b&gt;Mine" in html
    assert "pending deliveries that will be cancelled: 3." in html
    assert "Theirs" not in html
    assert {endpoint.refreshed().state, other.refreshed().state} == {State.ACTIVE}
    assert logged() == []


def test_it_deletes_what_was_confirmed_and_logs_it(staff: Client) -> None:
    endpoint, other = make_endpoint(name="Mine"), make_endpoint()
    row = make_delivery(endpoint=endpoint)
    html = ask(staff, "delete_endpoints", endpoint, apply="1")
    assert "Mine: deleted. Pending deliveries cancelled: 1." in html
    assert (endpoint.refreshed().state, endpoint.state_reason, endpoint.secret) == (State.DELETED, "deleted by ada", "")
    assert other.refreshed().state == State.ACTIVE
    assert row.refreshed().state == Delivery.State.CANCELLED
    assert logged() == [("Deleted.", DELETION)]


def test_it_shows_a_deleted_endpoint_no_more_but_for_its_deliveries(staff: Client) -> None:
    endpoint = make_subscription(endpoint=make_endpoint(name="Mine")).endpoint
    row = make_delivery(endpoint=endpoint)
    ask(staff, "delete_endpoints", endpoint, apply="1")
    subscriptions = reverse("admin:subscriptions_subscription_changelist")
    for url in (LIST, "/endpoints/", subscriptions, f"{reverse('admin:autocomplete')}?app_label=subscriptions&model_name=subscription&field_name=endpoint"):
        assert "Mine" not in staff.get(url).content.decode(), url
    assert staff.get(page_of(endpoint)).status_code == 302
    assert "Mine" in staff.get(f"/deliveries/{row.public_id}/").content.decode()
    assert Subscription.objects.count() == 1


def test_it_keeps_the_endpoint_that_the_environment_asks_for_and_says_why(staff: Client, settings: Settings) -> None:
    settings.WEBHOOK_URL = "https://a.example/"
    endpoint = make_endpoint(name="Theirs", origin="environment")
    html = ask(staff, "delete_endpoints", endpoint)
    assert "unset WEBHOOK_URL and start again, or disable it" in html
    assert "Delete, for good" not in html
    assert "unset WEBHOOK_URL" in ask(staff, "delete_endpoints", endpoint, apply="1")
    assert endpoint.refreshed().state == State.ACTIVE
    assert logged() == []
