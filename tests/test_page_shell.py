"""What all pages share, in a real browser: the keyboard, the colours, and what is said when a page cannot renew itself."""

import re
from typing import TYPE_CHECKING

import pytest
from django.test import Client
from django.utils import timezone

from delivery.models import Delivery, EventTally
from tests.browser import browser_marks, chromium, complaints, expect, page, script
from tests.builders import make_delivery, make_source

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Fixtures.
__all__ = ["chromium", "complaints", "page", "script"]
pytestmark = browser_marks

with_script = pytest.mark.parametrize("script", [True], ids=["script"])
without_script = pytest.mark.parametrize("script", [False], ids=["no-script"])


def focused(page: "Page") -> str:
    return str(page.evaluate("document.activeElement.id"))


@with_script
def test_the_keyboard_walks_the_rows_and_opens_one(page: "Page") -> None:
    older, newer = make_delivery(), make_delivery()
    page.goto("/deliveries/")
    page.keyboard.press("j")
    assert focused(page) == f"to-{newer.public_id}"
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert focused(page) == f"to-{older.public_id}"
    page.keyboard.press("k")
    assert focused(page) == f"to-{newer.public_id}"
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/deliveries/{newer.public_id}/")


@with_script
def test_r_replays_the_row_that_was_gone_to_and_no_other(page: "Page") -> None:
    rows = [make_delivery(state=Delivery.State.DEAD) for _ in range(2)]
    page.goto("/deliveries/?state=dead")
    # No row is chosen yet.
    page.keyboard.press("r")
    page.keyboard.press("j")
    page.keyboard.press("r")
    expect(page.locator(f"[id={rows[1].public_id}]")).to_contain_text("Pending")
    assert [row.refreshed().state for row in rows] == [Delivery.State.DEAD, Delivery.State.PENDING]


@with_script
def test_r_replays_the_delivery_of_a_page(page: "Page") -> None:
    row = make_delivery(state=Delivery.State.DEAD)
    page.goto(f"/deliveries/{row.public_id}/")
    page.keyboard.press("r")
    expect(page.locator("#delivery .standing")).to_contain_text("Pending")


@with_script
def test_the_slash_goes_to_the_search_where_letters_are_letters(page: "Page") -> None:
    make_delivery()
    page.goto("/deliveries/")
    page.keyboard.press("/")
    page.keyboard.type("jkr?/")
    expect(page.locator("[data-search]")).to_have_value("jkr?/")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert focused(page).startswith("to-dlv_")


@with_script
def test_the_question_mark_says_which_keys_there_are(page: "Page") -> None:
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()


@without_script
def test_nothing_is_offered_that_needs_script(page: "Page") -> None:
    expect(page.get_by_role("button", name=re.compile("Keyboard"))).to_be_hidden()


def test_the_colours_stay_as_they_were_chosen(page: "Page") -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.goto("/deliveries/?state=dead")
    page.get_by_role("button", name="Dark").click()
    expect(page).to_have_url(re.compile(r"/deliveries/\?state=dead$"))
    dark = page.evaluate(ground)
    page.goto("/")
    assert light != dark == page.evaluate(ground)
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="As the system").click()
    assert page.evaluate(ground) == light


@with_script
def test_it_says_that_it_cannot_renew_itself_and_recovers(page: "Page", complaints: list[str]) -> None:
    page.route("**/overview/events/", lambda route: route.abort())
    expect(page.locator("#trouble")).to_contain_text("cannot reach Jetrelay")
    page.unroute("**/overview/events/")
    EventTally.objects.create(source=make_source(), minute=timezone.now(), kind="commit", type="a.b.c", received=9, stored=9)
    expect(page.locator("#events-received")).to_have_text("9")
    expect(page.locator("#trouble")).to_be_hidden()
    assert any("ERR_FAILED" in each for each in complaints)
    complaints.clear()


@with_script
def test_the_table_behind_a_chart_stays_open(page: "Page") -> None:
    page.locator("#chart-events-table summary").click()
    with page.expect_response("**/overview/charts/**", timeout=30_000):
        pass
    expect(page.locator("#chart-events-table table")).to_be_visible()


@pytest.mark.django_db
def test_a_colour_that_there_is_not_changes_nothing_and_nobody_is_led_away(client: Client) -> None:
    response = client.post("/theme/", {"theme": "pink", "next": "https://elsewhere.example/"})
    assert (response.status_code, response["Location"], "theme" in response.cookies) == (302, "/", False)
    assert client.get("/theme/").status_code == 405
