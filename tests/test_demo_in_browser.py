"""The demo as a person uses it: real processes, a real stream, a real browser and a receiver that fails at first.

With script everything is done by keyboard; without it by links, buttons and reloads.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import CHROMIUM, expect, sync_playwright
from tests.receiver import Handler, Received, Receiver
from tests.whole import engines, up

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.whole, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

FAILS = 3
SLOW = 30_000


class Person:
    """Somebody at the pages. With script they use the keyboard alone, without it the mouse, and reload what does not renew itself."""

    def __init__(self, page: "Page", script: bool) -> None:
        self.page, self.script = page, script

    def press(self, control: "Locator") -> None:
        """Use a link or a button."""
        if not self.script:
            control.click()
            return
        self.go_to(control)
        self.page.keyboard.press("Enter")

    def write(self, field: "Locator", text: str) -> None:
        if not self.script:
            field.fill(text)
            return
        self.go_to(field)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def go_to(self, control: "Locator") -> None:
        """By Tab, as far as it takes."""
        control.wait_for()
        for _ in range(150):
            if control.evaluate("each => each === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {control}")

    def open(self, name: str) -> None:
        """A page, by its link at the top."""
        self.press(self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True))
        self.loaded(name)

    def loaded(self, heading: str) -> None:
        """Wait for the page with this heading, its scripts included."""
        self.page.get_by_role("heading", level=1, name=heading).wait_for()
        self.page.wait_for_load_state()

    def sees(self, where: str, words: str | re.Pattern[str], *, renews: bool = True) -> None:
        """Wait until it says so there; by itself, or after reloads."""
        if self.script and renews:
            expect(self.page.locator(where)).to_contain_text(words, timeout=SLOW)
            return
        for _ in range(60):
            try:
                expect(self.page.locator(where)).to_contain_text(words, timeout=500)
            except AssertionError:
                self.page.reload()
            else:
                return
        expect(self.page.locator(where)).to_contain_text(words)


class Moody:
    """Echoes challenges, and answers the next so many deliveries with 500."""

    def __init__(self) -> None:
        self.fails = self.failed = 0

    def __call__(self, handler: Handler, received: Received) -> None:
        body = json.loads(received.body)
        if isinstance(body, dict) and "challenge" in body:
            handler.reply(200, body["challenge"].encode())
        elif self.failed < self.fails:
            self.failed += 1
            handler.reply(500, b"out of order")
        else:
            handler.reply(200)


@pytest.fixture(params=[True, False], ids=["by keyboard", "without script"])
def person(request: pytest.FixtureRequest) -> "Iterator[Person]":
    with sync_playwright() as playwright:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_context(java_script_enabled=request.param).new_page()
        page.set_default_timeout(SLOW)
        yield Person(page, request.param)
        browser.close()


def test_it_leads_from_the_first_sign_in_to_a_replay(person: Person, tmp_path: Path) -> None:
    page = person.page
    with engines("embedded", tmp_path / "data") as env, Receiver() as receiver:
        mood = receiver.answer = Moody()
        with up(env | {"JETRELAY_ALLOWED_NETWORKS": "127.0.0.0/8"}, tmp_path / "up.log", "--demo") as program:
            password = program.wait_for_output(r"Sign in as admin with the password (\S+)")[1]
            site = program.wait_for_output(r"Jetrelay is running: (http://\S+/)")[1]

            page.goto(site)
            person.write(page.get_by_label("Username"), "admin")
            person.write(page.get_by_label("Password"), password)
            person.press(page.get_by_role("button", name="Sign in"))

            person.loaded("Overview")
            watch_events_arrive(person)
            find_an_event(person)
            make_an_endpoint(person, receiver)
            mood.fails = FAILS
            receiver.wait_for(lambda _: mood.failed == FAILS, timeout_s=60)
            replay_a_dead_letter(person)
            rotate_the_secret(person, password)
            cancel_a_bulk_replay(person)


def watch_events_arrive(person: Person) -> None:
    person.sees("#events-received", re.compile(r"[1-9]"))
    seen = person.page.locator("#events-received").inner_text()
    person.sees("#events-received", re.compile(rf"^(?!{re.escape(seen)}$)[\d,]+$"))


def find_an_event(person: Person) -> None:
    page = person.page
    person.open("Events")
    if person.script:
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.matches('[data-search]')")
        page.keyboard.press("Escape")
    person.write(page.get_by_label("Collection or type"), "app.bsky.feed.*")
    person.press(page.get_by_role("button", name="Show"))
    page.wait_for_url("**/events/?*type=app.bsky.feed.**")
    page.wait_for_load_state()
    row = page.locator("[data-row]").first
    expect(row).to_contain_text("app.bsky.feed.")
    if person.script:
        page.keyboard.press("j")
        page.keyboard.press("Enter")
    else:
        row.get_by_role("link").first.click()
    page.wait_for_url("**/events/evt_*/")
    person.sees("main", re.compile("Delivered at .*, at attempt 1"))
    page.go_back()
    expect(page.get_by_label("Collection or type")).to_have_value("app.bsky.feed.*")


def make_an_endpoint(person: Person, receiver: Receiver) -> None:
    page = person.page
    person.open("Endpoints")
    person.press(page.get_by_role("link", name="New endpoint"))
    person.write(page.get_by_label("URL"), receiver.url)
    person.write(page.get_by_label("Name"), "Mine")
    person.write(page.get_by_label("Collections, or types of posted events"), "app.bsky.feed.post")
    if not person.script:
        person.press(page.get_by_role("button", name="Preview"))
    expect(page.locator("main")).to_contain_text(re.compile(r"[1-9]\d* of the .* events"))
    person.press(page.get_by_role("button", name="Make the endpoint"))
    expect(page.locator("main")).to_contain_text("whsec_")
    person.open("Endpoints")
    person.press(page.get_by_role("link", name="Mine", exact=True))
    person.press(page.get_by_role("link", name="Edit", exact=True))
    person.press(page.locator("summary", has_text="Retries"))
    person.write(page.get_by_label("Retry schedule"), "[]")
    person.press(page.get_by_role("button", name="Save"))
    person.loaded("Mine")


def replay_a_dead_letter(person: Person) -> None:
    page = person.page
    person.open("Deliveries")
    person.press(page.get_by_role("link", name="Dead letters", exact=True))
    person.loaded("Dead letters")
    person.sees("main", "500 Internal Server Error", renews=False)
    row = page.locator("tr[data-row]").first
    dead = str(row.get_attribute("id"))
    if person.script:
        page.keyboard.press("j")
        page.keyboard.press("r")
        expect(page.locator(f"[id={dead}]")).to_contain_text(re.compile("Pending|Delivered"))
        page.keyboard.press("k")
    else:
        row.get_by_role("button", name="Replay").click()
    page.goto(page.url.partition("/deliveries/")[0] + f"/deliveries/{dead}/")
    person.sees("#delivery .standing", "Delivered")
    expect(page.locator(".attempts")).to_contain_text("500 Internal Server Error")
    expect(page.locator(".attempts")).to_contain_text("200 OK")


def rotate_the_secret(person: Person, password: str) -> None:
    page = person.page
    person.press(page.locator("#delivery").get_by_role("link", name="Mine", exact=True))
    person.press(page.get_by_role("link", name="Rotate the signing secret"))
    person.write(page.get_by_label("password", exact=False), "not the password")
    person.press(page.get_by_role("button", name="Rotate the secret"))
    expect(page.locator("main .errorlist")).to_be_visible()
    person.write(page.get_by_label("password", exact=False), password)
    person.press(page.get_by_role("button", name="Rotate the secret"))
    expect(page.locator("main")).to_contain_text("whsec_")


def cancel_a_bulk_replay(person: Person) -> None:
    page = person.page
    person.open("Replays")
    person.press(page.get_by_role("link", name="New replay"))
    person.press(page.get_by_role("button", name="Count"))
    expect(page.locator("#matches")).to_contain_text("match")
    person.write(page.get_by_label("Deliveries per second, at most"), "1")
    person.press(page.get_by_role("button", name="Replay them"))
    page.wait_for_url("**/replays/rpl_*/")
    person.sees("main", re.compile(r"[1-9]\d* of "))
    person.press(page.get_by_role("button", name=re.compile("^Cancel")))
    person.sees("main", "Cancelled")
