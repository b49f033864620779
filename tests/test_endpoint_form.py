"""Making an endpoint on the pages, changing its terms, and saying what it wants."""

import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from delivery.models import EndpointHealth
from subscriptions.models import AuditEntry, Endpoint, Membership, Source, Subscription
from tests.builders import (
    DID,
    POST,
    make_api_event,
    make_api_source,
    make_endpoint,
    make_event,
    make_health,
    make_member,
    make_source,
    make_subscription,
    make_tenant,
)
from tests.receiver import Handler, Received, Receiver

pytestmark = pytest.mark.django_db

State = Endpoint.State
NEW = "/endpoints/new/"
URL = "https://receiver.example/hook"


@pytest.fixture
def grace(client: Client) -> Client:
    client.force_login(make_member(username="grace"))
    return client


@pytest.fixture
def unchallenged(settings: Settings) -> None:
    settings.JETRELAY_VERIFY_ENDPOINTS = False


@pytest.fixture
def echoing(receiver: Receiver) -> Receiver:
    """A receiver that answers challenges."""
    receiver.answer = echo
    return receiver


def echo(handler: Handler, received: Received) -> None:
    handler.reply(200, json.dumps({"challenge": json.loads(received.body).get("challenge")}).encode())


def wish(**over: Any) -> dict[str, Any]:
    """The form as a person fills it in."""
    return {"url": URL, "name": "Mine", "source": make_source().public_id, "collections": POST, "kinds": ["commit"]} | over


