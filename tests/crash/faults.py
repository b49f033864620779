"""What happens to the system. Each fault comes and goes within the call; recovery is not its business."""

import enum
import random
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from time import sleep

from delivery.listener import LEASE_S as LISTENER_LEASE_S
from delivery.tenure import LEASE_S
from tests.crash.house import RESTART_S, House, Slot
from tests.crash.receivers import Mood, Receiver

# A stall has to be longer than a lease, with a look at it to spare.
STALL_S = LEASE_S + 4
LISTENER_STALL_S = LISTENER_LEASE_S + 4
# A short outage of a server, and one in which every lease runs out. In seconds.
AWAY_S, LONG_AWAY_S = 2.0, LEASE_S + 3
RECEIVER_AWAY_S = 6.0


Begin = Callable[[], None]
Does = Callable[[House, random.Random, Begin], None]


class Repeats(enum.Enum):
    """What may come twice because of a fault: a request that was made then and not settled."""

    NOTHING = "nothing"
    # Who is killed or stalled sends nothing from then on, and has lost its lanes when it goes on.
    AT_THE_START = "what was in flight when it began"
    UNTIL_ITS_END = "what was in flight while it lasted"


@dataclass(frozen=True)
class Fault:
    """`does` calls its last argument at the moment it begins: it may have to wait for another fault."""

    name: str
    does: Does
    lasts_s: float
    repeats: Repeats = Repeats.NOTHING


def _killed(slot: Slot, begin: Begin, away_s: float = RESTART_S) -> None:
    with slot.lock:
        begin()
        slot.kill()
        sleep(away_s)
        slot.start()


def _restarted(slot: Slot, begin: Begin) -> None:
    with slot.lock:
        begin()
        slot.program.stop()
        slot.start()


def _stalled(slot: Slot, begin: Begin, stall_s: float) -> None:
    with slot.lock:
        begin()
        slot.signal(signal.SIGSTOP)
        try:
            sleep(stall_s)
        finally:
            slot.signal(signal.SIGCONT)


def _all_workers_killed(house: House, _: random.Random, begin: Begin) -> None:
    with ExitStack() as stack:
        for slot in house.workers:
            stack.enter_context(slot.lock)
        begin()
        for slot in house.workers:
            slot.kill()
        sleep(RESTART_S)
        for slot in house.workers:
            slot.start()


def _redis_flushed(house: House, _: random.Random, begin: Begin) -> None:
    """Again and again for a while: a single one may find it empty."""
    with house.redis_lock:
        begin()
        for _turn in range(20):
            house.redis.flush()
            sleep(0.1)


def _redis_away(away_s: float) -> Does:
    def does(house: House, _: random.Random, begin: Begin) -> None:
        with house.redis_lock:
            begin()
            house.redis.end(signal.SIGKILL)
            sleep(away_s)
            house.redis.start()

    return does


def _postgres_away(away_s: float) -> Does:
    def does(house: House, _: random.Random, begin: Begin) -> None:
        with house.postgres_lock:
            begin()
            house.postgres.end(house.postgres.immediate)
            sleep(away_s)
            house.postgres.start()

    return does


def _postgres_crashed(house: House, _: random.Random, begin: Begin) -> None:
    with house.postgres_lock:
        begin()
        house.postgres.crash()


def _receiver(house: House, chance: random.Random) -> Receiver:
    return house.receivers[chance.choice(sorted(house.receivers))]


def _in_a_mood(mood: Mood) -> Does:
    def does(house: House, chance: random.Random, begin: Begin) -> None:
        receiver = _receiver(house, chance)
        begin()
        receiver.mood = mood
        sleep(RECEIVER_AWAY_S)
        receiver.mood = Mood.WELL

    return does


def _queue_full(house: House, chance: random.Random, begin: Begin) -> None:
    receiver = _receiver(house, chance)
    with receiver.deafness:
        begin()
        receiver.turn_deaf()
        sleep(RECEIVER_AWAY_S)
        receiver.listen()


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("receiver-500", _in_a_mood(Mood.FAILING), RECEIVER_AWAY_S),
        Fault("worker-killed", lambda house, chance, begin: _killed(house.busiest_worker(chance), begin), RESTART_S, Repeats.AT_THE_START),
        Fault("listener-killed", lambda house, chance, begin: _killed(house.active_listener(chance), begin), RESTART_S),
        Fault("beat-killed", lambda house, _, begin: _killed(house.beats[0], begin, AWAY_S), AWAY_S),
        Fault("redis-flushed", _redis_flushed, AWAY_S),
        Fault("redis-killed", _redis_away(AWAY_S), AWAY_S),
        Fault("postgres-restarted", _postgres_away(AWAY_S), AWAY_S, Repeats.UNTIL_ITS_END),
        Fault("worker-stalled", lambda house, chance, begin: _stalled(house.busiest_worker(chance), begin, STALL_S), STALL_S, Repeats.AT_THE_START),
        Fault("queue-full", _queue_full, RECEIVER_AWAY_S, Repeats.UNTIL_ITS_END),
        Fault("receiver-resets", _in_a_mood(Mood.RESETTING), RECEIVER_AWAY_S),
        Fault("worker-restarted", lambda house, chance, begin: _restarted(house.busiest_worker(chance), begin), AWAY_S),
        Fault("listener-restarted", lambda house, chance, begin: _restarted(house.active_listener(chance), begin), AWAY_S),
        Fault("listener-stalled", lambda house, chance, begin: _stalled(house.active_listener(chance), begin, LISTENER_STALL_S), LISTENER_STALL_S),
        Fault("postgres-crashed", _postgres_crashed, 1.0, Repeats.UNTIL_ITS_END),
        Fault("postgres-away", _postgres_away(LONG_AWAY_S), LONG_AWAY_S, Repeats.UNTIL_ITS_END),
        Fault("redis-away", _redis_away(LONG_AWAY_S), LONG_AWAY_S),
        Fault("all-workers-killed", _all_workers_killed, RESTART_S, Repeats.AT_THE_START),
    )
}
# One of each kind, in an order in which the slow recoveries run beside what follows.
SHORT = ("receiver-500", "worker-killed", "redis-flushed", "listener-killed", "postgres-restarted", "redis-killed", "beat-killed", "worker-stalled")
