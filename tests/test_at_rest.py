"""What is stored lets nobody in: sessions, inboxes, keys and links are digests or encrypted wherever they lie."""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from delivery import prune
from jetrelay.api.models import IdempotentRequest
from jetrelay.inbox.models import Inbox, InboxMessage
from jetrelay.sessions import SessionStore, digest_of
from subscriptions import keys, members
from subscriptions.models import ApiKey, AuditEntry, Endpoint, Membership, Tenant
from tests.builders import make_api_key, make_endpoint, make_tenant
from tests.hostile_rows import make_hostile_rows

pytestmark = pytest.mark.django_db

METRICS_TOKEN = "metrics-" + "m" * 32


# --- No string of a dump opens anything ------------------------------------------------------------------------------------


def dump() -> str:
    """All rows of all tables, as `pg_dump` or `sqlite3 .dump` would have them."""
    cells: list[str] = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            cells += [shown(cell) for row in cursor.fetchall() for cell in row if cell is not None]
    return "\n".join(cells)


def shown(cell: Any) -> str:
    if isinstance(cell, bytes | memoryview):
        return f"{bytes(cell).hex()}\n{bytes(cell).decode(errors='replace')}"
    return json.dumps(cell) if isinstance(cell, dict | list) else str(cell)


def strings(text: str) -> set[str]:
    """Its lines, its words, and what is only packed."""
    found = {line for line in text.splitlines() if 5 < len(line) < 2000}
    for pattern in (r"[\w.~+/=-]{6,}", r"[\w-]{6,}", r"[\w:-]{6,}"):
        found |= set(re.findall(pattern, text, re.ASCII))
    for word in list(found):
        for part in (word, *word.split(":")):
            if opened := unpacked(part):
                found |= strings(opened)
    return {each for each in found if each.isascii() and each.isprintable()}


def unpacked(word: str) -> str:
    """What anybody can read of it: base64, and Django's packed sessions."""
    try:
        data = base64.b64decode(word.strip(".").replace("-", "+").replace("_", "/") + "=" * (-len(word.strip(".")) % 4), validate=True)
        data = zlib.decompress(data) if word.startswith(".") else data
        text = data.decode("ascii")
    except (binascii.Error, ValueError, zlib.error):
        return ""
    return text if text.isprintable() and len(text) > 5 else ""


# One for all of them: each would load the whole site anew.
_client = Client()


def asked(method: str, path: str, cookie: str = "", **more: Any) -> int:
    _client.cookies.clear()
    if cookie:
        _client.cookies["sessionid"] = cookie
    return int(getattr(_client, method)(path, **more).status_code)


def opens_pages(word: str) -> bool:
    return asked("get", "/account/", word) == 200


def opens_inbox(word: str) -> bool:
    return asked("get", f"/inbox/{word}") == 200 or asked("post", f"/inbox/{word}", data=b"x", content_type="text/plain") not in (404, 405)


def opens_api(word: str) -> bool:
    keys.forget()
    return asked("get", "/api/v1/endpoints", headers={"Authorization": f"Bearer {word}"}) != 401


def opens_metrics(word: str) -> bool:
    return asked("get", "/metrics", REMOTE_ADDR="203.0.113.9", headers={"Authorization": f"Bearer {word}"}) == 200


def opens_welcome(word: str) -> bool:
    """As the link of anybody here."""
    uids = [urlsafe_base64_encode(force_bytes(pk)) for pk in User.objects.filter(is_superuser=False).values_list("pk", flat=True)]
    return any(asked("get", f"/welcome/{uid}/{word}/") == 302 for uid in uids)


WAYS_IN = (opens_pages, opens_inbox, opens_api, opens_metrics, opens_welcome)
_PATH = re.compile(r"[\w:.~+=-]+")


def tried(word: str) -> Iterator[str]:
    for way_in in WAYS_IN:
        # What a path cannot hold is no path.
        if (way_in not in (opens_inbox, opens_welcome) or _PATH.fullmatch(word)) and way_in(word):
            yield way_in.__name__


