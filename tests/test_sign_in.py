"""The page where members sign in, and the way out."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache, caches
from django.test import Client

from jetrelay.dashboard.people.brake import PER_ADDRESS, PER_NAME, WINDOW_S
from tests.builders import make_member

pytestmark = pytest.mark.django_db

PASSWORD = "a-long-password"


def sign_in(client: Client, **data: str) -> str:
    response = client.post("/login/", {"username": "grace", "password": PASSWORD} | data)
    assert response.status_code == 302, response.content.decode()
    return str(response["Location"])


@pytest.fixture(autouse=True)
def _grace(cheap_passwords: None) -> None:
    cache.clear()
    make_member(username="grace", password=PASSWORD)


def test_it_leads_to_where_they_were_going(client: Client) -> None:
    asked = "/deliveries/?state=dead&endpoint=x"
    response = client.get(asked, follow=True)
    assert '<input type="hidden" name="next" value="/deliveries/?state=dead&amp;endpoint=x">' in response.content.decode()
    assert sign_in(client, next=asked) == asked
    assert client.get("/deliveries/").status_code == 200


@pytest.mark.parametrize("next", ["", "https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil.example"])
def test_it_leads_nowhere_else(client: Client, next: str) -> None:
    assert sign_in(client, next=next) == "/"


def test_it_says_that_the_password_is_wrong_and_keeps_where_they_were_going(client: Client) -> None:
    for data in ({"username": "grace", "password": "x"}, {"username": "nobody", "password": PASSWORD}):
        html = client.post("/login/", data | {"next": "/endpoints/"}).content.decode()
        assert "Please enter a correct username and password" in html
        assert 'name="next" value="/endpoints/"' in html
    User.objects.update(is_active=False)
    assert "Please enter a correct" in client.post("/login/", {"username": "grace", "password": PASSWORD}).content.decode()
    assert client.get("/").status_code == 302


def test_it_lets_only_our_own_files_run_and_is_kept_by_no_cache(client: Client) -> None:
    response = client.get("/login/")
    html = response.content.decode()
    assert response["Content-Security-Policy"].startswith("default-src 'self';")
    assert "no-store" in response["Cache-Control"]
    assert not any(inline in html for inline in ("<style", " style=", "<script>", " onclick="))
    assert "<nav" not in html


def test_no_script_and_no_other_site_gets_at_the_session(client: Client) -> None:
    sign_in(client)
    cookie = client.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


def test_it_wants_its_token() -> None:
    assert Client(enforce_csrf_checks=True).post("/login/", {"username": "grace", "password": PASSWORD}).status_code == 403


def test_it_signs_out_by_a_button_alone(client: Client) -> None:
    sign_in(client)
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/")["Location"] == "/login/?next=/"


def test_the_admin_keeps_its_own_page_which_refuses_members(client: Client) -> None:
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"
    assert "staff account" in client.post("/admin/login/", {"username": "grace", "password": PASSWORD}).content.decode()
    sign_in(client)
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"


def test_a_session_of_the_admin_opens_the_pages_too(client: Client) -> None:
    User.objects.create_superuser("ada", password=PASSWORD)
    client.post("/admin/login/", {"username": "ada", "password": PASSWORD})
    assert client.get("/").status_code == 200


# --- The brake -----------------------------------------------------------------------------------------------------------

PAGES = ["/login/", "/admin/login/"]


def guess(client: Client, page: str = "/login/", name: str = "grace", password: str = "wrong", **from_where: Any) -> Any:
    return client.post(page, {"username": name, "password": password}, **from_where)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["grace", "nobody"])
def test_it_lets_nobody_guess_on_and_on(client: Client, one_window: Any, page: str, name: str) -> None:
    assert {guess(client, page, name).status_code for _ in range(PER_NAME)} == {200}
    # Not even by the right one, else guessing would go on.
    response = guess(client, page, name, PASSWORD)
    assert (response.status_code, response["Retry-After"]) == (429, str(WINDOW_S))
    assert "Wait 5 minutes" in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    assert client.get("/").status_code == 302


def test_it_says_the_same_of_a_name_that_there_is_not(client: Client, one_window: Any) -> None:
    answers = []
    for name in ("grace", "nobody"):
        answers.append([re.sub(r'value="\w+"', "", guess(client, name=name).content.decode()).replace(name, "") for _ in range(PER_NAME + 1)])
    assert answers[0] == answers[1]


def test_both_pages_share_the_brake(client: Client, one_window: Any) -> None:
    for number in range(PER_NAME):
        guess(client, PAGES[number % 2])
    assert [guess(client, page).status_code for page in PAGES] == [429, 429]


def test_it_lets_the_right_password_through_from_elsewhere_and_later(client: Client, one_window: Any) -> None:
    for _ in range(PER_NAME + 1):
        guess(client, REMOTE_ADDR="192.0.2.1")
    assert guess(Client(), password=PASSWORD, REMOTE_ADDR="192.0.2.2").status_code == 302
    assert guess(client, password=PASSWORD, REMOTE_ADDR="192.0.2.1").status_code == 429
    one_window.shift(WINDOW_S)
    assert guess(client, password=PASSWORD, REMOTE_ADDR="192.0.2.1").status_code == 302


def test_a_right_password_starts_the_count_afresh(client: Client, one_window: Any) -> None:
    for _ in range(3):
        for _ in range(PER_NAME - 1):
            guess(client)
        assert guess(client, password=PASSWORD).status_code == 302


def test_another_spelling_is_no_other_name(client: Client, one_window: Any) -> None:
    for spelling in [" grace", "grace ", "ｇrace", "grace"] * 3:
        last = guess(client, name=spelling)
    assert last.status_code == 429


def test_an_address_does_not_go_through_names(client: Client, one_window: Any) -> None:
    statuses = [guess(client, name=f"name{number}").status_code for number in range(PER_ADDRESS + 1)]
    assert statuses == [200] * PER_ADDRESS + [429]


def test_a_network_of_addresses_is_one(client: Client, one_window: Any) -> None:
    for number in range(PER_NAME):
        guess(client, REMOTE_ADDR=f"2001:db8::{number}")
    assert guess(client, REMOTE_ADDR="2001:db8::ffff").status_code == 429
    assert guess(client, REMOTE_ADDR="2001:db8:0:1::1").status_code == 200


def test_ipv4_addresses_are_no_network_where_they_are_written_as_ipv6(client: Client, one_window: Any) -> None:
    for _ in range(PER_NAME):
        guess(client, REMOTE_ADDR="::ffff:192.0.2.1")
    assert guess(client, REMOTE_ADDR="192.0.2.1").status_code == 429
    assert guess(client, REMOTE_ADDR="::ffff:192.0.2.2").status_code == 200


def test_people_get_in_while_the_cache_is_down(client: Client, settings: Any) -> None:
    # Nobody listens on this port.
    away = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {"default": away, "tries": away}
    assert guess(client, password=PASSWORD).status_code == 302


def test_what_pages_remember_does_not_push_out_the_counts_of_guesses(client: Client) -> None:
    for _ in range(PER_NAME):
        assert client.post("/login/", {"username": "grace", "password": "wrong"}).status_code == 200
    for number in range(1000):
        cache.set(f"trend.{number}", [], 60)
    assert client.post("/login/", {"username": "grace", "password": "wrong"}).status_code == 429


@pytest.mark.django_db
def test_many_names_from_one_address_push_no_counts_out(client: Client, cheap_passwords: None, one_window: Any) -> None:
    """What is counted for others is pushed out by what is new: one address adds no more than it may try."""
    for number in range(PER_ADDRESS + 50):
        client.post("/login/", {"username": f"made up {number}", "password": "x"})
    counts: Any = caches["tries"]
    assert len(counts._cache) <= PER_ADDRESS + 1


def test_what_pages_remember_pushes_no_counts_out() -> None:
    caches["tries"].set("jetrelay:tries:1:203.0.113.1", 100)
    for number in range(200):
        caches["default"].set(f"trend.{number}", 1)
    caches["default"].clear()
    assert caches["tries"].get("jetrelay:tries:1:203.0.113.1") == 100
