"""Rows as version 0.1.0 wrote them, in tables as its migrations left them. Run by `test_upgrade.py` in a process of its own.

The models are those of these migrations, by name: whatever the code knows by now, it knows nothing of here.
"""

import hashlib
import json
import sys
import uuid
from datetime import timedelta
from typing import Any

# The last ones of 0.1.0.
MIGRATIONS = {
    "subscriptions": "0005_key_rotated_at",
    "delivery": "0009_totals",
    "api": "0001_idempotent_requests",
    "inbox": "0001_inbox",
}
OURS = tuple(MIGRATIONS)
# Django's, and those of a package: which names they have is theirs to say.
OTHERS = ("contenttypes", "auth", "admin", "sessions", "django_celery_beat")
PASSWORD = "an old long password"


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.loader import MigrationLoader

    for app, name in MIGRATIONS.items():
        call_command("migrate", app, name, verbosity=0)
    for app in OTHERS:
        call_command("migrate", app, verbosity=0)
    loader = MigrationLoader(connection)
    nodes = [*MIGRATIONS.items(), *(node for app in OTHERS for node in loader.graph.leaf_nodes(app))]
    json.dump(fill(loader.project_state(nodes).apps, *sys.argv[1:]), sys.stdout)


def fill(apps: Any, receiver: str, port: str) -> dict[str, Any]:
    """Write some rows of every kind. Returns what people and programs hold of them."""
    from django.contrib.auth.hashers import make_password
    from django.contrib.auth.models import User as Present
    from django.contrib.sessions.backends.db import SessionStore
    from django.utils import timezone

    def make(model: str, **fields: Any) -> Any:
        return apps.get_model(model).objects.create(**fields)

    now = timezone.now()
    tenant = make("subscriptions.Tenant", name="Default", slug="default")
    make("auth.User", username="admin", password=make_password(PASSWORD), is_superuser=True, is_staff=True)
    member = make("auth.User", username="ada", password=make_password(PASSWORD))
    make("subscriptions.Membership", tenant=tenant, user=member, role="owner")
    stream = make("subscriptions.Source", kind="jetstream", name="Jetstream")
    secret = "whsec_" + "c2VjcmV0" * 4
    endpoint = make("subscriptions.Endpoint", tenant=tenant, name="theirs", url=receiver, secret=secret, bearer_token="bearer-of-old", origin="person", shard=1)
    token = "an-old_Token-0123456789"
    inboxed = make(
        "subscriptions.Endpoint", tenant=tenant, name="Built-in inbox", origin="inbox", secret=secret, shard=2, url=f"http://127.0.0.1:{port}/inbox/{token}"
    )
    inbox = make("inbox.Inbox", token=token, endpoint=inboxed, received=1)
    make("inbox.InboxMessage", inbox=inbox, webhook_id="evt_before", verified=True, verdict="signature verified", headers={}, body=b'{"before": 1}')
    for each in (endpoint, inboxed):
        make("subscriptions.Subscription", endpoint=each, source=stream, collections=["app.bsky.actor.profile"], kinds=["commit"])
    key = "jr_" + "k" * 43
    make(
        "subscriptions.ApiKey",
        tenant=tenant,
        name="old",
        visible_prefix=key[:10],
        digest=hashlib.sha256(key.encode()).digest(),
        scopes=["endpoints:read", "deliveries:read"],
    )
    for number, state in enumerate((0, 1, 2, 3)):
        event = make(
            "delivery.Event",
            source=stream,
            dedup_key=bytes([number]) * 16,
            kind="commit",
            type="app.bsky.actor.profile",
            occurred_at=now,
            received_at=now,
            body=json.dumps({"number": number}).encode(),
        )
        for each in (endpoint, inboxed):
            settled = None if state == 0 else now
            delivery = make("delivery.Delivery", event=event, endpoint=each, state=state, due_at=now, created_at=now, settled_at=settled, attempt_count=1)
            make("delivery.Attempt", delivery=delivery, number=1, started_at=now - timedelta(seconds=1), status=500, total_ms=1.0)
    make("subscriptions.AuditEntry", tenant=tenant, actor="user ada", action="endpoint.pause", target="ep", detail="")
    answer = json.dumps({"key": "jr_shown-once"})
    make("api.IdempotentRequest", tenant=tenant, key="once", fingerprint=b"f" * 32, status=201, answer=answer)
    store = SessionStore()
    user = Present.objects.get(username="ada")
    store.update(
        {"_auth_user_id": str(user.pk), "_auth_user_backend": "django.contrib.auth.backends.ModelBackend", "_auth_user_hash": user.get_session_auth_hash()}
    )
    store.create()
    for app in OURS:
        for model in apps.get_app_config(app).get_models():
            if not model.objects.exists():
                model.objects.create(**{field.attname: made_up(field, now) for field in model._meta.concrete_fields if needs_value(field)})
    return {"session": store.session_key, "token": token, "key": key, "secret": secret, "inbox_endpoint": inboxed.pk.hex, "rows": counted(apps)}


def needs_value(field: Any) -> bool:
    return not (field.has_default() or field.null or field.blank)


def made_up(field: Any, now: Any) -> Any:
    """Something that the column takes."""
    if field.remote_field:
        return field.remote_field.model.objects.order_by("pk").values_list("pk", flat=True).first()
    kinds = {
        "DateTimeField": now - timedelta(days=1),
        "BinaryField": b"x" * 16,
        "JSONField": [],
        "UUIDField": uuid.UUID(int=7),
        "BooleanField": True,
        "CharField": "x",
        "TextField": "x",
        "GenericIPAddressField": "192.0.2.1",
    }
    return kinds.get(field.get_internal_type(), 1)


def counted(apps: Any) -> dict[str, list[str]]:
    """The keys of all rows, by table; but of sessions, which end."""
    models = [*(model for app in OURS for model in apps.get_app_config(app).get_models()), apps.get_model("auth.User")]
    return {model._meta.db_table: sorted(str(pk) for pk in model.objects.values_list("pk", flat=True)) for model in models}


if __name__ == "__main__":
    main()
