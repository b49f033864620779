"""Who wants what: tenants, their keys, sources, endpoints and subscriptions.

Whatever changes what matches, or where it goes, bumps `ConfigVersion` in the same transaction, so that
listeners and lanes notice without polling the tables.
"""

import secrets
from base64 import b64encode
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.utils import timezone

from subscriptions import validation
from subscriptions.fields import EncryptedTextField, PatternListField
from subscriptions.ids import PublicModel

# Shards are cut finer than lanes, so that another JETRELAY_LANES moves endpoints without rewriting them.
SHARDS = 32_768
# How long a replaced secret goes on signing, so that receivers can take over the new one at their leisure; and the most.
SECRET_OVERLAP = timedelta(hours=24)
MAX_SECRET_OVERLAP = timedelta(days=30)
# Seconds to wait after the first, second, … failed attempt; after the last one the delivery is dead.
DEFAULT_RETRY_SCHEDULE_S = [30, 300, 1800, 7200]


class ConfigVersion(models.Model):
    """One row whose number moves with every change of endpoints, sources or subscriptions."""

    value = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"version {self.value}"

    @classmethod
    def current(cls) -> int:
        return cls.objects.filter(pk=1).values_list("value", flat=True).first() or 0

    @classmethod
    def bump(cls) -> None:
        if not cls.objects.filter(pk=1).update(value=models.F("value") + 1):
            cls.objects.create(pk=1, value=1)


class ConfigModel(PublicModel):
    """A row that listeners and lanes keep compiled in memory: changing it moves the version."""

    class Meta:
        abstract = True

    @transaction.atomic
    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        ConfigVersion.bump()

    @transaction.atomic
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        deleted = super().delete(*args, **kwargs)
        ConfigVersion.bump()
        return deleted


class Tenant(PublicModel):
    """Whose endpoints, keys and deliveries these are."""

    prefix = "tnt"

    name = models.CharField(max_length=100)
    slug = models.SlugField(unique=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.name


class ApiKey(PublicModel):
    """A key to the API. The key itself is shown once; only its SHA-256 is kept."""

    prefix = "key"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    visible_prefix = models.CharField(max_length=16, editable=False)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    scopes = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.name} ({self.visible_prefix}…)"


class Source(ConfigModel):
    """Where events come from. A source with no tenant is shared by all of them."""

    class Kind(models.TextChoices):
        JETSTREAM = "jetstream", "Jetstream"
        API = "api", "HTTP API"

    prefix = "src"

    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, related_name="sources")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=100)
    keep_unmatched = models.BooleanField(default=False, help_text="Store events that no subscription wants, so that a later endpoint can recover them.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="source_name_per_tenant"),
            models.UniqueConstraint(fields=["name"], condition=models.Q(tenant=None), name="source_name_shared"),
        ]

    def __str__(self) -> str:
        return self.name


class EndpointQuerySet(models.QuerySet["Endpoint"]):
    def for_tenant(self, tenant: Tenant) -> Self:
        return self.filter(tenant=tenant)

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
        changed = self.exclude(state=state).update(state=state, state_reason=reason, state_changed_at=timezone.now())
        ConfigVersion.bump()
        return changed


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
    state_reason = models.CharField(max_length=200, blank=True)
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
        return self.origin == self.Origin.INBOX and self.url.startswith(f"http://127.0.0.1:{settings.PORT}/inbox/")

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


class SubscriptionQuerySet(models.QuerySet["Subscription"]):
    def active(self) -> Self:
        return self.filter(active=True)

    def of(self, source: Source) -> Self:
        """The active subscriptions to one source, of endpoints that may see it."""
        mine = self.active().filter(source=source).exclude(endpoint__state__in=(Endpoint.State.UNVERIFIED, Endpoint.State.DELETED))
        return mine.filter(endpoint__tenant=source.tenant) if source.tenant_id else mine


def _commits() -> list[str]:
    return ["commit"]


def _everything() -> list[str]:
    return ["*"]


class Subscription(ConfigModel):
    """The wish of one endpoint for some events of one source. An empty list of DIDs or operations means all."""

    prefix = "sub"
    # Subscriptions to Jetstream see commits alone, unless they ask for more: identity and account events
    # pass every filter of the stream, and few receivers expect them.

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="subscriptions")
    source = models.ForeignKey(Source, models.CASCADE, related_name="subscriptions")
    collections = PatternListField(
        default=_everything, each=validation.clean_pattern, help_text='A JSON list: ["app.bsky.feed.post", "app.bsky.graph.*"], or ["*"] for everything.'
    )
    dids = PatternListField("DIDs", default=list, blank=True, each=validation.clean_did, help_text="A JSON list. Empty: every account.")
    operations = PatternListField(default=list, blank=True, each=validation.clean_operation, help_text='Any of "create", "update", "delete". Empty: all.')
    kinds = PatternListField(default=_commits, each=validation.clean_kind, help_text='Any of "commit", "identity", "account", "sync", "api".')
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = SubscriptionQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)

    _required: ClassVar = ("collections", "kinds")

    def __str__(self) -> str:
        return f"{', '.join(self.collections)} to {self.endpoint}"

    def clean(self) -> None:
        for name in self._required:
            if not getattr(self, name):
                raise ValidationError({name: "Name at least one."})
        chosen = hasattr(self, "source") and hasattr(self, "endpoint")
        if chosen and self.source.tenant_id is not None and self.source.tenant_id != self.endpoint.tenant_id:
            raise ValidationError({"source": "This source belongs to another tenant."})


def _clean(field: str, clean: Any, value: str) -> str:
    try:
        return str(clean(value))
    except ValidationError as error:
        raise ValidationError({field: error.messages}) from error
