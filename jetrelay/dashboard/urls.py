"""The pages for members, a folder each. Each view is a `members_page`."""

from django.urls import include, path

from jetrelay.dashboard import ids  # noqa: F401  the URLs below name its converters

urlpatterns = [
    path("", include("jetrelay.dashboard.overview.urls")),
    path("events/", include("jetrelay.dashboard.events.urls")),
    path("deliveries/", include("jetrelay.dashboard.deliveries.urls")),
    path("endpoints/", include("jetrelay.dashboard.endpoints.urls")),
    path("replays/", include("jetrelay.dashboard.replays.urls")),
    path("stream/", include("jetrelay.dashboard.stream.urls")),
    path("tail/", include("jetrelay.dashboard.tail.urls")),
    path("", include("jetrelay.dashboard.people.urls")),
]
