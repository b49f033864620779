"""`/stream`: how the Jetstream's hosts are doing, and what may be asked of them. They are everybody's: asking takes a scope that only the operator gives."""

from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import stream
from delivery.models import StreamGap, StreamHost
from jetrelay.api.fields import Moment, Strict, Text
from jetrelay.api.problems import invalid
from jetrelay.api.views import ApiView

# A listener writes every second.
_FRESH = timedelta(seconds=10)
MAX_GAPS = 100


class HostChoice(Strict):
    host = Text(required=False, max_length=255, help_text="The URL of one host. Without it: all of them.")


class Rewind(HostChoice):
    to = Moment(help_text="From when on to read again; a stream can only be moved back.")


def show_host(host: StreamHost) -> dict[str, Any]:
    listening = host.seen_at is not None and abs(timezone.now() - host.seen_at) < _FRESH
    return {
        "host": host.host,
        "wire": host.wire,
        "listening": listening,
        "connected_since": Moment().to_representation(host.connected_since) if listening else None,
        "problem": host.problem or None,
        "cursor": host.cursor,
        "reached_at": Moment().to_representation(host.reached_at),
        "last_event_at": Moment().to_representation(host.last_event_at),
        "lag_s": host.lag_s,
        "events_per_s": host.events_per_s if listening else 0.0,
        "bytes_per_s": host.bytes_per_s if listening else 0.0,
        "compressed": host.compressed,
        "events": host.events,
        "bytes": host.bytes,
        "reconnects": host.reconnects,
        "rejected": host.rejected,
        "counted_since": Moment().to_representation(host.counted_since),
        "missing_collections": host.partial,
    }


def show_gap(gap: StreamGap) -> dict[str, Any]:
    return {
        "id": gap.public_id,
        "host": gap.host,
        "from_at": Moment().to_representation(gap.from_at),
        "to_at": Moment().to_representation(gap.to_at),
        "reason": gap.reason,
        "noticed_at": Moment().to_representation(gap.noticed_at),
    }


class StreamStatus(ApiView):
    scopes = {"GET": "stream:read"}

    def get(self, request: Request) -> Response:
        gaps = StreamGap.objects.open().order_by("-id")[:MAX_GAPS]
        return Response({"hosts": [show_host(host) for host in StreamHost.objects.order_by("host")], "open_gaps": [show_gap(gap) for gap in gaps]})


class _Ask(ApiView):
    scopes = {"POST": "stream:write"}

    def hosts(self, wish: dict[str, Any]) -> Any:
        rows = StreamHost.objects.order_by("host")
        if "host" not in wish:
            return rows
        if not rows.filter(host=wish["host"]).exists():
            raise invalid(("/host", "There is no such host: /stream lists them."))
        return rows.filter(host=wish["host"])


class StreamReconnect(_Ask):
    def post(self, request: Request) -> Response:
        wish = self.body(HostChoice)
        count = stream.reconnect(self.hosts(wish))
        self.note("stream.reconnect", detail=wish.get("host", "all hosts"))
        return Response({"hosts": count}, 202)


class StreamCursor(_Ask):
    def post(self, request: Request) -> Response:
        wish = self.body(Rewind)
        try:
            count = stream.rewind(self.hosts(wish), wish["to"])
        except stream.InvalidRewind as refusal:
            raise invalid(("/to", str(refusal))) from refusal
        self.note("stream.cursor", detail=f"{wish.get('host', 'all hosts')} to {wish['to']:%F %T}")
        return Response({"hosts": count}, 202)
