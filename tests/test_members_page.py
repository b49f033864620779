"""Members on their pages: owners let people in, give them another role and take them out; and nobody gets more by it than they should."""

import re
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from jetrelay.dashboard.people.brake import PER_NAME
from subscriptions import members
from subscriptions.models import AuditEntry, Membership, Tenant
from tests.builders import make_member, make_tenant
from tests.threads import Elsewhere, eventually

pytestmark = pytest.mark.django_db

OWNER, MEMBER, VIEWER = Membership.Role.OWNER, Membership.Role.MEMBER, Membership.Role.VIEWER
PASSWORD = "a-long-password"
NEW = "/members/new/"


@pytest.fixture(autouse=True)
def _no_tries_of_other_tests(cheap_passwords: None) -> None:
    cache.clear()


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant(slug="ours", name="Ours")


@pytest.fixture
def grace(tenant: Tenant, cheap_passwords: None) -> User:
    return make_member(tenant, OWNER, username="grace", password=PASSWORD)


@pytest.fixture
def owner(client: Client, grace: User) -> Client:
    client.force_login(grace)
    return client


def text(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response
    return str(response.content.decode())


def of(user: User) -> Membership:
    return Membership.objects.get(user=user)


def act(client: Client, membership: Membership, name: str, **data: str) -> Any:
    return client.post(f"/members/{membership.pk}/{name}/", data)


def act_and_follow(client: Client, membership: Membership, name: str, **data: str) -> Any:
    return client.post(f"/members/{membership.pk}/{name}/", data, follow=True)


def opens(link: str) -> bool:
    return "Choose your password" in text(Client().get(link, follow=True))


def link_in(html: str) -> str:
    (found,) = re.findall(r'<code id="secret" data-hides-s="\d+">http://testserver(/welcome/[^<]+)</code>', html)
    return str(found)


def roles() -> dict[str, str]:
    return dict(Membership.objects.values_list("user__username", "role"))


def noted() -> list[tuple[str, str]]:
    return list(AuditEntry.objects.order_by("pk").values_list("action", "detail"))


# --- Letting in ----------------------------------------------------------------------------------------------------------


def test_somebody_new_chooses_a_password_by_a_link_that_works_once(owner: Client) -> None:
    answer = owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER})
    link, alan = link_in(text(answer)), User.objects.get(username="alan")
    assert "no-store" in answer["Cache-Control"]
    assert (of(alan).role, alan.has_usable_password(), alan.is_staff) == (MEMBER, False, False)
    assert noted() == [("member.add", "alan as member, new account")]
    assert link not in text(owner.get("/members/")) + text(owner.get("/audit/"))

    visitor = Client()
    moved = visitor.get(link)
    # The token leaves the URL before there is a page that could tell somebody its address.
    assert (moved.status_code, moved["Referrer-Policy"]) == (302, "no-referrer")
    form = visitor.get(moved["Location"])
    assert form["Content-Security-Policy"].startswith("default-src 'self';")
    assert form["Referrer-Policy"] == "same-origin"
    assert "alan" in text(form)
    assert "too short" in text(visitor.post(moved["Location"], {"new_password1": "short", "new_password2": "short"}))
    done = visitor.post(moved["Location"], {"new_password1": PASSWORD, "new_password2": PASSWORD})
    assert done["Location"] == "/"
    assert visitor.get("/").status_code == 200
    assert Client().login(username="alan", password=PASSWORD)
    assert noted()[-1][0] == "account.welcome"

    assert "does not work (any more)" in text(Client().get(link, follow=True))


def test_a_link_runs_out_in_a_day(owner: Client) -> None:
    link = link_in(text(owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER})))
    with time_machine.travel(timezone.now() + timedelta(hours=23), tick=False):
        assert "Choose your password" in text(Client().get(link, follow=True))
    with time_machine.travel(timezone.now() + timedelta(hours=25), tick=False):
        assert "does not work (any more)" in text(Client().get(link, follow=True))


@pytest.mark.parametrize("over", [{"is_active": False}, {"is_staff": True}, {"is_superuser": True}], ids=str)
def test_a_link_does_not_open_what_the_account_has_become_since(owner: Client, over: dict[str, bool]) -> None:
    link = link_in(text(owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER})))
    User.objects.filter(username="alan").update(**over)
    assert "does not work (any more)" in text(Client().get(link, follow=True))


