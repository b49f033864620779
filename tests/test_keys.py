"""Keys to the API: made, shown once, found by their digest; and the commands that make tenants and keys."""

import io
import logging
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from subscriptions import remembering
from subscriptions.keys import SCOPES, TENANTS_SCOPES, clean_scopes, find, issue, revoke, rotate
from subscriptions.models import ApiKey, AuditEntry, Membership, Tenant
from tests.builders import make_api_key, make_tenant
from tests.whole import ROOT, engines

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fresh_api")]

DAY = timedelta(days=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The process's clock, as its one item."""
    time = [1000.0]
    monkeypatch.setattr(remembering, "monotonic", lambda: time[0])
    return time


def test_a_key_is_found_by_its_text_alone() -> None:
    key, text = make_api_key(name="billing", scopes=["events:write", "events:read"], rate_limit_per_s=7)
    found = find(text)
    assert found is not None
    assert (found.key_id, found.tenant_id, found.scopes, found.rate_limit_per_s) == (key.pk, key.tenant_id, frozenset({"events:read", "events:write"}), 7)
    assert (found.actor, found.expires_at) == (f"key billing ({text[:10]}…)", None)
    for other in ("", "jr_", text[:-1], text + "x", text.upper(), f" {text}", text.removeprefix("jr_"), key.public_id, "jr_é", bytes(key.digest).hex()):
        assert find(other) is None


def test_a_key_has_256_random_bits_and_is_kept_as_a_digest() -> None:
    key, text = make_api_key()
    assert re.fullmatch(r"jr_[A-Za-z0-9_-]{43}", text)
    row = ApiKey.objects.filter(pk=key.pk).values().get()
    assert (row["visible_prefix"], len(bytes(row["digest"]))) == (text[:10], 32)
    assert text[11:] not in str(row)
    assert len({make_api_key()[1] for _ in range(20)}) == 20


def test_scopes_stand_once_and_in_their_order() -> None:
    assert clean_scopes(["keys:read", "events:write", "events:read", "events:write"]) == ["events:read", "events:write", "keys:read"]
    for wrong, words in ((["events:read", "events"], "'events' is not a scope"), ([], "can do nothing")):
        with pytest.raises(ValidationError, match=words):
            clean_scopes(wrong)


@pytest.mark.parametrize("name", ["", " ", "x" * 101])
def test_a_key_has_a_name(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        issue(make_tenant(), name, SCOPES)
    assert not ApiKey.objects.exists()


def test_a_key_ends_when_it_is_to_even_if_it_is_remembered(clock: list[float]) -> None:
    key, text = make_api_key(expires_at=timezone.now() + DAY)
    assert find(text)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() - DAY)
    clock[0] += 1.1
    assert find(text) is None
    assert key.refreshed().state(timezone.now()) == ApiKey.State.EXPIRED
    _, soon = make_api_key(expires_at=timezone.now() + timedelta(milliseconds=1))
    while find(soon):
        pass  # of a key that is remembered, the end is looked at all the same


def test_a_key_is_looked_up_at_most_once_a_second(clock: list[float], django_assert_num_queries: DjangoAssertNumQueries) -> None:
    key, text = make_api_key()
    find(text)
    with django_assert_num_queries(0):
        assert all(find(text) for _ in range(10))
    clock[0] += 1.1
    with django_assert_num_queries(1):
        assert find(text)
        find(text)
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())
    assert find(text)
    clock[0] += 1.1
    assert find(text) is None


def test_a_key_that_is_revoked_opens_nothing_for_good() -> None:
    key, text = make_api_key()
    assert find(text)
    assert revoke(key)
    assert find(text) is None
    ended = key.refreshed().revoked_at
    assert not revoke(key)
    assert key.refreshed().revoked_at == ended
    with pytest.raises(ValidationError, match="revoked already"):
        rotate(key)


def test_both_keys_open_during_an_overlap() -> None:
    old, old_text = make_api_key(name="billing", scopes=["events:read"], rate_limit_per_s=7)
    new, new_text = rotate(old, timedelta(hours=1), by="ada")
    assert new_text != old_text
    assert (new.name, new.scopes, new.rate_limit_per_s, new.expires_at, new.created_by, new.tenant) == ("billing", ["events:read"], 7, None, "ada", old.tenant)
    assert all(map(find, (old_text, new_text)))
    ends = old.refreshed().expires_at
    assert ends
    assert timedelta(minutes=59) < ends - timezone.now() <= timedelta(hours=1)


def test_it_is_rotated_once_also_by_somebody_who_read_it_before() -> None:
    old, _ = make_api_key()
    new, _ = rotate(old)
    ends = old.refreshed().expires_at
    with pytest.raises(ValidationError, match=r"was rotated at .* UTC: rotate the key that replaced it"):
        rotate(old)
    assert (old.refreshed().expires_at, ApiKey.objects.count()) == (ends, 2)
    newest, _ = rotate(new)
    assert newest.expires_at is None


