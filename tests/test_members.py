"""Who sees what: every URL of the dashboard, asked by everybody; and what members may do, each in their own tenants."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, reverse
from django.utils import timezone
from pytest_django import Settings

from delivery import verification
from delivery.models import AttemptTally, Delivery, EndpointHealth, EventTally, Replay, StreamHost
from delivery.replay import start
from delivery.replay.running import run
from jetrelay.dashboard import urls
from jetrelay.dashboard.access import members_page
from jetrelay.dashboard.deliveries.finding import PAGE
from jetrelay.inbox.models import Inbox
from subscriptions.ids import PublicModel
from subscriptions.models import ApiKey, AuditEntry, Endpoint, Membership, Source, Subscription, Tenant
from tests.builders import (
    make_api_key,
    make_attempt,
    make_delivery,
    make_endpoint,
    make_event,
    make_gap,
    make_health,
    make_host,
    make_member,
    make_subscription,
    make_tenant,
)
from tests.test_endpoint_form import TERMS

pytestmark = pytest.mark.django_db

PENDING, DELIVERED, DEAD, CANCELLED = list(Delivery.State)
OWNER, MEMBER, VIEWER = Membership.Role.OWNER, Membership.Role.MEMBER, Membership.Role.VIEWER
NEW = "/replays/new/"
# Two words that stand in nothing else.
OURS, THEIRS = "aardvark", "zebra"


@pytest.fixture(autouse=True)
def _no_totals_of_other_tests() -> None:
    cache.clear()


@dataclass
class House:
    """A tenant with one of everything. `word` stands in whatever people wrote or machines answered."""

    word: str
    tenant: Tenant
    rows: list[PublicModel]
    inbox: Inbox
    # Of a person who has not chosen a password yet.
    membership: Membership

    def row(self, prefix: str) -> Any:
        return next(row for row in self.rows if row.prefix == prefix)

    def arguments(self, pattern: URLPattern) -> dict[str, Any]:
        """What of this house the URL is about."""
        converters = pattern.pattern.converters.items()
        return {name: self.row(each.prefix).pk if hasattr(each, "prefix") else self.membership.pk for name, each in converters}

    def signs(self, html: str) -> set[str]:
        """What of this house can be read there."""
        return {sign for sign in (self.word, self.inbox.token, *(row.pk.hex for row in self.rows), *(str(row.pk) for row in self.rows)) if sign in html}


def make_house(word: str) -> House:
    tenant = make_tenant(slug=word, name=f"{word} tenant")
    source = Source.objects.create(tenant=tenant, kind=Source.Kind.API, name=f"{word} source")
    EventTally.objects.create(source=source, minute=timezone.now(), kind="api", type=f"{word}.counted", received=7, stored=7)
    endpoint = make_endpoint(tenant=tenant, name=f"{word} endpoint", url=f"https://{word}.example/hook", state_reason=f"{word} reason")
    subscription = make_subscription(endpoint=endpoint, source=source, kinds=["api"], collections=[f"{word}.*"])
    make_health(endpoint=endpoint, reason=f"{word} failure")
    AttemptTally.objects.create(minute=timezone.now(), endpoint=endpoint, outcome="delivered", attempts=3, total_ms=30, ms_10=3)
    event = make_event(source=source, type=f"{word}.paid", subject=f"{word} subject", body=f'{{"text": "{word}"}}'.encode())
    delivery = make_delivery(endpoint=endpoint, event=event, state=DEAD)
    attempt = make_attempt(delivery=delivery, status=500, response_body=f"{word} answer".encode())
    replay = start(Replay(tenant=tenant, endpoint=endpoint), by=f"{word} person")
    key, _ = make_api_key(tenant=tenant, name=f"{word} key", scopes=["events:read"])
    entry = AuditEntry.note(tenant, f"key {key}", "endpoint.change", endpoint.public_id, f"{word} detail")
    person = make_member(tenant, VIEWER, username=f"{word}.person").memberships.get()
    rows = [tenant, source, endpoint, subscription, event, delivery, attempt, replay, key, entry]
    return House(word, tenant, rows, Inbox.objects.create(endpoint=endpoint), person)


@pytest.fixture
def ours() -> House:
    return make_house(OURS)


@pytest.fixture
def theirs() -> House:
    return make_house(THEIRS)


def sign_in(user: User | None) -> Client:
    client = Client()
    if user:
        client.force_login(user)
    return client


def text(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.content.decode())


# --- Every URL, asked by everybody ---------------------------------------------------------------------------------------

LOOKS = {
    "overview", "events_fragment", "outcomes_fragment", "charts_fragment", "collections_fragment",
    "stream", "hosts_fragment", "gaps_fragment", "rejected_fragment",
    "deliveries", "delivery", "delivery_fragment", "delivery_attempt", "delivery_attempt_body", "endpoints", "endpoint", "endpoint_fragment",
    "replays", "replays_fragment", "replay", "replay_fragment",
    "events", "event", "event_fragment", "event_body", "tail", "tail_fragment", "keys", "key", "members", "audit",
}  # fmt: skip
ACTS = {
    "delivery_replay", "replay_cancel", "endpoint_pause", "endpoint_resume", "endpoint_disable", "endpoint_enable", "endpoint_reset_breaker", "endpoint_test",
    "endpoint_verify", "subscription_switch",
}  # fmt: skip
FORMS = {
    "replay_new", "deliveries_selected", "endpoint_new", "endpoint_edit", "endpoint_delete", "endpoint_secret", "endpoint_rotate", "endpoint_signature",
    "subscription_new", "subscription_edit", "subscription_remove",
}  # fmt: skip
STEERS = {"stream_reconnect", "stream_rewind", "stream_reset", "gaps_acknowledge"}
# What owners alone may look at, fill in and do. Without the data of their forms these say what is missing.
OWNS_LOOKS = {"member"}
OWNS_FORMS = {"key_new", "member_new"}
OWNS_ACTS = {"key_rotate", "key_revoke", "member_role", "member_remove", "member_link"}
OWNS = OWNS_LOOKS | OWNS_FORMS | OWNS_ACTS
# About nobody but whoever asks: for everybody who is signed in.
OWN_LOOKS = {"account"}
OWN_ACTS = {"account_password", "account_sessions"}
METHODS = (
    {name: {"get"} for name in LOOKS | OWNS_LOOKS | OWN_LOOKS}
    | {name: {"post"} for name in ACTS | STEERS | OWNS_ACTS | OWN_ACTS}
    | {name: {"get", "post"} for name in FORMS | OWNS_FORMS}
)

# Who asks, of the first house's rows. The last three are in no house of it.
PEOPLE: dict[str, Callable[[House, House], User | None]] = {
    "superuser": lambda ours, _: User.objects.create_superuser("ada"),
    "owner": lambda ours, _: make_member(ours.tenant, OWNER),
    "member": lambda ours, _: make_member(ours.tenant, MEMBER),
    "viewer": lambda ours, _: make_member(ours.tenant, VIEWER),
    "member of another": lambda _, theirs: make_member(theirs.tenant, MEMBER),
    "owner of another": lambda _, theirs: make_member(theirs.tenant, OWNER),
    "without a tenant": lambda *_: User.objects.create_user("bob"),
    "staff without a tenant": lambda *_: User.objects.create_user("eve", is_staff=True),
    "stranger": lambda *_: None,
}


def status(who: str, name: str, method: str, about_a_row: bool) -> int:
    if method not in METHODS[name]:
        return 405
    if who == "stranger":
        return 302
    if name in OWN_LOOKS | OWN_ACTS:
        return 200
    if "without a tenant" in who:
        return 403
    if name in STEERS and who == "superuser":
        # A cursor is not moved back before somebody says to when.
        return 200 if name == "stream_rewind" else 302
    if name in STEERS:
        return 403
    if who == "viewer" and (method == "post" or name in FORMS):
        return 403
    if "of another" in who and about_a_row:
        return 404
    if name in OWNS and who not in ("superuser", "owner", "owner of another"):
        return 403
    return 302 if name in ACTS else 200


def everything_that_can_change() -> list[Any]:
    models: list[type[Model]] = [Endpoint, Subscription, EndpointHealth, Delivery, Replay, StreamHost, LogEntry, ApiKey, Membership, User, AuditEntry]
    return [list(model._default_manager.order_by("pk").values()) for model in models]


def every_pattern(patterns: list[Any]) -> Iterator[URLPattern]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from every_pattern(pattern.url_patterns)
        else:
            yield pattern


def test_the_walk_knows_every_url() -> None:
    names = [pattern.name for pattern in every_pattern(urls.urlpatterns)]
    assert sorted(map(str, names)) == sorted(METHODS)


@pytest.mark.parametrize("who", PEOPLE)
def test_everybody_gets_what_is_theirs_at_every_url_and_nothing_else(who: str, ours: House, theirs: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("send_test", "verify"):
        monkeypatch.setattr(verification, name, lambda endpoint: verification.Outcome(True, "It answered."))
    make_host()
    client, before = sign_in(PEOPLE[who](ours, theirs)), everything_that_can_change()
    hidden = {"superuser": [], "owner": [theirs], "member": [theirs], "viewer": [theirs]}.get(who, [ours] if "of another" in who else [ours, theirs])
    wrong: list[Any] = []
    for pattern in every_pattern(urls.urlpatterns):
        rows = ours.arguments(pattern)
        url, name = reverse(str(pattern.name), kwargs=rows), str(pattern.name)
        for method in ("get", "post"):
            response = getattr(client, method)(url)
            html = response.content.decode()
            if response.status_code != status(who, name, method, bool(rows)):
                wrong.append((method, url, response.status_code))
            if response.status_code == 302 and who == "stranger" and not response["Location"].startswith("/login/?next="):
                wrong.append((method, url, response["Location"]))
            wrong += [(method, url, house.signs(html)) for house in hidden if house.signs(html)]
            if who == "viewer" and (
                html.count("<form") - html.count('method="get"') > len(re.findall('action="/(logout|theme|account/password|account/sessions)/"', html))
                or "hx-post" in html
            ):
                wrong.append((method, url, "a button"))
    assert wrong == []
    if who not in ("superuser", "owner", "member"):
        assert everything_that_can_change() == before


@pytest.mark.parametrize("role", Membership.Role)
def test_members_see_what_is_theirs(role: str, ours: House, theirs: House) -> None:
    client, delivery = sign_in(make_member(ours.tenant, role)), ours.row("dlv")
    for url, shown in {
        "/": (f"{OURS}.counted", 'href="/deliveries/?state=dead">1<', ">3</a>", ">7<"),
        "/deliveries/": (delivery.public_id, f"{OURS} endpoint</option>"),
        f"/deliveries/?q={ours.row('evt').public_id}": (delivery.public_id,),
        f"/deliveries/{delivery.public_id}/": (f"{OURS} subject", f"{OURS} answer"),
        "/endpoints/": (f"https://{OURS}.example/hook", f"{OURS} failure", f"/inbox/of/{ours.inbox.endpoint.public_id}"),
        "/replays/": (f"{OURS} person", ours.row("rpl").public_id),
        "/keys/": (f"{OURS} key", ours.row("key").visible_prefix),
        "/members/": (f"{OURS} tenant", f"{OURS}.person"),
        "/audit/": (f"{OURS} detail", f"/endpoints/{ours.row('ep').public_id}/"),
    }.items():
        html = text(client.get(url))
        assert [words for words in shown if words not in html] == [], url
        assert "/admin/" not in html
    assert client.get(f"/deliveries/?q={delivery.public_id}")["Location"] == f"/deliveries/{delivery.public_id}/"


def test_a_superuser_sees_all_and_the_admin_only_as_staff(ours: House, theirs: House) -> None:
    client = sign_in(User.objects.create_user("ada", is_superuser=True))
    for url in ("/", "/deliveries/", "/endpoints/", "/replays/", "/keys/", "/members/", "/audit/"):
        html = text(client.get(url))
        assert OURS in html
        assert THEIRS in html
        assert "/admin/" not in html
    User.objects.update(is_staff=True)
    assert 'href="/admin/"' in text(client.get("/"))


# --- Ids of others -------------------------------------------------------------------------------------------------------


def test_no_filter_leads_to_what_is_not_theirs(ours: House, theirs: House) -> None:
    client = sign_in(make_member(ours.tenant))
    ids = {prefix: theirs.row(prefix).public_id for prefix in ("ep", "dlv", "evt", "tnt")}
    queries = [f"/deliveries/?endpoint={ids['ep']}", *(f"/deliveries/?q={id}" for id in ids.values()), f"/deliveries/?state=dead&endpoint={ids['ep']}"]
    wishes = [{"endpoint": ids["ep"]}, {"event": ids["evt"]}, {"endpoint": ids["ep"], "tenant": ids["tnt"]}]
    queries += [f"{NEW}?{'&'.join(f'{name}={value}' for name, value in ({'action': 'replay'} | wish).items())}" for wish in wishes]
    for query in queries:
        html = text(client.get(query))
        # What somebody wrote into the form stands in it still; nothing else does.
        assert theirs.signs(html) <= {id.partition("_")[2] for id in ids.values()}, query
        assert 'id="matches"' not in html
    for wish in wishes:
        assert "has the id" in text(client.post(NEW, {"action": "replay"} | wish))
    assert Replay.objects.count() == 2


def test_a_tenant_in_the_form_binds_nobody_elses_rows(ours: House, theirs: House) -> None:
    Replay.objects.all().delete()
    sign_in(make_member(ours.tenant)).post(NEW, {"action": "replay", "tenant": theirs.tenant.public_id})
    assert Replay.objects.get().tenant == ours.tenant


# --- Pages of deliveries ---------------------------------------------------------------------------------------------------


def test_it_shows_a_members_deliveries_in_pages_among_those_of_others() -> None:
    endpoints = [make_endpoint(tenant=make_tenant(slug=OURS)) for _ in range(2)]
    other = make_endpoint(tenant=make_tenant(slug=THEIRS))
    mine = []
    for number in range(PAGE + 2):
        mine.append(make_delivery(endpoint=endpoints[number % 2], state=DELIVERED if number else DEAD))
        make_delivery(endpoint=other, state=DEAD)
    client = sign_in(make_member(endpoints[0].tenant))
    shown = [id for id in (row.public_id for row in mine) if f'id="{id}"' in text(client.get("/deliveries/"))]
    assert shown == [row.public_id for row in mine[2:]]
    html = text(client.get(f"/deliveries/?before={mine[2].public_id}"))
    assert [f'id="{row.public_id}"' in html for row in mine[:3]] == [True, True, False]
    assert html.count("<tr id=") == 2
    for state, count in {"dead": 1, "delivered": PAGE, "pending": 0}.items():
        assert text(client.get(f"/deliveries/?state={state}")).count("<tr id=") == count


def test_a_member_of_a_tenant_without_endpoints_sees_empty_pages(theirs: House) -> None:
    client = sign_in(make_member(make_tenant(slug=OURS)))
    assert "Nothing has been sent yet" in text(client.get("/deliveries/"))
    assert "no endpoint yet" in text(client.get("/endpoints/"))
    assert ">0</a>" in text(client.get("/"))


# --- Figures ---------------------------------------------------------------------------------------------------------------


def test_each_tenants_figures_are_kept_apart(ours: House, theirs: House) -> None:
    long_ago = timezone.now() - timedelta(days=2)
    EventTally.objects.update(minute=long_ago)
    AttemptTally.objects.update(minute=long_ago)
    ada, one = sign_in(User.objects.create_superuser("ada")), sign_in(make_member(ours.tenant))
    both = make_member(ours.tenant)
    Membership.objects.create(tenant=theirs.tenant, user=both, role=VIEWER)
    for _ in range(2):
        for client, received, delivered in ((ada, 14, 6), (one, 7, 3), (sign_in(both), 14, 6)):
            html = text(client.get("/"))
            assert f'id="events-received">{received}<' in html
            assert f'?state=delivered">{delivered}<' in html


def test_it_measures_the_last_hour_by_a_tenants_own_attempts(ours: House, theirs: House) -> None:
    AttemptTally.objects.create(minute=timezone.now(), endpoint=theirs.row("ep"), outcome="dead", attempts=9, total_ms=9000, ms_1000=9)
    for house, shown in ((ours, ("100 %", "p50 7.5 ms")), (theirs, ("25 %", "p50 667 ms"))):
        html = text(sign_in(make_member(house.tenant)).get("/overview/outcomes/"))
        assert [words for words in shown if words not in html] == []


def test_it_counts_what_all_tenants_share_for_each_of_them(ours: House, theirs: House) -> None:
    EventTally.objects.create(source=make_event().source, minute=timezone.now(), kind="commit", type="shared.by.all", received=100, stored=100)
    for house in (ours, theirs):
        html = text(sign_in(make_member(house.tenant)).get("/"))
        assert 'id="events-received">107<' in html
        assert "shared.by.all" in html


# --- Acting ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [OWNER, MEMBER])
def test_members_act_and_the_admins_log_says_who(role: str, ours: House) -> None:
    user, endpoint, delivery = make_member(ours.tenant, role, username="grace"), ours.row("ep"), ours.row("dlv")
    client = sign_in(user)
    assert f"{OURS} endpoint: paused." in text(client.post(f"/endpoints/{endpoint.public_id}/pause/", follow=True))
    assert endpoint.refreshed().state_reason == "paused by grace on the endpoints page"
    assert list(LogEntry.objects.values_list("user", "object_id", "change_message")) == [(user.pk, str(endpoint.pk), "Paused.")]
    assert "Back in the queue" in text(client.post(f"/deliveries/{delivery.public_id}/replay/", follow=True))
    assert delivery.refreshed().state == PENDING
    client.post(f"/replays/{ours.row('rpl').public_id}/cancel/")
    assert ours.row("rpl").refreshed().ended_by == "grace"


def test_a_members_replay_stays_in_their_tenant(ours: House, theirs: House) -> None:
    Replay.objects.all().delete()
    client = sign_in(make_member(ours.tenant, username="grace"))
    event = make_event()
    shared = [make_delivery(event=event, endpoint=house.row("ep"), state=DELIVERED) for house in (ours, theirs)]
    for wish, count in (({"delivery_state": "dead"}, 1), ({"event": event.public_id}, 1), ({"delivery_state": "delivered"}, 0)):
        html = text(client.get(NEW, {"action": "replay"} | wish))
        assert f"{count} match" in html or not count
        assert 'name="tenant"' not in html
        client.post(NEW, {"action": "replay"} | wish)
        while run(lambda seconds: False):
            pass
    assert set(Replay.objects.values_list("tenant", "created_by")) == {(ours.tenant.pk, "grace")}
    assert [row.refreshed().state for row in (ours.row("dlv"), theirs.row("dlv"), *shared)] == [PENDING, DEAD, PENDING, DELIVERED]


def test_a_member_of_several_tenants_says_for_which_one(ours: House, theirs: House) -> None:
    third = make_house("okapi")
    Replay.objects.all().delete()
    user = make_member(ours.tenant)
    Membership.objects.create(tenant=theirs.tenant, user=user, role=OWNER)
    Membership.objects.create(tenant=third.tenant, user=user, role=VIEWER)
    client = sign_in(user)
    html = text(client.get(NEW))
    assert OURS in html
    assert THEIRS in html
    assert third.word not in html
    html = text(client.get(f"{NEW}?action=replay&delivery_state=dead"))
    assert "stays within one tenant" in html
    assert 'id="matches"' not in html
    assert "stays within one tenant" in text(client.post(NEW, {"action": "replay"}))
    assert "belongs to another tenant" in text(client.post(NEW, {"action": "replay", "tenant": ours.tenant.public_id, "endpoint": theirs.row("ep").public_id}))
    assert "no tenant of yours" in text(client.post(NEW, {"action": "replay", "tenant": third.tenant.public_id}))
    assert not Replay.objects.exists()
    assert "1 matches" in text(client.get(f"{NEW}?action=replay&tenant={ours.tenant.public_id}"))
    client.post(NEW, {"action": "replay", "tenant": ours.tenant.public_id})
    client.post(NEW, {"action": "replay", "endpoint": theirs.row("ep").public_id})
    assert list(Replay.objects.order_by("id").values_list("tenant", flat=True)) == [ours.tenant.pk, theirs.tenant.pk]


def test_a_role_counts_in_its_own_tenant_alone(ours: House, theirs: House) -> None:
    user = make_member(ours.tenant)
    Membership.objects.create(tenant=theirs.tenant, user=user, role=VIEWER)
    client = sign_in(user)
    html = "".join(text(client.get(url)) for url in ("/deliveries/", "/endpoints/", "/replays/"))
    for house, acts in ((ours, True), (theirs, False)):
        assert house.word in html
        for url in (
            reverse("delivery_replay", args=[house.row("dlv").pk]),
            reverse("endpoint_pause", args=[house.row("ep").pk]),
            reverse("replay_cancel", args=[house.row("rpl").pk]),
        ):
            assert (url in html) == acts
            assert client.post(url).status_code == (302 if acts else 403)
        assert (">Replay</button>" in text(client.get(f"/deliveries/{house.row('dlv').public_id}/"))) is False
    assert (ours.row("ep").refreshed().state, theirs.row("ep").refreshed().state) == (Endpoint.State.PAUSED, Endpoint.State.ACTIVE)


def test_a_viewer_has_no_post_even_where_a_view_does_not_ask(ours: House, rf: RequestFactory) -> None:
    forgetful = members_page(lambda request: HttpResponse("done"))
    request = rf.post("/")
    request.user = make_member(ours.tenant, VIEWER)
    with pytest.raises(PermissionDenied):
        forgetful(request)
    request.user = make_member(ours.tenant)
    assert forgetful(request).status_code == 200


def test_a_replay_of_all_tenants_is_the_operators(ours: House) -> None:
    wish = start(Replay(), by="ada")
    client = sign_in(make_member(ours.tenant, OWNER))
    assert wish.public_id not in text(client.get("/replays/"))
    assert client.post(f"/replays/{wish.public_id}/cancel/").status_code == 404
    assert wish.refreshed().running


# --- Written down ----------------------------------------------------------------------------------------------------------

PASSWORD = "a-long-password"
NEW_PASSWORD = {"old_password": PASSWORD, "new_password1": f"{PASSWORD}er", "new_password2": f"{PASSWORD}er"}
# What a form has to say so that it is carried out; those that are not here need nothing said.
SAID: dict[str, dict[str, Any]] = {
    "deliveries_selected": {"action": "dismiss", "delivery": "{dlv}"},
    "replay_new": {"action": "replay"},
    "endpoint_new": {"url": "https://new.example/hook", "source": "api", "collections": "order.*"},
    "endpoint_edit": TERMS | {"name": "another name", "url": f"https://{OURS}.example/hook"},
    "endpoint_delete": {"sure": "yes"},
    "endpoint_secret": {"password": PASSWORD},
    "endpoint_rotate": {"password": PASSWORD, "overlap_h": "24"},
    "subscription_new": {"source": "{src}", "collections": "order.*"},
    "subscription_edit": {"collections": "order.*"},
    "subscription_remove": {"sure": "yes"},
    "stream_rewind": {"to": "2026-01-01T00:00:00"},
    "key_new": {"name": "a key", "scopes": ["events:read"]},
    "key_rotate": {"overlap_h": "24"},
    "key_revoke": {"sure": "on"},
    "member_new": {"account": "new", "username": "alan", "role": "viewer"},
    "member_role": {"role": "member"},
    "member_remove": {"sure": "on"},
    "account_password": NEW_PASSWORD,
    "account_sessions": {"password": PASSWORD},
}
# These ask and change nothing.
ONLY_ASKS = {"endpoint_signature"}
# The state that something has to be in for it to be done.
BEFORE: dict[str, Callable[[House], object]] = {
    "gaps_acknowledge": lambda house: make_gap(),
    "endpoint_resume": lambda house: Endpoint.objects.update(state=Endpoint.State.PAUSED),
    "endpoint_enable": lambda house: Endpoint.objects.update(state=Endpoint.State.DISABLED),
}


@pytest.mark.parametrize("name", sorted(name for name, methods in METHODS.items() if "post" in methods and name not in ONLY_ASKS))
def test_whatever_is_done_on_a_page_is_written_down(name: str, ours: House, cheap_passwords: None, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    for act in ("send_test", "verify"):
        monkeypatch.setattr(verification, act, lambda endpoint: verification.Outcome(True, "It answered."))
    # A challenge would be another act, with an entry of its own.
    settings.JETRELAY_VERIFY_ENDPOINTS = name == "endpoint_verify"
    make_host(reached_at=timezone.now())
    BEFORE.get(name, lambda house: None)(ours)
    client = sign_in(User.objects.create_superuser("ada", password=PASSWORD))
    (pattern,) = [each for each in every_pattern(urls.urlpatterns) if each.name == name]
    before = set(AuditEntry.objects.values_list("pk", flat=True))
    # A row of ours is named by its prefix.
    rows = {f"{{{row.prefix}}}": row.public_id for row in ours.rows}
    said = {field: rows.get(value, value) if isinstance(value, str) else value for field, value in SAID.get(name, {}).items()}
    response = client.post(reverse(name, kwargs=ours.arguments(pattern)), said, REMOTE_ADDR="192.0.2.7")
    assert response.status_code in (200, 302)
    (entry,) = AuditEntry.objects.exclude(pk__in=before)
    assert (entry.actor, entry.address) == ("user ada", "192.0.2.7")
    assert re.fullmatch(r"[a-z]+\.[a-z-]+", entry.action)
    of_one_tenant = name not in STEERS | OWN_ACTS | {"replay_new"}
    assert (entry.tenant == ours.tenant) is of_one_tenant
    # A secret that was made or given is in none of it.
    assert PASSWORD not in str(vars(entry))
    assert entry.public_id in text(client.get("/audit/"))


# --- In, and out again -------------------------------------------------------------------------------------------------------


def test_it_says_what_to_ask_for_to_those_in_no_tenant() -> None:
    client = sign_in(User.objects.create_user("<b>bob"))
    response = client.get("/deliveries/")
    assert response.status_code == 403
    assert response["Content-Security-Policy"].startswith("default-src 'self';")
    html = response.content.decode()
    for shown in ("not a member of a tenant", "&lt;b&gt;bob", "Memberships", "create_tenant", 'action="/logout/"'):
        assert shown in html
    assert 'href="/deliveries/"' not in html
    assert "/admin/" not in html
    assert 'href="/admin/"' in sign_in(User.objects.create_user("eve", is_staff=True)).get("/").content.decode()


def test_a_membership_counts_from_when_it_is_given_to_when_it_is_taken(ours: House) -> None:
    user = make_member(ours.tenant)
    client, fragment = sign_in(user), "/overview/outcomes/"
    assert client.get(fragment, headers={"HX-Request": "true"}).status_code == 200
    Membership.objects.all().delete()
    assert client.get(fragment, headers={"HX-Request": "true"})["HX-Refresh"] == "true"
    assert client.get("/").status_code == 403
    Membership.objects.create(tenant=ours.tenant, user=user, role=VIEWER)
    assert client.get("/").status_code == 200
    User.objects.update(is_active=False)
    assert client.get("/")["Location"] == "/login/?next=/"


# --- Cost --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "queries"),
    # The session, its user, their memberships; then as for a superuser, and for the list of deliveries which endpoints are theirs, and what is newest there.
    [("/", 15), ("/deliveries/", 9), ("/endpoints/", 7), ("/replays/", 6), ("/stream/", 7)],
)
def test_it_asks_the_database_little_however_many_rows_there_are(url: str, queries: int, ours: House, django_assert_max_num_queries: Any) -> None:
    client = sign_in(make_member(ours.tenant))
    for _ in range(3):
        make_delivery(endpoint=make_health(endpoint=make_endpoint(tenant=ours.tenant)).endpoint)
        start(Replay(tenant=ours.tenant))
        make_host()
    with django_assert_max_num_queries(queries):
        text(client.get(url))
