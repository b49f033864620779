"""`manage.py bench NAME`: measure this installation's engines on this machine."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from delivery.sources.jetstream import demo_events
from jetrelay.bench import intake, limit, pipeline
from jetrelay.bench.scratch import scratch
from jetrelay.bench.sink import sink


class Command(BaseCommand):
    help = (
        "Benchmarks on the configured kinds of database and broker, in scratch ones of their own."
        " `limit`: what libcurl can post here with no database. `pipeline`: stream -> stored -> delivered, and its ratio to the limit."
        " `intake`: stream -> stored and owed, and its ratio to reading and decoding alone."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", choices=("limit", "pipeline", "intake"))
        parser.add_argument("--events", type=int, help="events in the stream (default: 30000, for intake 200000)")
        parser.add_argument("--wire", choices=("v1", "v2"), default="v1", help="the wire that intake reads (default: v1)")
        parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        say = (lambda _: None) if options["json"] else self.stdout.write
        events = options["events"] or (200_000 if options["name"] == "intake" else 30_000)
        if options["name"] == "limit":
            figures = _limit(events)
        elif options["name"] == "pipeline":
            figures = pipeline.measure(events, say)
        else:
            figures = intake.measure(events, options["wire"], say)
        if options["json"]:
            self.stdout.write(json.dumps(figures))
            return
        width = max(map(len, figures))
        for key, value in figures.items():
            self.stdout.write(f"{key.ljust(width)}  {value}")


def _limit(requests: int) -> dict[str, Any]:
    with scratch() as (folder, _), sink(folder) as (url, sink_name):
        stream = folder / "stream.ndjson"
        demo_events.write(stream, 5000)
        bodies = stream.read_bytes().splitlines()
        found = limit.measure(url, bodies, requests)
        return {
            "name": "limit",
            "ratio": 1.0,
            "limit_requests_per_s": round(found.per_s),
            "requests": requests,
            "seconds_s": round(found.seconds, 3),
            "sink": sink_name,
        }
