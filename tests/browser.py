"""A real browser for the tests of the pages. Chromium is the system's own; tests skip where it or Playwright is missing."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    expect, sync_playwright = playwright.expect, playwright.sync_playwright

__all__ = ["CHROMIUM", "PASSWORD", "REFUSED", "browser_marks", "chromium", "complaints", "expect", "page", "script", "sign_in", "sync_playwright"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PASSWORD = "a-long-password"
# What a browser notes of a page that is a 403, as the one for users without a tenant.
REFUSED = "status of 403"

# Each test of the pages wants these two marks: `pytestmark = browser_marks`.
browser_marks = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def chromium(django_db_setup: None) -> "Iterator[Browser]":
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # Playwright runs an event loop in this thread, which Django takes for asynchronous code.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=[True, False], ids=["script", "no-script"])
def script(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def complaints() -> list[str]:
    """What the browser found wrong with the page. A test that makes something go wrong clears it."""
    return []


@pytest.fixture
def page(script: bool, chromium: "Browser", live_server: Any, complaints: list[str]) -> "Iterator[Page]":
    """A page of someone who has just signed in. Nothing may be refused by the policy or fail on the way."""
    cache.clear()
    User.objects.create_superuser("ada", password=PASSWORD)
    context = chromium.new_context(base_url=live_server.url, java_script_enabled=script)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") and REFUSED not in message.text else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/")
    sign_in(page, "ada")
    page.get_by_role("heading", name="Overview").wait_for()
    # Its scripts run once all of it is there.
    page.wait_for_load_state()
    yield page
    context.close()
    assert complaints == []


def sign_in(page: "Page", username: str) -> None:
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
