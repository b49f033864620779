"""The pages for staff."""

import uuid

from django.urls import path, register_converter

from delivery.models import Delivery
from jetrelay.dashboard import stream_views, views
from jetrelay.dashboard.steering import WISHES
from subscriptions.ids import to_public


class DeliveryId:
    """`dlv_…` in a URL, a UUID in Python."""

    regex = "dlv_[0-9a-f]{32}"

    def to_python(self, value: str) -> uuid.UUID:
        return uuid.UUID(value.removeprefix("dlv_"))

    def to_url(self, value: uuid.UUID) -> str:
        return to_public(Delivery.prefix, value)


register_converter(DeliveryId, "delivery_id")

urlpatterns = [
    path("", views.overview, name="overview"),
    path("overview/events/", views.events_fragment, name="events_fragment"),
    path("overview/outcomes/", views.outcomes_fragment, name="outcomes_fragment"),
    path("overview/collections/", views.collections_fragment, name="collections_fragment"),
    path("stream/", stream_views.stream, name="stream"),
    path("stream/hosts/", stream_views.hosts_fragment, name="hosts_fragment"),
    path("stream/gaps/", stream_views.gaps_fragment, name="gaps_fragment"),
    path("stream/rejected/", stream_views.rejected_fragment, name="rejected_fragment"),
    *(path(f"stream/{wish}/", stream_views.stream_ask, {"wish": wish}, name=f"stream_{wish}") for wish in WISHES),
    path("deliveries/", views.deliveries, name="deliveries"),
    path("deliveries/<delivery_id:id>/", views.delivery, name="delivery"),
    path("deliveries/<delivery_id:id>/state/", views.delivery_fragment, name="delivery_fragment"),
    path("deliveries/<delivery_id:id>/replay/", views.delivery_replay, name="delivery_replay"),
    path("endpoints/", views.endpoints, name="endpoints"),
]
