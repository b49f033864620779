"""`Idempotency-Key`: a POST that comes again within 24 hours is answered as it was the first time, and done once.

    no row            -> take the key, do it, keep the answer in the same transaction
    answered          -> the answer, with `Idempotent-Replayed: true`; 422 if the request is another one
    under way         -> 409
    under way, but older than a minute: whoever did it has died -> do it

Answers that are errors are not kept: what was corrected may use the key again. A view that asks other hosts does so outside
of a transaction, so after a crash it may ask them again.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from jetrelay.api.models import IdempotentRequest
from jetrelay.api.problems import Problem

HEADER = "Idempotency-Key"
MAX_KEY = 255
KEPT = timedelta(hours=24)
_TAKEN = timedelta(minutes=1)
# How many old rows one request deletes on its way.
_SWEPT = 20

Keep = Callable[[Response], None]


def key_of(request: Request) -> str | None:
    key = request.headers.get(HEADER)
    if key is not None and not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise Problem(400, "invalid_idempotency_key", f"{HEADER} is 1 to {MAX_KEY} printable ASCII characters.")
    return key


def once(request: Request, tenant: UUID, key: str, do: Callable[[Keep], Response]) -> Response:
    """The answer to this request: the one that is kept, or that of `do`, which keeps its answer in the transaction of its deed."""
    taken = _take(request, tenant, key)
    if isinstance(taken, Response):
        return taken
    try:
        return do(lambda response: _keep(taken, response))
    except BaseException:
        # Nothing was done, or it was rolled back: the key is free again. (What was kept already stays.)
        IdempotentRequest.objects.filter(pk=taken, status=None).delete()
        raise


def _take(request: Request, tenant: UUID, key: str) -> int | Response:
    """The id of the row under which the request is done now; or what is to be answered instead."""
    now, fingerprint = timezone.now(), _fingerprint(request)
    rows = IdempotentRequest.objects.filter(tenant_id=tenant, key=key)
    _sweep()
    rows.filter(created_at__lt=now - KEPT).delete()
    try:
        with transaction.atomic():
            made = IdempotentRequest.objects.create(tenant_id=tenant, key=key, fingerprint=fingerprint, taken_until=now + _TAKEN)
        return made.pk
    except IntegrityError:
        pass
    there = rows.first()
    if there is None:
        raise Problem(409, "request_under_way", "A request with this key has just ended: send it again.", headers={"Retry-After": "1"})
    if bytes(there.fingerprint) != fingerprint:
        raise Problem(422, "idempotency_key_reused", f"This {HEADER} came with another request before: use a new key for each request.")
    if there.status is not None:
        return Response(json.loads(there.answer), there.status, headers={"Idempotent-Replayed": "true"})
    # Nobody takes one for longer than `_TAKEN`: what ends later was dated by a wrong clock, and its request is as forsaken as one that is over.
    forsaken = there.taken_until is not None and not now <= there.taken_until <= now + _TAKEN
    # By whether the row changes, so that of two that find it forsaken one goes on.
    if forsaken and rows.filter(taken_until=there.taken_until).update(taken_until=now + _TAKEN):
        return there.pk
    raise Problem(409, "request_under_way", "The first request with this key is still under way: try again.", headers={"Retry-After": "1"})


def _keep(row: int, response: Response) -> None:
    answer = json.dumps(response.data, default=str)
    IdempotentRequest.objects.filter(pk=row).update(status=response.status_code, answer=answer, taken_until=None)


def _fingerprint(request: Request) -> bytes:
    digest = hashlib.sha256()
    for part in (request.method or "", request.path, request.META.get("QUERY_STRING", "")):
        digest.update(part.encode() + b"\0")
    digest.update(request._request.body)
    return digest.digest()


def _sweep() -> None:
    old = IdempotentRequest.objects.filter(created_at__lt=timezone.now() - KEPT).order_by("created_at").values_list("pk", flat=True)[:_SWEPT]
    if ids := list(old):
        IdempotentRequest.objects.filter(pk__in=ids).delete()
