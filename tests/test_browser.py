"""The pages in a real browser, with script and without. Skipped where Chromium or Playwright is missing."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.utils import timezone
from standardwebhooks import Webhook

from delivery.models import Delivery, EventTally, Replay, StreamHost
from delivery.replay.running import step
from jetrelay.inbox.models import Inbox
from tests.browser import PASSWORD, browser_marks, chromium, complaints, expect, page, script, sign_in
from tests.builders import (
    make_attempt,
    make_delivery,
    make_endpoint,
    make_gap,
    make_health,
    make_host,
    make_member,
    make_rejected,
    make_replay,
    make_source,
    make_tenant,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Fixtures.
__all__ = ["chromium", "complaints", "page", "script"]
pytestmark = browser_marks


def test_it_keeps_the_overview_up_to_date(page: "Page", script: bool) -> None:
    expect(page.locator("#commits-processed")).to_have_text("0")
    if script:
        page.evaluate("document.title = 'the same page'")
    EventTally.objects.create(source=make_source(), minute=timezone.now(), kind="commit", type="a.b.c", received=9, stored=7, unmatched=2)
    if not script:
        page.reload()
    expect(page.locator("#commits-processed")).to_have_text("7")
    expect(page.locator("#collections")).to_contain_text("a.b.c")
    if script:
        assert page.title() == "the same page"


def test_it_replays_a_delivery_from_its_page(page: "Page", script: bool) -> None:
    row = make_delivery(state=Delivery.State.DEAD, attempt_count=1)
    make_attempt(delivery=row, status=500, response_body=b"broken")
    page.get_by_role("link", name="Deliveries", exact=True).first.click()
    page.click(f"[id={row.public_id}] a")
    expect(page.locator("#delivery .standing")).to_contain_text("Dead")
    page.click("text=What the receiver answered")
    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.locator("#delivery .standing")).to_contain_text("Pending")
    assert row.refreshed().state == Delivery.State.PENDING
    if script:
        # What the reader opened stays open, and the next attempt appears by itself.
        make_attempt(delivery=row, number=2)
        Delivery.objects.update(state=Delivery.State.DELIVERED, attempt_count=2)
        expect(page.locator("#delivery .standing")).to_contain_text("Delivered")
        expect(page.locator(".attempts")).to_contain_text("200 OK")
        expect(page.get_by_text("broken")).to_be_visible()


def test_it_replays_a_delivery_from_the_list(page: "Page", script: bool) -> None:
    row = make_delivery(state=Delivery.State.DEAD)
    page.goto("/deliveries/?state=dead")
    page.get_by_role("button", name=re.compile("^Replay dlv_")).click()
    if script:
        expect(page.locator(f"[id={row.public_id}]")).to_contain_text("Pending")
    else:
        expect(page.locator(".note")).to_contain_text("Back in the queue")
    assert row.refreshed().state == Delivery.State.PENDING


def test_it_replays_all_that_match_and_follows_the_progress(page: "Page", script: bool) -> None:
    rows = [make_delivery(state=Delivery.State.DEAD) for _ in range(2)]
    page.get_by_role("link", name="Deliveries", exact=True).first.click()
    page.click("text=Dead letters")
    page.click("#replay-all")
    expect(page.locator("#matches")).to_have_text("2 match")
    page.get_by_label("Deliveries per second, at most").fill("1")
    page.click("text=Replay them")
    expect(page.locator("#replay")).to_contain_text("0 of 2")
    replay = Replay.objects.get()
    step(replay.pk, replay.next_at)
    if not script:
        page.reload()
    expect(page.locator("#replay")).to_contain_text("1 of 2")
    expect(page.get_by_role("progressbar")).to_have_attribute("value", "50")
    page.click(f"#cancel-{replay.public_id}")
    expect(page.locator("#replay")).to_contain_text("Cancelled by ada")
    page.click("#to-replays")
    expect(page.locator("#replays")).to_contain_text("1 of 2")
    expect(page.locator("#replays")).to_contain_text("Cancelled")
    assert [row.refreshed().state for row in rows] == [Delivery.State.PENDING, Delivery.State.DEAD]


def test_it_replays_and_dismisses_what_is_ticked(page: "Page", script: bool) -> None:
    rows = [make_delivery(state=Delivery.State.DEAD) for _ in range(3)]
    page.goto("/deliveries/?state=dead&type=app.*")
    page.get_by_label(f"Select {rows[0].public_id}").check()
    if script:
        every = page.get_by_label("All on this page")
        expect(every).not_to_be_checked()
        assert every.evaluate("box => box.indeterminate")
        every.check()
        page.get_by_label(f"Select {rows[1].public_id}").uncheck()
        expect(every).not_to_be_checked()
        page.get_by_label(f"Select {rows[0].public_id}").uncheck()
    else:
        page.get_by_role("link", name="Select all on this page").click()
        for row in rows[:2]:
            page.get_by_label(f"Select {row.public_id}").uncheck()
    page.get_by_role("button", name="Replay selected…").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Replay 1 delivery?")
    page.go_back()
    page.get_by_role("button", name="Replay selected…").click()
    page.get_by_role("button", name="Replay 1").click()
    expect(page.locator(".note.success")).to_contain_text("1 back in the queue")
    # With the filters, and with nothing ticked any more.
    assert page.url.endswith("/deliveries/?state=dead&type=app.%2A")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label(f"Select {rows[0].public_id}").check()
    page.get_by_role("button", name="Dismiss selected…").click()
    page.get_by_role("button", name="Dismiss", exact=False).click()
    expect(page.locator(".note.success")).to_contain_text("1 dismissed")
    assert [row.refreshed().state for row in rows] == [Delivery.State.CANCELLED, Delivery.State.DEAD, Delivery.State.PENDING]


def test_it_keeps_focus_and_what_is_open_while_a_delivery_renews_itself(page: "Page", script: bool) -> None:
    if not script:
        return
    row = make_delivery(attempt_count=1, due_at=timezone.now() + timedelta(hours=1))
    attempt = make_attempt(delivery=row, status=500, response_body=b"broken")
    page.goto(f"/deliveries/{row.public_id}/")
    summary = page.get_by_text("What the receiver answered")
    summary.click()
    expect(summary).to_be_focused()
    with page.expect_response("**/state/", timeout=20_000):
        make_attempt(delivery=row, number=2, status=502)
    expect(page.locator(".attempts")).to_contain_text("502")
    expect(page.get_by_text("broken")).to_be_visible()
    expect(page.locator(f"[id=answer-{attempt.public_id}]")).to_be_focused()


def test_it_copies_the_request_as_a_command(page: "Page", script: bool) -> None:
    attempt = make_attempt(delivery=make_delivery(state=Delivery.State.DEAD))
    page.goto(f"/deliveries/{attempt.delivery.public_id}/")
    page.click(f"[id=to-{attempt.public_id}]")
    expect(page.locator("#command")).to_contain_text("curl --globoff --request POST https://receiver.example/hook")
    copy = page.locator("button[data-copies=command]")
    expect(copy).to_be_visible(visible=script)
    if script:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        copy.click()
        expect(copy).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == page.locator("#command").text_content()
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == f"{attempt.public_id}.body"
    assert download.value.path().read_bytes() == bytes(attempt.delivery.event.body)


def test_it_shows_what_arrives_in_an_inbox(page: "Page", script: bool) -> None:
    inbox = Inbox.objects.create(endpoint=make_endpoint())
    page.goto(f"/inbox/{inbox.token}")
    expect(page.locator("#messages")).to_contain_text("Nothing has arrived yet")
    now, body = datetime.now(UTC), '{"kind": "identity"}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(inbox.endpoint.secret).sign("msg_1", now, body),
    }
    assert page.request.post(f"/inbox/{inbox.token}", data=body, headers=headers).ok
    if not script:
        page.reload()
    expect(page.locator("#messages")).to_contain_text("Verified")
    expect(page.locator("#messages")).to_contain_text("identity")


def test_it_keeps_the_stream_up_to_date(page: "Page", script: bool) -> None:
    row = make_host(events=1)
    page.click("text=Stream")
    expect(page.locator(f"#host-{row.pk}")).to_contain_text("Stream connected")
    if script:
        # What is being written stays while the hosts above it are renewed.
        page.click("#rewind summary")
        page.fill("#rewind-to", "2026-11-20T10:00:07")
    StreamHost.objects.update(events=1234, seen_at=timezone.now())
    if not script:
        page.reload()
    expect(page.locator(f"#host-{row.pk}")).to_contain_text("1,234")
    if script:
        expect(page.locator("#rewind-to")).to_have_value("2026-11-20T10:00:07")


def test_it_keeps_a_rejected_frame_open_while_it_refreshes(page: "Page", script: bool) -> None:
    make_rejected(head=b"what it was")
    page.goto("/stream/")
    page.click("#rejected summary")
    expect(page.get_by_text("what it was")).to_be_visible()
    if script:
        before = page.evaluate("window.scrollTo(0, 40); window.scrollY")
        with page.expect_response("**/stream/rejected/", timeout=20_000):
            make_rejected(reason="a second one")
        expect(page.locator("#rejected")).to_contain_text("a second one", timeout=20_000)
        expect(page.get_by_text("what it was")).to_be_visible()
        assert page.evaluate("window.scrollY") == before


def test_it_moves_a_cursor_back_by_click(page: "Page") -> None:
    row = make_host(host="wss://one.example/subscribe")
    make_host(reached_at=timezone.now() - timedelta(days=1))
    to = timezone.now().replace(microsecond=0) - timedelta(hours=1)
    page.goto("/stream/")
    page.click("#rewind summary")
    page.fill("#rewind-to", f"{to:%Y-%m-%dT%H:%M:%S}")
    page.click("text=Move the cursor back")
    expect(page.locator("#rewind .errorlist")).to_contain_text("moving it ahead would leave a gap")
    page.select_option("#rewind-host", label="wss://one.example/subscribe")
    page.click("text=Move the cursor back")
    expect(page.locator(".note.success")).to_contain_text("Asked to read 1 host again")
    expect(page.locator(f"#host-{row.pk}")).to_contain_text("has been asked for")
    assert StreamHost.objects.get(pk=row.pk).rewind_to == to


def test_it_pauses_and_resumes_an_endpoint_by_click(page: "Page", script: bool) -> None:
    endpoint = make_health(endpoint=make_endpoint(name="Mine")).endpoint
    page.click("text=Endpoints")
    row = page.locator(f"[id={endpoint.public_id}]")
    expect(row).to_contain_text("Breaker open until")
    for button, notice, badge in [("Reset breaker", "breaker reset", "recovering: 1 at once"), ("Pause", "paused", "Paused"), ("Resume", "resumed", "Active")]:
        row.get_by_text(button, exact=True).click()
        expect(page.locator(".note.success")).to_contain_text(f"Mine: {notice}.")
        expect(row).to_contain_text(badge)
    assert endpoint.refreshed().state == "active"


def test_a_member_signs_in_sees_what_is_theirs_and_replays_it(page: "Page", script: bool) -> None:
    mine = make_delivery(state=Delivery.State.DEAD, endpoint=make_endpoint(name="Mine"))
    other = make_delivery(state=Delivery.State.DEAD, endpoint=make_endpoint(name="Other", tenant=make_tenant(slug="other")))
    make_member(mine.endpoint.tenant, username="grace", password=PASSWORD)
    page.click(".menu summary")
    page.get_by_role("button", name="Sign out").click()
    page.goto("/deliveries/?state=dead")
    sign_in(page, "grace")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(f"[id={mine.public_id}]")).to_contain_text("Mine")
    expect(page.get_by_text("Other")).to_have_count(0)
    expect(page.get_by_role("link", name="Admin")).to_have_count(0)
    page.get_by_role("button", name=re.compile("^Replay dlv_")).click()
    expect(page.locator(f"[id={mine.public_id}]" if script else ".note")).to_contain_text("Back in the queue")
    assert [row.refreshed().state for row in (mine, other)] == [Delivery.State.PENDING, Delivery.State.DEAD]


def test_an_owner_makes_a_key_and_lets_somebody_in(page: "Page", script: bool, chromium: "Browser", live_server: Any) -> None:
    make_tenant()
    page.goto("/keys/")
    page.get_by_role("link", name="New key").click()
    page.get_by_label("Name").fill("billing")
    page.get_by_label("post events").check()
    page.get_by_role("button", name="Make the key").click()
    assert (page.locator("#secret").text_content() or "").startswith("jr_")
    assert page.get_by_role("button", name="Copy").is_visible() is script
    page.goto("/members/")
    page.get_by_role("link", name="Add somebody").first.click()
    page.get_by_label("Somebody new").check()
    page.get_by_label("Username").fill("alan")
    page.get_by_role("button", name="Add").click()
    link = page.locator("#secret").text_content() or ""
    visitor = chromium.new_context(base_url=live_server.url, java_script_enabled=script).new_page()
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.headers.get("referer", "")))
    visitor.goto(link)
    # Neither the address of the page nor what it asks for gives the token away.
    assert visitor.url.endswith("/set-password/")
    visitor.get_by_label("New password", exact=True).fill(PASSWORD)
    visitor.get_by_label("New password confirmation").fill(PASSWORD)
    visitor.get_by_role("button", name="Set the password").click()
    visitor.get_by_role("heading", name="Overview").wait_for()
    assert visitor.get_by_text("Your password is set").is_visible()
    assert [referrer for referrer in asked if link.rstrip("/").rpartition("/")[2] in referrer] == []
    visitor.context.close()
    page.goto("/audit/")
    page.get_by_role("cell", name="account.welcome").wait_for()


def test_it_shows_the_reference_of_the_api(page: "Page", script: bool) -> None:
    page.goto("/api/docs/")
    if not script:
        # What the script would draw can be read as it is.
        expect(page.get_by_role("link", name="the OpenAPI document", exact=True)).to_have_attribute("href", "/api/schema")
        return
    page.get_by_text("Posting events, reading them").click()
    page.locator("#operations-events-post_event button.opblock-summary-control").click()
    expect(page.locator("#operations-events-post_event")).to_contain_text("Takes the scope events:write")
    expect(page.locator("#operations-events-post_event")).to_contain_text("order-4711-paid")
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_it_signs_out(page: "Page") -> None:
    page.click(".menu summary")
    page.get_by_role("button", name="Sign out").click()
    page.goto("/deliveries/")
    assert "/login/?next=/deliveries/" in page.url


def test_it_fits_a_narrow_screen(page: "Page", script: bool) -> None:
    row = make_delivery(endpoint=make_endpoint(name="x" * 100, url="https://example.com/" + "y" * 200))
    make_health(endpoint=row.endpoint, reason="r" * 300)
    far = "wss://" + "h" * 200 + ".example/subscribe"
    make_host(host=far, partial=[{"collection": "c" * 300, "brought_by": far, "since": "2026-11-22T10:00:00+00:00", "missed": 1}], problem="p" * 300)
    make_gap(host=far, reason="r" * 200)
    make_rejected(host=far, reason="r" * 300, head=b"b" * 4096)
    page.set_viewport_size({"width": 360, "height": 800})
    attempt = make_attempt(delivery=make_delivery(endpoint=row.endpoint, state=Delivery.State.DEAD), batch=row.pk, response_headers="h" * 4096)
    replay = make_replay(endpoint=row.endpoint, created_by="b" * 150, collections=["c" * 300])
    of_attempt = f"/deliveries/{attempt.delivery.public_id}/attempts/{attempt.public_id}/"
    of_one = of_attempt.replace(attempt.public_id, make_attempt(delivery=attempt.delivery).public_id)
    selected = f"/deliveries/selected/?delivery={attempt.delivery.public_id}"
    ours = ("/deliveries/?state=dead&type=" + "t" * 300, of_attempt, of_one, selected, "/replays/", f"/replays/{replay.public_id}/")
    for url in (*ours, "/", "/stream/", "/deliveries/", f"/deliveries/{row.public_id}/", "/endpoints/", "/login/?next=/" + "n" * 300):
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, url
    User.objects.update(is_superuser=False, username="u" * 150)
    page.goto("/")
    expect(page.get_by_role("heading", name="not a member of a tenant")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
