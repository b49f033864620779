"""Every page there is, in a real browser: axe finds nothing serious on it, at 360 px nothing hangs over the edge, and whatever
strangers put into the rows stays text.

The pages are those of `jetrelay.dashboard.urls` that can be opened. `test_members.py` walks the same URLs as everybody.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.urls import reverse

from jetrelay.dashboard import urls
from tests.browser import PASSWORD, browser_marks, chromium, sign_in
from tests.hostile_rows import OVERRIDE, Rows, make_hostile_rows
from tests.test_members import METHODS, every_pattern

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

# A fixture.
__all__ = ["chromium"]
pytestmark = browser_marks

SERIOUS = ("serious", "critical")
# A piece of a page, a file, and what leads elsewhere.
NO_PAGES = re.compile("_fragment$|_body$")


def addresses(rows: Rows) -> Iterator[str]:
    """Of every page, and of some with filters in them."""
    for pattern in every_pattern(urls.urlpatterns):
        name = str(pattern.name)
        if "get" in METHODS[name] and not NO_PAGES.search(name):
            yield reverse(name, kwargs={key: rows.named_by(converter) for key, converter in pattern.pattern.converters.items()})
    yield from ("/?span=week", "/deliveries/?state=dead", "/deliveries/?state=%3Cscript%3E", f"/events/?subject={OVERRIDE}", "/replays/new/?action=replay")
    yield from (reverse("inbox", args=[rows.inbox.token]), "/login/", "/welcome/MQ/x/", "/nowhere/", "/api/docs/")


@pytest.fixture(params=[("light", 1280), ("dark", 360)], ids=["light-wide", "dark-narrow"])
def page(request: pytest.FixtureRequest, chromium: "Browser", live_server: Any) -> "Iterator[Page]":
    cache.clear()
    User.objects.create_superuser("ada", password=PASSWORD)
    scheme, width = request.param
    context = chromium.new_context(base_url=live_server.url, color_scheme=scheme, viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto("/login/")
    sign_in(page, "ada")
    page.get_by_role("heading", name="Overview").wait_for()
    yield page
    context.close()


def test_every_page_is_accessible_fits_and_runs_nothing_of_strangers(page: "Page") -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{page.url}: {message.text}") if message.type == "error" and "404" not in message.text else None)
    page.on("dialog", lambda dialog: complaints.append(f"{page.url}: {dialog.message}"))
    judge, wrong = axe.Axe(), list[str]()
    for url in addresses(make_hostile_rows()):
        page.goto(url)
        if url == "/api/docs/":
            # Made by its script, once it has read the document.
            page.locator(".swagger-ui .opblock-tag").first.wait_for()
        # Folded parts are part of the page.
        page.evaluate("document.querySelectorAll('main details').forEach(each => { each.open = true })")
        for found in judge.run(page).response["violations"]:
            if found["impact"] in SERIOUS:
                wrong.append(f"{url}: {found['id']}: {found['nodes'][0]['html'][:200]} ({len(found['nodes'])})")
        if (over := page.evaluate("document.documentElement.scrollWidth - innerWidth")) > 0:
            wrong.append(f"{url}: {over} px too wide")
        if page.title() == "owned":
            wrong.append(f"{url}: ran a stranger's script")
        if page.locator("main script:not([src^='/static/']), main img[src='x'], main [href^='javascript:' i], main [onerror]").count():
            wrong.append(f"{url}: strangers' markup is markup")
    assert wrong + complaints == []
