"""Endpoints, and what may be asked of them."""

from django.urls import path

from jetrelay.dashboard.endpoints import views

urlpatterns = [
    path("", views.endpoints, name="endpoints"),
    path("<endpoint_id:id>/", views.endpoint, name="endpoint"),
    *(path(f"<endpoint_id:id>/{act}/", views.endpoint_act, {"act": act}, name=f"endpoint_{act}") for act in views.ACTS),
]
