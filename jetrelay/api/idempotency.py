"""`Idempotency-Key`: a POST that comes again within 24 hours is answered as it was the first time, and done once.

    no row            -> take the key, do it, keep the answer in the same transaction
    answered          -> the answer, with `Idempotent-Replayed: true`; 422 if the request is another one
    under way         -> 409
    under way, but older than a minute: whoever did it has died -> do it

An answer may hold a secret that is shown once, and says what the asker's scopes let it do: it belongs to the API key that
asked. To any other key the same `Idempotency-Key` is a new one. The key that took the place of the asker is told that there
was such a request (409), and neither is it done twice nor its answer repeated: a key is rotated because somebody else may
hold it.

Answers that are errors are not kept: what was corrected may use the key again. A view that asks other hosts does so outside
of a transaction, so after a crash it may ask them again.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Count, Min, Q, Sum
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from jetrelay.api.models import IdempotentRequest
from jetrelay.api.problems import Problem
from subscriptions.allowance import Exceeded, most
from subscriptions.keys import Bearer
from subscriptions.models import ApiKey
from subscriptions.remembering import Remembered

HEADER = "Idempotency-Key"
MAX_KEY = 255
KEPT = timedelta(hours=24)
_TAKEN = timedelta(minutes=1)
# Rotations that are followed back: an answer is kept for a day.
_MOST_REPLACED = 50
# How many old rows one request deletes on its way.
_SWEPT = 20

Keep = Callable[[Response], None]


def key_of(request: Request) -> str | None:
    key = request.headers.get(HEADER)
    if key is not None and not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise Problem(400, "invalid_idempotency_key", f"{HEADER} is 1 to {MAX_KEY} printable ASCII characters.")
    return key


def once(request: Request, bearer: Bearer, key: str, do: Callable[[Keep], Response]) -> Response:
    """The answer to this request: the one that is kept, or that of `do`, which keeps its answer in the transaction of its deed."""
    taken = _take(request, bearer, key)
    if isinstance(taken, Response):
        return taken
    try:
        return do(lambda response: _keep(bearer.tenant_id, taken, response))
    except BaseException:
        # Nothing was done, or it was rolled back: the key is free again. (What was kept already stays.)
        IdempotentRequest.objects.filter(pk=taken, status=None).delete()
        raise


def _take(request: Request, bearer: Bearer, key: str) -> int | Response:
    """The id of the row under which the request is done now; or what is to be answered instead."""
    now, fingerprint = timezone.now(), _fingerprint(request, bearer)
    rows = IdempotentRequest.objects.filter(tenant_id=bearer.tenant_id, key=key)
    mine = rows.filter(asker=bearer.key_id)
    _sweep()
    rows.filter(created_at__lt=now - KEPT).delete()
    there = mine.first()
    if there is None:
        made = _make(rows, bearer, key, fingerprint)
        if made is not None:
            return made
        there = mine.first()
    if there is None:
        raise Problem(
            409,
            "request_under_way",
            "A request with this key has just ended: send it again.",
            headers={"Retry-After": "1"},
        )
    if bytes(there.fingerprint) != fingerprint:
        words = f"This {HEADER} came with another request before: use a new key for each request."
        raise Problem(422, "idempotency_key_reused", words)
    if there.status is not None:
        answered = json.loads(there.answer)
        return Response(answered, there.status, headers={"Idempotent-Replayed": "true"})
    # By whether the row changes, so that of two that find it forsaken one goes on.
    # Nobody takes one for longer than `_TAKEN`: what ends far later was dated by a wrong clock, and its request is as forsaken as one that is
    # over. By the time as it is now: one that came just before this was taken for longer than from when this began.
    now = timezone.now()
    forsaken = there.taken_until is not None and not now <= there.taken_until <= now + 2 * _TAKEN
    if forsaken and mine.filter(taken_until=there.taken_until).update(taken_until=now + _TAKEN):
        return there.pk
    words = "The first request with this key is still under way: try again."
    raise Problem(409, "request_under_way", words, headers={"Retry-After": "1"})


def _make(rows: Any, bearer: Bearer, key: str, fingerprint: bytes) -> int | None:
    """The id of a new row; None if another request of this asker was quicker. Raises Problem where it was asked before the asker's time."""
    before = Q(asker=None) | Q(asker__in=_replaced(bearer)) if bearer.replaced else Q(asker=None)
    if rows.filter(before).exists():
        words = (
            f"This {HEADER} came before with a key that yours replaced, or before an upgrade: its answer is kept from you,"
            " and it is not done again. Look whether what you want is there; if not, use a new one."
        )
        raise Problem(409, "idempotency_key_of_another", words)
    _find_room(bearer)
    try:
        with transaction.atomic():
            return IdempotentRequest.objects.create(
                tenant_id=bearer.tenant_id,
                key=key,
                asker=bearer.key_id,
                fingerprint=fingerprint,
                taken_until=timezone.now() + _TAKEN,
            ).pk
    except IntegrityError:
        return None


