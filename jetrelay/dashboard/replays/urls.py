"""Replays in bulk: those there are, and asking for one."""

from django.urls import path

from jetrelay.dashboard.replays import views

urlpatterns = [
    path("", views.replays, name="replays"),
    path("progress/", views.replays_fragment, name="replays_fragment"),
    path("new/", views.replay_new, name="replay_new"),
    path("<replay_id:id>/cancel/", views.replay_cancel, name="replay_cancel"),
]
