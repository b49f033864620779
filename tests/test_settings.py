"""Settings from the environment, read by processes that have nothing else: defaults, and refusals by name."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from jetrelay import generated_secrets
from subscriptions.validation import V2_PATH
from tests.whole import ROOT, engines

# Reads the settings afresh for each environment on its input; says what they are, or what is wrong.
READ = """
import importlib, json, os, sys
from django.core.exceptions import ImproperlyConfigured
import jetrelay
own, answers = dict(os.environ), []
for environment in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(own | environment)
    try:
        settings = importlib.import_module("jetrelay.settings")
        importlib.reload(settings)
        answers.append({name: getattr(settings, name) for name in dir(settings) if name.isupper()})
    except ImproperlyConfigured as error:
        answers.append(str(error))
json.dump(answers, sys.stdout, default=str)
"""


def read(folder: Path, *environments: Mapping[str, str]) -> list[Any]:
    """What a process makes of each of these environments: its settings, or a message."""
    with engines("embedded", folder / "data") as env:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", READ], env=env, cwd=ROOT, input=json.dumps(environments), capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def assert_all(folder: Path, name: str, cases: Mapping[str, object], **others: str) -> None:
    """Each value of the variable becomes the setting of that name."""
    found = read(folder, *({**others, name: value} for value in cases))
    assert {value: settings if isinstance(settings, str) else settings[name] for value, settings in zip(cases, found, strict=True)} == cases


def assert_refused(folder: Path, cases: list[tuple[dict[str, str], str]]) -> None:
    """Each environment is refused with a message that begins with these words."""
    found = read(folder, *(environment for environment, _ in cases))
    wrong = [(environment, answer) for (environment, words), answer in zip(cases, found, strict=True) if not str(answer).startswith(words)]
    assert not wrong


# --- Defaults ----------------------------------------------------------------------------------------------------------


def test_it_needs_nothing(tmp_path: Path) -> None:
    (found,) = read(tmp_path, {})
    data = tmp_path / "data"
    assert found["DATABASES"]["default"]["ENGINE"] == "django.db.backends.sqlite3"
    assert found["DATABASES"]["default"]["NAME"] == str(data / "jetrelay.sqlite3")
    assert found["CELERY_BROKER_URL"] == "filesystem://localhost"
    assert found["CELERY_BROKER_TRANSPORT_OPTIONS"]["data_folder_in"] == str(data / "broker" / "messages")
    assert (found["PORT"], found["JETRELAY_LANES"], found["DEBUG"], found["LOG_LEVEL"]) == (8000, 8, False, "INFO")
    assert found["JETSTREAM_HOSTS"] == [
        "wss://jetstream.us-east.bsky.network/xrpc/network.bsky.jetstream.subscribeEvents",
        "wss://jetstream.us-west.bsky.network/subscribe",
    ]
    assert (found["JETSTREAM_COLLECTIONS"], found["JETSTREAM_DIDS"], found["JETSTREAM_KINDS"]) == ([], [], ["commit"])
    assert (found["WEBHOOK_URL"], found["WEBHOOK_SECRET"], found["WEBHOOK_BEARER_TOKEN"]) == ("", "", "")
    assert found["JETRELAY_ALLOWED_NETWORKS"] == found["JETRELAY_TRUSTED_PROXIES"] == []
    assert (found["JETRELAY_RETENTION_DAYS"], found["JETRELAY_DEAD_LETTER_DAYS"], found["JETRELAY_AUDIT_DAYS"]) == (7, 30, 365)
    assert found["JETRELAY_VERIFY_ENDPOINTS"] is True
    assert (found["JETRELAY_METRICS_TOKEN"], found["JETRELAY_METRICS_NETWORKS"]) == ("", ["127.0.0.0/8", "::1/128"])
    assert (found["JETRELAY_READY_MAX_LAG_S"], found["JETRELAY_REQUEST_LIMIT_S"]) == (300, 5)
    assert found["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]


def test_it_takes_an_empty_variable_for_none(tmp_path: Path) -> None:
    names = (
        "DATABASE_URL",
        "BROKER_URL",
        "PORT",
        "JETSTREAM_HOSTS",
        "JETSTREAM_COLLECTIONS",
        "JETSTREAM_KINDS",
        "WEBHOOK_URL",
        "JETRELAY_LANES",
        "JETRELAY_RETENTION_DAYS",
        "JETRELAY_DEAD_LETTER_DAYS",
        "JETRELAY_AUDIT_DAYS",
        "JETRELAY_HSTS_SECONDS",
        "JETRELAY_VERIFY_ENDPOINTS",
        "JETRELAY_METRICS_TOKEN",
        "JETRELAY_METRICS_NETWORKS",
        "JETRELAY_READY_MAX_LAG_S",
        "JETRELAY_REQUEST_LIMIT_S",
        "JETRELAY_DEBUG",
    )
    default, empty, blank = read(tmp_path, {}, dict.fromkeys(names, ""), dict.fromkeys(names, " "))
    assert default == empty == blank


# --- Values ------------------------------------------------------------------------------------------------------------


def test_it_reads_lists(tmp_path: Path) -> None:
    hook = {"JETSTREAM_DIDS": "did:plc:abc"}
    assert_all(
        tmp_path,
        "JETSTREAM_COLLECTIONS",
        {
            "*": ["*"],
            "app.bsky.feed.post": ["app.bsky.feed.post"],
            " app.bsky.feed.post , app.bsky.graph.*,": ["app.bsky.feed.post", "app.bsky.graph.*"],
            # A repeat would look like a change at every start.
            "app.x.y,app.a.b,app.x.y": ["app.x.y", "app.a.b"],
        },
        **hook,
    )


def test_it_reads_addresses_of_webhooks(tmp_path: Path) -> None:
    assert_all(
        tmp_path,
        "WEBHOOK_URL",
        {
            "http://localhost:3000/hook": "http://localhost:3000/hook",
            "https://BÜCHER.example": "https://xn--bcher-kva.example/",
            " https://a.example/b ": "https://a.example/b",
        },
        JETSTREAM_COLLECTIONS="*",
    )


def test_it_reads_the_host_of_a_stream(tmp_path: Path) -> None:
    assert_all(
        tmp_path,
        "JETSTREAM_HOSTS",
        {
            "ws://127.0.0.1:6008": ["ws://127.0.0.1:6008/subscribe"],
            "wss://JETSTREAM.example/subscribe": ["wss://jetstream.example/subscribe"],
            "wss://a.example,wss://a.example/subscribe": ["wss://a.example/subscribe"],
            "wss://a.example, wss://b.example/x/subscribe": ["wss://a.example/subscribe", "wss://b.example/x/subscribe"],
            f"wss://A.example{V2_PATH}/": [f"wss://a.example{V2_PATH}"],
        },
    )


def test_it_reads_databases(tmp_path: Path) -> None:
    postgres, sqlite = read(
        tmp_path, {"DATABASE_URL": "postgres://someone:p%40ss@db.example:5433/relay"}, {"DATABASE_URL": f"sqlite:///{tmp_path}/deep/down/x.sqlite3"}
    )
    found = postgres["DATABASES"]["default"]
    assert found["ENGINE"] == "django.db.backends.postgresql"
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"], found["NAME"]) == ("someone", "p@ss", "db.example", 5433, "relay")
    assert sqlite["DATABASES"]["default"]["NAME"] == f"{tmp_path}/deep/down/x.sqlite3"
    assert (tmp_path / "deep" / "down").is_dir()
    assert sqlite["DATABASES"]["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_it_lets_no_silent_server_hold_it_up_unless_it_is_told_to(tmp_path: Path) -> None:
    plain, told, sqlite = read(
        tmp_path,
        {"DATABASE_URL": "postgres://db.example/relay", "BROKER_URL": "redis://redis.example/0"},
        {"DATABASE_URL": "postgres://db.example/relay?connect_timeout=60&keepalives_idle=300&tcp_user_timeout=0&sslmode=require"},
        {},
    )
    noticed = {"connect_timeout": 5, "keepalives": 1, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
    assert plain["DATABASES"]["default"]["OPTIONS"] == noticed
    own = {"connect_timeout": 60, "keepalives_idle": 300, "tcp_user_timeout": 0, "sslmode": "require"}
    assert told["DATABASES"]["default"]["OPTIONS"] == noticed | own
    assert not noticed.keys() & sqlite["DATABASES"]["default"]["OPTIONS"].keys()
    watched = {"socket_keepalive": True, "health_check_interval": 10}
    assert plain["CELERY_BROKER_TRANSPORT_OPTIONS"] == watched | {"socket_connect_timeout": 2, "socket_timeout": 5}
    for cache in plain["CACHES"].values():
        assert cache["OPTIONS"] == watched | {"socket_connect_timeout": 1, "socket_timeout": 1}


def test_it_is_strict_where_its_public_url_is_https(tmp_path: Path) -> None:
    public, proxies = {"JETRELAY_PUBLIC_URL": "https://relay.example/"}, {"JETRELAY_TRUSTED_PROXIES": "10.0.0.0/8"}
    none, plain, tls, without_hsts = read(
        tmp_path, proxies, proxies | {"JETRELAY_PUBLIC_URL": "http://relay.example"}, public, public | {"JETRELAY_HSTS_SECONDS": "0"}
    )
    for lax in (none, plain):
        assert not {"SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS", "SECURE_SSL_REDIRECT", "SECURE_PROXY_SSL_HEADER"} & lax.keys()
    assert (tls["SESSION_COOKIE_SECURE"], tls["CSRF_COOKIE_SECURE"], tls["CSRF_TRUSTED_ORIGINS"]) == (True, True, ["https://relay.example"])
    assert tls["ALLOWED_HOSTS"][-1] == "relay.example"
    assert (tls["SECURE_HSTS_SECONDS"], without_hsts["SECURE_HSTS_SECONDS"]) == (15_552_000, 0)


def test_it_believes_a_proxy_only_where_one_is_named(tmp_path: Path) -> None:
    """Else anybody's header would do, and a redirect would lead in circles."""
    public = {"JETRELAY_PUBLIC_URL": "https://relay.example:8443"}
    alone, behind = read(tmp_path, public, public | {"JETRELAY_TRUSTED_PROXIES": "10.0.0.0/8"})
    assert not {"SECURE_PROXY_SSL_HEADER", "SECURE_SSL_REDIRECT"} & alone.keys()
    assert (behind["SECURE_PROXY_SSL_HEADER"], behind["SECURE_SSL_REDIRECT"]) == (["HTTP_X_FORWARDED_PROTO", "https"], True)
    assert behind["SECURE_SSL_HOST"] == "relay.example:8443"


