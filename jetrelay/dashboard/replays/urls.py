"""Replays in bulk: those there are, asking for one, and how one is doing."""

from django.urls import path

from jetrelay.dashboard.replays import views

urlpatterns = [
    path("", views.replays, name="replays"),
    path("progress/", views.replays_fragment, name="replays_fragment"),
    path("new/", views.replay_new, name="replay_new"),
    path("<replay_id:id>/", views.replay, name="replay"),
    path("<replay_id:id>/progress/", views.replay_fragment, name="replay_fragment"),
    path("<replay_id:id>/cancel/", views.replay_cancel, name="replay_cancel"),
]
