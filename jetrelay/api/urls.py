"""Where the API's resources are. No slash at the end."""

from django.urls import path, re_path

from jetrelay.api import deliveries, endpoint_acts, endpoints, events, keys, quotas, replays, sources, stats, stream, subscriptions
from jetrelay.api.views import NotThere

_ACTS = {
    "pause": endpoint_acts.Pause,
    "resume": endpoint_acts.Resume,
    "enable": endpoint_acts.Enable,
    "disable": endpoint_acts.Disable,
    "reset-breaker": endpoint_acts.ResetBreaker,
    "verify": endpoint_acts.Verify,
    "test": endpoint_acts.Test,
    "rotate-secret": endpoint_acts.RotateSecret,
    "reveal-secret": endpoint_acts.RevealSecret,
    "recover": replays.Recover,
}

urlpatterns = [
    path("sources", sources.SourceList.as_view()),
    path("sources/<str:id>", sources.SourceDetail.as_view()),
    path("endpoints", endpoints.EndpointList.as_view()),
    path("endpoints/<str:id>", endpoints.EndpointDetail.as_view()),
    *(path(f"endpoints/<str:id>/{name}", view.as_view()) for name, view in _ACTS.items()),
    path("subscriptions", subscriptions.SubscriptionList.as_view()),
    path("subscriptions/preview", subscriptions.SubscriptionPreview.as_view()),
    path("subscriptions/<str:id>", subscriptions.SubscriptionDetail.as_view()),
    path("events", events.EventList.as_view()),
    path("events/batch", events.EventBatch.as_view()),
    path("events/<str:id>", events.EventDetail.as_view()),
    path("events/<str:id>/body", events.EventBody.as_view()),
    path("events/<str:id>/explain", events.EventExplain.as_view()),
    path("events/<str:id>/replay", events.EventReplay.as_view()),
    path("deliveries", deliveries.DeliveryList.as_view()),
    path("deliveries/<str:id>", deliveries.DeliveryDetail.as_view()),
    path("deliveries/<str:id>/replay", deliveries.DeliveryReplay.as_view()),
    path("deliveries/<str:id>/dismiss", deliveries.DeliveryDismiss.as_view()),
    path("dead-letters", deliveries.DeadLetterList.as_view()),
    path("replays", replays.ReplayList.as_view()),
    path("replays/preview", replays.ReplayPreview.as_view()),
    path("replays/<str:id>", replays.ReplayDetail.as_view()),
    path("replays/<str:id>/cancel", replays.ReplayCancel.as_view()),
    path("stats", stats.Stats.as_view()),
    path("quotas", quotas.Quotas.as_view()),
    path("stream", stream.StreamStatus.as_view()),
    path("stream/reconnect", stream.StreamReconnect.as_view()),
    path("stream/cursor", stream.StreamCursor.as_view()),
    path("keys", keys.KeyList.as_view()),
    path("keys/<str:id>", keys.KeyDetail.as_view()),
    path("keys/<str:id>/rotate", keys.KeyRotate.as_view()),
    re_path(r"^.*$", NotThere.as_view()),
]
