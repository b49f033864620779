"""Secrets cannot be logged: each of them is tried, by each way into the log, in each form."""

import dataclasses
import logging
import string
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import structlog
from celery.app.trace import build_tracer
from cryptography.fernet import Fernet
from django.conf import settings
from django.test import Client
from hypothesis import assume, given
from hypothesis import strategies as st

from jetrelay.celery import app
from jetrelay.child_output import for_people, for_programs
from jetrelay.logs import know_secrets, masking
from subscriptions import keys
from subscriptions.models import new_secret
from tests.builders import make_endpoint
from tests.logged import FORMS, logged
from tests.whole import ROOT

PASSWORD = "Tr0ub4dor-and-3"
KNOWN = 'a known "value" of\\mine/ü'
KEY = keys.PREFIX + "c0ffee_c0ffee-C0FFEE_c0ffee-c0ffee"
know_secrets(KNOWN, urls=(f"postgres://ada:{quote('p@ss:w/rd9', safe='')}@db/x",))

# What must not be read, and a text that it may stand in.
SECRETS: dict[str, tuple[str, str]] = {
    "signing secret": ((secret := new_secret()), f"signed with {secret}."),
    "API key": (KEY, f"by {KEY}, said the client"),
    "bearer": (PASSWORD, f"Authorization: Bearer {PASSWORD}"),
    "headers": (PASSWORD, repr({"Authorization": f"Bearer {PASSWORD}", "X-Api-Key": PASSWORD, "Cookie": f"theme=dark; sessionid={PASSWORD}"})),
    "header": (PASSWORD, repr([("Host", "x"), ("X-Api-Key", PASSWORD)])),
    "bearer in words": (PASSWORD, f"it came with Bearer {PASSWORD}, which is wrong"),
    "JSON Web Token": ((jwt := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmVk-_"), f"by {jwt}"),
    "form in parts": (PASSWORD, f'name="new_password"\r\n\r\n{PASSWORD}\r\n--boundary'),
    "two signatures": ("mfVNQhnkZ2pj9o9NDN/H/pI4", "were v1,K5oZfzN95Z9UVu1EsfQmfVNQ and v1,mfVNQhnkZ2pj9o9NDN/H/pI4"),
    "key in a query": (PASSWORD, f"GET https://hooks.example/x?a=1&key={PASSWORD}&b=2"),
    "signature in a query": (PASSWORD, f"https://blob.example/x?sig={PASSWORD}"),
    "pwd": (PASSWORD, f"Server=db;Uid=ada;Pwd={PASSWORD};"),
    "webhook of a chat": (PASSWORD, f"https://hooks.slack.com/services/T0/B0/{PASSWORD} and https://discord.com/api/webhooks/1/{PASSWORD}"),
    "basic": (PASSWORD, f"header 'authorization': b'Basic {PASSWORD}'"),
    "cookie": (PASSWORD, f"Cookie: theme=dark; sessionid={PASSWORD}; x={PASSWORD}"),
    "form": (PASSWORD, f"username=ada&password={PASSWORD}&next=/"),
    "JSON": (PASSWORD, f'{{"url": "x", "secret": "{PASSWORD}", "n": 1}}'),
    "JSON in JSON": (PASSWORD, f'{{"body": "{{\\"bearer_token\\": \\"{PASSWORD}\\"}}"}}'),
    "list": (PASSWORD, f"passwords=['{PASSWORD}', '{PASSWORD}']"),
    "database": (PASSWORD, f"cannot connect to postgres://ada:{PASSWORD}@db.example:5432/x"),
    "broker": (PASSWORD, f"redis://:{PASSWORD}@10.0.0.1/0: refused"),
    "URL that is none": (PASSWORD, f"wss://x:/{PASSWORD}@example.com/ is not a URL"),
    "password in words": (PASSWORD, f"Sign in as admin with the password {PASSWORD} (shown once)."),
    "Fernet key": ((fernet := Fernet.generate_key().decode()), f"key {fernet} does not open it"),
    "Fernet token": ((sealed := Fernet(fernet).encrypt(b"x").decode()), f"cannot open {sealed}"),
    "our key": (settings.SECRET_KEY, f"signing with {settings.SECRET_KEY}"),
    "our encryption key": (settings.JETRELAY_ENCRYPTION_KEYS[0], f"x{settings.JETRELAY_ENCRYPTION_KEYS[0]}y"),
    "a known value": (KNOWN, f"it is {KNOWN}!"),
    "a known value, quoted": (quote(KNOWN), f"/x?y={quote(KNOWN, safe='')}&z={quote(KNOWN)}"),
    "a known password": ("p@ss:w/rd9", "it was p@ss:w/rd9"),
    "inbox": ("aB3_aB3-aB3", "POST http://127.0.0.1:8000/inbox/aB3_aB3-aB3 failed"),
    "first password's link": ("c5-4f2a", "https://relay.example/welcome/MQ/c5-4f2a/"),
    "signature": ("K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=", "webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="),
    "hex signature": ("0123456789abcdef" * 4, f"X-Hookstream-Signature sha256={'0123456789abcdef' * 4}"),
}


class Telling:
    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return f"<{self.words}>"


@dataclasses.dataclass
class Row:
    name: str
    secret: str


logger = logging.getLogger("delivery.trial")
told = structlog.get_logger("delivery.trial")


def by_exception(words: str) -> None:
    local = words
    try:
        raise ValueError(local)
    except ValueError:
        logger.exception("It failed.")


def by_chain(words: str) -> None:
    try:
        try:
            raise ValueError(words)
        except ValueError as error:
            raise ExceptionGroup(words, [RuntimeError(words)]) from error
    except ExceptionGroup as group:
        group.add_note(words)
        logger.error("It failed: %s", group, exc_info=group)


def by_locals(words: str) -> None:
    password, headers = words, {"authorization": words}
    try:
        assert not (password and headers)
    except AssertionError:
        told.exception("It failed.", exc_info=True, stack_info=True)


def by_task(words: str) -> None:
    @app.task(name=f"trial.{uuid4().hex}")
    def fail(*_: object) -> None:
        raise ValueError(words)

    build_tracer(fail.name, fail, app=app)(str(uuid4()), (words,), {"words": words}, {"argsrepr": words, "kwargsrepr": words})


def by_warning(words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(words, stacklevel=1)


# Ways for a text that looks like what it is.
WAYS: dict[str, Callable[[str], None]] = {
    "message": lambda words: logger.warning(words),
    "argument": lambda words: logger.warning("It is %s.", words),
    "repr of an argument": lambda words: logger.warning("It is %r.", Telling(words)),
    "named argument": lambda words: logger.warning("It is %(it)s.", {"it": words}),
    "arguments that do not fit": lambda words: logger.warning(f"It is %d. {words}", words),  # noqa: G004 - in the message too
    "object for a message": lambda words: logger.warning(Telling(words)),
    "extra": lambda words: logger.warning("It is.", extra={"it": words}),
    "nested": lambda words: logger.warning("It is.", extra={"it": {"a": [{"b": (words, {words})}], words: 1}}),
    "deep": lambda words: logger.warning("It is.", extra={"it": [[[[[[[[[words]]]]]]]]]}),
    "object": lambda words: logger.warning("It is.", extra={"it": Telling(words), "row": Row("x", words)}),
    "exception": by_exception,
    "chain and group": by_chain,
    "locals": by_locals,
    "structlog": lambda words: told.warning(words),
    "structlog's argument": lambda words: told.warning("It is %s.", words),
    "structlog's value": lambda words: told.bind(one=words).warning("It is.", it=words, more={"it": Telling(words)}),
    "bound": lambda words: structlog.contextvars.bound_contextvars(it=words)(logger.warning)("It is."),
    "Celery's task": by_task,
    "warning": by_warning,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", list(WAYS))
def test_no_secret_gets_in(way: str, form: str) -> None:
    for name, (hidden, words) in SECRETS.items():
        with logged(form) as said:
            WAYS[way](words)
        assert said.text, name
        for spelling in {hidden, repr(hidden)[1:-1], quote(hidden), quote(hidden, safe="")}:
            assert spelling not in said.text, (name, said.text)
        assert form == "console" or said.objects


NAMES = (
    *("password", "Password", "old_password", "secret", "SECRET_KEY", "webhook_secret", "token", "bearer_token", "csrfmiddlewaretoken", "authorization"),
    *("Authorization", "HTTP_AUTHORIZATION", "api_key", "apiKey", "X-Api-Key", "key", "keys", "JETRELAY_ENCRYPTION_KEYS", "cookie", "Set-Cookie", "sessionid"),
    *("signature", "webhook-signature", "credentials", "private_key", "passphrase", "dsn"),
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_what_has_a_secret_name_has_no_value(name: str, form: str) -> None:
    for value in ("plain", ["plain"], {"a": "plain"}, b"plain", Telling("plain"), 123_454_321, [("a", "b")]):
        with logged(form) as said:
            logger.warning("It is.", extra={name: value})
            logger.warning("It is.", extra={"request_headers": {name: value}, "rows": [{name: value}], "headers": [("Host", "x"), (name, value)]})
            told.warning("It is.", **{name: value})
        assert len(said.lines) == 3
        assert "plain" not in said.text
        assert "123454321" not in said.text
        assert "(hidden)" in said.text


@given(
    before=st.text(max_size=20),
    after=st.text(max_size=20),
    value=st.text(string.ascii_letters + string.digits + "-_", min_size=20, max_size=60),
    form=st.sampled_from(
        [
            "whsec_{}",
            "jr_{}",
            "Bearer {}",
            "password={}",
            "'token': '{}'",
            '"api_key":"{}"',
            "SECRET_KEY: {}",
            "amqp://ada:{}@host/",
            "/inbox/{}",
            "Cookie: a={}",
            "secret => {}",
            "v1,{}=",
        ]
    ),
)
def test_whatever_stands_around_it_a_secret_is_hidden(before: str, after: str, value: str, form: str) -> None:
    assume(value not in before + after)
    assert value not in masking.text(f"{before} {form.format(value)} {after}")


@given(st.text())
def test_hiding_twice_is_hiding_once(words: str) -> None:
    once = masking.text(f"password={words} Authorization: {words}")
    assert masking.text(once) == once


@pytest.mark.parametrize(
    "words",
    [
        "Lane 3 went to another worker while this one was held up.",
        "wss://jetstream.us-east.bsky.network/subscribe: connected, from cursor 1795365011846365.",
        "evt_01a224046d53717c983cd4cea66cd19d to ep_01a22404277574fd8d51fc62ac769367: timeout after 30 s",
        'connection to server at "127.0.0.1", port 1 failed: Connection refused',
        "Pruned 1,000 events of did:plc:aaaaaaaaaaaaaaaaaaaaaaaa, bafyreib2rxk3rybk3aobmv5cjuql3bm2twh4jo5uxgf5kpqcsgz7soitae.",
    ],
)
def test_what_is_no_secret_stays(words: str) -> None:
    assert masking.text(words) == words


@pytest.mark.parametrize("password", ["password", "PASSWORD", "token-123", "my_password=1", "jetrelay"])
def test_a_password_that_is_also_a_name_hides_itself_and_what_stands_under_that_name(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in ("_known", "_values", "_late_values"):
        monkeypatch.setattr(masking, known, type(getattr(masking, known))())
    know_secrets(urls=(f"postgres://jetrelay:{password}@db/x",))
    assert masking.text(f"cannot connect to postgres://jetrelay:{password}@db/x") == "cannot connect to postgres://(hidden)@db/x"
    assert "Tr0ub" not in masking.text("Sign in as admin with the password Tr0ub4dor-and-3")
    assert "Tr0ub" not in masking.text('{"password": "Tr0ub4dor-and-3", "token-123": "Tr0ub4dor-and-3"}')
    if password.lower() in ("password", "jetrelay"):
        # It stands in half of all messages, and tells nobody anything.
        assert masking.text("manage.py changepassword of jetrelay") == "manage.py changepassword of jetrelay"
    else:
        assert password not in masking.text(f"is it {password}, perhaps")


@pytest.mark.django_db
@pytest.mark.parametrize("form", FORMS)
def test_a_page_that_fails_tells_nothing_of_its_request(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jetrelay.inbox.models import Inbox

    def fail(_inbox: object, request: Any, body: bytes, *_: Any) -> None:
        raise RuntimeError(f"{request!r} {dict(request.headers)!r} {request.META!r} {request.POST!r} {body!r}")

    monkeypatch.setattr("jetrelay.inbox.views.receive", fail)
    inbox = Inbox.objects.create(endpoint=make_endpoint())
    headers = {"Authorization": f"Bearer {PASSWORD}", "Cookie": f"sessionid={PASSWORD}", "webhook-signature": f"v1,{PASSWORD}", "X-Api-Key": PASSWORD}
    with logged(form) as said:
        client = Client(raise_request_exception=False)
        answer = client.post(f"/inbox/{inbox.token}", {"password": PASSWORD, "secret": secret, "new_token": KEY}, headers=headers)
    assert answer.status_code == 500
    assert "RuntimeError" in said.text
    for hidden in (PASSWORD, secret, KEY, inbox.token):
        assert hidden not in said.text


CHILD = """
import sys
print("password={0}")
print('{{"timestamp":"x"}} token={0}')
print('{{"api_key": "{0}"}}', flush=True)
raise ValueError("postgres://ada:{0}@db/x")
"""


@pytest.mark.parametrize("form", FORMS)
def test_a_child_of_the_supervisor_that_fails_tells_nothing(form: str) -> None:
    runner = (
        "import sys; from jetrelay.supervisor import Child, Supervisor, Timing\n"
        f"s = Supervisor([Child('web', [sys.executable, '-c', sys.argv[1]])], json={form == 'json'}, colour=False)\n"
        "s.probe = lambda: s._slots[0].process is None and s._note_stop() is None\n"
        "sys.exit(s.run())"
    )
    child = CHILD.format(PASSWORD)
    ended = subprocess.run([sys.executable, "-c", runner, child], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "(hidden)" in ended.stdout
    assert PASSWORD not in ended.stdout
    if form == "json":
        import json

        found = [json.loads(line) for line in ended.stdout.splitlines()]
        assert {line["process"] for line in found} == {"web", "up"}
        assert all({"timestamp", "level", "logger", "message"} <= line.keys() for line in found)


def test_a_line_of_ours_gets_the_name_of_its_process() -> None:
    ours = '{"timestamp":"2026-01-01T00:00:00Z","level":"info","logger":"x","message":"y"}'
    assert for_programs("web", ours) == '{"process":"web",' + ours[1:]
    # Half of one is none.
    assert '"message":"{\\"timestamp\\":\\"2' in for_programs("web", ours[:20])
    assert for_people("token=abc") == "token=(hidden)"
