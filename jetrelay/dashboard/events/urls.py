"""Events, and one event with what became of it at every endpoint."""

from django.urls import path

from jetrelay.dashboard.events import views

urlpatterns = [
    path("", views.events, name="events"),
    path("<event_id:id>/", views.event, name="event"),
]
