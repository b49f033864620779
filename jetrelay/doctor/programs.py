"""What is installed. Needs no settings."""

import platform
import resource
import sqlite3
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from jetrelay.doctor.finding import Finding, ok, problem, warning
from jetrelay.doctor.registry import Check
from jetrelay.front.served import FILES

OLDEST_PYTHON = (3, 11)
# Before this, what CURLOPT_RESOLVE is told could not be forgotten again (`delivery/destinations/names.py`).
OLDEST_LIBCURL = (7, 75, 0)
# Django asks for it.
OLDEST_SQLITE = (3, 31, 0)
PINS = Path(__file__).parent.parent.parent / "requirements.lock"
# So many are named.
SHOWN = 8


def python() -> Iterator[Finding]:
    told = f"Python {platform.python_version()}, Django {metadata.version('django')}, SQLite {sqlite3.sqlite_version}"
    if sys.version_info < OLDEST_PYTHON:
        yield problem(told, f"Install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer, and run `make install`.")
    elif sqlite3.sqlite_version_info < OLDEST_SQLITE:
        yield warning(told, f"SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer is wanted, unless PostgreSQL is used.")
    else:
        yield ok(told)


def libcurl() -> Iterator[Finding]:
    try:
        import pycurl
    except ImportError as error:
        yield problem(f"pycurl, which sends every delivery, cannot be imported: {error}", "Run `make install`.")
        return
    info = pycurl.version_info()
    version, features, protocols = info[1], info[4], info[8]
    told = f"libcurl {version} with {info[5] or 'no TLS'}"
    if "https" not in protocols:
        yield problem(f"{told}: it speaks no https", "Install pycurl from its wheel: run `make install` on a fresh .venv.")
    elif tuple(int(part) for part in version.split("-")[0].split(".")[:3]) < OLDEST_LIBCURL:
        yield problem(told, f"Install one with libcurl {'.'.join(map(str, OLDEST_LIBCURL))} or newer: run `make install` on a fresh .venv.")
    elif not features & pycurl.VERSION_HTTP2:
        yield warning(f"{told}, without HTTP/2", "Deliveries go by HTTP/1.1. Install pycurl from its wheel if receivers speak HTTP/2.")
    else:
        yield ok(told)


def packages() -> Iterator[Finding]:
    pins = list(pinned(PINS.read_text())) if PINS.exists() else []
    if not pins:
        yield warning(f"{PINS.name} is not beside manage.py: what is installed cannot be compared", "Install Jetrelay as a whole folder.")
        return
    missing = [str(pin) for pin in pins if _installed(pin) is None]
    other = [f"{pin.name} {found} ({pin.specifier})" for pin in pins if (found := _installed(pin)) and not pin.specifier.contains(found, prereleases=True)]
    if missing:
        yield problem(f"not installed: {_some(missing)}", "Run `make install`, or: pip install -r requirements.lock")
    if other:
        yield warning(
            f"not as pinned: {_some(other)}", "Only the pinned versions are tested together. Run `make install`, or: pip install -r requirements.lock"
        )
    if not missing and not other:
        yield ok(f"{len(pins)} packages, as pinned")


def files() -> Iterator[Finding]:
    """The web process raises its limit as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        advice = (
            f"Allow {FILES:,} (`ulimit -Hn`, LimitNOFILE= of the unit, `ulimits` of the container):"
            " with no file left the web process takes no more connections, until it is restarted."
        )
        yield warning(f"a process may open {hard:,} files", advice)
    else:
        yield ok(f"a process may open {FILES:,} files, as the web process needs")


def pinned(text: str) -> Iterator[Requirement]:
    """The requirements that are for this Python and system. Comments, options and hashes are passed over."""
    for line in text.replace("\\\n", " ").splitlines():
        words = line.partition(" #")[0].partition("--")[0].strip()
        if words and not words.startswith("#"):
            requirement = Requirement(words)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def _installed(pin: Requirement) -> str | None:
    try:
        return metadata.version(pin.name)
    except metadata.PackageNotFoundError:
        return None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


CHECKS = (Check("python", python), Check("libcurl", libcurl), Check("packages", packages), Check("open files", files))
