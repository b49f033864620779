"""Reading the environment: every value is checked here, and a wrong one is reported by its name.

Readers return plain values. They raise ImproperlyConfigured with the variable's name, what it holds
and what it should hold, because that sentence is all an operator sees when the program does not start.
"""

import ipaddress
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured, ValidationError

from jetrelay import own_files

T = TypeVar("T")

# How soon PostgreSQL's client notices that the other end is gone without a word, where a firewall drops packets, say: a new connection in 5 s
# for each host of the URL, one at rest or waiting for an answer in 30 s, one whose packets nobody acknowledges in 20 s.
_NOTICED = {"connect_timeout": 5, "keepalives": 1, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}

_env = environ.Env()
_read: set[str] = set()


def text(name: str, default: str = "") -> str:
    _read.add(name)
    return str(_env.str(name, default)).strip()


def flag(name: str, default: bool) -> bool:
    value = text(name).lower()
    if value in ("", "1", "true", "yes", "on", "0", "false", "no", "off"):
        return default if value == "" else value in ("1", "true", "yes", "on")
    raise ImproperlyConfigured(f"{name} is {value!r}: use true or false.")


def choice(name: str, choices: Sequence[str], default: str) -> str:
    value = text(name).lower() or default
    if value not in choices:
        raise ImproperlyConfigured(f"{name} is {value!r}: use {', '.join(choices[:-1])} or {choices[-1]}.")
    return value


def integer(name: str, default: int, low: int, high: int) -> int:
    value = text(name, str(default)) or str(default)
    try:
        number = int(value)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise ImproperlyConfigured(f"{name} is {value!r}: use a whole number from {low} to {high}.")
    return number


def items(name: str, clean: Callable[[str], T], default: str = "") -> list[T]:
    """A comma-separated list, each item through `clean` (which raises ValidationError or ValueError)."""
    found = []
    for item in (text(name) or default).split(","):
        if item.strip():
            found.append(one(name, item.strip(), clean))
    return list(dict.fromkeys(found))


def one(name: str, value: str, clean: Callable[[str], T]) -> T:
    try:
        return clean(value)
    except ValidationError as error:
        raise ImproperlyConfigured(f"{name}: {' '.join(error.messages)}") from error
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {value!r} is not valid: {error}") from error


def encryption_keys(name: str, value: str) -> list[str]:
    """Fernet keys, comma-separated. The message never holds them."""
    keys = [key.strip() for key in value.split(",") if key.strip()]
    try:
        for key in keys:
            Fernet(key)
    except ValueError as error:
        raise ImproperlyConfigured(
            f"{name}: each key is the URL-safe base64 of 32 bytes."
            ' Make one with: python3 -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
        ) from error
    return keys


def host_name(value: str) -> str:
    """A name for ALLOWED_HOSTS."""
    if "/" in value or "@" in value or " " in value:
        raise ValueError("a host name without scheme or path, such as relay.example.com")
    return value


def make_folder(path: Path, name: str = "JETRELAY_DATA_DIR") -> None:
    """`name`: the variable that names it."""
    try:
        own_files.make_folder(path)
    except OSError as error:
        advice = "Name a folder that the user who runs this may write to, on a disk with room"
        raise ImproperlyConfigured(f"{name}: {path} cannot be made: {error.strerror}. {advice}.") from error


def unknown() -> list[str]:
    """Variables that look like ours and that nothing reads: most likely misspelt."""
    return sorted(name for name in os.environ if name.startswith(("JETRELAY_", "JETSTREAM_", "WEBHOOK_")) and name not in _read)


def network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network in CIDR notation, for JETRELAY_ALLOWED_NETWORKS and JETRELAY_TRUSTED_PROXIES."""
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError as error:
        raise ValueError("write a network in CIDR notation, such as 10.0.0.0/8 or fd00::/8") from error
    found = interface.network
    if isinstance(interface, ipaddress.IPv6Interface) and (interface.ipv4_mapped or interface.scope_id):
        raise ValueError("an IPv4-mapped address or a zone cannot be matched: write the plain IPv4 or IPv6 network")
    if interface.ip != found.network_address:
        raise ValueError(f"the address has bits beyond /{found.prefixlen}: write {found}")
    return found


def site(name: str) -> str:
    """Where people reach the site, without a slash at the end; empty if it is not set."""
    url = text(name).rstrip("/")
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if url and not is_one:
        raise ImproperlyConfigured(f"{name} is {url!r}: use a URL such as https://relay.example.com.")
    return url


def database(name: str, data_dir: Path) -> dict[str, object]:
    """Django's DATABASES entry for a sqlite:/// or postgres:// URL (default: a file in the data directory)."""
    url = text(name) or f"sqlite:///{data_dir / own_files.DATABASE}"
    scheme = url.partition("://")[0]
    if scheme not in ("sqlite", "postgres", "postgresql"):
        raise ImproperlyConfigured(f"{name} starts with {scheme!r}: use sqlite:///path or postgres://user:password@host:5432/name.")
    if scheme == "sqlite" and not url.startswith("sqlite:///"):
        raise ImproperlyConfigured(f"{name} is {url!r}: a file is written with three slashes, or four for an absolute path: sqlite:////srv/jetrelay.sqlite3.")
    try:
        config: dict[str, object] = dict(_env.db_url_config(url))
    except (ValueError, ImproperlyConfigured) as error:
        # What the parser says quotes the URL, and the password in it.
        advice = "in a user name or a password, write characters such as / : @ # % as %2F %3A %40 %23 %25"
        raise ImproperlyConfigured(f"{name} is not a database URL: use postgres://user:password@host:5432/name, and {advice}.") from error
    if scheme == "sqlite":
        config["OPTIONS"] = {
            "timeout": 30,
            "factory": own_files.Connection,
            # A deferred transaction that reads first cannot wait for the writer: it fails at once when it upgrades.
            "transaction_mode": "IMMEDIATE",
            # FULL, so that a commit survives a power cut: "stored means kept" must mean the same on every engine.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA mmap_size=134217728; PRAGMA cache_size=-20000;",
        }
    else:
        if not config.get("NAME"):
            raise ImproperlyConfigured(f"{name} names no database: end it with /name.")
        # What the URL's query says goes before.
        config["OPTIONS"] = _NOTICED | dict(config.get("OPTIONS", {}))  # type: ignore[call-overload]
        config["CONN_MAX_AGE"] = 60
        config["CONN_HEALTH_CHECKS"] = True
    return config


def broker(name: str, data_dir: Path) -> tuple[str, dict[str, object]]:
    """Celery's broker URL and transport options (default: files in the data directory)."""
    url = text(name)
    if not url:
        folder = data_dir / "broker"
        for part in (data_dir, folder, folder / "messages", folder / "taken"):
            make_folder(part)
        return "filesystem://localhost", {
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "processed_folder": str(folder / "taken"),
            "polling_interval": 0.05,
        }
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0 and (parts.path.strip("/") or "0").isdecimal()
    except ValueError:
        good = False
    if not good:
        # The URL may hold a password: it stays out of the message.
        raise ImproperlyConfigured(f"{name} is not a Redis URL: write it like redis://host:6379/0, or leave it empty for files in the data directory.")
    # A broker that hangs must not hold up whoever sends a wake: losing a wake costs a second, waiting costs more.
    # A worker's takes block for a second each, well below the time-out; of one whose answer does not come kombu lets go after 21 s.
    return url, {"socket_connect_timeout": 2, "socket_timeout": 5, "socket_keepalive": True, "health_check_interval": 10}
