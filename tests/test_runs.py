"""The claims of an ordered endpoint: whose news there is, and the run of each subject."""

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from uuid import UUID

import pytest

from delivery.claims import LATE_COMMITS
from delivery.engines.base import Due, Head, Subjects, Want
from delivery.looking_back import DAWN, Slice
from delivery.order import BEFORE_ALL, LAST_KEY
from delivery.runs import LOOK_S, MOST_LEADS, NEWS, REST_FACTOR, ROUND_S, SUBJECTS, Round, RunClaims
from tests.test_claims import ENDPOINT, NOW, make_due, owning

NOTHING: dict[UUID, int | None] = {}


def resting() -> Round:
    """All subjects were looked at a moment ago."""
    return Round(after_key=BEFORE_ALL, rest_until=monotonic() + 3600)


def told(news: Sequence[Due], **over: object) -> RunClaims:
    """Claims that have seen this news."""
    claims = RunClaims(round=resting())
    assert isinstance(claims.want(ENDPOINT, 10, NOTHING), Want)
    assert claims.choose(news, 10, NOTHING, NOW) == []
    return replace(claims, **over)  # type: ignore[arg-type]


def keys(claims: RunClaims, owned: dict[UUID, int | None] = NOTHING) -> tuple[int, ...]:
    wanted = claims.want(ENDPOINT, 10, owned)
    assert isinstance(wanted, Subjects)
    return wanted.keys


# --- news ----------------------------------------------------------------------------------------------------------


def test_it_asks_who_has_news_and_goes_on_where_that_ended() -> None:
    claims = RunClaims(round=resting())
    assert claims.want(ENDPOINT, 10, NOTHING) == Want(ENDPOINT, 40, DAWN, UUID(int=0))
    claims.choose([], 10, NOTHING, NOW)
    assert claims.exhausted
    # Four times as many as may be taken, and no more than so many.
    assert claims.want(ENDPOINT, 9999, NOTHING) == Want(ENDPOINT, NEWS, NOW - LATE_COMMITS, UUID(int=0))
    assert claims.want(ENDPOINT, 10, NOTHING) == Want(ENDPOINT, 40, NOW - LATE_COMMITS, UUID(int=0))


def test_it_looks_at_the_subjects_that_have_news_those_due_first_before_the_others() -> None:
    claims = told([make_due(5, 3), make_due(2, 2), make_due(5, 1)])
    assert claims.has_leads
    assert not claims.exhausted or claims.leads
    assert keys(claims) == (5, 2)


def test_it_takes_the_run_of_each_subject() -> None:
    claims, found = told([make_due(1), make_due(2), make_due(3)]), [make_due(key) for key in (1, 1, 2, 3, 3)]
    keys(claims)
    assert claims.choose(found, 100, NOTHING, NOW) == found
    assert (claims.leads, claims.exhausted) == ({}, True)


def test_it_takes_a_run_up_to_the_first_that_is_not_due() -> None:
    a1, a2, a3, b1, c1 = make_due(1), make_due(1, age_s=-60), make_due(1), make_due(2, age_s=-60), make_due(3, age_s=0)
    claims = told([a1, a3, c1])
    keys(claims)
    assert claims.choose([a1, a2, a3, b1, c1], 100, NOTHING, NOW) == [a1, c1]


def test_it_lets_go_of_a_subject_whose_first_is_not_due() -> None:
    """When that is due, it is news."""
    claims = told([make_due(1)])
    keys(claims)
    assert claims.choose([make_due(1, age_s=-60), make_due(1)], 100, NOTHING, NOW) == []
    assert (claims.leads, claims.taken, claims.exhausted) == ({}, {}, True)


def test_it_looks_at_nothing_of_a_subject_that_has_something_on_its_way_until_that_is_settled() -> None:
    claims, a1 = told([make_due(1), make_due(2)]), make_due(1)
    assert keys(claims, owning([a1])) == (2,)
    claims.choose([make_due(2)], 10, owning([a1]), NOW)
    assert claims.exhausted
    claims.asked = Want(ENDPOINT, 40, DAWN, UUID(int=0))
    assert keys(claims) == (1,)


@pytest.mark.parametrize("cut", ["by what may be taken", "by the length of a run", "by one that is not due"])
def test_it_comes_back_to_a_subject_that_there_is_more_of(cut: str) -> None:
    claims, most = told([make_due(1)]), 10
    keys(claims)
    found = [make_due(1), make_due(1)]
    if cut == "by what may be taken":
        most = 1
    elif cut == "by the length of a run":
        claims.run = 2
    else:
        found[1] = make_due(1, age_s=-60)
    chosen = claims.choose(found, most, NOTHING, NOW)
    assert chosen
    assert isinstance(claims.want(ENDPOINT, 10, owning(chosen)), Want)
    claims.choose([], 10, owning(chosen), NOW)
    claims.asked = Want(ENDPOINT, 40, DAWN, UUID(int=0))
    assert keys(claims) == (1,), "once what was taken is settled"


