"""Claims: what to ask the database for next, and what to take of its answer."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

import pytest
from django.utils import timezone

from delivery.claims import LATE_COMMITS, MAX_SHARE_BYTES, REST_FACTOR, SUBJECTS, LooseClaims, RunClaims, fitting_share
from delivery.engines.base import Due, Head, Want
from delivery.order import BEFORE_ALL
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


def look(claims: RunClaims) -> tuple[int, int, int]:
    head = claims.want(ENDPOINT, 1, {})
    assert isinstance(head, Head)
    assert head.endpoint_id == ENDPOINT
    return head.after_key, head.subjects, head.run


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


@pytest.mark.parametrize("found", [[make_due(), make_due(), make_due()], []])
def test_it_begins_with_the_oldest_again_after_a_rewind(found: list[Due]) -> None:
    claims = LooseClaims()
    first = ask(claims, 3)
    claims.choose(found, 3, {}, NOW)
    claims.rewind()
    assert ask(claims, 3) == first
    assert first[1] < NOW - timedelta(days=365_000)
    assert first[2] == UUID(int=0)


def test_it_passes_over_what_is_owned_and_asks_for_as_many_more() -> None:
    claims, owned, fresh = LooseClaims(), [make_due(), make_due()], [make_due(), make_due(), make_due()]
    assert ask(claims, 3, owned)[0] == 5
    assert claims.choose([owned[0], fresh[0], owned[1], *fresh[1:]], 3, owning(owned), NOW) == fresh
    assert not claims.exhausted


# --- subject by subject --------------------------------------------------------------------------------------------


def test_it_takes_the_run_of_each_subject() -> None:
    claims, found = RunClaims(after_key=BEFORE_ALL), [make_due(key) for key in (1, 1, 2, 3, 3)]
    assert look(claims) == (BEFORE_ALL, SUBJECTS, 16)
    assert claims.choose(found, 100, {}, NOW) == found


def test_it_takes_a_run_up_to_the_first_that_is_not_due() -> None:
    a1, a2, a3, b1, c1 = make_due(1), make_due(1, age_s=-60), make_due(1), make_due(2, age_s=-60), make_due(3, age_s=0)
    assert RunClaims().choose([a1, a2, a3, b1, c1], 100, {}, NOW) == [a1, c1]


def test_it_takes_nothing_of_a_subject_that_has_something_on_its_way() -> None:
    a1, a2, b1, b2 = (make_due(key) for key in (1, 1, 2, 2))
    assert RunClaims().choose([a1, a2, b1, b2], 100, owning([a1]), NOW) == [b1, b2]


def test_it_takes_no_more_than_it_may_and_goes_on_with_the_next_subject() -> None:
    claims, found = RunClaims(), [make_due(key) for key in (1, 1, 2, 2, 2, 3)]
    assert claims.choose(found, 4, {}, NOW) == found[:4]
    assert not claims.exhausted
    assert look(claims)[0] == 2


def test_a_key_of_0_is_one_like_any_other() -> None:
    claims = RunClaims()
    claims.choose([make_due(0), make_due(1)], 1, {}, NOW)
    assert look(claims)[0] == 0


def test_it_claims_more_subjects_next_time_where_there_was_more() -> None:
    claims, shares = RunClaims(), []
    for most in (3, 2, 1):
        claims.choose([make_due(1), make_due(2)], most, {}, NOW)
        shares.append(claims.share)
    assert shares == [64, 128, 256]


def test_it_begins_anywhere_and_ends_when_it_has_seen_all_from_the_first_on() -> None:
    assert len({RunClaims().after_key for _ in range(10)}) > 1
    claims, exhausted = RunClaims(), []
    for _ in range(3):
        claims.choose([make_due(1)], 10, {}, NOW)
        exhausted.append((claims.exhausted, claims.after_key))
    assert exhausted == [(False, BEFORE_ALL), (True, BEFORE_ALL), (True, BEFORE_ALL)]


def test_it_goes_on_after_the_last_of_as_many_subjects_as_it_looks_at() -> None:
    claims = RunClaims(whole=True)
    claims.choose([make_due(key) for key in range(SUBJECTS)], 10_000, {}, NOW)
    assert (claims.exhausted, look(claims)[0]) == (False, SUBJECTS - 1)
    claims.choose([make_due(SUBJECTS + key) for key in range(SUBJECTS - 1)], 10_000, {}, NOW)
    assert (claims.exhausted, claims.after_key) == (True, BEFORE_ALL)


def test_it_comes_round_to_every_subject_where_there_is_none() -> None:
    claims = RunClaims(exhausted=False, after_key=7, whole=True)
    assert claims.choose([], 10, {}, NOW) == []
    assert (claims.exhausted, claims.after_key) == (True, BEFORE_ALL)


@pytest.mark.parametrize(("subjects", "run"), [(0, 512), (1, 512), (2, 500), (10, 100), (62, 16), (63, 16), (255, 16)])
def test_it_claims_longer_runs_the_fewer_subjects_there_are(subjects: int, run: int) -> None:
    claims = RunClaims()
    claims.choose([make_due(key) for key in range(subjects)], 10_000, {}, NOW)
    assert claims.run == run


def test_it_rests_for_a_multiple_of_what_seeing_all_subjects_took() -> None:
    claims = RunClaims(whole=True)
    look(claims)
    claims.began -= 5
    claims.choose([make_due(key) for key in range(SUBJECTS)], 10_000, {}, NOW)
    look(claims)
    claims.began -= 2
    before = monotonic()
    claims.choose([], 10_000, {}, NOW)
    assert before + 7 * REST_FACTOR <= claims.rest_until <= monotonic() + 60 + 7 * REST_FACTOR
    assert claims.took_s == 0
    assert claims.want(ENDPOINT, 1, {}) is None


def test_it_looks_again_after_its_rest() -> None:
    claims = RunClaims(rest_until=monotonic())
    look(claims)


def test_it_looks_at_nothing_while_something_without_a_subject_is_on_its_way() -> None:
    assert RunClaims().want(ENDPOINT, 1, owning([make_due(1), make_due(None)])) is None


def test_a_rewind_of_runs_changes_nothing() -> None:
    claims = RunClaims(after_key=7)
    claims.rewind()
    assert claims == RunClaims(after_key=7)


# --- shares --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body_bytes", "fitting"),
    [(0, 1000), (1000, 1000), (MAX_SHARE_BYTES // 100 - 1, 100), (MAX_SHARE_BYTES - 1, 1), (2 * MAX_SHARE_BYTES, 1)],
)
def test_a_share_fits_into_memory(body_bytes: int, fitting: int) -> None:
    assert fitting_share(3, 3 * body_bytes) == fitting
