"""Claims: what to ask the database for next, and what to take of its answer."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from delivery.claims import LATE_COMMITS, MAX_SHARE_BYTES, LooseClaims, fitting_share
from delivery.engines.base import Due, Want
from delivery.looking_back import DAWN, Slice
from subscriptions.ids import new_id

ENDPOINT, NOW = new_id(), timezone.now()


def make_due(key: int | None = None, age_s: float = 60) -> Due:
    return Due(new_id(), new_id(), ENDPOINT, NOW - timedelta(seconds=age_s), 0, 0, key)


def owning(dues: Sequence[Due]) -> dict[UUID, int | None]:
    return {due.id: due.order_key for due in dues}


def ask(claims: LooseClaims, most: int, owned: Sequence[Due] = ()) -> tuple[int, datetime, UUID]:
    want = claims.want(ENDPOINT, most, owning(owned))
    assert isinstance(want, Want)
    assert want.endpoint_id == ENDPOINT
    return want.most, want.after_due_at, want.after_id


# --- in any order --------------------------------------------------------------------------------------------------


def test_it_goes_on_after_the_last_one_while_there_is_more() -> None:
    claims, found = LooseClaims(), [make_due(age_s=age_s) for age_s in (3, 2, 1)]
    ask(claims, 3)
    assert claims.choose(found, 3, {}, NOW) == found
    assert not claims.exhausted
    assert ask(claims, 5) == (5, found[-1].due_at, found[-1].id)


def test_it_claims_twice_as_much_each_time_there_was_more() -> None:
    claims, shares = LooseClaims(), []
    for count in (2, 2, 1, 2):
        ask(claims, 2)
        claims.choose([make_due() for _ in range(count)], 2, {}, NOW)
        shares.append(claims.share)
    assert shares == [128, 256, 256, 512]


def test_it_looks_for_what_is_new_once_it_has_seen_all() -> None:
    claims = LooseClaims()
    ask(claims, 3)
    claims.choose([make_due(), make_due()], 3, {}, NOW)
    assert claims.exhausted
    assert ask(claims, 3, [make_due()]) == (3, NOW - LATE_COMMITS, UUID(int=0)), "nothing that is owned is so new"


def test_it_begins_with_the_oldest() -> None:
    assert ask(LooseClaims(), 3) == (3, DAWN, UUID(int=0))


def test_it_passes_over_what_is_owned_and_asks_for_as_many_more() -> None:
    claims, owned, fresh = LooseClaims(), [make_due(), make_due()], [make_due(), make_due(), make_due()]
    assert ask(claims, 3, owned)[0] == 5
    assert claims.choose([owned[0], fresh[0], owned[1], *fresh[1:]], 3, owning(owned), NOW) == fresh
    assert not claims.exhausted


def test_it_finds_what_has_been_given_back() -> None:
    claims, found = LooseClaims(), [make_due(age_s=age_s) for age_s in (3, 2, 1)]
    ask(claims, 3)
    claims.choose(found, 3, {}, NOW)
    claims.rewind(found[1].due_at)
    assert ask(claims, 3, found[:1]) == (4, found[1].due_at, UUID(int=0)), "what is owned may come first"
    claims.rewind(found[2].due_at)
    assert claims.position == (found[1].due_at, UUID(int=0)), "a rewind never leads ahead"


def test_it_looks_back_at_what_lies_below_it_and_at_nothing_ahead() -> None:
    claims, slice = LooseClaims(), Slice(NOW - timedelta(hours=1), NOW)
    assert claims.look_back(ENDPOINT, slice, {}) is None
    ask(claims, 3)
    claims.choose([], 3, {}, NOW)
    assert claims.look_back(ENDPOINT, slice, owning([make_due()])) == Want(ENDPOINT, 2, slice.since, UUID(int=0))


def test_it_goes_back_to_the_first_that_it_missed() -> None:
    claims, owned, missed = LooseClaims(), make_due(age_s=90), make_due(age_s=60)
    ask(claims, 3)
    claims.choose([], 3, {}, NOW)
    claims.seen([owned], owning([owned]))
    assert claims.position == (NOW - LATE_COMMITS, UUID(int=0))
    claims.seen([owned, missed, make_due(age_s=30)], owning([owned]))
    assert claims.position == (missed.due_at, UUID(int=0))


# --- shares --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body_bytes", "fitting"),
    [(0, 1000), (1000, 1000), (MAX_SHARE_BYTES // 100 - 1, 100), (MAX_SHARE_BYTES - 1, 1), (2 * MAX_SHARE_BYTES, 1)],
)
def test_a_share_fits_into_memory(body_bytes: int, fitting: int) -> None:
    assert fitting_share(3, 3 * body_bytes) == fitting
