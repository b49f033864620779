"""The live tail: events as they arrive."""

from django.urls import path

from jetrelay.dashboard.tail import views

urlpatterns = [
    path("", views.tail, name="tail"),
    path("new/", views.tail_fragment, name="tail_fragment"),
]