@pytest.fixture
def secrets(fresh_api: None, settings: Any, cheap_passwords: None) -> dict[str, str]:
    """Of an installation with rows of every kind: what does open it, by the way in."""
    settings.JETRELAY_METRICS_TOKEN = METRICS_TOKEN
    settings.JETRELAY_METRICS_NETWORKS = []
    tenant = make_hostile_rows().tenant
    User.objects.create_superuser("root", password="a long password")
    client = Client()
    assert client.post("/login/", {"username": "root", "password": "a long password"}).status_code == 302
    # Somebody who opened the link to a first password, and went no further.
    invited = members.add_new(tenant, "invited", Membership.Role.VIEWER).user
    token = default_token_generator.make_token(invited)
    visited = Client()
    assert visited.get(reverse("welcome", args=[urlsafe_base64_encode(force_bytes(invited.pk)), token])).status_code == 302
    _, key = make_api_key(tenant=tenant)
    answered = Client().post(
        "/api/v1/keys",
        json.dumps({"name": "made by a program", "scopes": ["endpoints:read"]}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "once"},
    )
    assert answered.status_code == 201, answered.content
    inbox = Inbox.objects.create(endpoint=make_endpoint(tenant=tenant, bearer_token="t" * 40, extra_headers="X-Api-Key: word"))
    Endpoint.objects.filter(pk=inbox.endpoint_id).update(url=f"http://127.0.0.1:8000{reverse('inbox_of', args=[inbox.endpoint_id])}")
    # With all that a browser might send along.
    sent = {
        "Cookie": f"sessionid={client.cookies['sessionid'].value}",
        "Authorization": f"Bearer {key}",
        "Referer": f"http://localhost/inbox/{inbox.token}",
        "X-Original-Uri": f"/inbox/{inbox.token[:5]}%{ord(inbox.token[5]):x}{inbox.token[6:]}",
    }
    Client().post(f"/inbox/{inbox.token}", b"{}", content_type="application/json", headers=sent)
    assert InboxMessage.objects.exists()
    assert IdempotentRequest.objects.exclude(answer="").exists()
    return {
        "opens_pages": client.cookies["sessionid"].value,
        "opens_inbox": inbox.token,
        "opens_api": key,
        "opens_metrics": METRICS_TOKEN,
        "opens_welcome": token,
        # Others that open the same doors.
        "made_by_program": answered.json()["key"],
    }


def test_each_way_in_opens_to_its_own_secret(secrets: dict[str, str]) -> None:
    for way_in in WAYS_IN:
        assert way_in(secrets[way_in.__name__]), way_in.__name__
    assert opens_api(secrets["made_by_program"])


# Thousands of requests.
@pytest.mark.timeout(300)
def test_no_string_of_a_dump_opens_anything(secrets: dict[str, str]) -> None:
    found = strings(dump())
    assert len(found) > 300
    assert found & set(secrets.values()) == set()
    opened = {word: ways for word in sorted(found) if (ways := list(tried(word)))}
    assert opened == {}


# --- Sessions ---------------------------------------------------------------------------------------------------------------


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def somebody() -> User:
    return User.objects.create_user("somebody", password="a long password")


def test_a_session_is_kept_under_a_digest_and_says_nothing(cheap_passwords: None) -> None:
    client = signed_in(somebody())
    word, row = client.cookies["sessionid"].value, Session.objects.get()
    assert row.session_key == digest_of(word)
    assert len(row.session_key) == 40
    assert row.get_decoded() == {}
    assert SessionStore(word)["_auth_user_id"] == str(User.objects.get().pk)
    assert not SessionStore(row.session_key).load()


def test_a_session_lives_and_ends_as_ever(cheap_passwords: None) -> None:
    user = somebody()
    client = signed_in(user)
    assert client.get("/account/").status_code == 200
    store = SessionStore(client.cookies["sessionid"].value)
    store["seen"] = "yes"
    store.save()
    assert (Session.objects.count(), SessionStore(store.session_key)["seen"]) == (1, "yes")
    before = store.session_key
    store.cycle_key()
    assert (Session.objects.count(), SessionStore(before).load(), SessionStore(store.session_key)["seen"]) == (1, {}, "yes")
    assert (store.exists(store.session_key), store.exists(before)) == (True, False)
    store.flush()
    assert Session.objects.count() == 0


