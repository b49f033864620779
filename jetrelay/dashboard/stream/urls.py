"""The stream's page, its pieces, and what may be asked of its hosts."""

from django.urls import path

from jetrelay.dashboard.stream import views
from jetrelay.dashboard.stream.steering import WISHES

urlpatterns = [
    path("", views.stream, name="stream"),
    path("hosts/", views.hosts_fragment, name="hosts_fragment"),
    path("gaps/", views.gaps_fragment, name="gaps_fragment"),
    path("gaps/acknowledge/", views.gaps_acknowledge, name="gaps_acknowledge"),
    path("rejected/", views.rejected_fragment, name="rejected_fragment"),
    *(path(f"{wish}/", views.stream_ask, {"wish": wish}, name=f"stream_{wish}") for wish in WISHES),
]
