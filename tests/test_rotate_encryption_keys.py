"""Re-encrypting what is stored, and saying when an older key can go."""

import logging
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from jetrelay.api.models import IdempotentRequest
from jetrelay.inbox.models import Inbox
from subscriptions.management.commands import rotate_encryption_keys as command
from subscriptions.models import ConfigVersion, Endpoint, new_secret
from tests.builders import make_endpoint, make_tenant

pytestmark = pytest.mark.django_db

COLUMNS = ("secret", "previous_secret", "bearer_token", "extra_headers")
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture(autouse=True)
def _old_key(settings: Settings) -> None:
    settings.JETRELAY_ENCRYPTION_KEYS = [OLD]


def run(*options: str) -> str:
    out = StringIO()
    call_command("rotate_encryption_keys", *options, stdout=out)
    return out.getvalue()


def full_endpoint(**over: Any) -> Endpoint:
    return make_endpoint(**{"previous_secret": new_secret(), "bearer_token": "t0ken-of-theirs", "extra_headers": "X-Api-Key: k3y-of-theirs"} | over)


def raw(endpoint: Endpoint) -> dict[str, str]:
    """What the database itself holds in the endpoint's encrypted columns."""
    with connection.cursor() as cursor:
        id = endpoint.pk.hex if connection.vendor == "sqlite" else endpoint.pk
        cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM subscriptions_endpoint WHERE id = %s", [id])
        (row,) = cursor.fetchall()
    return dict(zip(COLUMNS, row, strict=True))


