"""Where deliveries go, and on what terms."""

import secrets
from base64 import b64encode
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.utils import timezone

from subscriptions import ourselves, validation
from subscriptions.fields import EncryptedTextField
from subscriptions.models.config import ConfigModel, ConfigVersion
from subscriptions.models.history import EndpointPastState
from subscriptions.models.tenants import Tenant, Tenants

# Shards are cut finer than lanes, so that another JETRELAY_LANES moves endpoints without rewriting them.
SHARDS = 32_768
MAX_REASON = 200
# How long a replaced secret goes on signing, so that receivers can take over the new one at their leisure; and the most.
SECRET_OVERLAP = timedelta(hours=24)
MAX_SECRET_OVERLAP = timedelta(days=30)
# Seconds to wait after the first, second, … failed attempt; after the last one the delivery is dead.
DEFAULT_RETRY_SCHEDULE_S = [30, 300, 1800, 7200]


class EndpointQuerySet(models.QuerySet["Endpoint"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

    def for_tenants(self, tenants: Tenants) -> Self:
        return self if tenants is None else self.filter(tenant__in=tenants)

    def active(self) -> Self:
        return self.filter(state=Endpoint.State.ACTIVE)

    def present(self) -> Self:
        """Those that people see. A deleted one is there for the deliveries that name it."""
        return self.exclude(state=Endpoint.State.DELETED)

    def without_secrets(self) -> Self:
        """Reads nothing that would have to be decrypted: for lists, which show none of it."""
        return self.defer(*(field.name for field in Endpoint._meta.concrete_fields if isinstance(field, EncryptedTextField)))

    def in_lane(self, lane: int) -> Self:
        return self.alias(lane=models.F("shard") % settings.JETRELAY_LANES).filter(lane=lane)

    @transaction.atomic
    def set_state(self, state: str, reason: str) -> int:
        """Pause, disable or activate all of these. Held deliveries stay pending throughout."""
        changed = self.mark(state, reason)
        ConfigVersion.bump()
        return changed

    def mark(self, state: str, reason: str) -> int:
        """`set_state` for a caller who has more to write before bumping ConfigVersion, whose row is locked last by everybody."""
        now = timezone.now()
        left = list(self.exclude(state=state).order_by("pk").select_for_update(no_key=True).values_list("pk", "state", "state_reason", "state_changed_at"))
        EndpointPastState.objects.bulk_create(
            EndpointPastState(endpoint_id=id, state=was, reason=why, from_at=since, to_at=now) for id, was, why, since in left
        )
        ids = [id for id, *_ in left]
        return Endpoint.objects.filter(pk__in=ids).update(state=state, state_reason=reason[:MAX_REASON], state_changed_at=now)

    def state_at(self, moment: datetime) -> "dict[UUID, tuple[str, str] | None]":
        """Of each of these, in which state it was at that moment, and why; None if it was not there yet. One query."""
        left_since = EndpointPastState.objects.filter(endpoint=models.OuterRef("pk"), to_at__gt=moment).order_by("to_at")
        past = {f"past_{name}": models.Subquery(left_since.values(name)[:1]) for name in ("state", "reason")}
        found: dict[UUID, tuple[str, str] | None] = {}
        rows = self.annotate(**past).values_list("pk", "state", "state_reason", "state_changed_at", "created_at", *past)
        for id, state, reason, since, created, past_state, past_reason in rows:
            if moment >= since:
                found[id] = state, reason
            elif moment < created:
                found[id] = None
            else:
                # What an older version did not write down: it was there, and most likely active.
                found[id] = (past_state, past_reason) if past_state is not None else (Endpoint.State.ACTIVE, "")
        return found


def new_secret() -> str:
    """A Standard Webhooks secret of 32 random bytes."""
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()


def _default_retry_schedule_s() -> list[float]:
    return list(DEFAULT_RETRY_SCHEDULE_S)


def _new_shard() -> int:
    return secrets.randbelow(SHARDS)


class Endpoint(ConfigModel):
    """Where deliveries go: a URL with its secrets, limits and retry policy."""

    class State(models.TextChoices):
        ACTIVE = "active", "Active"
        PAUSED = "paused", "Paused"
        DISABLED = "disabled", "Disabled"
        # Nothing is owed to an endpoint that has not answered its challenge, nor to one that is deleted.
        UNVERIFIED = "unverified", "Unverified"
        DELETED = "deleted", "Deleted"

    class Priority(models.IntegerChoices):
        LOW = 0, "Low"
        NORMAL = 1, "Normal"
        HIGH = 2, "High"

    class Origin(models.TextChoices):
        PERSON = "person", "Made by a person"
        ENVIRONMENT = "environment", "WEBHOOK_URL"
        INBOX = "inbox", "Built-in inbox"

    class RetryOn(models.TextChoices):
        ANY = "any", "Every failure"
        TRANSIENT = "transient", "408, 425, 429, 5xx and network errors"

    class RetryStrategy(models.TextChoices):
        SCHEDULE = "schedule", "Schedule: the waits as listed"
        EXPONENTIAL = "exponential", "Exponential: each wait is the one before times the factor, up to the longest"
        LINEAR = "linear", "Linear: each wait is the one before plus the step, up to the longest"
        FIXED = "fixed", "Fixed: the first wait every time"

    class SignatureScheme(models.TextChoices):
        STANDARD = "standard", "Standard Webhooks: webhook-signature"
        TIMESTAMPED = "timestamped", "X-Webhook-Timestamp and X-Webhook-Signature: v1=…"
        HOOKSTREAM = "hookstream", "X-Hookstream-Signature: sha256=…"

    prefix = "ep"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="endpoints")
    name = models.CharField(max_length=100)
    url = models.CharField("URL", max_length=validation.MAX_URL)
    origin = models.CharField(max_length=16, choices=Origin.choices, default=Origin.PERSON, editable=False)
    state = models.CharField(max_length=16, choices=State.choices, default=State.ACTIVE)
    state_reason = models.CharField(max_length=MAX_REASON, blank=True)
    state_changed_at = models.DateTimeField(default=timezone.now, editable=False)
    shard = models.PositiveSmallIntegerField(default=_new_shard, editable=False)

    signature_scheme = models.CharField(
        max_length=16,
        choices=SignatureScheme.choices,
        default=SignatureScheme.STANDARD,
        help_text="How requests are signed. The last two take the whole secret, whsec_ included, as their key; the last one signs no time.",
    )
    secret = EncryptedTextField(default=new_secret, validators=[validation.validate_secret])
    previous_secret = EncryptedTextField(blank=True, default="")
    previous_secret_expires_at = models.DateTimeField(null=True, blank=True)
    bearer_token = EncryptedTextField(blank=True, default="")
    # Lines of `Name: value`, as they are sent.
    extra_headers = EncryptedTextField(blank=True, default="")

    timeout_s = models.FloatField(
        "timeout (s)", default=30, validators=[MinValueValidator(0.1), MaxValueValidator(300)], help_text="For one attempt, DNS and connect included."
    )
    max_in_flight = models.PositiveSmallIntegerField(default=32, validators=[MinValueValidator(1), MaxValueValidator(1000)], help_text="Requests open at once.")
    rate_limit_per_s = models.FloatField(
        "rate limit (requests/s)",
        null=True,
        blank=True,
        validators=[validation.validate_rate],
        help_text="Requests started per second, evenly. Empty: none.",
    )
    priority = models.PositiveSmallIntegerField(
        choices=Priority.choices, default=Priority.NORMAL, help_text="Who goes first while this machine cannot keep up. None starves."
    )
    ordered = models.BooleanField(
        default=False,
        help_text="Each subject's events one after the other, in stream order; other subjects go on. One that fails holds up its own subject.",
    )
    batch_size = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(validation.MAX_BATCH_SIZE)],
        help_text="Above 1, a request carries a JSON array of up to so many events, of 256 KB at most.",
    )
    batch_wait_ms = models.PositiveIntegerField(
        "batch wait (ms)", default=1000, validators=[MaxValueValidator(60_000)], help_text="How long an event waits for others to go with it, at most."
    )
    retry_strategy = models.CharField(
        max_length=16, choices=RetryStrategy.choices, default=RetryStrategy.SCHEDULE, help_text="How long to wait after a failed attempt."
    )
    retry_schedule_s = models.JSONField(
        "retry schedule (s)",
        default=_default_retry_schedule_s,
        blank=True,
        help_text="Seconds to wait after the first, second, … failed attempt, as a JSON list; then the delivery is dead. []: no retries.",
    )
    # The numbers of the other strategies; which of them count, the strategy says.
    retry_first_s = models.FloatField(
        "first wait (s)", default=30, validators=[validation.validate_wait], help_text="Exponential, linear and fixed: the wait after the first failed attempt."
    )
    retry_factor = models.FloatField("factor", default=4, validators=[validation.validate_retry_factor], help_text="Exponential: 2 doubles the wait each time.")
    retry_step_s = models.FloatField("step (s)", default=300, validators=[validation.validate_wait], help_text="Linear: how much longer each wait is.")
    retry_longest_s = models.FloatField(
        "longest wait (s)", default=7200, validators=[validation.validate_wait], help_text="Exponential and linear: no wait is longer, but for the jitter."
    )
    retry_count = models.PositiveSmallIntegerField(
        "retries", default=5, validators=[validation.validate_retry_count], help_text="Exponential, linear and fixed: after so many the delivery is dead."
    )
    retry_jitter_percent = models.PositiveSmallIntegerField(default=10, validators=[MaxValueValidator(25)])
    retry_on = models.CharField(max_length=16, choices=RetryOn.choices, default=RetryOn.ANY)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = EndpointQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            # read by lanes: the endpoints of one lane
            models.Index(fields=["shard"], name="endpoint_shard"),
        ]
        constraints = [
            # the environment describes one endpoint, and there is one inbox endpoint, however often start-up runs
            models.UniqueConstraint(fields=["origin"], condition=~models.Q(origin="person"), name="endpoint_one_per_origin"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def lane(self) -> int:
        return self.shard % int(settings.JETRELAY_LANES)

    @property
    def url_is_operators(self) -> bool:
        """Whether the operator's own environment names this URL now, for this endpoint: such a URL may be private."""
        if self.origin == self.Origin.ENVIRONMENT:
            return bool(settings.WEBHOOK_URL) and self.url == settings.WEBHOOK_URL
        return self.origin == self.Origin.INBOX and self.url.startswith(f"{ourselves.url(settings.HOST, settings.PORT)}/inbox/")

    @property
    def retries(self) -> int:
        """How many attempts follow the first one, at most."""
        listed = self.retry_strategy == self.RetryStrategy.SCHEDULE
        return len(self.retry_schedule_s) if listed else self.retry_count

    @property
    def extra_header_names(self) -> list[str]:
        """The names of the headers that are sent along, without their values."""
        return [line.partition(":")[0] for line in self.extra_headers.splitlines()]

    def replace_secret(self, secret: str, overlap: timedelta = SECRET_OVERLAP) -> None:
        """Sign with this secret from now on; the one before stays live until the overlap has passed. Saves nothing.

        No overlap ends the old secret at once: for one that has leaked. Two secrets are live at most, so a second
        rotation ends what the first one kept. A secret that is the present one changes nothing. Raises ValueError
        for an overlap below zero or above MAX_SECRET_OVERLAP.
        """
        if not timedelta(0) <= overlap <= MAX_SECRET_OVERLAP:
            raise ValueError(f"an overlap is 0 to {MAX_SECRET_OVERLAP.days} days")
        if secret == self.secret:
            return
        self.previous_secret, self.previous_secret_expires_at = (self.secret, timezone.now() + overlap) if overlap else ("", None)
        self.secret = secret

    def secrets_at(self, now: datetime) -> list[str]:
        """The secrets that sign at this moment: the current one, and during a rotation the one before."""
        overlap = self.previous_secret and self.previous_secret_expires_at and now < self.previous_secret_expires_at
        return [self.secret, self.previous_secret] if overlap else [self.secret]

    def clean(self) -> None:
        self.url = _clean("url", validation.clean_webhook_url, self.url)
        if self.bearer_token:
            self.bearer_token = _clean("bearer_token", validation.clean_bearer_token, self.bearer_token)
        self.extra_headers = _clean("extra_headers", validation.clean_headers, self.extra_headers)
        try:
            validation.clean_retry_schedule(self.retry_schedule_s)
        except ValidationError as error:
            raise ValidationError({"retry_schedule_s": error.messages}) from error
        if self.batch_size and self.batch_size > 1 and not self.retries:
            raise ValidationError({"batch_size": "A batch that fails is split on its retries, and this endpoint has none: allow some, or send one by one."})
        grows = self.retry_strategy in (self.RetryStrategy.EXPONENTIAL, self.RetryStrategy.LINEAR)
        # A number that was refused already may be missing here.
        if grows and None not in (self.retry_first_s, self.retry_longest_s) and self.retry_longest_s < self.retry_first_s:
            raise ValidationError({"retry_longest_s": "The longest wait is shorter than the first one."})


def _clean(field: str, clean: Any, value: str) -> str:
    try:
        return str(clean(value))
    except ValidationError as error:
        raise ValidationError({field: error.messages}) from error
