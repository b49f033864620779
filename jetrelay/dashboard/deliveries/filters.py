"""Which deliveries a page shows: everything about it is in the URL."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Q

from delivery.models import Delivery, Event
from delivery.models.flow import in_state
from delivery.replay.form import TIME_FORMATS
from delivery.replay.walks import named
from jetrelay.dashboard.deliveries import outcomes
from jetrelay.dashboard.deliveries.outcomes import Outcome
from subscriptions import validation
from subscriptions.ids import first_id, from_public, to_public
from subscriptions.models import Endpoint

_STATES = {state.label: state for state in Delivery.State}
# An id is made a little before, or after, the moment that its row names.
_SLACK = timedelta(minutes=1)
# What lies outside of these fits no id.
_YEARS = range(2000, 9000)


@dataclass(frozen=True)
class Filters:
    """`problem` says in words what of the URL was not understood; the rest still counts."""

    state: Delivery.State | None = None
    endpoint: uuid.UUID | None = None
    # A part of the names of endpoints, where it is no id.
    named: str = ""
    type: str = ""
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: str = ""
    before: uuid.UUID | None = None
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        given = {
            name: query.get(name, "").replace("\0", "\N{REPLACEMENT CHARACTER}").strip()[:400]
            for name in ("state", "endpoint", "type", "outcome", "since", "until", "q", "before")
        }
        if given["q"].startswith(f"{Endpoint.prefix}_") and from_public(given["q"]) and not given["endpoint"]:
            given["endpoint"], given["q"] = given["q"], ""
        state, endpoint, before = _STATES.get(given["state"]), from_public(given["endpoint"]), from_public(given["before"])
        outcome, since, until = outcomes.read(given["outcome"]), _moment(given["since"]), _moment(given["until"])
        found = cls(state, endpoint, "" if endpoint else given["endpoint"][:100], given["type"], outcome, since, until, given["q"][:100], before)
        problem = ""
        if given["state"] and state is None:
            problem = f"There is no state “{given['state'][:40]}”: all states are shown."
        elif given["before"] and before is None:
            problem = f"“{given['before'][:40]}” is not a delivery's id: the newest are shown."
        elif given["outcome"] and outcome is None:
            problem = f"“{given['outcome'][:40]}” is not an outcome: write a status (500), a class (4xx) or an error from the list (timed out). All are shown."
        elif (given["since"] and since is None) or (given["until"] and until is None):
            problem = "This is not a time: write a date and a time in UTC, such as 2026-11-22 10:00:00. All times are shown."
        elif since and until and until <= since:
            problem = "The time range ends before it begins: choose a later end or an earlier beginning."
        try:
            _types(found.type)
        except ValidationError as error:
            found, problem = replace(found, type=""), f"{' '.join(error.messages)} All types are shown."
        return replace(found, problem=problem)

    @property
    def any(self) -> bool:
        return bool(self.state is not None or self.endpoint or self.named or self.type or self.outcome or self.since or self.until or self.search)

    @property
    def more(self) -> bool:
        """Whether one of those is set that are out of sight at first."""
        return bool(self.type or self.outcome or self.since or self.until)

    @property
    def endpoint_text(self) -> str:
        return to_public(Endpoint.prefix, self.endpoint) if self.endpoint else self.named

    def query(self) -> str:
        parts = {
            "state": self.state.label if self.state is not None else "",
            "endpoint": self.endpoint_text,
            "type": self.type,
            "outcome": self.outcome.words if self.outcome else "",
            "since": _written(self.since),
            "until": _written(self.until),
            "q": self.search,
            "before": to_public(Delivery.prefix, self.before) if self.before else "",
        }
        return urlencode({name: value for name, value in parts.items() if value})

    @property
    def newest(self) -> Self:
        return replace(self, before=None)

    def older_than(self, id: uuid.UUID) -> Self:
        return replace(self, before=id)

    def at(self, endpoint: uuid.UUID) -> Self:
        return replace(self, endpoint=endpoint, named="", before=None)

    # --- for a replay's form -----------------------------------------------------------------------------------------

    def replay_query(self, action: str) -> str | None:
        """The same deliveries for a replay's form; None where there is one at most, or where it knows nothing of such a filter."""
        found, prefix = from_public(self.search), self.search.partition("_")[0]
        if self.search and not (found and prefix == Event.prefix):
            return None
        if self.outcome or self.named or self.type in validation.KINDS:
            return None
        parts = {
            "action": action,
            "delivery_state": self.state.label if self.state is not None else "",
            "endpoint": self.endpoint_text,
            "event": to_public(Event.prefix, found) if found else "",
            "collections": self.type,
            "since": _written(self.since),
            "until": _written(self.until),
        }
        return urlencode({name: value for name, value in parts.items() if value})

    @property
    def to_replay(self) -> str | None:
        return self.replay_query("replay")

    @property
    def to_dismiss(self) -> str | None:
        return self.replay_query("dismiss") if self.state == Delivery.State.DEAD else None

    # --- for the database --------------------------------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        """The one state that has an index from which the newest can be read."""
        return self.state == Delivery.State.DEAD

    @property
    def ids(self) -> tuple[uuid.UUID | None, uuid.UUID | None]:
        """Between which ids all of them lie."""
        floor = first_id(self.since - _SLACK) if self.since else None
        return floor, first_id(self.until + _SLACK) if self.until else None

    @property
    def conditions(self) -> Q:
        """Those that no index serves."""
        found = Q()
        if self.state is not None and not self.dead:
            found &= in_state(self.state)
        if self.outcome:
            found &= self.outcome.condition
        if self.since:
            found &= Q(created_at__gte=self.since)
        if self.until:
            found &= Q(created_at__lt=self.until)
        types = _types(self.type)
        return found & Q(Exists(Event.objects.filter(types, pk=OuterRef("event_id")))) if types else found


def _types(text: str) -> Q:
    """Of events: by type with the wildcards of subscriptions, or by kind. Raises ValidationError."""
    if text in validation.KINDS:
        return Q(kind=text)
    pattern = validation.clean_pattern(text) if text else "*"
    return Q() if pattern == "*" else named([pattern])


def _moment(text: str) -> datetime | None:
    for form in TIME_FORMATS:
        try:
            found = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return found if found.year in _YEARS else None
    return None


def _written(moment: datetime | None) -> str:
    """As a field of a form wants it."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}" if moment else ""