@pytest.mark.parametrize("link", ["/welcome/MQ/x/", "/welcome/!/set-password/", "/welcome/MQ/set-password/", "/welcome/4pyT/c-1/"])
def test_a_link_that_somebody_made_up_opens_nothing(grace: User, link: str) -> None:
    assert "does not work (any more)" in text(Client().get(link, follow=True))


def test_an_owner_gives_out_another_link_before_the_first_sign_in_alone(owner: Client, grace: User, tenant: Tenant) -> None:
    owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER})
    alan = of(User.objects.get(username="alan"))
    assert "Make a new link" in text(owner.get(f"/members/{alan.pk}/"))
    link = link_in(text(act(owner, alan, "link")))
    assert "Choose your password" in text(Client().get(link, follow=True))
    assert noted()[-1] == ("member.link", "for alan")
    alan.user.set_password(PASSWORD)
    alan.user.save()
    assert "Make a new link" not in text(owner.get(f"/members/{alan.pk}/"))
    text(act(owner, alan, "link"), 403)
    assert "does not work (any more)" in text(Client().get(link, follow=True))


def test_a_new_link_ends_those_before_it(owner: Client) -> None:
    first = link_in(text(owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER})))
    alan = of(User.objects.get(username="alan"))
    second, third = (link_in(text(act(owner, alan, "link"))) for _ in range(2))
    assert [opens(link) for link in (first, second, third)] == [False, False, True]


def test_a_form_that_is_open_already_sets_no_password_once_its_link_has_ended(owner: Client) -> None:
    link = link_in(text(owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER})))
    visitor = Client()
    form = visitor.get(link)["Location"]
    act(owner, of(User.objects.get(username="alan")), "link")
    assert "does not work (any more)" in text(visitor.post(form, {"new_password1": PASSWORD, "new_password2": PASSWORD}))
    assert not User.objects.get(username="alan").has_usable_password()


def test_an_old_link_takes_over_nobody_in_the_next_tenant(owner: Client, client: Client) -> None:
    """The account goes with its last tenant, and its name is free: whoever is called this next is somebody else."""
    link = link_in(text(owner.post(NEW, {"account": "new", "username": "carol", "role": MEMBER})))
    visitor = Client()
    form = visitor.get(link)["Location"]
    html = text(act_and_follow(owner, of(User.objects.get(username="carol")), "remove", sure="on"))
    assert "Their account was never used and is gone too" in html
    assert not User.objects.filter(username="carol").exists()
    theirs = Client()
    theirs.force_login(make_member(make_tenant(slug="theirs"), OWNER, username="bob", password=PASSWORD))
    assert "Nobody who signs in here is called" in text(theirs.post(NEW, {"account": "existing", "username": "carol", "role": OWNER}))
    fresh = link_in(text(theirs.post(NEW, {"account": "new", "username": "carol", "role": OWNER})))
    visitor.post(form, {"new_password1": PASSWORD, "new_password2": PASSWORD})
    assert not User.objects.get(username="carol").has_usable_password()
    assert visitor.get("/").status_code == 302
    assert [opens(each) for each in (link, fresh)] == [False, True]


def test_an_account_without_a_password_is_let_in_by_nobody_who_does_not_have_it_already(owner: Client) -> None:
    """One that is in no tenant may have a link that somebody else holds."""
    User.objects.create_user("carol")
    assert "Nobody who signs in here is called" in text(owner.post(NEW, {"account": "existing", "username": "carol", "role": OWNER}))
    assert set(roles()) == {"grace"}


def test_letting_in_to_a_second_tenant_ends_the_link_of_the_first(owner: Client, grace: User, tenant: Tenant) -> None:
    """Another owner of the first one may hold it."""
    second = make_tenant(slug="second", name="Second")
    Membership.objects.create(tenant=second, user=grace, role=OWNER)
    old = link_in(text(owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER, "tenant": tenant.public_id})))
    new = link_in(text(owner.post(NEW, {"account": "existing", "username": "alan", "role": OWNER, "tenant": second.public_id})))
    assert [opens(link) for link in (old, new)] == [False, True]
    # Out of one of them: the account stays, and the link ends all the same.
    act(owner, Membership.objects.get(user__username="alan", tenant=tenant), "remove", sure="on")
    assert User.objects.filter(username="alan").exists()
    assert not opens(new)


