"""Why a signature does not fit: what is said of each way in which it can be wrong. `standardwebhooks` says which ones fit."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from standardwebhooks import Webhook

from delivery import recipes
from delivery.diagnosis import Diagnosis, diagnose, read_headers
from delivery.recipes import Facts, Secret
from delivery.rotation import rotate
from delivery.signing import Scheme, Signer
from subscriptions.models import AuditEntry, Endpoint, Membership, new_secret
from tests.builders import make_api_event, make_attempt, make_delivery, make_endpoint, make_event, make_member

NOW = 1_790_000_000
SECRET, OLD = new_secret(), new_secret()
SECRETS = [Secret("the current secret", SECRET), Secret("the previous secret", OLD)]
BODY = b'{"id": "o-1", "n": [1, 2.5], "text": "caf\xc3\xa9"}'
ID = "evt_01a2043032cf7738966bf3d2088e7d01"


def headers(scheme: Scheme = Scheme.STANDARD, secret: str = SECRET, body: bytes = BODY, at: int = NOW, id: str = ID) -> dict[str, str]:
    """As Jetrelay sends them, read as they are pasted."""
    return read_headers("\n".join(Signer(scheme, [secret]).headers(id, at, body)))


def ask(
    given: Mapping[str, str], body: bytes = BODY, scheme: Scheme = Scheme.STANDARD, stored: bytes | None = None, now: float = NOW, times: Sequence[int] = ()
) -> Diagnosis:
    found = diagnose(scheme, SECRETS, given, Facts("", "", body, stored, times), now)
    # Whatever it says, it is no oracle.
    said = repr(found)
    for secret in (SECRET, OLD):
        assert secret.removeprefix("whsec_") not in said
    for each in Scheme:
        for secret in (SECRET, OLD):
            expected = Signer(each, [secret]).headers(given.get("webhook-id", ""), NOW, body)[-1].partition(": ")[2]
            assert expected.partition("=")[2 if each is not Scheme.STANDARD else 0][3:] not in said
    return found


def wrong(found: Diagnosis) -> dict[str, str]:
    """The part of each finding that is not good, with what is said about it."""
    return {finding.part: finding.words for finding in found.findings if not finding.good}


def mac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


RAW_KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
SIGNED = f"{ID}.{NOW}.".encode() + BODY


# --- What fits -------------------------------------------------------------------------------------------------------


def test_what_standard_webhooks_signs_fits() -> None:
    signature = Webhook(SECRET).sign(ID, datetime.fromtimestamp(NOW, UTC), BODY.decode())
    found = ask({"webhook-id": ID, "webhook-timestamp": str(NOW), "webhook-signature": signature})
    assert found.fits
    assert wrong(found) == {}
    assert [finding.part for finding in found.findings] == ["webhook-timestamp", "secret", "body"]


@pytest.mark.parametrize("scheme", Scheme)
def test_what_jetrelay_signs_fits(scheme: Scheme) -> None:
    assert ask(headers(scheme), scheme=scheme).fits


@pytest.mark.parametrize("scheme", Scheme)
def test_during_a_rotation_one_of_the_signatures_is_enough(scheme: Scheme) -> None:
    lines = Signer(scheme, [SECRET, OLD]).headers(ID, NOW, BODY)
    found = ask(read_headers("\n".join(lines)), scheme=scheme)
    # The last scheme has room for one signature, which is the old secret's.
    assert found.fits == (scheme is not Scheme.HOOKSTREAM)


# --- Headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_is_named(name: str) -> None:
    given = headers()
    del given[name]
    found = ask(given)
    assert not found.fits
    assert wrong(found)[name] == "It is missing."


def test_a_header_of_another_scheme_is_named() -> None:
    found = ask(headers(Scheme.HOOKSTREAM))
    assert any("another scheme, X-Hookstream-Signature" in finding.advice for finding in found.findings)
    assert "It was made as the scheme X-Hookstream-Signature does." in wrong(found).values()


@pytest.mark.parametrize(
    ("off", "said"),
    [(301, "5 min old"), (7200, "2 h old"), (-301, "5 min in the future"), (-90_000, "1 d in the future")],
)
def test_a_time_that_is_too_far_off_is_told_beside_a_signature_that_fits(off: int, said: str) -> None:
    found = ask(headers(at=NOW - off))
    assert list(wrong(found)) == ["webhook-timestamp"]
    assert said in wrong(found)["webhook-timestamp"]
    assert ask(headers(at=NOW - 300)).fits
    assert ask(headers(at=NOW + 300)).fits


@pytest.mark.parametrize(
    ("time", "parts", "said"),
    [
        (f"{NOW}000", ["webhook-timestamp"], "in seconds"),
        ("yesterday", ["webhook-timestamp"], "an attempt"),
        (str(NOW + 60), ["webhook-timestamp"], "an attempt"),
    ],
)
def test_a_time_that_was_changed_is_found_out(time: str, parts: list[str], said: str) -> None:
    found = ask(headers() | {"webhook-timestamp": time}, times=[NOW])
    assert list(wrong(found)) == parts
    assert said in wrong(found)["webhook-timestamp"]


@pytest.mark.parametrize(("id", "said"), [(ID.removeprefix("evt_"), "with evt_ in front"), (ID.upper(), "in lower case"), ("x", "the id in the body")])
def test_an_id_that_was_changed_is_found_out(id: str, said: str) -> None:
    given = headers(id="o-1" if id == "x" else ID) | {"webhook-id": id}
    assert wrong(ask(given)) == {"webhook-id": f"It was changed: what was signed is this id {said}."}


@pytest.mark.parametrize(
    "pasted",
    [
        "POST /hook HTTP/1.1\r\nHost: x\r\nWebhook-Id: evt_1\r\nWebhook-Signature: v1,abc\r\n",
        "< webhook-id: evt_1\n> WEBHOOK-SIGNATURE:v1,abc",
        '{"Webhook-Id": "evt_1", "webhook-signature": ["v1,abc"]}',
        "'webhook-id': 'evt_1',\n'webhook-signature': 'v1,abc',",
        "HTTP_WEBHOOK_ID: evt_1\nHTTP_WEBHOOK_SIGNATURE: v1,abc",
    ],
)
def test_headers_are_read_as_people_paste_them(pasted: str) -> None:
    found = read_headers(pasted)
    assert (found["webhook-id"], found["webhook-signature"]) == ("evt_1", "v1,abc")


@pytest.mark.parametrize("pasted", ["", "nothing", "[]", "null", "[" * 100_000, ":", "\0:\0", '{"a": {"b": 1}, "c": []}'])
def test_nothing_that_is_pasted_breaks_it(pasted: str) -> None:
    assert not ask(read_headers(pasted)).fits
    assert not ask({"webhook-id": pasted[:300], "webhook-timestamp": "9" * 5000, "webhook-signature": pasted[:300]}, pasted.encode()).fits


# --- Secrets ---------------------------------------------------------------------------------------------------------


def test_the_previous_secret_is_named() -> None:
    assert wrong(ask(headers(secret=OLD))) == {"secret": "It was made with the previous secret."}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (SECRET.encode(), "The key was the secret as a text."),
        (SECRET.removeprefix("whsec_").encode(), "The key was the text after whsec_, not decoded."),
        (base64.b64decode(SECRET.replace("_", "/").rstrip("=")[:48]), "whsec_ was decoded along"),
    ],
)
def test_a_key_that_was_not_made_as_it_should_is_named(key: bytes, said: str) -> None:
    found = wrong(ask(headers() | {"webhook-signature": f"v1,{b64(mac(key, SIGNED))}"}))
    assert list(found) == ["key"]
    assert said in found["key"]


def test_a_secret_that_was_decoded_where_its_text_is_the_key_is_named() -> None:
    found = wrong(ask({"x-hookstream-signature": f"sha256={mac(RAW_KEY, BODY).hex()}", "webhook-id": ID}, scheme=Scheme.HOOKSTREAM))
    assert list(found) == ["key"]
    assert "takes the whole secret as its text" in found["key"]


def test_a_foreign_secret_fits_nothing() -> None:
    found = wrong(ask(headers(secret=new_secret())))
    assert found == {"webhook-signature": "It was made by none of this endpoint's secrets in any way that we know."}


# --- How it is written and what is in it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (mac(RAW_KEY, SIGNED).hex(), "It is written as hex."),
        (f"v1={mac(RAW_KEY, SIGNED).hex()}", "It is written as hex."),
        (b64(mac(RAW_KEY, SIGNED).hex().encode()), "It is written as base64 of hex."),
    ],
)
def test_another_way_of_writing_it_is_named(written: str, said: str) -> None:
    assert wrong(ask(headers() | {"webhook-signature": written})) == {"webhook-signature": said}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BODY, "The body alone was signed."),
        (f"{NOW}.".encode() + BODY, "The timestamp and body, with a dot between them was signed."),
        (f"{ID}.".encode() + BODY, "The id and body, with a dot between them was signed."),
        (f"{ID}.{NOW}".encode(), "The id and timestamp, with a dot between them was signed."),
    ],
)
def test_another_content_is_named(content: bytes, said: str) -> None:
    assert wrong(ask(headers() | {"webhook-signature": f"v1,{b64(mac(RAW_KEY, content))}"})) == {"signed content": said}


def test_another_scheme_altogether_is_named_as_that() -> None:
    given = headers() | {"webhook-signature": headers(Scheme.HOOKSTREAM)["x-hookstream-signature"]}
    found = ask(given)
    assert "as the scheme X-Hookstream-Signature does" in str(found.findings)
    assert "key" not in wrong(found)


def test_several_mistakes_at_once_are_all_named() -> None:
    hexed = mac(SECRET.encode(), BODY + b"\n").hex()
    assert set(wrong(ask(headers() | {"webhook-signature": hexed}))) >= {"webhook-signature", "body"}


@pytest.mark.parametrize("text", ["v1,short", "v1," + "A" * 42, "é" * 50, "sha256=" + "g" * 64])
def test_what_is_no_mac_is_told(text: str) -> None:
    assert "no HMAC-SHA256 in it" in wrong(ask(headers() | {"webhook-signature": text}))["webhook-signature"]


# --- The body --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (BODY + b"\n", "without what is blank at its ends"),
        (b"\xef\xbb\xbf" + BODY, "without its byte order mark"),
        (json.dumps(json.loads(BODY), separators=(",", ":"), ensure_ascii=False).encode(), "as the same JSON, written differently"),
        (json.dumps(json.loads(BODY)).encode(), "as the same JSON, written differently"),
        (json.dumps(json.loads(BODY), indent=4).encode(), "as the same JSON, written differently"),
    ],
)
def test_a_body_that_was_changed_is_found_out_without_knowing_the_event(body: bytes, said: str) -> None:
    assert wrong(ask(headers(), body)) == {"body": f"It was changed: the signature fits it {said}."}


def test_line_ends_that_were_changed_are_found_out() -> None:
    one, other = b'{\n"a": 1\n}', b'{\r\n"a": 1\r\n}'
    assert "with other line ends" in wrong(ask(headers(body=one), other))["body"]
    assert "with other line ends" in wrong(ask(headers(body=other), one))["body"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (BODY + b"\r\n", "a line end or a space at its end was added or taken away"),
        (BODY.replace(b'": ', b'":\n '), "line ends or spaces were changed"),
        (json.dumps(json.loads(BODY), sort_keys=True, indent=1).encode(), "parsed and written anew"),
        (BODY.replace(b"o-1", b"o-2"), "from byte 11 on: 45 bytes here, 45 were sent"),
        (BODY[:20], "from byte 21 on: 20 bytes here, 45 were sent"),
        (b"", "from byte 1 on"),
    ],
)
def test_a_body_is_compared_with_the_event_that_the_id_names(body: bytes, said: str) -> None:
    found = wrong(ask(headers(), body, stored=BODY))
    assert list(found) == ["body"]
    assert said in found["body"]


def test_where_no_secret_fits_the_body_is_compared_all_the_same() -> None:
    found = wrong(ask(headers(secret=new_secret()), BODY[:-1], stored=BODY))
    assert set(found) == {"webhook-signature", "body"}
    same = ask(headers(secret=new_secret()), BODY, stored=BODY)
    assert "byte for byte" in same.findings[-1].words


def test_a_large_body_costs_a_bounded_search(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    def digest(_key: bytes, content: bytes, _hash: str) -> bytes:
        hashed.append(len(content))
        return b"0" * 32

    monkeypatch.setattr(hmac, "digest", digest)
    assert recipes.find(Scheme.STANDARD, SECRETS, Facts(ID, str(NOW), b'{"a":1}' * 100_000), [recipes.Given(b"1" * 32, "base64")]).match is None
    assert 0 < sum(hashed) <= recipes.BUDGET


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of every content that is hashed; the MACs are true."""
    hashed: list[int] = []
    true = hmac.digest

    def digest(key: bytes, content: bytes, name: str) -> bytes:
        hashed.append(len(content))
        return true(key, content, name)

    monkeypatch.setattr(hmac, "digest", digest)
    return hashed


