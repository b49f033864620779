"""The live tail in a real browser: what arrives, what holds it, and what it leaves out."""

from typing import TYPE_CHECKING

import pytest

from jetrelay.dashboard.tail import views
from jetrelay.dashboard.tail.arrivals import MOST_NEW
from tests.browser import browser_marks, chromium, complaints, expect, page, script
from tests.builders import make_delivery, make_event

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Fixtures.
__all__ = ["chromium", "complaints", "page", "script"]
pytestmark = browser_marks

with_script = pytest.mark.parametrize("script", [True], ids=["script"])


def wait_for_a_poll(page: "Page", number: int = 1) -> None:
    for _ in range(number):
        with page.expect_response("**/tail/new/**"):
            pass


def test_it_shows_what_arrives(page: "Page", script: bool) -> None:
    make_event(subject="did:plc:before")
    page.get_by_role("link", name="Live tail").click()
    rows = page.locator("#arrivals > li")
    expect(rows).to_have_count(1)
    if script:
        page.evaluate("document.title = 'the same page'")
    event = make_event(subject="did:plc:new", type="<b>bold</b>\u202e")
    if not script:
        page.click("#newer")
        expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("did:plc:new")
    expect(rows.first).to_contain_text("<b>bold</b>")
    if script:
        assert page.title() == "the same page"
        expect(rows).to_have_count(2)
        wait_for_a_poll(page, 2)
        expect(rows).to_have_count(2)
    page.click(f"#to-{event.public_id}")
    expect(page.get_by_role("heading", name=event.public_id)).to_be_visible()
    page.go_back()
    expect(rows.first).to_contain_text("did:plc:new")


@with_script
def test_it_pauses_and_goes_on(page: "Page") -> None:
    make_event()
    page.goto("/tail/?operation=create")
    rows = page.locator("#arrivals > li")
    expect(rows).to_have_count(1)
    page.click("#turn")
    expect(page.locator("#controls")).to_contain_text("Paused")
    assert page.url.endswith("/tail/?operation=create&paused=1")
    for _ in range(2):
        make_event(subject="did:plc:meanwhile")
    expect(page.locator("#poller")).not_to_have_attribute("hx-trigger", "every 1s")
    expect(rows).to_have_count(1)
    page.click("#turn")
    expect(page.locator("#controls")).to_contain_text("Live")
    expect(rows).to_have_count(3)
    assert page.url.endswith("/tail/?operation=create")
    make_event()
    page.mouse.move(5, 5)
    expect(rows).to_have_count(4)
    page.goto("/tail/?paused=1")
    expect(page.locator("#controls")).to_contain_text("Paused")


@with_script
def test_it_says_what_it_skips_and_keeps_so_many_rows(page: "Page", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_ROWS", MOST_NEW + 5)
    for number in range(10):
        make_event(subject=f"did:plc:old{number}")
    page.goto("/tail/?paused=1")
    rows = page.locator("#arrivals > li")
    expect(rows).to_have_count(10)
    for _ in range(MOST_NEW + 3):
        make_event(subject="did:plc:new")
    page.click("#turn")
    expect(page.locator(".skipped")).to_have_text("3 skipped: too many to show")
    # The new ones, the note, and the newest of the old ones.
    expect(rows).to_have_count(MOST_NEW + 5)
    expect(rows.last).to_contain_text("did:plc:old6")


@with_script
@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_nothing_moves_while_somebody_reads(page: "Page", how: str) -> None:
    first = make_event()
    page.goto("/tail/")
    rows = page.locator("#arrivals > li")
    if how == "mouse":
        rows.first.hover()
    else:
        page.keyboard.press("j")
    make_event(subject="did:plc:new")
    expect(page.locator("#held")).to_be_visible()
    expect(rows).to_have_count(1)
    if how == "keyboard":
        expect(page.locator(f"#to-{first.public_id}")).to_be_focused()
        page.keyboard.press("Escape")
    page.mouse.move(5, 5)
    expect(rows).to_have_count(2)
    expect(page.locator("#held")).to_be_hidden()
    expect(rows.first).to_contain_text("did:plc:new")


def test_it_finds_opens_and_replays_an_event(page: "Page", script: bool) -> None:
    """By keyboard where there is a script that has keys."""
    delivery = make_delivery(state=2, event=make_event(body='{"text": "needle \u202e"}'.encode()))
    make_event()
    page.goto("/events/")
    if script:
        page.keyboard.press("/")
        page.keyboard.type("needle")
        page.keyboard.press("Enter")
    else:
        page.get_by_label("Text in the body").fill("needle")
        page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(1)
    if script:
        page.keyboard.press("j")
        page.keyboard.press("Enter")
    else:
        page.click("tbody a")
    verdict = page.locator(f"#at-{delivery.endpoint.public_id}")
    expect(verdict).to_contain_text("Dead")
    if script:
        page.keyboard.press("j")
        page.keyboard.press("r")
    else:
        verdict.get_by_role("button", name="Replay").click()
    expect(verdict).to_contain_text("Pending")
    assert delivery.refreshed().state == 0
    if script:
        # The verdict renews itself.
        type(delivery).objects.update(state=1, attempt_count=1)
        expect(verdict).to_contain_text("Delivered")


def test_events_fit_a_narrow_screen(page: "Page") -> None:
    far, event = "w" * 300, make_event(type="t" * 300, subject="s" * 2000, origin="wss://" + "h" * 200, operation="o" * 32, body=b"b" * 3000)
    delivery = make_delivery(event=event)
    delivery.endpoint.name = "x" * 100
    delivery.endpoint.save()
    page.set_viewport_size({"width": 360, "height": 800})
    for url in ("/events/", f"/events/?type=app.{far[:50]}&q={far[:200]}&last={far}", f"/events/{event.public_id}/", "/tail/", f"/tail/?after={far}"):
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, url
