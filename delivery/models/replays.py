"""Replays in bulk: what was asked for, and how far it has come. See `delivery/replay/`."""

from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from delivery.models.flow import Delivery, Event
from subscriptions import validation
from subscriptions.fields import PatternListField
from subscriptions.ids import PublicModel
from subscriptions.models import Endpoint, Tenant, Tenants

_FIRST = UUID(int=0)
# Before any of these tables. What lies far before it fits no id.
_EARLIEST = datetime(2022, 1, 1, tzinfo=UTC)
_MAX_COLLECTIONS = 100


class ReplayQuerySet(models.QuerySet["Replay"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def for_tenants(self, tenants: Tenants) -> Self:
        return self if tenants is None else self.filter(tenant__in=tenants)

    def running(self) -> Self:
        return self.filter(state=Replay.State.RUNNING)


class Replay(PublicModel):
    """Many deliveries to be put back, recovered or dismissed: a filter, a pace and a position. Moved on by `delivery/replay/running.py` alone."""

    class Action(models.TextChoices):
        REPLAY = "replay", "Replay"
        RECOVER = "recover", "Recover"
        DISMISS = "dismiss", "Dismiss"

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        FINISHED = "finished", "Finished"
        CANCELLED = "cancelled", "Cancelled"

    prefix = "rpl"

    action = models.CharField(max_length=16, choices=Action.choices, default=Action.REPLAY)

    # --- The filter: what is empty leaves nothing out.
    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="replays", help_text="Empty: all of them.")
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, null=True, blank=True, related_name="replays", db_index=False)
    event = models.ForeignKey(
        Event,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_constraint=False,
        db_index=False,
        error_messages={"invalid": "No event has this id: it may have been pruned."},
    )
    delivery_state = models.PositiveSmallIntegerField(
        "state of deliveries", choices=Delivery.State.choices, null=True, blank=True, help_text="Empty: all but pending ones, which are in the queue already."
    )
    since = models.DateTimeField(null=True, blank=True, help_text="Deliveries made from then on; for a recovery, events received from then on.")
    until = models.DateTimeField(null=True, blank=True, help_text="… and before this.")
    collections = PatternListField(
        "collections or types", default=list, blank=True, each=validation.clean_pattern, help_text="As in subscriptions. Empty: all."
    )
    rate_per_s = models.FloatField(
        "rate cap (deliveries/s)", null=True, blank=True, validators=[validation.validate_rate], help_text="Empty: as fast as the database takes it."
    )

    # --- How far it has come. Commits together with the deliveries that it is about.
    state = models.CharField(max_length=16, choices=State.choices, default=State.RUNNING, editable=False)
    # What comes next lies behind these: an id, and where the walk is ordered by endpoint, that endpoint before it.
    after_endpoint = models.UUIDField(default=_FIRST, editable=False)
    after_id = models.UUIDField(default=_FIRST, editable=False)
    # No id from here on is looked at: what is made while this runs is no part of it.
    before_id = models.UUIDField(default=_FIRST, editable=False)
    # What the preview counted, and whether it stopped counting there.
    expected = models.PositiveBigIntegerField(default=0, editable=False)
    expected_more = models.BooleanField(default=False, editable=False)
    looked_at = models.PositiveBigIntegerField(default=0, editable=False)
    done = models.PositiveBigIntegerField(default=0, editable=False, help_text="Deliveries put back, made or dismissed so far.")
    skipped = models.PositiveBigIntegerField(default=0, editable=False, help_text="Matched, but could not be done: the event or the endpoint is gone.")
    # Of one with a rate cap: when its next step may be taken.
    next_at = models.DateTimeField(default=timezone.now, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    ended_by = models.CharField(max_length=150, blank=True, editable=False, help_text="Who cancelled it.")

    objects = ReplayQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            # read by the worker every second or two: is there anything to do?
            models.Index(fields=["id"], name="replay_running", condition=models.Q(state="running")),
        ]

    def clean(self) -> None:
        """What fits together. Needs no database but for the rows that it names."""
        errors: dict[str, str] = {}
        if self.since and self.since > timezone.now():
            errors["since"] = "This time lies in the future: choose one that has passed."
        for name in ("since", "until"):
            if (moment := getattr(self, name)) and moment < _EARLIEST:
                errors[name] = "Nothing here is that old: choose a later time."
        if self.since and self.until and self.until <= self.since:
            errors["until"] = "The time range ends before it begins: choose a later end or an earlier beginning."
        if self.endpoint and self.tenant and self.endpoint.tenant_id != self.tenant_id:
            errors["endpoint"] = "This endpoint belongs to another tenant."
        if len(self.collections or ()) > _MAX_COLLECTIONS:
            errors["collections"] = f"At most {_MAX_COLLECTIONS} collections can be named: use a prefix such as app.bsky.feed.*."
        if self.action == self.Action.RECOVER:
            errors |= self._recovery_errors()
        if self.action == self.Action.DISMISS and self.delivery_state not in (None, Delivery.State.DEAD):
            errors["delivery_state"] = "Only dead deliveries can be dismissed: choose dead, or leave it empty."
        if errors:
            raise ValidationError(errors)

    def _recovery_errors(self) -> dict[str, str]:
        errors: dict[str, str] = {}
        if not self.endpoint:
            errors["endpoint"] = "Say which endpoint to recover: deliveries are made for one endpoint at a time."
        if not self.since:
            errors.setdefault("since", "Say from which time on the endpoint is to get the events that it missed.")
        if self.delivery_state is not None:
            errors["delivery_state"] = "Leave this empty: a recovery makes deliveries that do not exist yet, so they have no state."
        if self.event_id:
            errors["event"] = "Leave this empty: a recovery goes over all events since a time."
        return errors

    @property
    def running(self) -> bool:
        return self.state == self.State.RUNNING

    @property
    def expected_text(self) -> str:
        return f"{self.expected:,}{'+' if self.expected_more else ''}"
