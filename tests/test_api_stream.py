"""`/stream`: how the hosts are doing, and what only the operator's keys may ask of them."""

from datetime import timedelta

import pytest
from django.utils import timezone

from delivery.models import StreamHost
from subscriptions.models import AuditEntry
from tests.api import Api, api_of
from tests.builders import make_gap, make_host

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

NOW = timezone.now()


@pytest.fixture
def api() -> Api:
    return api_of()


def test_it_shows_hosts_and_gaps_that_nobody_has_filled(api: Api) -> None:
    live, gone = (
        make_host(host="wss://a.example/subscribe", events_per_s=7.5),
        make_host(host="wss://b.example/subscribe", seen_at=NOW - timedelta(minutes=1), events_per_s=9),
    )
    gap = make_gap(host=live.host)
    make_gap(filled_by=gone.host)
    shown = api.get("stream").json
    assert [(host["host"], host["listening"], host["events_per_s"], host["connected_since"] is None) for host in shown["hosts"]] == [
        (live.host, True, 7.5, False),
        (gone.host, False, 0.0, True),
    ]
    assert [each["id"] for each in shown["open_gaps"]] == [gap.public_id]


def test_hosts_are_connected_to_again(api: Api) -> None:
    one, other = make_host(), make_host()
    assert api.post("stream/reconnect", {"host": one.host}).json == {"hosts": 1}
    assert [StreamHost.objects.get(pk=host.pk).reconnect_asked_at is not None for host in (one, other)] == [True, False]
    assert (api.post("stream/reconnect").status, api.post("stream/reconnect").json) == (202, {"hosts": 2})
    assert [entry.detail for entry in AuditEntry.objects.order_by("id")][:2] == [one.host, "all hosts"]


def test_the_cursor_is_moved_back_and_never_ahead(api: Api) -> None:
    host = make_host(reached_at=NOW - timedelta(minutes=5))
    to = NOW - timedelta(hours=1)
    answer = api.post("stream/cursor", {"to": to.isoformat()})
    assert (answer.status, answer.json, StreamHost.objects.get(pk=host.pk).rewind_to) == (202, {"hosts": 1}, to)
    for wrong in (NOW + timedelta(hours=1), NOW - timedelta(minutes=1)):
        assert api.post("stream/cursor", {"to": wrong.isoformat()}).pointers == ["/to"]


def test_what_cannot_be_asked_says_why(api: Api) -> None:
    make_host()
    for path in ("stream/reconnect", "stream/cursor"):
        for body, pointers in (({"host": "wss://nowhere.example/"}, "/host"), ({"host": 1}, "/host"), ({"host": "a\u0000"}, "/host"), ({"all": True}, "/all")):
            assert pointers in api.post(path, {"to": "2026-01-01T00:00:00Z"} | body if path == "stream/cursor" else body).pointers
    for to in (None, 1, "yesterday", "2026-01-01T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-01"):
        assert api.post("stream/cursor", {"to": to}).pointers == ["/to"]
    assert api.post("stream/cursor").pointers == ["/to"]


def test_only_a_key_that_the_operator_made_may_ask() -> None:
    make_host()
    tenants = api_of(without="stream:write")
    for path in ("stream/reconnect", "stream/cursor"):
        assert tenants.post(path, {"to": "2026-01-01T00:00:00Z"}).problem == (403, "missing_scope")
    assert tenants.post("keys", {"name": "x", "scopes": ["stream:write"]}).pointers == ["/scopes"]
