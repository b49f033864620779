"""Makes the endpoints of a run, in its database. Started as a process: `python -m tests.crash.endpoints`, with {name: URL} on stdin."""

import json
import os
import sys

import django


def make(urls: dict[str, str]) -> None:
    from subscriptions.models import Endpoint
    from tests.builders import make_endpoint, make_source, make_subscription
    from tests.crash.stream import WISHES

    source = make_source()
    for wish in WISHES:
        endpoint = make_endpoint(
            name=wish.name,
            url=urls[wish.name],
            shard=wish.lane,
            timeout_s=5,
            # Patient enough for any fault, quick enough for the run to end: 1, 2, 4, 8, then 10 s each time.
            retry_strategy=Endpoint.RetryStrategy.EXPONENTIAL,
            retry_first_s=1,
            retry_factor=2,
            retry_longest_s=10,
            retry_count=30,
            retry_jitter_percent=10,
        )
        make_subscription(endpoint=endpoint, source=source, collections=list(wish.collections), operations=list(wish.operations))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")
    django.setup()
    make(json.load(sys.stdin))