@pytest.mark.parametrize("word", ["", "short", "of-somebody", "x" * 32, "é" * 32, "\0" * 32, "x" * 10_000])
def test_a_session_that_there_is_not_is_nobodys(word: str) -> None:
    store = SessionStore(word)
    assert (store.load(), store.session_key) == ({}, None)


def test_a_session_under_another_secret_key_is_over(cheap_passwords: None, settings: Any) -> None:
    client = signed_in(somebody())
    settings.SECRET_KEY = "another one"
    assert client.get("/account/")["Location"] == "/login/?ended=1&next=/account/"


def test_who_comes_with_a_session_that_is_over_is_told(cheap_passwords: None) -> None:
    client = signed_in(somebody())
    Session.objects.all().delete()
    answer = client.get("/account/")
    assert answer["Location"] == "/login/?ended=1&next=/account/"
    assert b"Your session has ended: sign in again." in client.get(answer["Location"]).content

    # Those who come without one are not.
    answer = Client().get("/account/")
    assert answer["Location"] == "/login/?next=/account/"
    assert b"has ended" not in client.get(answer["Location"]).content


def test_expired_sessions_are_pruned_and_no_others(cheap_passwords: None) -> None:
    kept = signed_in(somebody()).cookies["sessionid"].value
    for number in range(5):
        Session.objects.create(session_key=f"{number}", session_data="", expire_date=timezone.now() - timedelta(seconds=1 + number // 2))
    assert prune.trial().counts["sessions"] == 5
    report = prune.Pruner(chunk=2).run(lambda _: False)
    assert report is not None
    assert report.counts == {"sessions": 5}
    assert [row.session_key for row in Session.objects.all()] == [digest_of(kept)]


# --- Inboxes ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def inbox() -> Inbox:
    return Inbox.objects.create(endpoint=make_endpoint(tenant=make_tenant(), origin=Endpoint.Origin.INBOX))


def test_the_address_of_deliveries_takes_nothing_that_is_not_signed(client: Client, inbox: Inbox) -> None:
    address = reverse("inbox_of", args=[inbox.endpoint_id])
    assert client.post(address, b"{}", content_type="application/json").status_code == 401
    assert not InboxMessage.objects.exists()
    assert client.put(address).status_code == 405
    assert client.post(address.replace("ep_0", "ep_f"), b"{}", content_type="application/json").status_code == 404


def test_it_leads_those_who_see_the_endpoint_to_what_arrived(inbox: Inbox, cheap_passwords: None) -> None:
    address = reverse("inbox_of", args=[inbox.endpoint_id])
    assert Client().get(address)["Location"] == f"/login/?next={address}"
    outsider, insider = somebody(), User.objects.create_user("insider")
    Membership.objects.create(tenant=Tenant.objects.create(name="Other", slug="other"), user=outsider, role=Membership.Role.OWNER)
    Membership.objects.create(tenant=inbox.endpoint.tenant, user=insider, role=Membership.Role.VIEWER)
    assert signed_in(outsider).get(address).status_code == 404
    assert signed_in(insider).get(address)["Location"] == reverse("inbox", args=[inbox.token])


# --- What else is kept ------------------------------------------------------------------------------------------------------


def test_keys_are_digests(fresh_api: None) -> None:
    row, text = make_api_key()
    assert text not in dump()
    assert not opens_api(bytes(row.digest).hex())
    assert ApiKey.objects.filter(visible_prefix=text[:16]).count() <= 1
    assert not AuditEntry.objects.filter(detail__contains=text).exists()


@pytest.mark.django_db(transaction=True)
def test_an_asynchronous_view_finds_the_same_session(cheap_passwords: None) -> None:
    word = signed_in(somebody()).cookies["sessionid"].value

    async def look() -> tuple[dict[str, Any], bool, bool, str]:
        store = SessionStore()
        await store.acreate()
        made = str(store.session_key)
        await store.adelete()
        return await SessionStore(word).aload(), await store.aexists(word), await store.aexists(made), made

    found, there, gone, made = async_to_sync(look)()
    assert found["_auth_user_id"] == str(User.objects.get().pk)
    assert (there, gone) == (True, False)
    assert [row.session_key for row in Session.objects.all()] == [digest_of(word)]
    assert made != digest_of(made)
