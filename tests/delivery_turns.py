"""What one turn of a lane may do, given what the receivers saw of it: `Turn.check`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import pytest
from django.forms.models import model_to_dict
from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from delivery.breaker import HOPELESS, THRESHOLD
from subscriptions.models import Endpoint
from tests.counterpart import Arrival
from tests.delivery_model import ACTIVE, CANCELLED, DEAD, DELIVERED, DISABLED, PENDING, Key, Meddling, Model, Picture, Row

GONE = 410
PATIENCE = timedelta(days=5)


def is_permanent(endpoint: Endpoint, status: int | None) -> bool:
    return endpoint.retry_on == Endpoint.RetryOn.TRANSIENT and status is not None and status < 500 and status not in (408, 425, 429)


@dataclass
class Turn:
    """One owner's turn, from its beginning to its end: what the tables and the receivers saw of it."""

    model: Model
    before: Picture
    after: Picture
    arrivals: Sequence[Arrival]
    meddling: Meddling
    # Its owner came to a sudden end: what it did may or may not be in the tables.
    cut_short: bool = False

    def check(self) -> None:
        assert self.after.rows.keys() == self.model.rows.keys(), "a delivery has come or gone"
        for number in range(len(self.model.endpoints)):
            mine = [arrival for arrival in self.arrivals if arrival.endpoint == number]
            for arrival in mine:
                self.model.check_body(arrival)
            for key in self._keys(number):
                self._check_delivery(key, [arrival for arrival in mine if key[1] in arrival.events])
            if number not in self.meddling.endpoints:
                self._check_untouched(number, mine)

    def _keys(self, number: int) -> Iterator[Key]:
        return (key for key in self.after.rows if key[0] == number)

    def _row_before(self, key: Key) -> Row:
        return self.before.rows.get(key, Row())

    # --- each delivery ---------------------------------------------------------------------------------------------

    def _check_delivery(self, key: Key, mine: Sequence[Arrival]) -> None:
        was, now = self._row_before(key), self.after.rows[key]
        if key in self.meddling.cancelled or self.cut_short:
            assert was.attempts <= now.attempts <= was.attempts + len(mine)
            assert now.state != DELIVERED or was.state == DELIVERED or any(arrival.succeeded for arrival in mine)
            if not self.cut_short:
                assert now.state == CANCELLED, "what was cancelled came back to life"
                return
        else:
            assert now.attempts == was.attempts + len(mine)
        if key in self.meddling.replayed:
            was = was._replace(state=PENDING, tries=0)
        elif not mine:
            assert now == was, "a delivery changed without a request"
        else:
            assert was.state == PENDING, "what was over was sent"
            assert not any(arrival.succeeded for arrival in mine[:-1]), "what had arrived was sent again"
            assert (now.state == DELIVERED) == mine[-1].succeeded or (self.cut_short and now.state == PENDING)
        if now.state == DEAD and was.state == PENDING:
            self._check_death(key, now, mine[-1])
        if mine and now.state != DELIVERED:
            assert now.tries <= was.tries + len(mine)

    def _check_death(self, key: Key, now: Row, last: Arrival) -> None:
        assert last.events == (key[1],), "it died among others"
        assert last.answer.status != GONE
        endpoints = (self.before.endpoints[key[0]], self.after.endpoints[key[0]])
        used_up = any(now.tries > endpoint.retries for endpoint in endpoints)
        assert used_up or any(is_permanent(endpoint, last.answer.status) for endpoint in endpoints), "it died before its time"

    # --- each endpoint that nobody touched meanwhile ---------------------------------------------------------------

    def _check_untouched(self, number: int, mine: Sequence[Arrival]) -> None:
        endpoint = self.before.endpoints[number]
        if endpoint.state != ACTIVE or self.before.held(number):
            assert not mine, "something was sent to an endpoint that takes nothing"
        for arrival in mine:
            assert arrival.received.path == endpoint.url[endpoint.url.index("/", 8) :]
            assert len(arrival.events) <= endpoint.batch_size
            assert len(arrival.beside) < endpoint.max_in_flight
            self._check_signature(number, arrival)
        replayed = any(key[0] == number for key in self.meddling.replayed)
        if endpoint.ordered and not replayed:
            self._check_order(number, mine)
        if endpoint.max_in_flight == 1 and not replayed and not any(key[0] == number for key in self.meddling.cancelled):
            OneByOne(self, number, mine).check()
        else:
            self._check_outage(number, mine)
        if self.after.endpoints[number].state != endpoint.state:
            assert (endpoint.state, self.after.endpoints[number].state) == (ACTIVE, DISABLED)
            assert any(arrival.answer.status == GONE for arrival in mine) or self._is_hopeless(number, mine)

    def _is_hopeless(self, number: int, mine: Sequence[Arrival]) -> bool:
        row = self.before.health.get(number)
        long = row is not None and row.failing_since is not None and timezone.now() - row.failing_since >= PATIENCE
        return long and row is not None and row.failures + len(mine) >= HOPELESS

    def _check_signature(self, number: int, arrival: Arrival) -> None:
        live = self.before.endpoints[number].secrets_at(timezone.now())
        for secret in live:
            Webhook(secret).verify(arrival.received.body, dict(arrival.received.headers))
        for secret in self.model.secrets[number].difference(live):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(arrival.received.body, dict(arrival.received.headers))

    def _check_outage(self, number: int, mine: Sequence[Arrival]) -> None:
        """Where everything fails, no more is sent than it takes to notice and what is under way by then."""
        if not mine or any(arrival.succeeded for arrival in mine):
            return
        row = self.before.health.get(number)
        if row and row.open_until:
            assert len(mine) == 1, "a probe goes alone"
            return
        left = max(1, THRESHOLD - (row.failures if row else 0))
        assert len(mine) < left + self.before.endpoints[number].max_in_flight

    def _check_order(self, number: int, mine: Sequence[Arrival]) -> None:
        for arrival in mine:
            for place, event in enumerate(arrival.events):
                subject = self.model.events[event].incoming.subject
                beside = {self.model.events[other].incoming.subject for each in arrival.beside for other in each.events}
                assert subject not in beside, "two of a subject at once"
                for key in self.model.before((number, event)):
                    if key[1] not in arrival.events[:place]:
                        assert self._was_over(key, arrival), f"{event} was sent to endpoint {number} before {key[1]} was over"

    def _was_over(self, key: Key, arrival: Arrival) -> bool:
        """Whether a delivery was delivered or dead when another request arrived."""
        if self._row_before(key).state != PENDING or key in self.meddling.cancelled:
            return True
        tried = [each for each in self.arrivals if each.endpoint == key[0] and key[1] in each.events]
        died = tried[-1] if tried and (self.after.rows[key].state == DEAD or self._must_have_died(key, tried)) else None
        return any((each.succeeded or each is died) and each.answered is not None and each.answered < arrival.arrived for each in tried)

    def _must_have_died(self, key: Key, tried: Sequence[Arrival]) -> bool:
        """An owner that was killed may have known of a death that it could not settle."""
        endpoint, tries = self.before.endpoints[key[0]], self._row_before(key).tries + len(tried)
        return self.cut_short and (tries > endpoint.retries or is_permanent(endpoint, tried[-1].answer.status))