@pytest.mark.parametrize(
    "over", [{"password": PASSWORD}, {"last_login": timezone.now()}, {"is_staff": True}, {"is_superuser": True}, {"is_active": False}], ids=str
)
def test_an_account_that_is_more_than_a_link_stays(owner: Client, tenant: Tenant, over: dict[str, Any]) -> None:
    alan = make_member(tenant, MEMBER, username="alan", **over)
    assert "gone too" not in text(act_and_follow(owner, of(alan), "remove", sure="on"))
    stays = User.objects.get(username="alan")
    assert stays.has_usable_password() == ("password" in over)


def test_whoever_lost_their_account_meanwhile_is_not_let_in(tenant: Tenant) -> None:
    alan = User.objects.create_user("alan")
    User.objects.filter(pk=alan.pk).delete()
    with pytest.raises(members.Refused, match="no account any more"):
        members.add(tenant, alan, MEMBER)


def test_an_owner_takes_over_nobody_by_a_link(owner: Client, tenant: Tenant) -> None:
    elsewhere = make_tenant(slug="theirs")
    shared = make_member(tenant, VIEWER)
    Membership.objects.create(tenant=elsewhere, user=shared, role=OWNER)
    staff, ada = make_member(tenant, VIEWER, is_staff=True), make_member(tenant, VIEWER, is_superuser=True)
    for user in (shared, staff, ada):
        text(act(owner, Membership.objects.get(user=user, tenant=tenant), "link"), 403)


def test_somebody_who_has_an_account_is_let_in_at_once(owner: Client, grace: User) -> None:
    alan = User.objects.create_user("alan", password=PASSWORD)
    html = text(owner.post(NEW, {"account": "existing", "username": " alan ", "role": VIEWER}, follow=True))
    assert "alan is in Ours now, as viewer" in html
    assert of(alan).role == VIEWER
    assert noted() == [("member.add", "alan as viewer, existing account")]
    assert "is in Ours already" in text(owner.post(NEW, {"account": "existing", "username": "alan", "role": OWNER}))
    assert of(alan).role == VIEWER


def test_nobody_finds_out_where_somebody_is(owner: Client) -> None:
    make_member(make_tenant(slug="zebra", name="Zebra"), username="there", password=PASSWORD)
    User.objects.create_user("nowhere", password=PASSWORD)
    answers = [
        text(owner.post(NEW, {"account": account, "username": name, "role": MEMBER}, follow=True)).replace(name, "X")
        for account in ("new", "existing")
        for name in ("there", "nowhere")
    ]
    plain = [re.sub(r'name="csrfmiddlewaretoken" value="\w+"|to-member-\d+|member-\d+|/members/\d+/', "", answer) for answer in answers]
    assert plain[0] == plain[1]
    assert "The name X is taken" in plain[0]
    assert "X is in Ours now" in plain[2]
    assert "X is in Ours now" in plain[3]
    assert not any("zebra" in answer.lower() for answer in answers)


def test_a_name_like_another_is_taken(owner: Client) -> None:
    User.objects.create_user("Alan")
    assert "is taken" in text(owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER}))
    assert not User.objects.filter(username="alan").exists()


def test_nobody_lets_in_by_mistake_whom_another_tenant_has_handed_out(owner: Client) -> None:
    """Whoever holds the first link is that user: a stranger, where another tenant made the account."""
    make_member(make_tenant(slug="theirs"), username="alan")
    answers = [text(owner.post(NEW, {"account": "existing", "username": name, "role": MEMBER})) for name in ("alan", "nobody")]
    assert ["Nobody who signs in here is called" in answer for answer in answers] == [True, True]
    assert set(roles()) == {"grace", "alan"}


@pytest.mark.usefixtures("one_window")
def test_names_cannot_be_tried_one_after_another(owner: Client) -> None:
    for number in range(PER_NAME):
        text(owner.post(NEW, {"account": "existing", "username": f"name{number}", "role": MEMBER}))
    User.objects.create_user("alan", password=PASSWORD)
    answer = owner.post(NEW, {"account": "existing", "username": "alan", "role": MEMBER})
    assert "too many usernames" in text(answer, 429)
    assert "alan" not in roles()