def html_of(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


def faults(response: Any, form: str = "wish") -> dict[str, list[str]]:
    html_of(response)
    return {name: [str(error) for error in errors] for name, errors in response.context[form].errors.items()}


def audit() -> list[tuple[str, str]]:
    return list(AuditEntry.objects.order_by("id").values_list("action", "target"))


# --- Making ----------------------------------------------------------------------------------------------------------


def test_it_makes_an_endpoint_that_answers_its_challenge_and_shows_the_secret_once(grace: Client, echoing: Receiver) -> None:
    response = grace.post(NEW, wish(url=echoing.url, operations=["create", "delete"], dids=DID))
    html, endpoint = html_of(response), Endpoint.objects.get()
    assert (endpoint.state, endpoint.name, endpoint.url, endpoint.tenant) == (State.ACTIVE, "Mine", echoing.url, make_tenant())
    assert "The endpoint is active now." in html
    assert endpoint.secret in html
    assert 'data-hides-s="30"' in html
    assert f'<noscript><meta http-equiv="refresh" content="30; url=/endpoints/{endpoint.public_id}/"></noscript>' in html
    assert response["Cache-Control"] == "no-store"
    made = Subscription.objects.get()
    assert (made.endpoint, made.source, made.collections, made.operations, made.dids, made.kinds, made.active) == (
        endpoint,
        make_source(),
        [POST],
        ["create", "delete"],
        [DID],
        ["commit"],
        True,
    )
    assert audit() == [("endpoint.create", endpoint.public_id), ("endpoint.verify", endpoint.public_id)]
    assert endpoint.secret not in grace.get(f"/endpoints/{endpoint.public_id}/").content.decode()
    assert not [entry for entry in LogEntry.objects.all() if endpoint.secret in entry.change_message]


def test_one_that_does_not_answer_is_made_and_waits_for_it(grace: Client, receiver: Receiver) -> None:
    html = html_of(grace.post(NEW, wish(url=receiver.url)))
    assert "Expected a 2xx answer with the challenge" in html
    assert "then press Verify" in html
    assert Endpoint.objects.get().state == State.UNVERIFIED


@pytest.mark.usefixtures("unchallenged")
def test_without_challenges_it_receives_at_once_and_its_name_may_be_left_out(grace: Client) -> None:
    html = html_of(grace.post(NEW, wish(name="", url="HTTPS://Receiver.example/hook")))
    endpoint = Endpoint.objects.get()
    assert (endpoint.state, endpoint.name, endpoint.url) == (State.ACTIVE, "receiver.example", URL)
    assert "The challenge" not in html


@pytest.mark.usefixtures("unchallenged")
def test_an_address_that_may_not_be_connected_to_is_told(grace: Client, settings: Settings) -> None:
    settings.JETRELAY_ALLOWED_NETWORKS = []
    assert "JETRELAY_ALLOWED_NETWORKS may open its network" in html_of(grace.post(NEW, wish(url="http://10.0.0.1/hook")))


@pytest.mark.usefixtures("unchallenged")
def test_a_form_that_comes_twice_makes_one_endpoint(grace: Client) -> None:
    once = html_of(grace.get(NEW)).partition('name="once" value="')[2].partition('"')[0]
    html_of(grace.post(NEW, wish(once=once)))
    response = grace.post(NEW, wish(once=once), follow=True)
    endpoint = Endpoint.objects.get()
    assert response.redirect_chain == [(f"/endpoints/{endpoint.public_id}/", 302)]
    assert "was made already" in response.content.decode()
    assert endpoint.secret not in response.content.decode()
    # Whoever makes that part up chooses no id by it.
    html_of(grace.post(NEW, wish(once="made up")))
    assert Endpoint.objects.count() == 2


@pytest.mark.parametrize(
    ("over", "form", "field", "said"),
    [
        ({"url": ""}, "form", "url", "This field is required"),
        ({"url": "javascript:alert(1)"}, "form", "url", "is not a URL of the kind wanted here"),
        ({"url": "https://a:b@example.com/"}, "form", "url", "use a bearer token"),
        ({"url": "https://[::"}, "form", "url", "is not a URL"),
        ({"name": "n" * 101}, "form", "name", "at most 100 characters"),
        ({"source": "src_0"}, "wish", "source", "There is no such source"),
        ({"collections": ""}, "wish", "collections", "Say which: app.bsky.feed.post, or *"),
        ({"collections": "app.bsky.*.post"}, "wish", "collections", "is not a collection: write a full name"),
        ({"collections": " ".join(f"a.b{n}" for n in range(101))}, "wish", "collections", "At most 100"),
        ({"dids": "did:plc:x\nhandle.example"}, "wish", "dids", "is not a DID"),
        ({"kinds": []}, "wish", "kinds", "Choose at least one kind"),
        ({"kinds": ["gossip"]}, "wish", "kinds", "not one of the available choices"),
        ({"operations": ["explode"]}, "wish", "operations", "not one of the available choices"),
    ],
)
@pytest.mark.usefixtures("unchallenged")
def test_it_says_at_its_field_what_is_wrong(over: dict[str, Any], form: str, field: str, said: str, grace: Client) -> None:
    response = grace.post(NEW, wish(**over))
    assert said in " ".join(faults(response, form)[field])
    assert said.replace("'", "&#x27;") in response.content.decode()
    assert not Endpoint.objects.exists()
    assert not Subscription.objects.exists()


def test_what_somebody_typed_is_shown_as_text(grace: Client) -> None:
    html = html_of(grace.post(NEW, wish(url="javascript:<b>", name="<i>\u202e", collections="<u>")))
    for tag in ("<b>", "<i>", "<u>"):
        assert tag not in html


@pytest.mark.usefixtures("unchallenged")
def test_several_names_may_stand_in_a_line_or_below_each_other(grace: Client) -> None:
    html_of(grace.post(NEW, wish(collections=f"{POST}, app.bsky.graph.*\r\n\r\n{POST} x.y")))
    assert Subscription.objects.get().collections == [POST, "app.bsky.graph.*", "x.y"]


@pytest.mark.usefixtures("unchallenged")
def test_commits_of_named_accounts_need_no_collection(grace: Client) -> None:
    html_of(grace.post(NEW, wish(collections="", dids=DID)))
    assert Subscription.objects.get().collections == ["*"]


# --- Sources and tenants ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchallenged")
def test_it_makes_the_source_of_posted_events_for_the_first_that_wants_it(grace: Client) -> None:
    make_source()
    assert 'value="api"' in html_of(grace.get(NEW))
    assert "Posted events have types alone" in faults(grace.post(NEW, wish(source="api", dids=DID)))["dids"][0]
    assert "order.paid, or * for all types" in faults(grace.post(NEW, wish(source="api", collections="")))["collections"][0]
    assert not Source.objects.filter(kind="api").exists()
    html_of(grace.post(NEW, wish(source="api", collections="order.*")))
    made = Subscription.objects.get()
    assert (made.source.kind, made.source.tenant, made.kinds, made.collections) == ("api", make_tenant(), ["api"], ["order.*"])
    # From then on it is one of the list.
    html = html_of(grace.get(NEW))
    assert made.source.public_id in html
    assert 'value="api"' not in html


@pytest.mark.usefixtures("unchallenged")
def test_who_acts_in_several_tenants_says_in_which_and_nobody_reaches_another(grace: Client) -> None:
    mine, second, third = make_tenant(), make_tenant(slug="second", name="Second"), make_tenant(slug="third", name="Third")
    html = html_of(grace.get(NEW))
    assert 'name="tenant"' not in html
    user = Membership.objects.get().user
    Membership.objects.create(tenant=second, user=user)
    Membership.objects.create(tenant=third, user=user, role="viewer")
    foreign, theirs = make_api_source(tenant=third), make_api_source(tenant=second)
    html = html_of(grace.get(NEW))
    assert second.public_id in html
    assert third.public_id not in html
    assert foreign.public_id not in html
    assert "tenant" in faults(grace.post(NEW, wish()), "form")
    assert "no tenant of yours" in faults(grace.post(NEW, wish(tenant=third.public_id)), "form")["tenant"][0]
    assert "no such source" in faults(grace.post(NEW, wish(tenant=mine.public_id, source=foreign.public_id)))["source"][0]
    assert "belongs to another tenant" in faults(grace.post(NEW, wish(tenant=mine.public_id, source=theirs.public_id)))["source"][0]
    assert not Endpoint.objects.exists()
    html_of(grace.post(NEW, wish(tenant=second.public_id, source=theirs.public_id)))
    assert Endpoint.objects.get().tenant == second


def test_without_any_tenant_it_says_what_to_make_first(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada"))
    assert "manage.py create_tenant" in html_of(client.get(NEW))
    make_tenant()
    assert "manage.py create_tenant" not in html_of(client.get(NEW))


# --- Looking first ---------------------------------------------------------------------------------------------------


def preview(client: Client, page: str = NEW, /, **over: Any) -> str:
    return html_of(client.post(page, over | {"preview": "yes"}, headers={"HX-Request": "true"}))


def test_it_shows_what_the_filter_would_have_brought(grace: Client) -> None:
    for _ in range(3):
        make_event()
    wanted = make_event(type="app.bsky.feed.like", subject="<b>did")
    make_event(type="app.bsky.feed.like", operation="delete")
    html = preview(grace, **wish(url="", collections="app.bsky.feed.like", operations=["create"]))
    assert "<strong>1</strong> of the newest 5 stored events of <bdi>Jetstream</bdi>" in html
    assert "&lt;b&gt;did" in html
    assert "<b>did" not in html
    assert "<form" not in html
    assert not Endpoint.objects.exists()
    assert wanted.public_id not in html


def test_it_says_why_there_is_nothing_to_show(grace: Client) -> None:
    make_source()
    assert "Say which: app.bsky.feed.post" in preview(grace, **wish(collections=""))
    assert "No event of this source is stored yet" in preview(grace, **wish())
    assert "No event of this source is stored yet" in preview(grace, **wish(source="api"))


def test_without_script_the_page_comes_back_as_it_was_filled_in_with_the_preview(grace: Client) -> None:
    make_event()
    html = html_of(grace.post(NEW, wish(url="https://a.example/x", name="Half done", preview="yes")))
    assert "<strong>1</strong> of the newest 1 stored events" in html
    assert 'value="https://a.example/x"' in html
    assert 'value="Half done"' in html
    assert f">\n{POST}</textarea>" in html
    assert "This field is required" not in html_of(grace.post(NEW, wish(url="", preview="yes")))
    assert not Endpoint.objects.exists()


def test_it_looks_at_no_events_of_others(grace: Client) -> None:
    theirs = make_api_source(tenant=make_tenant(slug="theirs"))
    make_api_event(source=theirs)
    assert "There is no such source" in preview(grace, **wish(source=theirs.public_id, collections="*"))


# --- Changing its terms ----------------------------------------------------------------------------------------------


# An endpoint's form as it comes, but for its name and its URL.
TERMS: dict[str, Any] = {
    "signature_scheme": "standard", "bearer_token": "", "extra_headers": "",
    "timeout_s": 30, "max_in_flight": 32, "rate_limit_per_s": "", "priority": 1, "batch_size": 1, "batch_wait_ms": 1000,
    "retry_strategy": "schedule", "retry_schedule_s": "[30, 300, 1800, 7200]", "retry_first_s": 30, "retry_factor": 4, "retry_step_s": 300,
    "retry_longest_s": 7200, "retry_count": 5, "retry_jitter_percent": 0, "retry_on": "any",
}  # fmt: skip


def terms(endpoint: Endpoint, **over: Any) -> dict[str, Any]:
    """The form as it comes, with something changed in it."""
    shown = TERMS | {"name": endpoint.name, "url": endpoint.url}
    # With each field goes what it was when the form was opened.
    return shown | {f"initial-{name}": value for name, value in shown.items() if name != "bearer_token"} | over


def edit(client: Client, endpoint: Endpoint, **over: Any) -> Any:
    return client.post(f"/endpoints/{endpoint.public_id}/edit/", terms(endpoint, **over), follow=True)


def test_it_changes_what_was_changed_and_writes_down_what(grace: Client) -> None:
    endpoint = make_endpoint(name="Mine")
    secret = endpoint.secret
    assert "Mine: nothing was changed." in html_of(edit(grace, endpoint))
    assert audit() == []
    form = grace.get(f"/endpoints/{endpoint.public_id}/edit/").content.decode()
    assert secret not in form
    # Somebody else has changed something else meanwhile.
    Endpoint.objects.update(max_in_flight=7, state="paused")
    assert "Mine: saved." in html_of(edit(grace, endpoint, timeout_s=9, retry_schedule_s="[1]", bearer_token="a-token"))
    endpoint.refresh_from_db()
    assert (endpoint.timeout_s, endpoint.retry_schedule_s, endpoint.bearer_token, endpoint.secret) == (9, [1], "a-token", secret)
    assert endpoint.state == State.PAUSED
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target) == ("endpoint.change", endpoint.public_id)
    assert "timeout_s" in entry.detail
    assert "a-token" not in entry.detail
    html_of(edit(grace, endpoint, no_bearer_token="on"))
    assert endpoint.refreshed().bearer_token == ""


def test_two_people_who_change_different_things_do_not_undo_each_others(grace: Client) -> None:
    endpoint = make_endpoint(ordered=True)
    first = second = terms(endpoint, **{"ordered": "on", "initial-ordered": "True"})
    url = f"/endpoints/{endpoint.public_id}/edit/"
    assert 'name="initial-timeout_s" value="30.0"' in grace.get(url).content.decode()
    html_of(grace.post(url, {name: value for name, value in first.items() if name != "ordered"} | {"timeout_s": 9}, follow=True))
    assert (endpoint.refreshed().timeout_s, endpoint.ordered) == (9, False)
    # The second form was opened before that, and has the old values in it.
    html_of(grace.post(url, second | {"max_in_flight": 5}, follow=True))
    assert (endpoint.refreshed().timeout_s, endpoint.ordered, endpoint.max_in_flight) == (9, False, 5)
    assert list(AuditEntry.objects.order_by("id").values_list("detail", flat=True)) == ["ordered, timeout_s", "max_in_flight"]


def test_headers_are_kept_without_being_shown(grace: Client) -> None:
    endpoint = make_endpoint(extra_headers="A-Key: a-secret-value")
    html = grace.get(f"/endpoints/{endpoint.public_id}/edit/").content.decode()
    assert "A-Key: ***" in html
    assert "a-secret-value" not in html
    html_of(edit(grace, endpoint, extra_headers="A-Key: ***\r\nB: 2", **{"initial-extra_headers": "A-Key: ***"}))
    assert endpoint.refreshed().extra_headers == "A-Key: a-secret-value\nB: 2"
    html = html_of(edit(grace, endpoint, extra_headers="A-Key: another-secret\r\nno header"))
    assert "Line 2 is not a header" in html
    assert "another-secret" not in html


def test_a_wrong_number_is_told_at_its_field_which_is_not_folded_away(grace: Client) -> None:
    endpoint = make_endpoint(name="<b>Mine")
    response = edit(grace, endpoint, timeout_s=0, retry_schedule_s="[1,", name="")
    assert set(faults(response, "form")) == {"timeout_s", "retry_schedule_s", "name"}
    html = response.content.decode()
    assert html.count('<details class="panel" open>') == 2
    assert "Nothing has been saved" in html
    # The page is still about what is stored.
    assert "Edit <bdi>&lt;b&gt;Mine</bdi>" in html
    assert endpoint.refreshed().timeout_s == 30


def test_a_new_url_has_to_answer_first(grace: Client, receiver: Receiver) -> None:
    endpoint = make_health(endpoint=make_endpoint()).endpoint
    assert "did not answer the challenge, so the old one stays" in " ".join(faults(edit(grace, endpoint, url=receiver.url), "form")["url"])
    assert endpoint.refreshed().url == URL
    receiver.answer = echo
    html_of(edit(grace, endpoint, url=receiver.url))
    assert (endpoint.refreshed().url, endpoint.state) == (receiver.url, State.ACTIVE)
    # What its old URL did says nothing of the new one.
    assert EndpointHealth.objects.get().failing_since is None


def test_the_operators_url_stays(grace: Client) -> None:
    endpoint = make_endpoint(origin="inbox")
    assert "change WEBHOOK_URL, or make another endpoint" in " ".join(faults(edit(grace, endpoint, url="https://other.example/"), "form")["url"])
    html_of(edit(grace, endpoint, name="Renamed"))
    assert endpoint.refreshed().name == "Renamed"


# --- Subscriptions ---------------------------------------------------------------------------------------------------


def test_it_adds_a_subscription(grace: Client) -> None:
    endpoint = make_endpoint()
    url = f"/endpoints/{endpoint.public_id}/subscriptions/new/"
    make_event()
    assert "<strong>1</strong>" in preview(grace, url, **wish())
    assert not Subscription.objects.exists()
    assert "Say which" in faults(grace.post(url, wish(collections="")))["collections"][0]
    response = grace.post(url, wish(kinds=["commit", "account"]), follow=True)
    assert response.redirect_chain == [(f"/endpoints/{endpoint.public_id}/", 302)]
    made = Subscription.objects.get()
    assert (made.endpoint, made.kinds) == (endpoint, ["commit", "account"])
    assert audit() == [("subscription.create", made.public_id)]


def test_it_changes_a_subscription_but_not_its_source(grace: Client) -> None:
    made = make_subscription(collections=["a.b.c"], dids=[DID], active=False)
    url = f"/endpoints/{made.endpoint.public_id}/subscriptions/{made.public_id}/"
    html = html_of(grace.get(url))
    assert "a.b.c</textarea>" in html
    assert 'name="source"' not in html
    make_event()
    assert "<strong>1</strong>" in preview(grace, url, collections=POST, kinds=["commit"])
    assert made.refreshed().collections == ["a.b.c"]
    other = make_api_source()
    grace.post(url, {"collections": POST, "kinds": ["commit"], "operations": ["create"], "source": other.public_id})
    made.refresh_from_db()
    assert (made.collections, made.dids, made.operations, made.source, made.active) == ([POST], [], ["create"], make_source(), False)
    assert audit() == [("subscription.change", made.public_id)]
    before = made.updated_at
    grace.post(url, {"collections": POST, "kinds": ["commit"], "operations": ["create"]})
    assert made.refreshed().updated_at == before
    assert len(audit()) == 1


def test_one_to_posted_events_has_types_alone(grace: Client) -> None:
    made = make_subscription(source=make_api_source(), kinds=["api"], collections=["order.paid"])
    url = f"/endpoints/{made.endpoint.public_id}/subscriptions/{made.public_id}/"
    html = html_of(grace.get(url))
    assert 'name="kinds"' not in html
    assert "Types" in html
    make_api_event()
    assert "<strong>1</strong>" in preview(grace, url, collections="order.*")
    grace.post(url, {"collections": "order.*"})
    assert (made.refreshed().collections, made.kinds) == (["order.*"], ["api"])


def test_it_switches_off_and_on_and_removes(grace: Client) -> None:
    made = make_subscription()
    page = f"/endpoints/{made.endpoint.public_id}/"
    url = f"{page}subscriptions/{made.public_id}/"
    for on in ("no", "no", "yes"):
        grace.post(f"{url}switch/", {"on": on})
        assert made.refreshed().active == (on == "yes")
    assert len(audit()) == 2
    html = html_of(grace.get(f"{url}remove/"))
    assert "everything" in html
    html_of(grace.post(f"{url}remove/"))
    assert Subscription.objects.exists()
    assert "is removed" in html_of(grace.post(f"{url}remove/", {"sure": "yes"}, follow=True))
    assert not Subscription.objects.exists()
    assert audit()[-1] == ("subscription.delete", made.public_id)
    assert grace.get(url).status_code == 404


def test_a_subscription_is_found_at_its_own_endpoint_alone(grace: Client) -> None:
    made, other = make_subscription(), make_endpoint()
    for rest in ("", "remove/"):
        assert grace.get(f"/endpoints/{other.public_id}/subscriptions/{made.public_id}/{rest}").status_code == 404
    assert grace.post(f"/endpoints/{other.public_id}/subscriptions/{made.public_id}/switch/").status_code == 404
