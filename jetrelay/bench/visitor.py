"""A person and a program who look in at the site now and then while a soak goes on."""

from collections.abc import Mapping
from time import perf_counter

import requests
from prometheus_client.parser import text_string_to_metric_families

from jetrelay.bench.processes import MANAGE, django, python, run

PAGES = (
    "/health",
    "/health/ready",
    "/metrics",
    "/",
    "/events/",
    "/deliveries/",
    "/endpoints/",
    "/stream/",
    "/api/v1/events",
    "/api/v1/deliveries",
    "/api/v1/stats",
)
_TIMEOUT_S = 30
# What `/metrics` calls what the tables say.
_COUNTS = {
    ("jetrelay_events_received_total", ""): "received",
    ("jetrelay_events_total", "stored"): "stored",
    ("jetrelay_attempts_total", "delivered"): "delivered",
}
_SIGN_IN = (
    "from django.test import Client; from django.contrib.auth import get_user_model; client = Client();"
    " client.force_login(get_user_model().objects.get()); print(client.cookies['sessionid'].value)"
)


class Visitor:
    """Signed in as the administrator, and with a key to the API."""

    def __init__(self, env: Mapping[str, str], posts: str) -> None:
        """`posts` is the address that `serving` gives."""
        self._site = posts.removesuffix("/api/v1/events")
        self.failed, self.slowest_ms = 0, 0.0
        self._client = requests.Session()
        self._client.trust_env = False
        self._client.headers["Authorization"] = f"Bearer {run(python(MANAGE, 'create_api_key', 'default'), env).split()[-1]}"
        self._client.cookies.set("sessionid", run(django(_SIGN_IN), env).split()[-1])

    def visit(self) -> None:
        """Ask for each of the pages once. Those that do not come, or not as they should, are counted."""
        for page in PAGES:
            started = perf_counter()
            try:
                answer = self._client.get(self._site + page, timeout=_TIMEOUT_S, allow_redirects=False)
                self.failed += answer.status_code != 200
            except requests.RequestException:
                self.failed += 1
            self.slowest_ms = max(self.slowest_ms, (perf_counter() - started) * 1000)

    def counts(self) -> dict[str, int]:
        """What `/metrics` says of events and deliveries, and how much of it does not add up."""
        found = {"unaccounted": 0}
        for family in text_string_to_metric_families(self._client.get(f"{self._site}/metrics", timeout=_TIMEOUT_S).text):
            for sample in family.samples:
                if sample.name == "jetrelay_unaccounted":
                    found["unaccounted"] += int(sample.value)
                elif name := _COUNTS.get((sample.name, next(iter(sample.labels.values()), ""))):
                    found[name] = int(sample.value)
        return found
