"""The overview and the pieces of it that renew themselves."""

from django.urls import path

from jetrelay.dashboard.overview import views

urlpatterns = [
    path("", views.overview, name="overview"),
    path("overview/events/", views.events_fragment, name="events_fragment"),
    path("overview/outcomes/", views.outcomes_fragment, name="outcomes_fragment"),
    path("overview/charts/", views.charts_fragment, name="charts_fragment"),
    path("overview/collections/", views.collections_fragment, name="collections_fragment"),
]