class OneByOne:
    """An endpoint that takes one request at a time: what has to follow from its answers, exactly."""

    def __init__(self, turn: Turn, number: int, arrivals: Sequence[Arrival]) -> None:
        self.turn, self.number, self.arrivals = turn, number, arrivals
        self.endpoint = turn.before.endpoints[number]
        self.rows: dict[Key, Row] = {}
        row = turn.before.health.get(number)
        self.failures = row.failures if row else 0
        self.failing_since = row.failing_since if row else None
        self.probing = bool(row and row.open_until)
        self.gone = self.held = False

    @cached_property
    def _hopeless_at(self) -> int:
        long = self.failing_since and timezone.now() - self.failing_since >= PATIENCE
        return HOPELESS if long else 1_000_000

    def check(self) -> None:
        for arrival in self.arrivals:
            assert not self.held, "something was sent to an endpoint that had to be left alone"
            self._take(arrival)
        if self.turn.cut_short:
            return
        for key, row in self.rows.items():
            assert self.turn.after.rows[key] == row
        state = self.turn.after.endpoints[self.number].state
        assert (state == DISABLED) == (self.gone or self.endpoint.state == DISABLED)
        if self.arrivals and not self.gone:
            assert self.turn.after.held(self.number) == self.held

    def _take(self, arrival: Arrival) -> None:
        answer, counts = arrival.answer, not self.probing and arrival.answer.status != GONE
        if arrival.succeeded:
            self.failures, self.probing, self.failing_since = 0, False, None
        else:
            self.failures += 1
            self.gone = answer.status == GONE or self.failures >= self._hopeless_at
            self.held = self.gone or self.probing or self.failures >= THRESHOLD or answer.retry_after_s > 0
        for event in arrival.events:
            key = self.number, event
            row = self.rows.get(key, self.turn._row_before(key))
            self.rows[key] = self._next(row._replace(attempts=row.attempts + 1), arrival, counts)

    def _next(self, row: Row, arrival: Arrival, counts: bool) -> Row:
        if arrival.succeeded:
            return row._replace(state=DELIVERED, tries=row.tries + 1)
        if not counts:
            return row
        used_up = row.tries >= self.endpoint.retries
        if not used_up and not is_permanent(self.endpoint, arrival.answer.status):
            return row._replace(tries=row.tries + 1)
        if len(arrival.events) == 1:
            return row._replace(state=DEAD, tries=row.tries + 1)
        return row if used_up else row._replace(tries=row.tries + 1)


def check_late_news(before: Picture, meanwhile: Picture, after: Picture, arrivals: Sequence[Arrival]) -> None:
    """What an owner may still settle that was away while another one had the lane: successes, and failures of what nobody has tried since."""
    for key, was in meanwhile.rows.items():
        now, mine = after.rows[key], [arrival for arrival in arrivals if arrival.endpoint == key[0] and key[1] in arrival.events]
        tried_since = was.attempts != before.rows[key].attempts
        if now != was:
            assert mine
            assert was.state == PENDING, "what was over has changed"
            assert now.attempts == was.attempts + 1
            assert any(arrival.succeeded for arrival in mine) if now.state == DELIVERED else not tried_since
    for number, endpoint in enumerate(meanwhile.endpoints):
        assert after.endpoints[number].state == endpoint.state
        assert _health(after, number) == _health(meanwhile, number)


def _health(picture: Picture, number: int) -> dict[str, Any] | None:
    row = picture.health.get(number)
    return model_to_dict(row) if row else None