def _replaced(bearer: Bearer) -> list[UUID]:
    """The keys that this one stands for now: the one that it replaced, the one that that had replaced, …"""
    found: list[UUID] = []
    key = bearer.replaced
    while key and key not in found and len(found) < _MOST_REPLACED:
        found.append(key)
        key = ApiKey.objects.filter(pk=key).values_list("replaced", flat=True).first()
    return found


def _keep(tenant: UUID, row: int, response: Response) -> None:
    answer = json.dumps(response.data, default=str)
    IdempotentRequest.objects.filter(pk=row).update(status=response.status_code, answer=answer, size=len(answer), taken_until=None)
    if (held := _held.fresh(tenant)) is not None:
        held.bytes += len(answer)


def _fingerprint(request: Request, bearer: Bearer) -> bytes:
    digest = hashlib.sha256()
    # What a key may do is a part of what it asks for.
    scopes = " ".join(sorted(bearer.scopes))
    query = request.META.get("QUERY_STRING", "")
    for part in (scopes, request.method or "", request.path, query):
        digest.update(part.encode() + b"\0")
    digest.update(request._request.body)
    return digest.digest()


# --- how many a tenant may keep -------------------------------------------------------------------


@dataclass
class Held:
    """What a tenant has, as of a moment ago, and what this process added since."""

    answers: int
    bytes: int


# Half of this passes between two counts, so that a count of many costs little.
_held: Remembered[UUID, Held] = Remembered(4.0)


def held_by(tenant: UUID) -> Held:
    rows = IdempotentRequest.objects.filter(tenant_id=tenant)
    found = rows.aggregate(answers=Count("pk"), bytes=Sum("size", default=0))
    return Held(found["answers"], found["bytes"])


def _find_room(bearer: Bearer) -> None:
    """None is dropped early: whoever was promised that a request is done once would find it done twice. So a new one is refused."""
    tenant = bearer.tenant_id
    held = _held.fresh(tenant)
    if held is None:
        held = held_by(tenant)
        _held.keep(tenant, held)
    for name, used in (("answers", held.answers), ("answer_bytes", held.bytes)):
        if used >= (limit := most(name, bearer.quotas)):
            raise Exceeded(name, limit, used, wait_s=_until_the_oldest_goes(tenant))
    held.answers += 1


def _until_the_oldest_goes(tenant: UUID) -> int:
    rows = IdempotentRequest.objects.filter(tenant_id=tenant)
    oldest = rows.aggregate(oldest=Min("created_at"))["oldest"]
    return max(1, round((oldest + KEPT - timezone.now()).total_seconds())) if oldest else 1


def _sweep() -> None:
    old = IdempotentRequest.objects.filter(created_at__lt=timezone.now() - KEPT).order_by("created_at").values_list("pk", flat=True)[:_SWEPT]
    if ids := list(old):
        IdempotentRequest.objects.filter(pk__in=ids).delete()
