"""Events, and one event with what became of it at every endpoint."""

from django.urls import path

from jetrelay.dashboard.events import views

urlpatterns = [
    path("", views.events, name="events"),
    path("<event_id:id>/", views.event, name="event"),
    path("<event_id:id>/endpoints/", views.event_fragment, name="event_fragment"),
    path("<event_id:id>/body/", views.event_body, name="event_body"),
]