def test_it_takes_no_more_than_it_may_and_keeps_the_subjects_that_it_did_not_come_to() -> None:
    claims, found = told([make_due(1), make_due(2), make_due(3)]), [make_due(key) for key in (1, 1, 2, 2, 2, 3)]
    keys(claims)
    chosen = claims.choose(found, 4, NOTHING, NOW)
    assert chosen == found[:4]
    assert not claims.exhausted
    assert claims.share == 128
    claims.asked = Want(ENDPOINT, 40, DAWN, UUID(int=0))
    assert keys(claims, owning(chosen)) == (3,)


def test_a_key_of_0_is_one_like_any_other() -> None:
    claims = told([make_due(0)])
    assert keys(claims) == (0,)
    assert len(claims.choose([make_due(0)], 1, NOTHING, NOW)) == 1


def test_it_remembers_no_more_subjects_than_it_may() -> None:
    claims = told([make_due(key) for key in range(MOST_LEADS)])
    assert isinstance(claims.want(ENDPOINT, 10, NOTHING), Subjects)
    claims.choose([], 0, NOTHING, NOW)
    claims.leads = dict.fromkeys(range(MOST_LEADS), NOW)
    assert isinstance(claims.want(ENDPOINT, 10, NOTHING), Subjects), "those first, then news"
    assert claims.want(ENDPOINT, 10, {make_due().id: key for key in range(MOST_LEADS)}) is None


@pytest.mark.parametrize(("subjects", "run"), [(0, 512), (1, 512), (2, 500), (10, 100), (62, 16), (63, 16), (255, 16)])
def test_it_claims_longer_runs_the_fewer_subjects_there_are(subjects: int, run: int) -> None:
    claims = told([make_due(1)])
    keys(claims)
    claims.choose([make_due(key) for key in range(subjects)], 10_000, NOTHING, NOW)
    assert claims.run == run


def test_it_looks_at_nothing_while_something_without_a_subject_is_on_its_way() -> None:
    assert RunClaims().want(ENDPOINT, 1, owning([make_due(1), make_due(None)])) is None


def test_whoever_goes_on_begins_before_all_that_was_seen_and_not_settled() -> None:
    first, second = make_due(1, 90), make_due(2, 60)
    claims = told([first, second])
    assert claims.standing == (first.due_at, UUID(int=0))
    keys(claims)
    claims.choose([first, second], 1, NOTHING, NOW)
    assert claims.standing == (second.due_at, UUID(int=0))
    claims.rewind(first.due_at)
    assert (claims.position, claims.leads) == ((first.due_at, UUID(int=0)), {})


def test_what_looking_back_finds_is_looked_at() -> None:
    claims = told([])
    assert claims.look_back(ENDPOINT, Slice(DAWN, NOW), NOTHING) == Want(ENDPOINT, SUBJECTS, DAWN, UUID(int=0))
    owned = make_due(3)
    claims.seen([owned, make_due(7)], owning([owned]))
    assert keys(claims) == (7,)


# --- all subjects in turn --------------------------------------------------------------------------------------------


def test_it_looks_at_all_subjects_in_turn_from_anywhere_on() -> None:
    assert len({Round().after_key for _ in range(10)}) > 1
    claims = RunClaims(round=Round(after_key=7, rest_until=0.0))
    assert claims.want(ENDPOINT, 1, NOTHING) == Head(ENDPOINT, 7, SUBJECTS, 16, LAST_KEY)
    claims.choose([make_due(8)], 10, NOTHING, NOW)
    assert claims.round.after_key == BEFORE_ALL
    assert claims.round.rest_until >= monotonic() + ROUND_S - 0.5


def test_it_goes_on_after_the_last_of_as_many_subjects_as_it_looks_at() -> None:
    claims = RunClaims(round=Round(after_key=BEFORE_ALL, rest_until=0.0))
    claims.want(ENDPOINT, 1, NOTHING)
    claims.choose([make_due(key) for key in range(SUBJECTS)], 10_000, NOTHING, NOW)
    assert claims.round.after_key == SUBJECTS - 1


def test_it_goes_on_after_the_last_that_it_could_take_something_of() -> None:
    claims = RunClaims(round=Round(after_key=BEFORE_ALL, rest_until=0.0))
    claims.want(ENDPOINT, 1, NOTHING)
    claims.choose([make_due(1), make_due(2), make_due(3)], 2, NOTHING, NOW)
    assert claims.round.after_key == 2


def test_a_look_that_took_long_is_followed_by_a_rest_and_by_one_at_fewer_keys() -> None:
    round = Round(after_key=BEFORE_ALL)
    whole = round.width
    round.began = monotonic() - 2 * LOOK_S
    round.end(None)
    assert round.width == whole // 2
    assert round.rest_until >= monotonic() + LOOK_S * REST_FACTOR
    round.began = monotonic()
    round.end(5)
    assert (round.width, round.after_key, round.until_key) == (whole // 2 * 2, 5, LAST_KEY)


def test_a_round_passes_all_keys_however_narrow_its_looks_are() -> None:
    round, looks = Round(after_key=BEFORE_ALL, width=(LAST_KEY - BEFORE_ALL) // 100), 0
    while looks == 0 or round.after_key != BEFORE_ALL:
        round.began, looks = monotonic() - LOOK_S / 2, looks + 1
        round.end(None)
    assert looks == 101
