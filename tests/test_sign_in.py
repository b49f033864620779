"""The page where members sign in, and the way out."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.builders import make_member

pytestmark = pytest.mark.django_db

PASSWORD = "a-long-password"


def sign_in(client: Client, **data: str) -> str:
    response = client.post("/login/", {"username": "grace", "password": PASSWORD} | data)
    assert response.status_code == 302, response.content.decode()
    return str(response["Location"])


@pytest.fixture(autouse=True)
def _grace() -> None:
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
