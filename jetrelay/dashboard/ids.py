"""Public ids in URLs: `dlv_…` in the URL, a UUID in Python. Importing this registers `delivery_id` and the like."""

import uuid

from django.urls import register_converter

from delivery.models import Attempt, Delivery, Event, Replay
from subscriptions.ids import PublicModel, to_public
from subscriptions.models import ApiKey, Endpoint, Subscription, Tenant


class PublicId:
    """A row's public id."""

    prefix: str
    regex: str

    def to_python(self, value: str) -> uuid.UUID:
        return uuid.UUID(value.removeprefix(f"{self.prefix}_"))

    def to_url(self, value: uuid.UUID) -> str:
        return to_public(self.prefix, value)


_MODELS: dict[str, type[PublicModel]] = {
    "delivery": Delivery,
    "attempt": Attempt,
    "event": Event,
    "endpoint": Endpoint,
    "subscription": Subscription,
    "replay": Replay,
    "key": ApiKey,
    "tenant": Tenant,
}
for name, model in _MODELS.items():
    register_converter(type(f"{name.title()}Id", (PublicId,), {"prefix": model.prefix, "regex": f"{model.prefix}_[0-9a-f]{{32}}"}), f"{name}_id")
