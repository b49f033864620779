"""The baseline: one Celery task for each delivery, which posts with `requests` and saves what came of it through the ORM.

It is how most Django projects send webhooks, done with care: it signs, keeps connections (most call `requests.post`, which opens one
for each request), logs the attempt in the transaction that settles the delivery, and has no retries, limits or leases to see to.
Its listener writes each event and its deliveries in a transaction and sends the tasks on commit. It is spared what ours has to do
besides: matching by many subscriptions, telling copies, a cursor, tallies, looking after a silent host.

    celery -A jetrelay.bench.per_task worker
"""

import json
import os
from functools import partial
from threading import local
from time import perf_counter, time
from uuid import UUID

import django
import requests
import websocket
from celery import Celery, shared_task

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jetrelay.settings")
app = Celery("per_task")
app.config_from_object("django.conf:settings", namespace="CELERY")
# Connections to the database are kept from task to task, which few projects know to ask for.
app.conf.update(task_default_queue="per_task", CELERY_DB_REUSE_MAX=100_000)
django.setup()

from django.db import transaction  # noqa: E402  only once Django is set up
from django.utils import timezone  # noqa: E402

from delivery.envelope import Envelope  # noqa: E402
from delivery.models import Attempt, Delivery, Event  # noqa: E402
from delivery.sources.incoming import dedup_key, moment  # noqa: E402
from subscriptions.models import Endpoint, Source  # noqa: E402

_kept = local()


@shared_task(name="bench.per_task.deliver", ignore_result=True)
def deliver(id: str) -> None:
    delivery = Delivery.objects.select_related("event", "endpoint").get(pk=UUID(id))
    if delivery.state != Delivery.State.PENDING:
        return
    body, started_at, started = bytes(delivery.event.body), timezone.now(), perf_counter()
    lines = Envelope(delivery.endpoint).headers(delivery.event.public_id, int(time()), body)
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    response = _session().post(delivery.endpoint.url, data=body, headers=headers, timeout=delivery.endpoint.timeout_s)
    delivery.state = Delivery.State.DELIVERED if response.ok else Delivery.State.DEAD
    delivery.attempt_count, delivery.last_status, delivery.settled_at = 1, response.status_code, timezone.now()
    with transaction.atomic():
        Attempt.objects.create(
            delivery=delivery,
            number=1,
            started_at=started_at,
            total_ms=(perf_counter() - started) * 1000,
            status=response.status_code,
            response_headers="\r\n".join(f"{name}: {value}" for name, value in response.headers.items()),
            response_body=response.content[:4096],
        )
        delivery.save(update_fields=["state", "attempt_count", "last_status", "settled_at"])


def send_all() -> None:
    """A task for every pending delivery."""
    for id in Delivery.objects.pending().order_by("id").values_list("pk", flat=True).iterator():
        deliver.delay(str(id))


def listen(url: str, events: int) -> None:
    """Store the next events of a stream on the v1 wire, each owed to every endpoint, and send a task for each delivery."""
    source, endpoints = Source.objects.get(), list(Endpoint.objects.all())
    stream = websocket.create_connection(url, timeout=30)
    for _ in range(events):
        body = stream.recv_data()[1]
        said, now = json.loads(body), timezone.now()
        commit = said.get("commit") or {}
        with transaction.atomic():
            event = Event.objects.create(
                source=source,
                dedup_key=dedup_key([said["did"], str(said["time_us"])]),
                kind=said["kind"],
                type=commit.get("collection") or said["kind"],
                operation=commit.get("operation") or "",
                subject=said["did"],
                occurred_at=moment(said["time_us"]),
                received_at=now,
                body=body,
            )
            for endpoint in endpoints:
                delivery = Delivery.objects.create(event=event, endpoint=endpoint, due_at=now, created_at=now)
                transaction.on_commit(partial(deliver.delay, str(delivery.pk)))
    stream.close()


def _session() -> requests.Session:
    """This thread's own."""
    if not hasattr(_kept, "session"):
        _kept.session = requests.Session()
        _kept.session.trust_env = False
    session: requests.Session = _kept.session
    return session