def test_no_overlap_ends_the_old_key_at_once() -> None:
    old, old_text = make_api_key()
    assert find(old_text)
    _, new_text = rotate(old, timedelta(0))
    assert (find(old_text), bool(find(new_text))) == (None, True)


def test_a_rotation_prolongs_nothing() -> None:
    ends = timezone.now() + timedelta(minutes=5)
    old, _ = make_api_key(expires_at=ends)
    new, _ = rotate(old, DAY)
    assert (old.refreshed().expires_at, new.expires_at) == (ends, ends)


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
def test_an_overlap_is_bounded(overlap: timedelta) -> None:
    key, _ = make_api_key()
    with pytest.raises(ValidationError, match="0 to 30 days"):
        rotate(key, overlap)
    assert ApiKey.objects.count() == 1
    assert key.refreshed().expires_at is None


def test_it_notes_to_the_minute_when_a_key_was_used(clock: list[float]) -> None:
    key, text = make_api_key(last_used_at=timezone.now() - timedelta(seconds=30))
    before = key.refreshed().last_used_at
    find(text)
    assert key.refreshed().last_used_at == before
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    clock[0] += 2
    find(text)
    used = key.refreshed().last_used_at
    assert used
    assert timezone.now() - used < timedelta(minutes=1)


# --- The commands --------------------------------------------------------------------------------------------------


def run(name: str, *arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command(name, *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_it_makes_a_tenant_with_its_owners() -> None:
    for name in ("ada", "bob"):
        get_user_model().objects.create_user(name)
    out, _ = run("create_tenant", "acme", "--name", "Acme Inc.", "--owner", "ada", "--owner", "bob")
    tenant = Tenant.objects.get(slug="acme")
    assert tenant.public_id in out
    assert tenant.name == "Acme Inc."
    assert set(Membership.objects.values_list("user__username", "tenant", "role")) == {("ada", tenant.pk, "owner"), ("bob", tenant.pk, "owner")}
    assert AuditEntry.objects.get().action == "tenant.create"


@pytest.mark.parametrize(
    ("arguments", "words"), [(["a b"], "slug"), (["default"], "exists"), (["acme", "--owner", "nobody"], "no user 'nobody'"), (["x" * 51], "slug")]
)
def test_it_makes_no_tenant_of_what_cannot_be_one(arguments: list[str], words: str) -> None:
    make_tenant()
    with pytest.raises(CommandError, match=words):
        run("create_tenant", *arguments)
    assert Tenant.objects.count() == 1


def test_it_prints_a_key_once_and_nothing_else_on_standard_output(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tenant = make_tenant()
    out, err = run("create_api_key")
    text = out.strip()
    found = find(text)
    assert found is not None
    assert found.tenant_id == tenant.pk
    # The stream is everybody's: that scope has to be asked for by name.
    assert found.scopes == set(TENANTS_SCOPES) == SCOPES.keys() - {"stream:write"}
    (entry,) = AuditEntry.objects.all()
    assert (entry.action, entry.tenant) == ("key.create", tenant)
    assert text not in err + caplog.text + entry.detail


def test_it_makes_the_key_that_is_asked_for() -> None:
    make_tenant(slug="acme", name="Acme")
    out, _ = run("create_api_key", "acme", "--name", "ci", "--scope", "stream:write", "--scope", "events:read", "--days", "1.5", "--rate-limit", "9")
    found, key = find(out.strip()), ApiKey.objects.get()
    assert found
    assert (found.scopes, found.rate_limit_per_s, key.name, key.tenant.slug) == (frozenset({"events:read", "stream:write"}), 9, "ci", "acme")
    assert found.expires_at
    assert timedelta(days=1.4) < found.expires_at - timezone.now() < timedelta(days=1.6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "no tenant 'nobody'. Tenants: default"),
        (["--days", "0"], "above 0"),
        (["--days", "-1"], "above 0"),
        (["--days", "nan"], "above 0"),
        (["--days", "1e9"], "36,500"),
        (["--rate-limit", "0"], "1 to 1,000,000"),
        (["--scope", "everything"], "invalid choice"),
        (["--name", ""], "blank"),
    ],
)
def test_it_makes_no_key_of_what_cannot_be_one(arguments: list[str], words: str) -> None:
    make_tenant()
    with pytest.raises(CommandError, match=words):
        run("create_api_key", *arguments)
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("command", [["create_api_key"], ["create_tenant", "acme"]])
def test_it_says_so_where_there_is_no_installation(command: list[str], tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        env |= {"SECRET_KEY": "none", "JETRELAY_ENCRYPTION_KEYS": "a" * 43 + "="}
        done = subprocess.run([sys.executable, "manage.py", *command], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "start one first (make run)" in done.stderr
    assert "Traceback" not in done.stderr
