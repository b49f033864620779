"""Asking for a replay: what it would be about, the order for it, and calling it off. For pages, commands and the API."""

import threading
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from delivery import owing
from delivery.models import Delivery, Event, Replay
from delivery.replay.walks import FIRST, Count, Position, bounds, walk_of
from subscriptions import quotas
from subscriptions.allowance import most

_EXPIRES_S = 10
TASK = "delivery.replay"


def preview(wish: Replay, limit: int | None = None) -> Count:
    """How many deliveries an unsaved Replay is about, as of now. Changes nothing. Raises ValidationError: see `check`."""
    check(wish)
    now = timezone.now()
    after, wish.before_id = bounds(wish, now)
    with transaction.atomic():
        walk = walk_of(wish)
        return walk.count(Position(FIRST, after), limit or walk.preview_limit, now)


def start(wish: Replay, by: str = "") -> Replay:
    """Order what an unsaved Replay describes, on behalf of `by`; workers carry it out. Raises ValidationError: see `check`.

    What is counted now is kept as `expected`. Deliveries made from now on are no part of it. Raises Exceeded where the tenant has
    as many under way as it may, or owes so much that more would only wait. One that is about all tenants is the operator's.
    """
    counted = preview(wish)
    now = timezone.now()
    wish.after_id, wish.before_id = bounds(wish, now)
    wish.expected, wish.expected_more = counted
    wish.created_at = wish.next_at = now
    wish.created_by = by
    with transaction.atomic():
        if wish.tenant_id:
            _find_room(wish)
        wish.save(force_insert=True)
        transaction.on_commit(wake)
    return wish


def _find_room(wish: Replay) -> None:
    assert wish.tenant_id
    held = quotas.hold(wish.tenant_id)
    quotas.check(held, "replays", Replay.objects.running().filter(tenant=wish.tenant_id))
    if wish.action != Replay.Action.DISMISS:
        owing.check(wish.tenant_id, most("pending_deliveries", held.quotas))


def cancel(replay: Replay, by: str = "") -> bool:
    """Stop a running replay after its present step; what it has done stays done. False when it was over already."""
    news = {"state": Replay.State.CANCELLED, "ended_at": timezone.now(), "ended_by": by}
    return bool(Replay.objects.running().filter(pk=replay.pk).update(**news))


def check(wish: Replay) -> None:
    """Put an unsaved Replay into its canonical form. Raises ValidationError, by field, with what to change."""
    wish.full_clean()
    if wish.action == Replay.Action.DISMISS:
        wish.delivery_state = Delivery.State.DEAD
    if wish.endpoint:
        wish.tenant_id = wish.endpoint.tenant_id
    if wish.action == Replay.Action.RECOVER:
        _check_recovery(wish)


def wake() -> None:
    """Have some worker look after replays now. On a thread of its own: a slow broker holds nobody up, and the beat looks anyway."""
    # One that is under way reaches whoever it reaches after this was stored.
    if _waking.acquire(blocking=False):
        try:
            threading.Thread(target=_send_one, name="replay-waker", daemon=True).start()
        except RuntimeError:
            # The system has no more threads.
            _waking.release()


# A broker that does not answer keeps one thread waiting, and not one for each replay.
_waking = threading.Lock()


def _send_one() -> None:
    try:
        try_send()
    finally:
        _waking.release()


def try_send() -> bool:
    try:
        current_app.send_task(TASK, queue="default", expires=_EXPIRES_S, retry=False, ignore_result=True)
    except Exception:  # noqa: BLE001 - whatever the broker's client raises, the beat makes up for it
        return False
    return True


def _check_recovery(wish: Replay) -> None:
    assert wish.endpoint
    assert wish.since
    if wish.endpoint.state in (wish.endpoint.State.UNVERIFIED, wish.endpoint.State.DELETED):
        raise ValidationError({"endpoint": f"This endpoint is {wish.endpoint.get_state_display().lower()}: nothing can be owed to it."})
    if not wish.endpoint.subscriptions.filter(active=True).exists():
        raise ValidationError({"endpoint": "This endpoint has no active subscription, so it missed nothing: add one first."})
    kept = timedelta(days=settings.JETRELAY_RETENTION_DAYS)
    if wish.since < timezone.now() - kept:
        oldest = Event.objects.order_by("id").values_list("received_at", flat=True).first()
        back_to = f"the oldest one here came at {oldest:%Y-%m-%d %H:%M:%S} UTC" if oldest else "there are none at present"
        days = "1 day" if kept.days == 1 else f"{kept.days} days"
        raise ValidationError({"since": f"Events are kept for {days} (JETRELAY_RETENTION_DAYS), and {back_to}: choose a later time."})
