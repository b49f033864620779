"""A site that answers with what it was told, behind the front of the real one."""

import json
from collections.abc import Iterable
from typing import Any

import jetrelay.wsgi  # noqa: F401 - it sets Django up
from jetrelay.front.application import Front, Route
from jetrelay.front.threads import FairThreads


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    told = {name: value for name, value in environ.items() if isinstance(value, str)}
    return [json.dumps(told | {"body": environ["wsgi.input"].read().decode()}).encode()]


_threads = FairThreads(10, 224, 20.0, "echo")
_route: Route = (_threads, echo)
application = Front(lambda environ: _route, _threads, has_lane=False)
