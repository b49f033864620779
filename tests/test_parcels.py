"""Parcels: which events travel in one request, and in what order."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count

import pytest
from django.utils import timezone

from delivery.engines.base import Due
from delivery.parcels import EVENT_IDS_HEADER, MAX_BATCH_BYTES, Batching, Job, Loose, Packer, Parcel, Runs
from subscriptions.ids import new_id, to_public

NOW = timezone.now()
_numbers = count(1)


def make_job(key: int | None = None, tries: int = 0, body: bytes | None = None, age_s: float = 60) -> Job:
    due = Due(new_id(), new_id(), new_id(), NOW - timedelta(seconds=age_s), tries, tries, key)
    return Job(due, body if body is not None else b'{"n":%d}' % next(_numbers))


def batches(size: int = 3, wait_s: float = 1, retries: int = 4) -> Batching:
    return Batching(size, timedelta(seconds=wait_s), retries)


def sizes(parcels: Sequence[Parcel]) -> list[int]:
    return [len(parcel.jobs) for parcel in parcels]


def order(parcels: Sequence[Parcel]) -> list[Job]:
    return [job for parcel in parcels for job in parcel.jobs]


def test_an_event_alone_is_its_body_byte_for_byte_under_its_own_id() -> None:
    job = make_job(body=b' {"a" : 1}\n')
    packer = Loose()
    packer.add([job])
    (parcel,) = packer.ready(NOW)
    assert (parcel.body, parcel.id, parcel.headers) == (b' {"a" : 1}\n', to_public("evt", job.due.event_id), [])


def test_a_batch_is_an_array_that_names_its_events() -> None:
    jobs, packer = [make_job() for _ in range(3)], Loose(batches())
    packer.add(jobs)
    (parcel,) = packer.ready(NOW)
    assert json.loads(parcel.body) == [json.loads(job.body) for job in jobs]
    assert parcel.headers == [f"{EVENT_IDS_HEADER}: {','.join(to_public('evt', job.due.event_id) for job in jobs)}"]
    assert parcel.id.startswith("bat_")


def test_a_batch_of_one_is_an_array_too() -> None:
    packer = Loose(batches())
    packer.add([make_job(body=b"{}")])
    assert [parcel.body for parcel in packer.ready(NOW)] == [b"[{}]"]


def test_the_same_events_in_the_same_order_have_the_same_id() -> None:
    a, b = make_job(), make_job()
    assert Parcel((a, b), True).id == Parcel((a, b), True).id
    assert len({Parcel((a, b), True).id, Parcel((b, a), True).id, Parcel((a,), True).id, Parcel((a,), False).id}) == 4


@pytest.mark.parametrize("make_packer", [Loose, Runs])
def test_it_says_how_long_the_oldest_of_what_waits_has_still_to_wait(make_packer: Callable[[Batching], Packer]) -> None:
    packer = make_packer(batches(wait_s=2))
    assert packer.ripe_in_s(NOW) == 2
    packer.add([make_job(1, age_s=1.25), make_job(2, age_s=0.5)])
    assert packer.ripe_in_s(NOW) == 0.75
    assert packer.ripe_in_s(NOW + timedelta(seconds=0.5)) == 0.25
    assert packer.ripe_in_s(NOW + timedelta(seconds=60)) == 0


def test_what_waits_for_its_subject_is_not_waited_for() -> None:
    packer = Runs(batches(size=2, wait_s=2))
    packer.add([make_job(1), make_job(1), make_job(1, age_s=1.5), make_job(2, age_s=0.5)])
    assert sizes(packer.ready(NOW)) == [2]
    assert packer.ripe_in_s(NOW) == 1.5


@pytest.mark.parametrize("make_packer", [Loose, Runs])
def test_a_batch_that_is_not_full_waits_for_others_and_not_for_ever(make_packer: Callable[[Batching], Packer]) -> None:
    packer = make_packer(batches())
    packer.add([make_job(1, age_s=0.9), make_job(2, age_s=0.5)])
    assert packer.ready(NOW) == []
    assert len(packer) == 2
    (parcel,) = packer.ready(NOW + timedelta(seconds=0.1))
    assert sizes([parcel]) == [2]
    assert len(packer) == 0


def test_full_batches_leave_at_once_and_the_rest_waits() -> None:
    packer, jobs = Loose(batches(wait_s=1)), [make_job(age_s=0) for _ in range(8)]
    packer.add(jobs)
    first = packer.ready(NOW)
    packer.add([make_job(age_s=0)])
    second = packer.ready(NOW)
    assert (sizes(first), sizes(second)) == ([3, 3], [3])
    assert order(first + second)[:8] == jobs


def test_a_batch_stays_within_256_kb_to_the_byte() -> None:
    assert MAX_BATCH_BYTES == 262_144
    half = MAX_BATCH_BYTES // 2
    # The brackets and one comma.
    fits, packer = [make_job(body=b"x" * half), make_job(body=b"x" * (half - 3))], Loose(batches())
    packer.add(fits)
    assert [len(parcel.body) for parcel in packer.ready(NOW)] == [MAX_BATCH_BYTES]
    packer.add([fits[0], make_job(body=b"x" * (half - 2))])
    assert sizes(packer.ready(NOW)) == [1, 1]


def test_an_event_that_is_larger_than_a_batch_may_be_travels_alone() -> None:
    packer = Loose(batches())
    packer.add([make_job(), make_job(body=b"x" * MAX_BATCH_BYTES), make_job()])
    assert sizes(packer.ready(NOW)) == [1, 1, 1]


def test_what_failed_together_travels_in_ever_smaller_batches_and_at_last_alone() -> None:
    assert [batches(100, retries=4).most(tries) for tries in range(6)] == [100, 32, 10, 4, 1, 1]
    assert [batches(100, retries=1).most(tries) for tries in range(3)] == [100, 1, 1]
    assert batches(100, retries=0).most(1) == 1


def test_fresh_events_do_not_travel_with_those_that_failed() -> None:
    packer = Loose(batches(10))
    packer.add([make_job(tries=1), make_job(tries=1), make_job(), make_job()])
    assert [{job.due.tries for job in parcel.jobs} for parcel in packer.ready(NOW)] == [{1}, {0}]


def test_what_failed_leaves_in_batches_as_small_as_it_may() -> None:
    packer = Loose(batches(100, retries=4))
    packer.add([make_job(tries=1) for _ in range(100)])
    assert sizes(packer.ready(NOW)) == [32, 32, 32, 4]


def test_a_batch_that_the_next_event_may_not_join_is_full() -> None:
    packer = Loose(batches(10, wait_s=1))
    packer.add([make_job(tries=1, age_s=0), make_job(tries=1, age_s=0), make_job(age_s=0)])
    assert sizes(packer.ready(NOW)) == [2]
    assert len(packer) == 1


def test_what_is_withdrawn_waits_no_more() -> None:
    for packer in (Loose(batches()), Runs(batches())):
        jobs = [make_job(1), make_job(2)]
        packer.add(jobs)
        assert packer.withdraw() == jobs
        assert len(packer) == 0
        assert packer.ready(NOW) == []


# --- one subject after the other ---------------------------------------------------------------------------------------


def test_it_sends_one_of_each_subject_and_the_next_once_that_is_over() -> None:
    a1, b1, a2, c1, b2 = (make_job(key) for key in (1, 2, 1, 3, 2))
    packer = Runs()
    packer.add([a1, b1, a2, c1, b2])
    first = packer.ready(NOW)
    assert order(first) == [a1, b1, c1]
    assert packer.ready(NOW) == []
    assert packer.ended(first[1], over=True) == []
    assert order(packer.ready(NOW)) == [b2]
    assert len(packer) == 1


def test_what_follows_a_failure_of_its_subject_is_given_back() -> None:
    a1, b1, a2, a3, b2 = (make_job(key) for key in (1, 2, 1, 1, 2))
    packer = Runs()
    packer.add([a1, b1, a2, a3, b2])
    first = packer.ready(NOW)
    assert packer.ended(first[0], over=False) == [a2, a3]
    assert packer.ended(first[1], over=True) == []
    assert order(packer.ready(NOW)) == [b2]


@pytest.mark.parametrize(("size", "body"), [(1, b"{}"), (2, b"[{}]")])
def test_an_event_of_a_subject_is_an_array_where_there_are_batches(size: int, body: bytes) -> None:
    packer = Runs(batches(size))
    packer.add([make_job(1, body=b"{}")])
    assert [parcel.body for parcel in packer.ready(NOW)] == [body]


def test_a_batch_of_several_subjects_waits_no_longer_than_its_oldest_event() -> None:
    packer = Runs(batches(3, wait_s=1))
    packer.add([make_job(1, age_s=0), make_job(2, age_s=1)])
    assert sizes(packer.ready(NOW)) == [2]


def test_a_batch_of_several_subjects_stays_within_256_kb_to_the_byte() -> None:
    for more, fits in ((-3, [2]), (-2, [1, 1])):
        packer = Runs(batches(3))
        packer.add([make_job(1, body=b"x" * (MAX_BATCH_BYTES // 2)), make_job(2, body=b"x" * (MAX_BATCH_BYTES // 2 + more))])
        assert sizes(packer.ready(NOW)) == fits


def test_fresh_events_of_a_subject_do_not_travel_with_those_of_another_that_failed() -> None:
    packer = Runs(batches(10))
    packer.add([make_job(1, tries=1), make_job(2)])
    assert sizes(packer.ready(NOW)) == [1, 1]


def test_a_batch_holds_several_of_a_subject_in_their_order() -> None:
    jobs = [make_job(key) for key in (1, 1, 2, 1, 1)]
    packer = Runs(batches(3))
    packer.add(jobs)
    first = packer.ready(NOW)
    # The fourth of subject 1 has to wait for the first three; subject 2 does not.
    assert [[job.due.order_key for job in parcel.jobs] for parcel in first] == [[1, 1, 1], [2]]
    assert order(first)[:3] == [jobs[0], jobs[1], jobs[3]]
    packer.ended(first[0], over=True)
    assert order(packer.ready(NOW)) == [jobs[4]]


def test_a_batch_that_fails_holds_up_all_of_its_subjects_and_no_others() -> None:
    jobs = [make_job(key) for key in (1, 2, 3, 1, 2, 3)]
    packer = Runs(batches(2))
    packer.add(jobs)
    first = packer.ready(NOW)
    assert [[job.due.order_key for job in parcel.jobs] for parcel in first] == [[1, 1], [2, 2], [3, 3]]
    packer = Runs(batches(2))
    packer.add([jobs[0], jobs[1], jobs[2], make_job(2)])
    (both, third) = packer.ready(NOW)
    assert [job.due.order_key for job in both.jobs] == [1, 2]
    assert [job.due.order_key for job in third.jobs] == [3]
    assert [job.due.order_key for job in packer.ended(both, over=False)] == [2]


def test_nothing_is_lost_or_doubled_or_out_of_order_however_parcels_end() -> None:
    packer, jobs = Runs(batches(4, wait_s=0)), [make_job(number % 7) for number in range(200)]
    packer.add(jobs)
    sent: list[Job] = []
    while parcels := packer.ready(NOW):
        keys = [job.due.order_key for parcel in parcels for job in {job.due.order_key: job for job in parcel.jobs}.values()]
        assert len(keys) == len(set(keys)), "one parcel of a subject at a time"
        sent += order(parcels)
        for parcel in parcels:
            packer.ended(parcel, over=True)
    assert sorted(job.due.id for job in sent) == [job.due.id for job in jobs]
    for key in range(7):
        assert [job for job in sent if job.due.order_key == key] == [job for job in jobs if job.due.order_key == key]