# --- Refusals ----------------------------------------------------------------------------------------------------------


def test_it_logs_attempts_by_who_reads(tmp_path: Path) -> None:
    assert_all(tmp_path, "JETRELAY_LOG_ATTEMPTS", {"": "failed", "ALL": "all", "none": "none"})
    assert_all(tmp_path, "JETRELAY_LOG_ATTEMPTS", {"": "all", "failed": "failed"}, JETRELAY_LOG_FORMAT="JSON")
    assert_all(tmp_path, "JETRELAY_LOG_REQUESTS", {"": False, "1": True})
    assert_all(tmp_path, "JETRELAY_LOG_REQUESTS", {"": True, "no": False}, JETRELAY_LOG_LEVEL="debug")


def test_it_refuses_wrong_values_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert_refused(
        tmp_path,
        [
            ({"JETSTREAM_HOSTS": "https://example.com"}, "JETSTREAM_HOSTS: 'https://example.com' is not a URL"),
            ({"JETSTREAM_HOSTS": ","}, "JETSTREAM_HOSTS names 0 hosts: name one to eight"),
            ({"JETSTREAM_HOSTS": ",".join(f"wss://{number}.example" for number in range(9))}, "JETSTREAM_HOSTS names 9 hosts: name one to eight"),
            ({"JETSTREAM_HOSTS": "wss://a.example/xrpc"}, "JETSTREAM_HOSTS: 'wss://a.example/xrpc' has the path '/xrpc': use /subscribe for the v1"),
            ({"JETRELAY_HSTS_SECONDS": "a year"}, "JETRELAY_HSTS_SECONDS is 'a year': use a whole number from 0 to"),
            ({"JETSTREAM_ZSTD_DICTIONARY": "/nowhere"}, "JETSTREAM_ZSTD_DICTIONARY: '/nowhere' is not valid: the file cannot be read: No such file"),
            ({"JETSTREAM_ZSTD_DICTIONARY": str(tmp_path / "file")}, f"JETSTREAM_ZSTD_DICTIONARY: '{tmp_path}/file' is not valid: these bytes are"),
            ({"JETSTREAM_COLLECTIONS": "app.bsky.feed.post,app.bsky.fo*"}, "JETSTREAM_COLLECTIONS: 'app.bsky.fo*' is not a collection"),
            ({"JETSTREAM_COLLECTIONS": "app.bsky.feed.post app.bsky.feed.like"}, "JETSTREAM_COLLECTIONS: 'app.bsky.feed.post app.bsky.feed.like' is not"),
            ({"JETSTREAM_DIDS": "alice.example"}, "JETSTREAM_DIDS: 'alice.example' is not a DID"),
            ({"JETSTREAM_KINDS": "posts"}, "JETSTREAM_KINDS: 'posts' is not a kind of event: use commit"),
            ({"WEBHOOK_URL": "example.com/hook"}, "WEBHOOK_URL: 'example.com/hook' is not a URL"),
            ({"WEBHOOK_URL": "https://user:hunter2@example.com/"}, "WEBHOOK_URL: The URL holds a user name or password"),
            ({"WEBHOOK_URL": "https://example.com/"}, "WEBHOOK_URL is set, but nothing says what to send there: set JETSTREAM_COLLECTIONS"),
            ({"WEBHOOK_SECRET": "hunter2"}, "WEBHOOK_SECRET: A signing secret is whsec_"),
            ({"WEBHOOK_SECRET": "whsec_hünter2"}, "WEBHOOK_SECRET: A signing secret is whsec_"),
            ({"WEBHOOK_BEARER_TOKEN": "two words"}, "WEBHOOK_BEARER_TOKEN: A bearer token is"),
            ({"JETRELAY_ALLOWED_NETWORKS": "10.0.0.0/33"}, "JETRELAY_ALLOWED_NETWORKS: '10.0.0.0/33' is not valid"),
            ({"JETRELAY_ALLOWED_NETWORKS": "10.0.0.1/8"}, "JETRELAY_ALLOWED_NETWORKS: '10.0.0.1/8' is not valid"),
            ({"JETRELAY_LANES": "0"}, "JETRELAY_LANES is '0': use a whole number from 1 to 256."),
            ({"JETRELAY_LANES": "257"}, "JETRELAY_LANES is '257'"),
            ({"JETRELAY_LANES": "8.5"}, "JETRELAY_LANES is '8.5'"),
            ({"JETRELAY_RETENTION_DAYS": "0"}, "JETRELAY_RETENTION_DAYS is '0': use a whole number from 1 to 3650."),
            ({"JETRELAY_RETENTION_DAYS": "never"}, "JETRELAY_RETENTION_DAYS is 'never': use a whole number from 1 to 3650."),
            ({"JETRELAY_RETENTION_DAYS": "-7"}, "JETRELAY_RETENTION_DAYS is '-7'"),
            ({"JETRELAY_RETENTION_DAYS": "0.5"}, "JETRELAY_RETENTION_DAYS is '0.5'"),
            ({"JETRELAY_DEAD_LETTER_DAYS": "3651"}, "JETRELAY_DEAD_LETTER_DAYS is '3651': use a whole number from 1 to 3650."),
            ({"JETRELAY_DEAD_LETTER_DAYS": "0"}, "JETRELAY_DEAD_LETTER_DAYS is '0'"),
            ({"JETRELAY_AUDIT_DAYS": "3651"}, "JETRELAY_AUDIT_DAYS is '3651': use a whole number from 1 to 3650."),
            ({"JETRELAY_REQUEST_LIMIT_S": "0"}, "JETRELAY_REQUEST_LIMIT_S is '0': use a whole number from 1 to 300."),
            ({"JETRELAY_READY_MAX_LAG_S": "0"}, "JETRELAY_READY_MAX_LAG_S is '0': use a whole number from 1 to 86400."),
            ({"JETRELAY_METRICS_NETWORKS": "10.0.0.1/8"}, "JETRELAY_METRICS_NETWORKS: '10.0.0.1/8' is not valid"),
            ({"JETRELAY_METRICS_TOKEN": "two words"}, "JETRELAY_METRICS_TOKEN: A bearer token is at most"),
            ({"PORT": "0"}, "PORT is '0': use a whole number from 1 to 65535."),
            ({"PORT": "http"}, "PORT is 'http'"),
            ({"DATABASE_URL": "mysql://localhost/x"}, "DATABASE_URL starts with 'mysql': use sqlite:///path or postgres://"),
            ({"DATABASE_URL": "relay.sqlite3"}, "DATABASE_URL starts with 'relay.sqlite3'"),
            ({"DATABASE_URL": "postgres://localhost"}, "DATABASE_URL names no database"),
            ({"DATABASE_URL": "postgres://localhost:port/x"}, "DATABASE_URL is not a database URL"),
            ({"BROKER_URL": "kafka://localhost"}, "BROKER_URL is not a Redis URL: write it like redis://host:6379/0"),
            ({"BROKER_URL": "redis://localhost/abc"}, "BROKER_URL is not a Redis URL"),
            ({"BROKER_URL": "redis://localhost:x/0"}, "BROKER_URL is not a Redis URL"),
            ({"DATABASE_URL": "sqlite://x.db"}, "DATABASE_URL is 'sqlite://x.db': a file is written with three slashes"),
            ({"JETRELAY_ENCRYPTION_KEYS": "abc"}, "JETRELAY_ENCRYPTION_KEYS: each key is the URL-safe base64 of 32 bytes."),
            ({"JETRELAY_ALLOWED_HOSTS": "https://a.example"}, "JETRELAY_ALLOWED_HOSTS: 'https://a.example' is not valid"),
            ({"JETRELAY_DEBUG": "perhaps"}, "JETRELAY_DEBUG is 'perhaps': use true or false."),
            ({"JETRELAY_LOG_LEVEL": "loud"}, "JETRELAY_LOG_LEVEL is 'LOUD': use DEBUG, INFO, WARNING or ERROR."),
            ({"JETRELAY_LOG_FORMAT": "xml"}, "JETRELAY_LOG_FORMAT is 'xml': use console or json."),
            ({"JETRELAY_LOG_ATTEMPTS": "some"}, "JETRELAY_LOG_ATTEMPTS is 'some': use all, failed or none."),
            ({"JETRELAY_LOG_REQUESTS": "some"}, "JETRELAY_LOG_REQUESTS is 'some': use true or false."),
            ({"JETRELAY_PUBLIC_URL": "https://[bad"}, "JETRELAY_PUBLIC_URL is 'https://[bad': use a URL such as"),
            ({"JETRELAY_PUBLIC_URL": "https://relay.example:99999"}, "JETRELAY_PUBLIC_URL is 'https://relay.example:99999': use a URL such as"),
            ({"DATABASE_URL": "postgres://u:se/cret@h:1/d"}, "DATABASE_URL is not a database URL: use postgres://user:password@host:5432/name, and"),
            ({"JETRELAY_PUBLIC_URL": "relay.example.com"}, "JETRELAY_PUBLIC_URL is 'relay.example.com': use a URL such as"),
            ({"JETRELAY_DATA_DIR": str(tmp_path / "file")}, "JETRELAY_DATA_DIR: "),
        ],
    )


