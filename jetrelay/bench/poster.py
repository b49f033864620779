"""Clients that post one event after another, for `ingest` and `gateway`: wrk where it is installed, else libcurl's multi interface.

The client shares the machine with what is measured, so it has to cost next to nothing: wrk does.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import pycurl
from django.core.management.base import CommandError

from jetrelay.bench.spread import percentile

# What it takes to start and to stop, at most.
_GRACE_S = 60

_WRK = """
wrk.method, wrk.body = "POST", {body}
wrk.headers["Authorization"], wrk.headers["Content-Type"] = {authorization}, "application/json"
function done(summary, latency, requests)
  local bad = summary.errors
  io.write(string.format('\\n{{"answered": %d, "seconds": %f, "p50_ms": %f, "p95_ms": %f, "refused": %d, "failed": %d}}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, bad.status, bad.connect + bad.read + bad.write + bad.timeout))
end
"""


class Posting(NamedTuple):
    """How many posts were answered with success, in how many seconds; and their latency."""

    answered: int
    seconds: float
    p50_ms: float
    p95_ms: float
    client: str

    @property
    def per_s(self) -> float:
        return self.answered / self.seconds


def post(folder: Path, url: str, key: str, body: str, connections: int, seconds: float) -> Posting:
    """Post this body over so many connections for so long. Raises CommandError when any post fails."""
    found = _by_wrk(folder, url, key, body, connections, seconds) if shutil.which("wrk") else _by_libcurl(url, key, body, connections, seconds)
    if bad := found.pop("refused") + found.pop("failed"):
        raise CommandError(f"{bad:,.0f} of {found['answered']:,.0f} posts failed, so the figures say nothing.")
    return Posting(**found)


def _by_wrk(folder: Path, url: str, key: str, body: str, connections: int, seconds: float) -> dict[str, Any]:
    script = folder / "post.lua"
    # A JSON string is a Lua string as well, as long as nothing in it is escaped.
    script.write_text(_WRK.format(body=_lua(body), authorization=_lua(f"Bearer {key}")))
    argv = [
        "wrk",
        "--threads",
        "1",
        "--connections",
        str(connections),
        "--duration",
        f"{max(1, round(seconds))}s",
        "--timeout",
        "30s",
        "--script",
        str(script),
        url,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + _GRACE_S, check=False)
    if done.returncode:
        raise CommandError(f"wrk failed: {done.stderr or done.stdout}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"client": "wrk"}


def _lua(text: str) -> str:
    return f"[==[{text}]==]"


def _by_libcurl(url: str, key: str, body: str, connections: int, seconds: float) -> dict[str, Any]:
    """In a process of its own: its work must not be done by a process that is measured, nor wait for it."""
    argv = [sys.executable, "-m", "jetrelay.bench.poster", url, str(connections), str(seconds)]
    done = subprocess.run(argv, input=json.dumps({"key": key, "body": body}), capture_output=True, text=True, timeout=seconds + _GRACE_S, check=False)
    if done.returncode:
        raise CommandError(f"The client failed: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"client": "libcurl"}


def _run(url: str, key: str, body: str, connections: int, seconds: float) -> Mapping[str, float]:
    multi, started_at, times, refused, failed = pycurl.CurlMulti(), dict[pycurl.Curl, float](), list[float](), 0, 0
    begun = perf_counter()
    for _ in range(connections):
        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.HTTPHEADER, [f"Authorization: Bearer {key}", "Content-Type: application/json", "Expect:"])
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.WRITEFUNCTION, len)
        multi.add_handle(curl)
        started_at[curl] = perf_counter()
    while started_at:
        multi.perform()
        _, good, bad = multi.info_read()
        for curl in [*good, *(each for each, *_ in bad)]:
            times.append((perf_counter() - started_at.pop(curl)) * 1000)
            multi.remove_handle(curl)
            if perf_counter() - begun < seconds:
                multi.add_handle(curl)
                started_at[curl] = perf_counter()
        refused += sum(curl.getinfo(pycurl.RESPONSE_CODE) >= 300 for curl in good)
        failed += len(bad)
        if not good and not bad:
            multi.select(1.0)
    times.sort()
    took = perf_counter() - begun
    return {
        "answered": len(times), "seconds": took, "p50_ms": percentile(times, 50), "p95_ms": percentile(times, 95), "refused": refused, "failed": failed
    }  # fmt: skip


if __name__ == "__main__":
    _url, _connections, _seconds = sys.argv[1:]
    _wish = json.load(sys.stdin)
    print(json.dumps(_run(_url, _wish["key"], _wish["body"], int(_connections), float(_seconds))))