@pytest.mark.usefixtures("one_window")
@pytest.mark.parametrize("account", ["new", "existing"])
def test_one_name_that_goes_well_does_not_pay_for_the_tries_before_it(owner: Client, account: str) -> None:
    """Neither for names that are taken, which tells as much as one that is not."""
    User.objects.create_user("there", password=PASSWORD)
    for number in range(PER_NAME - 1):
        name = "there" if account == "new" else f"name{number}"
        text(owner.post(NEW, {"account": account, "username": name, "role": MEMBER}))
    text(owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER}))
    text(owner.post(NEW, {"account": account, "username": "there", "role": MEMBER}), 429)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"username": ""}, "Write the name"),
        ({"username": "two words"}, "Enter a valid username"),
        ({"username": "x" * 151}, "at most 150"),
        ({"account": ""}, "Say whether they have an account"),
        ({"role": "king"}, "king is not one of the available choices"),
    ],
)
def test_it_says_what_of_a_wish_cannot_be(owner: Client, over: dict[str, str], words: str) -> None:
    assert words in text(owner.post(NEW, {"account": "new", "username": "alan", "role": MEMBER} | over))
    assert set(roles()) == {"grace"}


# --- Roles, and out again --------------------------------------------------------------------------------------------------


def test_an_owner_changes_roles_and_takes_out(owner: Client, tenant: Tenant) -> None:
    alan = of(make_member(tenant, VIEWER, username="alan", password=PASSWORD))
    assert act(owner, alan, "role", role=OWNER)["Location"] == "/members/"
    assert roles()["alan"] == OWNER
    assert "Tick the box" in text(act(owner, alan, "remove"))
    assert act(owner, alan, "remove", sure="on")["Location"] == "/members/"
    assert set(roles()) == {"grace"}
    assert User.objects.filter(username="alan").exists()
    assert noted() == [("member.role", "alan: viewer to owner"), ("member.remove", "alan, who was owner")]
    assert set(AuditEntry.objects.values_list("actor", "target", "tenant")) == {("user grace", tenant.public_id, tenant.pk)}


def test_the_last_owner_stays(owner: Client, grace: User, tenant: Tenant) -> None:
    make_member(tenant, MEMBER)
    # One who cannot sign in is no help.
    make_member(tenant, OWNER, is_active=False)
    for answer in (act(owner, of(grace), "role", role=MEMBER), act(owner, of(grace), "remove", sure="on")):
        assert "is the last owner of Ours" in text(answer)
    assert roles()["grace"] == OWNER
    assert noted() == []
    make_member(tenant, OWNER)
    act(owner, of(grace), "remove", sure="on")
    assert "grace" not in roles()
    assert owner.get("/members/").status_code == 403


def test_an_owner_who_steps_back_has_no_way_up(owner: Client, grace: User, tenant: Tenant) -> None:
    make_member(tenant, OWNER)
    act(owner, of(grace), "role", role=MEMBER)
    text(act(owner, of(grace), "role", role=OWNER), 403)
    assert roles()["grace"] == MEMBER


def test_nobody_raises_themselves_even_past_the_page(grace: User, tenant: Tenant) -> None:
    """A page that was asked before its owner was put back, or a superuser who is in the tenant as well."""
    alan = make_member(tenant, VIEWER, username="alan")
    with pytest.raises(members.Refused, match="Nobody raises"):
        members.change_role(of(alan), OWNER, alan)
    assert members.change_role(of(alan), VIEWER, alan) == VIEWER
    assert members.change_role(of(alan), MEMBER, grace) == VIEWER


def test_whoever_is_gone_meanwhile_is_not_changed(grace: User, tenant: Tenant) -> None:
    alan = of(make_member(tenant, VIEWER, username="alan"))
    Membership.objects.filter(pk=alan.pk).delete()
    for change in (lambda: members.change_role(alan, OWNER, grace), lambda: members.remove(alan)):
        with pytest.raises(members.Refused, match="not in Ours any more"):
            change()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_two_owners_do_not_remove_each_other_at_the_same_moment(grace: User, tenant: Tenant) -> None:
    alan = make_member(tenant, OWNER, username="alan")
    with transaction.atomic():
        members.remove(of(alan))
        other = Elsewhere(lambda: members.remove(Membership.objects.select_related("user", "tenant").get(user=grace)))
        eventually(lambda: others_waiting_for_us() == 1)
    with pytest.raises(members.Refused, match="last owner"):
        other.result()
    assert roles() == {"grace": OWNER}


def others_waiting_for_us() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))")
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("role", [MEMBER, VIEWER])
def test_members_and_viewers_do_none_of_it(client: Client, grace: User, tenant: Tenant, role: str) -> None:
    alan = make_member(tenant, role, username="alan")
    client.force_login(alan)
    html = text(client.get("/members/"))
    assert "grace" in html
    assert not re.search(r"/members/(new|\d+)/", html)
    text(client.get(NEW), 403)
    text(client.get(f"/members/{of(grace).pk}/"), 403)
    text(client.post(NEW, {"account": "new", "username": "eve", "role": OWNER}), 403)
    for whom in (of(alan), of(grace)):
        text(act(client, whom, "role", role=OWNER if whom.user == alan else VIEWER), 403)
        text(act(client, whom, "remove", sure="on"), 403)
        text(act(client, whom, "link"), 403)
    assert roles() == {"grace": OWNER, "alan": role}


