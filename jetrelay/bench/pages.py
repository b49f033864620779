"""Pages: how long the site takes for each page of the dashboard and of the admin, beside a week of deliveries. `ratio` is the slowest p95 divided by 200 ms.

The week is made at once, by `week.py`; the pages are asked for one after the other through Django's test client, in one process: what is measured is
the site's own work and that of the database, without a server or a network in between.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Annotated, Any

import psycopg
from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection
from psycopg.sql import SQL, Identifier

from jetrelay.bench.interface import Figures, Say
from jetrelay.bench.processes import MANAGE, django, python, run
from jetrelay.bench.scratch import beside, scratch

GOAL_MS = 200
PATIENCE_S = 7200


def measure(
    say: Say,
    *,
    deliveries: Annotated[int, "deliveries, each of an event of its own"] = 5_000_000,
    endpoints: Annotated[int, "endpoints"] = 1000,
    rounds: Annotated[int, "how often each page is asked for"] = 20,
    database: Annotated[str, "name of a database to keep: filled if it is not there, used as it is if it is (PostgreSQL)"] = "",
) -> Figures:
    with scratch() as (folder, env), _kept(env, database) as filled:
        if not filled:
            say(f"storing {deliveries:,} deliveries")
            run(python(MANAGE, "migrate", "-v0"), env)
            run(django(f"from jetrelay.bench.week import *; Week({deliveries}, {endpoints}).build()"), env, PATIENCE_S)
        say(f"asking for every page, {rounds} times")
        answer = folder / "pages.json"
        run(django(f"from jetrelay.bench.page_walk import *; walk({rounds}, {str(answer)!r})"), env, PATIENCE_S)
        pages: dict[str, Any] = json.loads(answer.read_text())
    slowest = max(pages, key=lambda page: pages[page]["p95_ms"])
    return {
        "name": "pages",
        "ratio": round(pages[slowest]["p95_ms"] / GOAL_MS, 3),
        "slowest": slowest,
        "slowest_p95_ms": pages[slowest]["p95_ms"],
        "most_queries": max(page["queries"] for page in pages.values()),
        "deliveries": deliveries,
        "endpoints": endpoints,
        "rounds": rounds,
        "database": env["DATABASE_URL"].split(":")[0],
        "pages": pages,
    }


@contextlib.contextmanager
def _kept(env: dict[str, str], name: str) -> Iterator[bool]:
    """Work on the database with this name instead, if there is a name. Gives whether it is filled already."""
    if not name:
        yield False
        return
    if connection.vendor != "postgresql":
        raise CommandError("--database keeps a database on a PostgreSQL server: set DATABASE_URL to postgres://….")
    url = beside(name)
    with psycopg.connect(env["DATABASE_URL"], autocommit=True) as server:
        if not server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            server.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    with psycopg.connect(url) as server:
        (table,) = server.execute("SELECT to_regclass('delivery_delivery')").fetchone() or (None,)
        filled = bool(table and server.execute("SELECT 1 FROM delivery_delivery LIMIT 1").fetchone())
        if table and not filled and server.execute("SELECT 1 FROM subscriptions_tenant LIMIT 1").fetchone():
            raise CommandError(f"--database {name} was left half filled: drop it, or give another name.")
    # The next run has to open what this one stores.
    env |= {"DATABASE_URL": url, "JETRELAY_ENCRYPTION_KEYS": ",".join(settings.JETRELAY_ENCRYPTION_KEYS)}
    yield filled
