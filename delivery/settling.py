"""Settling: what finished attempts do to the tables, in one transaction."""

import logging
from collections.abc import Callable, Sequence

from django.db import DataError, IntegrityError, transaction
from django.utils import timezone

from delivery import attempt_log
from delivery.engines import engine
from delivery.engines.base import Settlement
from delivery.models import Attempt, Delivery
from delivery.outcomes import Done
from delivery.retry import Outcome
from delivery.tallies import AttemptCounter

logger = logging.getLogger(__name__)


def settle(finished: Sequence[Done], also: Callable[[], None] = lambda: None) -> None:
    """Settle finished attempts, and do in the same transaction what else follows from them. Doing it twice changes nothing."""
    try:
        save(finished, also)
    except DataError:
        save_one_by_one(finished)
        with transaction.atomic():
            also()
    attempt_log.note(finished)


def save(finished: Sequence[Done], also: Callable[[], None] = lambda: None) -> None:
    try:
        _save(finished, also)
    except IntegrityError:
        # An earlier try was committed although its answer was lost on the way: the attempts are there already.
        there = set(Attempt.objects.filter(pk__in=[done.attempt.id for done in finished]).values_list("pk", flat=True))
        _save([done for done in finished if done.attempt.id not in there], also)


def _save(finished: Sequence[Done], also: Callable[[], None]) -> None:
    now, counter, dead = timezone.now(), AttemptCounter(), _with(Outcome.DEAD, finished)
    for done in finished:
        counter.add(done.endpoint_id, done.verdict.outcome, done.attempt.total_ms)
    with transaction.atomic():
        engine().insert_attempts([done.attempt for done in finished])
        engine().settle(Delivery.State.DELIVERED, _with(Outcome.DELIVERED, finished), now)
        engine().settle(Delivery.State.DEAD, dead, now)
        # Dead but for a replay that came in between: due again at once, as that wanted it.
        replayed = [row._replace(due_at=now, counted=False) for row in dead]
        engine().postpone([*_with(Outcome.RETRY, finished), *replayed])
        counter.save(now.replace(second=0, microsecond=0))
        also()


def _with(outcome: Outcome, finished: Sequence[Done]) -> list[Settlement]:
    return [done.settlement for done in finished if done.verdict.outcome is outcome]


def save_one_by_one(finished: Sequence[Done]) -> None:
    """Settle what the database refuses as a whole: one attempt with something odd in it must not hold up the rest."""
    for done in finished:
        try:
            save([done])
        except DataError as error:
            logger.error("The answer to an attempt at dlv_%s cannot be stored and is left out: %s", done.settlement.id.hex, error)
            save([done._replace(attempt=done.attempt._replace(error_detail="", response_headers="", response_body=b""))])