def test_it_keeps_secrets_out_of_its_messages(tmp_path: Path) -> None:
    wrong = [{"WEBHOOK_SECRET": "whsec_hunter2"}, {"WEBHOOK_SECRET": "hunter2é"}, {"WEBHOOK_BEARER_TOKEN": "hunter2 x"}]
    # A slash or a question mark in a password ends the part of a URL in which it would be seen as one.
    passwords = ("hunter2", "hunter2/", "hunter2?", "hunter2#/", "[hunter2", " hunter2", "hunter2\\")
    for name, scheme in (("WEBHOOK_URL", "https"), ("JETSTREAM_HOSTS", "wss")):
        wrong += [{name: f"{scheme}://x:{password}@example.com/"} for password in passwords]
    wrong += [{"WEBHOOK_URL": "x:hunter2@example.com"}, {"WEBHOOK_URL": "ftp://x:hunter2@example.com"}]
    for environment, answer in zip(wrong, read(tmp_path, *({"JETSTREAM_COLLECTIONS": "*"} | one for one in wrong)), strict=True):
        assert isinstance(answer, str), environment
        assert "hunter2" not in answer


@pytest.mark.parametrize("command", [["migrate"], ["run_jetstream"], ["bootstrap"], ["bench", "limit"], ["play_jetstream", "x.ndjson"]])
def test_it_ends_every_command_with_one_line(command: list[str], tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        done = subprocess.run(
            [sys.executable, "manage.py", *command], env=env | {"SECRET_KEY": "x", "PORT": "no"}, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "jetrelay: PORT is 'no': use a whole number from 1 to 65535.\n"


def test_it_says_that_the_keys_are_missing(tmp_path: Path) -> None:
    with engines("embedded", tmp_path / "data") as env:
        env["SECRET_KEY"] = "x"
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], env=env, cwd=ROOT, check=True, timeout=60)
        env |= {"WEBHOOK_URL": "http://localhost:3000/", "JETSTREAM_COLLECTIONS": "*"}
        done = subprocess.run([sys.executable, "manage.py", "bootstrap"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("jetrelay: JETRELAY_ENCRYPTION_KEYS is not set: `manage.py up` makes a key")


# --- Generated secrets -------------------------------------------------------------------------------------------------


def test_it_makes_missing_secrets_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    first = generated_secrets.ensure(tmp_path / "new")
    assert generated_secrets.ensure(tmp_path / "new") == generated_secrets.load(tmp_path / "new") == first
    assert set(first) == {"SECRET_KEY", "JETRELAY_ENCRYPTION_KEYS"}
    assert (tmp_path / "new" / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["secrets.json"]


def test_it_keeps_the_secrets_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"SECRET_KEY": "mine", "OTHER": "kept"}')
    found = generated_secrets.ensure(tmp_path)
    assert (found["SECRET_KEY"], found["OTHER"]) == ("mine", "kept")
    assert found["JETRELAY_ENCRYPTION_KEYS"]


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\x00"])
def test_it_overwrites_no_file_that_it_cannot_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"secrets\.json"):
        generated_secrets.ensure(tmp_path)
    assert path.read_text() == text


def test_it_reads_generated_secrets_unless_the_environment_has_its_own(tmp_path: Path) -> None:
    made = generated_secrets.ensure(tmp_path / "data")
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    found, own = read(tmp_path, {}, {"SECRET_KEY": "mine", "JETRELAY_ENCRYPTION_KEYS": ", ".join(keys)})
    assert (found["SECRET_KEY"], found["JETRELAY_ENCRYPTION_KEYS"]) == (made["SECRET_KEY"], [made["JETRELAY_ENCRYPTION_KEYS"]])
    assert (own["SECRET_KEY"], own["JETRELAY_ENCRYPTION_KEYS"]) == ("mine", keys)
