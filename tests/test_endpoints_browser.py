"""The pages of endpoints in a real browser, with script and without."""

import json
from typing import TYPE_CHECKING

from django.utils import timezone

from delivery.models import AttemptTally
from subscriptions.models import Endpoint
from tests.browser import PASSWORD, browser_marks, chromium, complaints, expect, page, script
from tests.builders import make_endpoint, make_event, make_source, make_tenant
from tests.receiver import Handler, Received, Receiver

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Fixtures.
__all__ = ["chromium", "complaints", "page", "script"]
pytestmark = browser_marks


def echo(handler: Handler, received: Received) -> None:
    handler.reply(200, json.dumps({"challenge": json.loads(received.body).get("challenge")}).encode())


def test_it_makes_an_endpoint_and_shows_first_what_it_would_get(page: "Page", script: bool, receiver: Receiver) -> None:
    receiver.answer = echo
    make_source()
    make_tenant()
    for type in ("app.bsky.feed.like", "app.bsky.feed.like", "app.bsky.graph.follow"):
        make_event(type=type)
    page.goto("/endpoints/")
    page.click("#to-new")
    page.get_by_label("URL").fill(receiver.url)
    page.get_by_label("Collections").fill("app.bsky.feed.*")
    if not script:
        page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("2 of the newest 3 stored events")
    page.get_by_label("Delete", exact=True).check()
    if script:
        expect(page.locator("#preview")).to_contain_text("0 of the newest 3 stored events")
    page.get_by_label("Delete", exact=True).uncheck()
    expect(page.get_by_label("URL")).to_have_value(receiver.url)
    page.get_by_role("button", name="Make the endpoint").click()
    expect(page.get_by_text("The endpoint is active now.")).to_be_visible()
    made = Endpoint.objects.get()
    expect(page.get_by_text(made.secret)).to_be_visible()
    page.click("#to-endpoint")
    expect(page.get_by_role("heading", name="127.0.0.1")).to_be_visible()
    expect(page.locator(".subscription")).to_contain_text("app.bsky.feed.*")


def test_a_secret_hides_itself(page: "Page", script: bool) -> None:
    endpoint = make_endpoint()
    if script:
        page.clock.install()
    page.goto(f"/endpoints/{endpoint.public_id}/")
    page.click("#to-rotate")
    page.get_by_label("Your password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator(".errorlist")).to_contain_text("This is not your password.")
    page.get_by_label("Your password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="The new signing secret").wait_for()
    secret = page.get_by_text(endpoint.refreshed().secret)
    expect(secret).to_be_visible()
    if script:
        page.clock.run_for(29_000)
        expect(secret).to_be_visible()
        page.clock.run_for(2_000)
        expect(secret).to_have_count(0)
        expect(page.locator("[data-hides-s]")).to_have_text("Hidden again.")
    else:
        # The browser's own clock leads away: that it was told so is seen in `test_reveal.py`.
        expect(page.locator('meta[http-equiv="refresh"]')).to_have_count(1)


def test_figures_renew_themselves_while_somebody_fills_in_a_form(page: "Page", script: bool) -> None:
    endpoint = make_endpoint()
    page.goto(f"/endpoints/{endpoint.public_id}/")
    page.get_by_label("Since").fill("2026-11-20T10:00:07")
    AttemptTally.objects.create(endpoint=endpoint, minute=timezone.now(), outcome="delivered", attempts=1234)
    if script:
        expect(page.locator("#doing")).to_contain_text("of 1,234 in the last hour", timeout=20_000)
        expect(page.get_by_label("Since")).to_have_value("2026-11-20T10:00:07")
        expect(page.get_by_label("Since")).to_be_focused()


def test_it_shows_the_answer_to_a_test_event(page: "Page", script: bool, receiver: Receiver) -> None:
    receiver.answer = lambda handler, _: handler.reply(422, b"<b>no such order")
    page.goto(f"/endpoints/{make_endpoint(url=receiver.url).public_id}/")
    page.get_by_role("button", name="Send test").click()
    answer = page.locator("#tried .note" if script else ".note.error").first
    expect(answer).to_contain_text("The answer was 422")
    if script:
        expect(page.locator("#tried pre")).to_have_text("<b>no such order")


def test_it_says_why_a_signature_does_not_fit(page: "Page") -> None:
    page.goto(f"/endpoints/{make_endpoint().public_id}/signature/")
    page.get_by_label("Headers").fill("webhook-id: evt_1\nwebhook-timestamp: 1790000000")
    page.get_by_label("Body", exact=True).fill("{}")
    page.get_by_role("button", name="Check").click()
    expect(page.locator(".findings")).to_contain_text("It is missing.")
    expect(page.get_by_label("Headers")).to_have_value("webhook-id: evt_1\nwebhook-timestamp: 1790000000")
