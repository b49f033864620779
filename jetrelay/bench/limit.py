"""The limit: libcurl's multi interface posting the same signed bodies in one process, with no database behind it.

That process is a child of the benchmark, as those are that it is compared with.
Written apart from the product's own sender, as plainly as it can be, so that it bounds what any sender here could do.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, time
from typing import Annotated

import pycurl

from delivery import signing
from delivery.sources.jetstream import demo_events
from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.processes import django, run
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink
from subscriptions.ids import new_id, to_public
from subscriptions.models import new_secret

# As many connections as the default endpoint of the pipeline may use.
CONNECTIONS = 32
# Different bodies, at most: enough that none is a habit.
MOST_BODIES = 5000


@dataclass(frozen=True)
class Limit:
    requests: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds


def measure(say: Say, *, events: Annotated[int, "requests to post"] = 30_000) -> Figures:
    with scratch() as (folder, env), sink(folder) as (url, sink_name):
        stream = folder / "stream.ndjson"
        demo_events.write(stream, MOST_BODIES)
        say(f"limit: posting to {sink_name} with no database")
        found = post(env, url, stream, events)
        return {
            "name": "limit",
            "ratio": 1.0,
            "limit_requests_per_s": round(found.per_s),
            "requests": events,
            "seconds_s": round(found.seconds, 3),
            "sink": sink_name,
        }


def post(env: Mapping[str, str], url: str, bodies: Path, requests: int) -> Limit:
    """Let a child post the first lines of this file, in turn, and time it. Raises CommandError if any is not answered with 200."""
    told = run(django(f"from jetrelay.bench.limit import tell; tell({url!r}, {str(bodies)!r}, {requests})"), env)
    return Limit(**json.loads(told.splitlines()[-1]))


def tell(url: str, bodies: str, requests: int) -> None:
    """What the child does: post, and print what came of it."""
    found = _post(url, Path(bodies).read_bytes().splitlines()[:MOST_BODIES], requests)
    print(json.dumps({"requests": found.requests, "seconds": found.seconds}))


def _post(url: str, bodies: Sequence[bytes], requests: int) -> Limit:
    """Raises RuntimeError if any is not answered with 200."""
    keys = [signing.key(new_secret())]
    multi = pycurl.CurlMulti()
    idle = [_handle(url) for _ in range(CONNECTIONS)]
    started, sent, finished = perf_counter(), 0, 0
    while finished < requests:
        while idle and sent < requests:
            curl, body = idle.pop(), bodies[sent % len(bodies)]
            curl.setopt(pycurl.HTTPHEADER, _headers(keys, body))
            curl.setopt(pycurl.POSTFIELDS, body)
            multi.add_handle(curl)
            sent += 1
        multi.perform()
        while True:
            queued, good, bad = multi.info_read()
            if bad:
                raise RuntimeError(f"the sink does not answer: {bad[0][2]}")
            for curl in good:
                if curl.getinfo(pycurl.RESPONSE_CODE) != 200:
                    raise RuntimeError(f"the sink answered {curl.getinfo(pycurl.RESPONSE_CODE)}")
                multi.remove_handle(curl)
                idle.append(curl)
            finished += len(good)
            if not queued:
                break
        if not idle:
            multi.select(1.0)
    seconds = perf_counter() - started
    multi.close()
    return Limit(requests, seconds)


def _handle(url: str) -> pycurl.Curl:
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.POST, 1)
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.PROXY, "")
    return curl


def _headers(keys: Sequence[bytes], body: bytes) -> list[str]:
    webhook_id, timestamp = to_public("evt", new_id()), int(time())
    return [
        "Content-Type: application/json",
        "User-Agent: Jetrelay",
        "Expect:",
        "webhook-id: " + webhook_id,
        f"webhook-timestamp: {timestamp}",
        "webhook-signature: " + signing.sign(keys, webhook_id, timestamp, body),
    ]
