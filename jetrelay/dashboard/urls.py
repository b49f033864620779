"""The pages for members. Each view is a `members_page`."""

import uuid

from django.urls import path, register_converter

from delivery.models import Delivery, Replay
from jetrelay.dashboard import endpoint_views, replay_views, stream_views, views
from jetrelay.dashboard.steering import WISHES
from subscriptions.ids import to_public
from subscriptions.models import Endpoint


class DeliveryId:
    """`dlv_…` in a URL, a UUID in Python."""

    prefix = Delivery.prefix
    regex = f"{prefix}_[0-9a-f]{{32}}"

    def to_python(self, value: str) -> uuid.UUID:
        return uuid.UUID(value.removeprefix(f"{self.prefix}_"))

    def to_url(self, value: uuid.UUID) -> str:
        return to_public(self.prefix, value)


class EndpointId(DeliveryId):
    prefix = Endpoint.prefix
    regex = f"{prefix}_[0-9a-f]{{32}}"


class ReplayId(DeliveryId):
    prefix = Replay.prefix
    regex = f"{prefix}_[0-9a-f]{{32}}"


register_converter(DeliveryId, "delivery_id")
register_converter(EndpointId, "endpoint_id")
register_converter(ReplayId, "replay_id")

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
    path("endpoints/", endpoint_views.endpoints, name="endpoints"),
    *(path(f"endpoints/<endpoint_id:id>/{act}/", endpoint_views.endpoint_act, {"act": act}, name=f"endpoint_{act}") for act in endpoint_views.ACTS),
    path("replays/", replay_views.replays, name="replays"),
    path("replays/progress/", replay_views.replays_fragment, name="replays_fragment"),
    path("replays/new/", replay_views.replay_new, name="replay_new"),
    path("replays/<replay_id:id>/cancel/", replay_views.replay_cancel, name="replay_cancel"),
]
