"""Endpoints in one lane, what they are owed, and all that people, owners and time do to them; each with what the model makes of it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from queue import SimpleQueue
from typing import Any

from django.db.models import F
from django.test.utils import override_settings
from django.utils import timezone
from hypothesis import note

from delivery import endpoints, lanes
from delivery.leases import lane_lease
from delivery.lines import forget_standings
from delivery.models import Delivery, EndpointHealth, Event, Lease
from delivery.outbox import Outbox
from delivery.prune import Pruner
from delivery.replay import dismiss, replay
from subscriptions.models import Endpoint, Subscription, new_secret
from tests.builders import make_endpoint, make_incoming, make_source, make_subscription
from tests.counterpart import ANSWERS, Arrival, Counterpart, Trap
from tests.delivery_model import ACTIVE, CANCELLED, DEAD, DELIVERED, PENDING, Key, Meddling, Model, Published
from tests.delivery_turns import Turn, check_late_news
from tests.draining import LANE
from tests.nursery import PATIENCE_S, Nursery, Owner
from tests.receiver import Receiver
from tests.threads import eventually

TYPES = ["app.bsky.feed.post", "app.bsky.feed.like"]
SUBJECTS = ["did:plc:a", "did:plc:b", "did:plc:ü"]
# A new event of a subject and type, or the number of one that was there before.
Chosen = tuple[str, str] | int


class Playground:
    def __init__(self, receiver: Receiver, nursery: Nursery) -> None:
        self.nursery, self.counterpart = nursery, Counterpart(receiver)
        self.model = Model(self.counterpart)
        self.source = make_source()
        self.outbox = Outbox(self.source)
        self.event_count = 0

    def add_endpoint(self, *, ailing: bool, **over: Any) -> None:
        number = len(self.model.endpoints)
        endpoint = make_endpoint(url=self.counterpart.url(number, "a"), shard=LANE, batch_wait_ms=0, **over)
        make_subscription(endpoint=endpoint, source=self.source, collections=TYPES)
        self.model.add(endpoint)
        if ailing:
            # For days; its breaker has just cooled.
            now = timezone.now()
            EndpointHealth.objects.create(endpoint=endpoint, failures=8, failing_since=now - timedelta(days=6), trips=8, open_until=now)

    # --- events ----------------------------------------------------------------------------------------------------

    def publish(self, batch: Sequence[Chosen], rejected: int = 0) -> None:
        model, wants, chosen = self.model, self._wants(), [event for each in batch for event in self._events(each)]
        wanted_by = {event: {number for number, types in wants.items() if model.events[event].incoming.type in types} for event in chosen}
        expected = model.publish(chosen, wanted_by, rejected)
        counts = self.outbox.publish([model.events[event].incoming for event in chosen], rejected=rejected)
        model.identify()
        assert counts == expected

    def publish_many(self, count: int) -> None:
        self.publish([(SUBJECTS[number % len(SUBJECTS)], TYPES[0]) for number in range(count)])

    def _events(self, chosen: Chosen) -> list[int]:
        known = sorted(self.model.events)
        if isinstance(chosen, int):
            return [known[chosen % len(known)]] if known else []
        self.event_count += 1
        subject, type = chosen
        body = f'{{"n":{self.event_count},"of":"{subject}",  "x":1.0}}'.encode()
        self.model.events[self.event_count] = Published(make_incoming(subject=subject, type=type, body=body))
        return [self.event_count]

    def _wants(self) -> dict[int, list[str]]:
        wants = Subscription.objects.filter(active=True).values_list("endpoint_id", "collections")
        return {self.model.endpoints.index(id): list(types) for id, types in wants}

    # --- receivers -------------------------------------------------------------------------------------------------

    def misbehave(self, number: int, moods: Sequence[tuple[str, int]]) -> None:
        self.counterpart.moods.setdefault(number, deque()).extend(ANSWERS[kind] for kind, times in moods for _ in range(times))

    def poison(self, number: int, kind: str, pick: int, times: int) -> None:
        for event in self._events(pick):
            self.counterpart.poison[number, event] = deque([ANSWERS[kind]] * times)

    # --- people ----------------------------------------------------------------------------------------------------

    def change(self, number: int, name: str, value: Any) -> None:
        self.model.meddling.endpoints.add(number)
        endpoint = Endpoint.objects.get(pk=self.model.endpoints[number])
        match name:
            case "act":
                self.act(number, value)
                return
            case "wants":
                Subscription.objects.filter(endpoint=endpoint).update(collections=value or TYPES, active=bool(value))
            case "path":
                endpoint.url = self.counterpart.url(number, value)
            case "secret":
                endpoint.replace_secret(new_secret(), timedelta(hours=value))
                self.model.secrets[number].add(endpoint.secret)
            case _:
                setattr(endpoint, name, value)
        if not endpoint.retries:
            endpoint.batch_size = 1
        endpoint.full_clean(exclude=["secret"])
        endpoint.save()

    def act(self, number: int, name: str) -> None:
        chosen = Endpoint.objects.filter(pk=self.model.endpoints[number])
        match name:
            case "pause":
                endpoints.pause(chosen, "somebody said so")
            case "disable":
                endpoints.disable(chosen, "somebody said so")
            case "go on":
                endpoints.resume(chosen)
                endpoints.enable(chosen)
            case "reset":
                endpoints.reset_breaker(chosen)

    def move(self, what: str, picks: Sequence[int]) -> None:
        {"replay": self._replay, "cancel": self._cancel, "dismiss": self._dismiss}[what](picks)

    def _replay(self, picks: Sequence[int]) -> None:
        keys = self._picked(picks, PENDING, DELIVERED, DEAD, CANCELLED)
        assert replay([self.model.delivery_id(key) for key in keys]) == len(keys)
        self.model.replay(keys)

    def _cancel(self, picks: Sequence[int]) -> None:
        """As when their endpoint is deleted, but a few at a time."""
        for key in self._picked(picks, PENDING):
            pending = Delivery.objects.pending().filter(pk=self.model.delivery_id(key))
            if pending.update(state=CANCELLED, settled_at=timezone.now()):
                self.model.cancel(key)

    def _dismiss(self, picks: Sequence[int]) -> None:
        keys = self._picked(picks, DEAD)
        done = dismiss([self.model.delivery_id(key) for key in keys])
        assert done == len(keys)
        for key in keys:
            self.model.cancel(key)

    def _picked(self, picks: Sequence[int], *states: int) -> set[Key]:
        some = self.model.keys(*states)
        return {some[pick % len(some)] for pick in picks if some}

    # --- time ------------------------------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """As if so many seconds had passed: every moment that anything waits for lies that much further back."""
        passed = timedelta(seconds=seconds)
        Delivery.objects.update(due_at=F("due_at") - passed)
        Lease.objects.update(expires_at=F("expires_at") - passed)
        Endpoint.objects.update(previous_secret_expires_at=F("previous_secret_expires_at") - passed)
        moments = ("failing_since", "open_until", "paused_until", "paced_until", "ordered_since")
        EndpointHealth.objects.update(**{name: F(name) - passed for name in moments})
        # Where claims stand is a moment too, and this process may remember it.
        forget_standings()

    def prune(self, *, dead_too: bool) -> None:
        """Of all that is over, as if its time had come."""
        with override_settings(JETRELAY_RETENTION_DAYS=0, JETRELAY_DEAD_LETTER_DAYS=0 if dead_too else 30):
            self.model.prune({DELIVERED, CANCELLED, DEAD} if dead_too else {DELIVERED, CANCELLED})
            # What was made in this very millisecond is not of the past yet.
            eventually(self._prune)

    def _prune(self) -> bool:
        report = Pruner(chunk=3).run(lambda _: False)
        assert report is not None
        assert report.finished
        stored = sum(1 for each in self.model.events.values() if each.id)
        return Delivery.objects.count() <= len(self.model.rows) and Event.objects.count() <= stored

    # --- lanes -----------------------------------------------------------------------------------------------------

    def drain(self) -> bool:
        """Turn after turn, each of them judged, until nothing more is due. Returns whether the lane was to be had."""
        owned_until, turns, more = self._owned_until(), 0, True
        elsewhere = owned_until > timezone.now()
        while more:
            turns += 1
            assert turns < 20, "a lane calls itself due and does nothing"
            before, count = self.model.picture(), len(self.counterpart.arrivals)
            self.model.meddling, began = Meddling(), timezone.now()
            more = lanes.drain(LANE)
            self._raise_errors()
            mine = self._since(count, "")
            if owned_until > timezone.now():
                assert not mine, "the lane belongs to somebody else"
                return False
            Turn(self.model, before, self.model.picture(), mine, self.model.meddling).check()
            self.model.rows = self.model.picture().rows
            self.model.doubtful |= self.model.meddling.cancelled
        if not elsewhere:
            self._check_nothing_is_left(began)
        return not elsewhere

    def drain_while(self, at: int, happens: Callable[[], None]) -> None:
        """Drain, and let something happen at the n-th request; if there is none, afterwards."""
        self.counterpart.trap = Trap(at, happens)
        self.drain()
        if trap := self.counterpart.disarm():
            trap.happens()

    def drain_in_vain(self) -> None:
        """Nothing is due: then nothing is sent."""
        count = len(self.counterpart.arrivals)
        lanes.drain(LANE)
        assert len(self.counterpart.arrivals) == count

    def _owned_until(self) -> datetime:
        """When the lane's lease runs out, or has run out."""
        return Lease.objects.filter(name=lane_lease(LANE)).values_list("expires_at", flat=True).first() or timezone.now()

    def _since(self, count: int, mortal: str) -> list[Arrival]:
        """The arrivals since then of one owner: a mortal one, or this process."""
        arrivals = [arrival for arrival in self.counterpart.arrivals[count:] if arrival.mortal == mortal]
        note(f"turn{mortal and f' of {mortal}'}: {[(each.endpoint, each.events, *each.answer) for each in arrivals]}")
        return arrivals

    def _check_nothing_is_left(self, moment: datetime) -> None:
        """Whatever happened to others: an endpoint that could be sent to has had all that was due."""
        picture = self.model.picture()
        for number, endpoint in enumerate(picture.endpoints):
            if endpoint.state != ACTIVE or picture.held(number) or number in self.model.meddling.endpoints:
                continue
            rows = Delivery.objects.pending().filter(endpoint=endpoint).order_by("event_id").values_list("event__subject", "due_at")
            firsts: dict[str | int, datetime] = {}
            for subject, due_at in rows:
                firsts.setdefault(subject if endpoint.ordered else len(firsts), due_at)
            assert all(due_at > moment for due_at in firsts.values()), f"endpoint {number} was left with something due"

    def _raise_errors(self) -> None:
        if self.counterpart.errors:
            raise self.counterpart.errors[0]

    # --- owners that end badly -------------------------------------------------------------------------------------

    def kill_the_owner(self, at: int, *, after: bool, lease_s: float) -> None:
        """At some request, just before or after it is answered, while others are under way."""
        victim: SimpleQueue[Owner] = SimpleQueue()
        self.counterpart.trap = Trap(at, lambda: victim.get(timeout=PATIENCE_S).kill(), after)
        with self._owner("killable", lease_s) as owner:
            victim.put(owner)
            assert owner.wait() == "gone"
            self._account_for(owner)
        self.counterpart.disarm()
        self._raise_errors()

    def end_the_owner_before_it_settles(self, lease_s: float) -> None:
        rows = self.model.rows
        with self._owner("unsettled", lease_s) as owner:
            assert owner.wait() == "gone"
            self._account_for(owner)
        assert self.model.rows == rows

    def freeze_the_owner_before_it_settles(self) -> None:
        """Another one takes over meanwhile; what it knows when it goes on is old."""
        before = self.model.picture()
        with self._owner("frozen", 0.3) as owner:
            state = owner.wait()
            self._account_for(owner)
            if state == "gone":
                return
            eventually(lambda: self._owned_until() < timezone.now())
            self.drain()
            meanwhile, count = self.model.picture(), len(self.counterpart.arrivals)
            owner.go_on()
            assert owner.wait() == "gone"
        after = self.model.picture()
        self.model.rows = after.rows
        check_late_news(before, meanwhile, after, self._since(0, owner.name))
        late = self._since(count, owner.name)
        for number, endpoint in enumerate(before.endpoints):
            assert sum(arrival.endpoint == number for arrival in late) <= endpoint.max_in_flight, "only what was under way may still come"

    @contextmanager
    def _owner(self, kind: str, lease_s: float) -> Iterator[Owner]:
        if self._owned_until() > timezone.now():
            self.pass_time(10)
        self._began = self.model.picture(), len(self.counterpart.arrivals)
        with self.nursery.owner(kind, lease_s) as owner:
            yield owner

    def _account_for(self, owner: Owner) -> None:
        """Of an unfinished turn: what the owner took with it is nobody's fault."""
        before, count = self._began
        after = self.model.picture()
        Turn(self.model, before, after, self._since(count, owner.name), Meddling(), cut_short=True).check()
        self.model.rows = after.rows

    # --- in the end ------------------------------------------------------------------------------------------------

    def everything_arrives(self) -> None:
        """Once all is well."""
        self.counterpart.mend()
        for number in range(len(self.model.endpoints)):
            self.act(number, "go on")
        for _ in range(2):
            self.pass_time(8_000)
            self.drain()
        assert not self.model.keys(PENDING), "something never arrives"