def plain(endpoint: Endpoint) -> tuple[str, ...]:
    return tuple(getattr(Endpoint.objects.get(pk=endpoint.pk), name) for name in COLUMNS)


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Let somebody change something between the moment a row is read and the one it is written."""
    write = command.rotate_row

    def late(*given: Any) -> int:
        monkeypatch.setattr(command, "rotate_row", write)
        change()
        return write(*given)

    monkeypatch.setattr(command, "rotate_row", late)


def test_it_finds_every_encrypted_field_by_itself() -> None:
    found = {model: [field.name for field in fields] for model, fields in command.encrypted_columns().items()}
    assert found == {Endpoint: list(COLUMNS), IdempotentRequest: ["answer"], Inbox: ["token"]}


def test_it_takes_the_answers_that_are_kept_for_repeated_requests_along(settings: Settings) -> None:
    kept = IdempotentRequest.objects.create(tenant=make_tenant(), key="k", fingerprint=b"f", status=201, answer='{"secret": "whsec_1"}')
    settings.JETRELAY_ENCRYPTION_KEYS = [Fernet.generate_key().decode(), *settings.JETRELAY_ENCRYPTION_KEYS]
    call_command("rotate_encryption_keys", stdout=StringIO())
    settings.JETRELAY_ENCRYPTION_KEYS = settings.JETRELAY_ENCRYPTION_KEYS[:1]
    kept.refresh_from_db()
    assert kept.answer == '{"secret": "whsec_1"}'


def test_it_puts_everything_under_the_first_key_and_changes_nothing_else(settings: Settings) -> None:
    endpoint, bare = full_endpoint(), make_endpoint(bearer_token="")
    before, version, rows = [plain(endpoint), plain(bare)], ConfigVersion.current(), list(Endpoint.objects.without_secrets().values("id", "url", "state"))
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    said = run()
    assert "Re-encrypted 5 of 5 values." in said
    assert "All 5 values are under the first key. The older keys can be removed from JETRELAY_ENCRYPTION_KEYS, if every process" in said
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW]
    assert [plain(endpoint), plain(bare)] == before
    assert raw(bare) == raw(bare) | {"previous_secret": "", "bearer_token": "", "extra_headers": ""}
    assert ConfigVersion.current() == version
    assert list(Endpoint.objects.without_secrets().values("id", "url", "state")) == rows
    assert Endpoint.objects.get(pk=endpoint.pk).secrets_at(timezone.now()) == [endpoint.secret]


def test_it_leaves_what_is_under_the_first_key_as_it_is(settings: Settings) -> None:
    old = full_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    current = full_endpoint()
    there = raw(current)
    assert "Re-encrypted 4 of 8 values." in run()
    assert raw(current) == there
    there = raw(old)
    assert "Re-encrypted 0 of 8 values." in run()
    assert raw(old) == there


def test_it_rotates_the_columns_of_one_row_that_need_it(settings: Settings) -> None:
    endpoint = full_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    Endpoint.objects.filter(pk=endpoint.pk).update(bearer_token="new")
    before = raw(endpoint)
    assert "Re-encrypted 3 of 4 values." in run()
    assert {name for name, value in raw(endpoint).items() if value == before[name]} == {"bearer_token"}


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_it_goes_through_all_rows_in_chunks(count: int, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CHUNK", 2)
    endpoints = [make_endpoint() for _ in range(count)]
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    assert f"Re-encrypted {count} of {count} values." in run()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW]
    assert [plain(endpoint)[0] for endpoint in endpoints] == [endpoint.secret for endpoint in endpoints]


def test_it_goes_on_where_it_was_killed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints = [full_endpoint() for _ in range(3)]
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]

    def killed() -> None:
        raise KeyboardInterrupt

    command.rotate_row(Endpoint, endpoints[0].pk, raw(endpoints[0]))
    with monkeypatch.context() as patched:
        meanwhile(patched, killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    with pytest.raises(CommandError, match="8 of 12 values are under an older key"):
        run("--check")
    assert "Re-encrypted 8 of 12 values." in run()


def test_it_does_not_overwrite_what_is_changed_meanwhile(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, secret = full_endpoint(), new_secret()

    def somebody_with_the_old_key() -> None:
        settings.JETRELAY_ENCRYPTION_KEYS = [OLD]
        Endpoint.objects.filter(pk=endpoint.pk).update(secret=secret, bearer_token="another")
        settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]

    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    meanwhile(monkeypatch, somebody_with_the_old_key)
    # The second pass finds what the first one left.
    assert "Re-encrypted 4 of 4 values." in run()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW]
    assert plain(endpoint) == (secret, endpoint.previous_secret, "another", endpoint.extra_headers)


def test_it_writes_nothing_to_a_row_that_is_no_longer_what_was_read(settings: Settings) -> None:
    endpoint = full_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    read = raw(endpoint)
    Endpoint.objects.filter(pk=endpoint.pk).update(bearer_token="another")
    there = raw(endpoint)
    assert command.rotate_row(Endpoint, endpoint.pk, read) == 0
    assert raw(endpoint) == there


def test_it_survives_a_row_that_is_deleted_meanwhile(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed, other = make_endpoint(), make_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    meanwhile(monkeypatch, doomed.delete)
    assert "Re-encrypted 1 of 1 values." in run()
    assert plain(other)[0] == other.secret


def test_it_gives_up_for_now_on_a_row_that_never_rests(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    make_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    monkeypatch.setattr(command, "rotate_row", lambda *_: 0)
    with pytest.raises(CommandError, match="1 of 1 values are under an older key: keep the older keys and run this again"):
        run()


def test_it_only_counts_when_it_checks(settings: Settings) -> None:
    endpoint = full_endpoint()
    assert run("--check") == "All 4 values are under the first key. There is no older key in JETRELAY_ENCRYPTION_KEYS.\n"
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    before = raw(endpoint)
    with pytest.raises(CommandError, match="4 of 4 values are under an older key: keep the older keys until rotate_encryption_keys has run") as caught:
        run("--check")
    assert caught.value.returncode == 1
    assert raw(endpoint) == before
    run()
    assert "The older keys can be removed" in run("--check")


def test_it_has_nothing_to_do_where_nothing_is_stored() -> None:
    assert "Re-encrypted 0 of 0 values." in run()


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_it_names_the_kind_of_row_that_no_key_opens_and_never_the_value(options: list[str], settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings.JETRELAY_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    lost, other = full_endpoint(), make_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = [OLD]
    well = make_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW, OLD]
    before = raw(lost)
    with pytest.raises(CommandError) as caught:
        run(*options)
    said = str(caught.value)
    assert (
        f"endpoint secret: 2, such as that of {lost.public_id}; endpoint previous secret: 1, such as that of {lost.public_id}; endpoint bearer token: 1" in said
    )
    assert "Put the key that they were written with back into the list" in said
    assert raw(lost) == before
    for hidden in (lost.secret, other.secret, lost.bearer_token, "k3y-of-theirs", *before.values(), NEW, OLD):
        assert hidden not in said + caplog.text
    # The rest is done all the same.
    settings.JETRELAY_ENCRYPTION_KEYS = [OLD] if options else [NEW]
    assert plain(well)[0] == well.secret


def test_it_names_what_was_never_encrypted(settings: Settings) -> None:
    endpoint = make_endpoint()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE subscriptions_endpoint SET bearer_token = 'pläin'")
    with pytest.raises(CommandError, match=f"endpoint bearer token: 1, such as that of {endpoint.public_id}"):
        run()


@pytest.mark.parametrize(("keys", "words"), [([], "JETRELAY_ENCRYPTION_KEYS is not set"), (["n0-key"], "each key is the URL-safe base64 of 32 bytes")])
def test_it_says_when_the_keys_are_missing_or_wrong(keys: list[str], words: str, settings: Settings) -> None:
    make_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = keys
    with pytest.raises(CommandError, match=words) as caught:
        run()
    assert "n0-key" not in str(caught.value)


def test_a_removed_key_that_was_still_needed_is_named_by_its_setting(settings: Settings) -> None:
    endpoint = make_endpoint()
    settings.JETRELAY_ENCRYPTION_KEYS = [NEW]
    with pytest.raises(ImproperlyConfigured, match="Put the key it was written with back into the list"):
        plain(endpoint)