def nested(levels: int, size: int = 0) -> bytes:
    return b"[" * levels + b"1," * size + b"1" + b"]" * levels


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (nested(900, 100_000), "larger than 65,536 bytes"),
        (nested(900, 10_000), "deeper than 64 levels"),
        (nested(30_000), "deeper than 64 levels"),
        (nested(64, 30_000), "some make it larger than 262,144 bytes"),
    ],
)
def test_json_that_would_take_long_to_write_anew_is_left_out_and_that_is_said(body: bytes, said: str, work: list[int]) -> None:
    budget = recipes.Work(recipes.BUDGET)
    written = list(recipes.written_anew(body, budget))
    assert sum(map(len, written)) <= 8 * recipes.MOST_WRITTEN
    assert [said in words for words in budget.untried] == [True]
    assert said in repr(ask(headers(secret=new_secret()), body))
    assert sum(work) <= recipes.BUDGET
    # Where something fits, nobody needs to know what else was not tried.
    assert ask(headers(body=body), body).fits


def test_writing_json_anew_is_paid_for_while_it_is_written() -> None:
    body = nested(60, 500)
    paid = recipes.Work(recipes.BUDGET)
    written = list(recipes.written_anew(body, paid))
    assert len(written) == 12
    assert recipes.BUDGET - paid.left >= len(body) + sum(map(len, written))
    short = recipes.Work((recipes.BUDGET - paid.left) // 2)
    made: list[bytes] = []
    with pytest.raises(recipes.SpentError):
        made.extend(iter(recipes.written_anew(body, short)))
    assert short.left < 0


@pytest.mark.parametrize(("levels", "deeper"), [(0, False), (63, False), (64, False), (65, True), (900, True)])
def test_levels_are_counted_in_lists_and_in_objects(levels: int, deeper: bool) -> None:
    for inside in (list, dict):
        value: Any = 1
        for _ in range(levels):
            value = [0, value] if inside is list else {"a": 0, "b": value}
        assert recipes.nests_deeper(value, 64) == deeper


def test_nothing_is_made_of_a_body_that_fits_as_it_is(monkeypatch: pytest.MonkeyPatch, work: list[int]) -> None:
    monkeypatch.setattr(recipes, "written_anew", lambda *_: pytest.fail("It was written anew."))
    given = headers()
    work.clear()
    assert diagnose(Scheme.STANDARD, SECRETS, given, Facts("", "", BODY), NOW).fits
    assert work == [len(SIGNED)]


def test_more_than_ten_signatures_are_not_looked_at_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    others = [f"v1,{b64(mac(b'', str(number).encode()))}" for number in range(1350)]
    right = headers()["webhook-signature"]
    found = ask(headers() | {"webhook-signature": " ".join([*others, right])})
    assert not found.fits
    assert "It has 1,351 signatures: the first 10 were looked at." in repr(found)
    assert len(set(compared)) == 10
    found = ask(headers() | {"webhook-signature": " ".join([*others[:9], right, *others[9:]])})
    assert found.fits
    assert "the first 10 were looked at" in repr(found)


def test_that_a_search_ended_early_is_said() -> None:
    assert "Not every mix of mistakes was tried" in repr(ask(headers(secret=new_secret()), b"x" * 1_000_000))


def test_headers_that_cannot_be_read_are_one_finding_and_so_is_an_empty_body() -> None:
    assert wrong(ask(read_headers("rubbish"), b"")) == {"headers": "None could be read.", "body": "It is empty."}
    assert ask(headers(body=b""), b"").fits


# --- The page --------------------------------------------------------------------------------------------------------


@pytest.fixture
def grace(client: Client, db: None) -> Client:
    client.force_login(make_member(username="grace"))
    return client


def paste(client: Client, endpoint: Endpoint, pasted: str, body: bytes | str = "", **over: Any) -> str:
    sent = {"headers": pasted, "body": body, "scheme": endpoint.signature_scheme} | over
    response = client.post(f"/endpoints/{endpoint.public_id}/signature/", sent)
    assert response.status_code == 200
    return str(response.content.decode())


def sent_to(endpoint: Endpoint, id: str, body: bytes, secret: str = "", at: float = 0) -> str:
    now = int(at or timezone.now().timestamp())
    return "\r\n".join(Signer(Scheme(endpoint.signature_scheme), [secret or endpoint.secret]).headers(id, now, body))


def test_the_page_checks_what_was_pasted(grace: Client) -> None:
    endpoint, event = make_endpoint(), make_event(body=b'{"a": "\xc3\xa9"}')
    pasted = sent_to(endpoint, event.public_id, b'{"a": "\xc3\xa9"}')
    html = paste(grace, endpoint, pasted, '{"a": "é"}')
    assert "The signature fits" in html
    assert endpoint.secret not in html
    assert "It was made with the current secret." in html
    # Only looked at: nothing has been done to anything.
    assert not AuditEntry.objects.exists()


def test_a_box_changes_line_ends_and_a_file_does_not(grace: Client) -> None:
    endpoint = make_endpoint()
    pasted = sent_to(endpoint, ID, b'{\n"a": 1}')
    assert "The signature fits" in paste(grace, endpoint, pasted, '{\r\n"a": 1}')
    for body, fits in ((b'{\n"a": 1}', True), (b'{\r\n"a": 1}', False)):
        assert ("The signature fits" in paste(grace, endpoint, pasted, body_file=SimpleUploadedFile("body", body))) == fits


def test_the_event_of_the_id_is_looked_up_where_this_endpoint_was_owed_it(grace: Client) -> None:
    endpoint, event = make_endpoint(), make_api_event(body=b'{"n": 1}')
    pasted = sent_to(endpoint, event.public_id, b'{"n": 1}')
    assert "that this id names" not in paste(grace, endpoint, pasted, '{"n":   2}')
    delivery = make_delivery(endpoint=endpoint, event=event)
    assert "It differs from the event that this id names, from byte 7 on" in paste(grace, endpoint, pasted, '{"n": 2}')
    started = make_attempt(delivery=delivery, started_at=timezone.now()).started_at.timestamp()
    pasted = sent_to(endpoint, event.public_id, b'{"n": 1}', at=started)
    changed = pasted.replace(f"webhook-timestamp: {int(started)}", "webhook-timestamp: 5")
    assert "what was signed is the time of an attempt" in paste(grace, endpoint, changed, '{"n": 1}')


def test_a_secret_that_was_rotated_out_is_named_with_its_end(grace: Client) -> None:
    endpoint = make_endpoint()
    old = endpoint.secret
    rotate(endpoint.pk, timedelta(hours=1))
    pasted = sent_to(endpoint, ID, b"{}", old)
    html = paste(grace, endpoint, pasted, "{}")
    assert "It was made with the previous secret, which is valid until" in html
    assert old not in html
    Endpoint.objects.update(previous_secret_expires_at=timezone.now())
    assert "which was valid until" in paste(grace, endpoint, pasted, "{}")


def test_another_scheme_may_be_tried_and_that_is_said(grace: Client) -> None:
    endpoint = make_endpoint(signature_scheme="hookstream")
    pasted = sent_to(endpoint, ID, b"{}")
    assert "The signature fits" in paste(grace, endpoint, pasted, "{}")
    html = paste(grace, endpoint, pasted, "{}", scheme="standard")
    assert "checked by another scheme than the endpoint" in html
    assert "It is missing." in html


def test_the_page_shows_what_was_pasted_as_text_and_says_what_it_lacks(grace: Client) -> None:
    endpoint = make_endpoint()
    assert "<b>" not in paste(grace, endpoint, "<b>: <b>\u202e", "<b>")
    assert "This field is required" in paste(grace, endpoint, "")
    assert "Null characters are not allowed" in paste(grace, endpoint, "a: b", "\0")
    assert "Select a valid choice" in paste(grace, endpoint, "a: b", scheme="none")
    big = SimpleUploadedFile("body", b"x" * (1024 * 1024 + 1))
    assert "at most 1,048,576 are looked at" in paste(grace, endpoint, "a: b", body_file=big)
    assert "It differs" not in paste(grace, endpoint, "webhook-id: evt_" + "f" * 32, body_file=SimpleUploadedFile("body", b"\xff\xfe"))


@pytest.mark.parametrize(("levels", "size"), [(900, 100_000), (900, 250_000), (900, 10_000), (64, 30_000), (100_000, 0)])
def test_the_page_bears_a_body_that_is_made_to_keep_it_busy(grace: Client, work: list[int], levels: int, size: int) -> None:
    endpoint = make_endpoint()
    html = paste(grace, endpoint, sent_to(endpoint, ID, b"", new_secret()), nested(levels, size).decode())
    assert "It was not tried " in html
    assert sum(work) <= recipes.BUDGET


def test_the_page_bears_many_signatures(grace: Client) -> None:
    many = " ".join(f"v1,{b64(mac(b'', str(number).encode()))}" for number in range(1350))
    html = paste(grace, make_endpoint(), f"webhook-id: {ID}\nwebhook-timestamp: 5\nwebhook-signature: {many}", "{}")
    assert "It has 1,350 signatures: the first 10 were looked at." in html


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_the_page_bears_half_a_surrogate_pair(grace: Client, name: str) -> None:
    given = {"webhook-id": ID, "webhook-timestamp": str(NOW), "webhook-signature": f"v1,{b64(mac(b'', b''))}"}
    assert "This is what differs" in paste(grace, make_endpoint(), json.dumps(given | {name: "\ud800" + given[name]}), "{}")
    everywhere = given | {"webhook-id": "\ud800", "webhook-timestamp": "\ud800", "\ud800": "\ud800"}
    assert "This is what differs" in paste(grace, make_endpoint(), json.dumps(everywhere), '{"id": "\\ud800", "b": "\\ud800"}')


@pytest.mark.parametrize("levels", [100, 900, 990, 5000])
def test_the_page_bears_headers_that_nest(grace: Client, levels: int) -> None:
    pasted = '{"webhook-id": ' + nested(levels).decode() + ', "webhook-timestamp": 5}'
    assert "This is what differs" in paste(grace, make_endpoint(), pasted, "{}")


def test_the_page_says_that_nothing_of_it_could_be_read(grace: Client) -> None:
    html = paste(grace, make_endpoint(), "rubbish")
    assert "None could be read." in html
    assert "It is empty." in html
    assert "It is missing." not in html


def test_a_viewer_may_not_ask(client: Client, db: None) -> None:
    endpoint = make_endpoint()
    client.force_login(make_member(endpoint.tenant, Membership.Role.VIEWER))
    url = f"/endpoints/{endpoint.public_id}/signature/"
    assert client.get(url).status_code == client.post(url, {"headers": "a: b"}).status_code == 403
