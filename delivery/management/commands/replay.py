"""`manage.py replay`: put deliveries back into the queue, recover what an endpoint missed, or dismiss dead letters."""

import signal
import threading
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime
from getpass import getuser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime

from delivery.models import Delivery, Event, Replay
from delivery.replay import Count, preview, start
from delivery.replay.running import run
from subscriptions.allowance import Exceeded
from subscriptions.ids import from_public
from subscriptions.models import Endpoint

_STATES = {state.label: state for state in Delivery.State}


def _moment(text: str) -> datetime:
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise ArgumentTypeError(f"{text!r} is not a time: write it in UTC, such as 2026-11-22T10:00:00.")
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class Command(BaseCommand):
    help = (
        "Put deliveries back into the queue (replay), make those that an endpoint missed (recover), or cancel dead letters (dismiss)."
        " Workers carry it out; --wait does it here."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", nargs="?", choices=Replay.Action.values, default=Replay.Action.REPLAY.value)
        parser.add_argument("--endpoint", help="only this endpoint's (ep_…); to recover, name it")
        parser.add_argument("--event", help="only this event's (evt_…)")
        parser.add_argument("--state", choices=_STATES, help="only those in this state (default: all but pending ones)")
        parser.add_argument("--since", type=_moment, help="made, or to recover: received, from this time on (UTC)")
        parser.add_argument("--until", type=_moment, help="… and before this time (UTC)")
        parser.add_argument("--collection", action="append", default=[], help="only events of this collection or type, such as app.bsky.feed.*; repeatable")
        parser.add_argument("--rate", type=float, help="at most so many deliveries a second")
        parser.add_argument("--dry-run", action="store_true", help="only count them")
        parser.add_argument("--wait", action="store_true", help="carry it out here, together with those that are running, and wait for its end")

    def handle(self, *, dry_run: bool, wait: bool, **options: Any) -> None:
        try:
            wish = _wish(options)
            if dry_run:
                self.stdout.write(f"{_deliveries(preview(wish))} would be {_done(wish)}.")
                return
            replay = start(wish, by=f"{getuser()} (manage.py)")
        except Exceeded as refusal:
            raise CommandError(" ".join(refusal.messages)) from refusal
        except ValidationError as error:
            raise CommandError(" ".join(f"{name}: {' '.join(words)}" for name, words in error.message_dict.items())) from error
        count = Count(replay.expected, replay.expected_more)
        self.stdout.write(f"{replay.public_id}: {_deliveries(count)} to be {_done(replay)}.")
        if wait:
            self._wait_for(replay)

    def _wait_for(self, replay: Replay) -> None:
        stopping = threading.Event()
        before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while replay.refreshed().running and not stopping.is_set():
                run(stopping.wait)
                # Somebody else may be at it, or the pace may be a slow one.
                stopping.wait(0.2)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        skipped = f" {replay.skipped:,} skipped: their event or endpoint is gone." if replay.skipped else ""
        self.stdout.write(f"{replay.public_id}: {replay.get_state_display().lower()}, {replay.done:,} {_done(replay)}.{skipped}")


def _wish(options: dict[str, Any]) -> Replay:
    wish = Replay(action=options["action"], since=options["since"], until=options["until"], rate_per_s=options["rate"], collections=options["collection"])
    wish.delivery_state = _STATES[options["state"]] if options["state"] else None
    wish.endpoint = _row(Endpoint, options["endpoint"])
    wish.event = _row(Event, options["event"])
    return wish


def _row(model: type[Any], text: str | None) -> Any:
    if text is None:
        return None
    id = from_public(text)
    found = model.objects.filter(pk=id).first() if id else None
    if found is None:
        raise CommandError(f"There is no {model._meta.verbose_name} {text!r}: copy its id from the pages, such as {model.prefix}_0197….")
    return found


def _deliveries(count: Count) -> str:
    return f"{count} {'delivery' if str(count) == '1' else 'deliveries'}"


def _done(replay: Replay) -> str:
    return {"replay": "put back in the queue", "recover": "made", "dismiss": "dismissed"}[replay.action]
