"""The product's own web server on a benchmark's database, with a key and an endpoint that wants what is posted."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from jetrelay.bench.processes import MANAGE, django, free_port, python, run, running, wait_for_port
from jetrelay.management.commands.up import granian
from jetrelay.places import SERVER_THREADS

TYPE = "example.order.paid"
_TEXT = "The kettle is singing again, and the rain on the tin roof has not stopped since four. " * 4
# About as long as an event of the stream.
BODY = f'{{"type":"{TYPE}","data":{{"order":"A-1001","total":12.5,"note":"{_TEXT}"}}}}'
APPLICATION = "jetrelay.wsgi:application"
# No key of a benchmark runs into a limit.
RATE_LIMIT = "1000000"

_BUILD = (
    "from subscriptions.models import *; from jetrelay.api.sources import api_source_of;"
    " tenant = Tenant.objects.create(slug='bench', name='Benchmark');"
    " endpoint = Endpoint.objects.create(tenant=tenant, name='sink', url={url!r}, state={state!r}, max_in_flight=100);"
    " Subscription.objects.create(endpoint=endpoint, source=api_source_of(tenant), collections=[{type!r}], kinds=['api'])"
)


def build(env: Mapping[str, str], url: str, state: str) -> str:
    """Make a tenant with one endpoint that wants every event. Returns a key to the API."""
    for argv in (python(MANAGE, "migrate", "-v0"), django(_BUILD.format(url=url, state=state, type=TYPE))):
        run(argv, env)
    return run(python(MANAGE, "create_api_key", "bench", "--rate-limit", RATE_LIMIT), env).strip()


@contextlib.contextmanager
def serving(env: Mapping[str, str], log: Path, workers: int = 1, application: str = APPLICATION, threads: int = SERVER_THREADS) -> Iterator[str]:
    """The URL that events are posted to, while it runs."""
    port = free_port()
    argv = granian("127.0.0.1", port, workers=workers, threads=threads, application=application)
    with running(argv, env, log) as process:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}/api/v1/events"