def test_an_owner_of_one_tenant_is_nobody_in_another(owner: Client, grace: User, tenant: Tenant) -> None:
    seen, hidden = make_tenant(slug="seen", name="Seen"), make_tenant(slug="hidden", name="Hidden")
    there = {each: of(make_member(each, VIEWER)) for each in (seen, hidden)}
    mine = Membership.objects.create(tenant=seen, user=grace, role=MEMBER)
    acts: dict[str, dict[str, str]] = {"role": {"role": OWNER}, "remove": {"sure": "on"}, "link": {}}
    for name, data in acts.items():
        text(act(owner, there[hidden], name, **data), 404)
        for membership in (there[seen], mine):
            text(act(owner, membership, name, **data), 403)
    for foreign in (seen, hidden):
        owner.post(NEW, {"account": "new", "username": f"new-{foreign.slug}", "role": OWNER, "tenant": foreign.public_id})
    assert set(Membership.objects.filter(user__username__startswith="new-").values_list("tenant", flat=True)) == {tenant.pk}
    assert Membership.objects.filter(tenant__in=(seen, hidden)).count() == 3
    assert "Hidden" not in text(owner.get("/members/"))
    text(owner.get("/members/999999999999999999999/"), 404)


def test_an_owner_of_several_says_in_which_one(owner: Client, grace: User) -> None:
    second, third = make_tenant(slug="second", name="Second"), make_tenant(slug="third", name="Third")
    Membership.objects.create(tenant=second, user=grace, role=OWNER)
    wish = {"account": "new", "username": "alan", "role": MEMBER}
    assert "Choose a tenant" in text(owner.post(NEW, wish))
    assert "it is not yours" in text(owner.post(NEW, wish | {"tenant": third.public_id}))
    text(owner.post(NEW, wish | {"tenant": second.public_id}))
    assert Membership.objects.get(user__username="alan").tenant == second
    # In the other one too: all of that account is in her hands.
    first = make_tenant(slug="ours")
    link_in(text(owner.post(NEW, {"account": "existing", "username": "alan", "role": MEMBER, "tenant": first.public_id})))
    assert Membership.objects.filter(user__username="alan").count() == 2


# --- The list --------------------------------------------------------------------------------------------------------------


def test_a_superuser_sees_all_tenants_and_finds_people(client: Client, grace: User, tenant: Tenant) -> None:
    make_member(make_tenant(slug="theirs", name="Theirs"), username="alan")
    client.force_login(User.objects.create_superuser("ada"))
    html = text(client.get("/members/"))
    assert ("Ours" in html, "Theirs" in html) == (True, True)
    for search, shown in {"alan": "Theirs", "our": "Ours", "ours": "Ours"}.items():
        found = re.findall(r"<h2 id=\"tnt_\w+\"><bdi>(\w+)</bdi>", text(client.get(f"/members/?q={search}")))
        assert found == [shown]
    assert "nobody in one is called this" in text(client.get("/members/?q=xyz"))
    assert "is not a tenant" in text(client.get("/members/?before=x"))


def test_it_goes_through_many_tenants_page_by_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetrelay.dashboard.people.members.TENANTS_SHOWN", 2)
    made = [make_tenant(slug=f"t{number}", name=f"T{number}") for number in range(3)]
    client.force_login(User.objects.create_superuser("ada"))
    html = text(client.get("/members/"))
    assert re.findall(r"<bdi>(T\d)</bdi></h2>", html) == ["T2", "T1"]
    assert f"?before={made[1].public_id}" in html
    assert re.findall(r"<bdi>(T\d)</bdi></h2>", text(client.get(f"/members/?before={made[1].public_id}"))) == ["T0"]


def test_a_list_costs_the_same_however_long(owner: Client, tenant: Tenant, django_assert_num_queries: Any) -> None:
    for _ in range(10):
        make_member(tenant)
    # Session, user, memberships, tenants, members; ten of what is used; and on PostgreSQL the planner is told how to count.
    with django_assert_num_queries(19 if connection.vendor == "postgresql" else 15):
        text(owner.get("/members/"))
