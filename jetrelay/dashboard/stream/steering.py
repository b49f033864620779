"""What people may ask of the hosts of the stream: the forms, the words, and the calls. For the page and the admin."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from django import forms
from django.core.validators import MinValueValidator
from django.db.models import QuerySet

from delivery import stream
from delivery.models import StreamHost
from jetrelay.dashboard.stream.hosts import Stream, current

PERMISSION = "delivery.change_streamhost"
# Older than any Jetstream. What lies far before it fits neither a cursor nor every database.
EARLIEST = datetime(2022, 1, 1, tzinfo=UTC)


class Wish(forms.Form):
    """One thing that may be asked of one host, or of all that are listened to."""

    name: ClassVar[str]
    # What the audit log calls it.
    action: ClassVar[str]
    title: ClassVar[str]
    # What happens, before it is asked for.
    happens: ClassVar[str]
    button: ClassVar[str]

    host = forms.ChoiceField(
        label="Host", required=False, error_messages={"invalid_choice": "This host is not in the list (any more): choose one of those that are."}
    )

    def __init__(self, found: Sequence[Stream], data: Any = None) -> None:
        super().__init__(data, auto_id=f"{self.name}-%s")
        self.streams = found
        self.fields["host"].choices = [("", "All that are listened to"), *((str(each.row.pk), each.host) for each in found)]  # type: ignore[attr-defined]

    def chosen(self) -> list[Stream]:
        """Those that the valid form is about."""
        host = self.cleaned_data["host"]
        return [each for each in self.streams if str(each.row.pk) == host] if host else current(self.streams)

    def carry_out(self, chosen: Sequence[Stream]) -> str:
        """Ask for it. Returns what to tell people; empty when the form has errors now."""
        if not chosen:
            self.add_error(None, "There is no host to ask this of: no listener has started yet.")
            return ""
        asked = self._ask(StreamHost.objects.filter(pk__in=[each.row.pk for each in chosen]))
        return f"{asked} {self._when(chosen)}".strip() if asked else ""

    def detail(self, chosen: Sequence[Stream]) -> str:
        """What the audit log says of it."""
        to = self.cleaned_data.get("to")
        return ", ".join(each.host for each in chosen) + (f" to {to:%F %T}" if to else "")

    def _ask(self, rows: "QuerySet[StreamHost]") -> str:
        raise NotImplementedError

    def _when(self, chosen: Sequence[Stream]) -> str:
        return " ".join(dict.fromkeys(each.when for each in chosen))


class Reconnect(Wish):
    action = "stream.reconnect"
    name, title, button = "reconnect", "Reconnect", "Reconnect now"
    happens = "The listener closes its connection to the host and opens another one, from where it is. Nothing is lost by it."

    def _ask(self, rows: "QuerySet[StreamHost]") -> str:
        count = stream.reconnect(rows)
        return f"Asked to connect again to {_hosts(count)}."


class Rewind(Wish):
    action = "stream.cursor"
    name, title, button = "rewind", "Replay from a time", "Move the cursor back"
    happens = (
        "The host is read again from this time on, instead of from where it is. What is stored already is neither stored nor delivered again;"
        " what was left out then and is wanted now is delivered. Until it has caught up, the host brings nothing new."
        " Hosts keep their events for a day or two: if this one no longer has that time, it starts at the oldest it has, and a gap shows what it left out."
    )

    to = forms.DateTimeField(
        label="From (UTC)",
        input_formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "step": 1}, format="%Y-%m-%dT%H:%M:%S"),
        validators=[MinValueValidator(EARLIEST, "No Jetstream goes back this far: hosts keep their events for a day or two. Choose a later time.")],
        error_messages={
            "required": "Say from which time on: write a date and a time in UTC, such as 2026-11-22 10:00:00.",
            "invalid": "This is not a time: write a date and a time in UTC, such as 2026-11-22 10:00:00.",
        },
    )

    def _ask(self, rows: "QuerySet[StreamHost]") -> str:
        to = self.cleaned_data["to"]
        try:
            count = stream.rewind(rows, to)
        except stream.InvalidRewind as refusal:
            self.add_error("to", f"{refusal} Choose an earlier time.")
            return ""
        return f"Asked to read {_hosts(count)} again from {to.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC on."


class ResetCounters(Wish):
    action = "stream.reset-counters"
    name, title, button = "reset", "Reset the counters", "Count from now on"
    happens = "Events, bytes, reconnects and rejected frames are counted from now on. The stream, its gaps and the kept frames stay as they are."

    def _ask(self, rows: "QuerySet[StreamHost]") -> str:
        count = stream.reset_counters(rows)
        return f"The counters of {_hosts(count)} start from zero."

    def _when(self, chosen: Sequence[Stream]) -> str:
        return ""


WISHES: dict[str, type[Wish]] = {wish.name: wish for wish in (Reconnect, Rewind, ResetCounters)}


def _hosts(count: int) -> str:
    return f"{count:,} {'host' if count == 1 else 'hosts'}"
