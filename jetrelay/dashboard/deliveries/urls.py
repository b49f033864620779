"""The list of deliveries, dead letters included, one delivery with its attempts, and one attempt."""

from django.urls import path

from jetrelay.dashboard.deliveries import attempts, selection, views

urlpatterns = [
    path("", views.deliveries, name="deliveries"),
    path("selected/", selection.deliveries_selected, name="deliveries_selected"),
    path("<delivery_id:id>/", views.delivery, name="delivery"),
    path("<delivery_id:id>/state/", views.delivery_fragment, name="delivery_fragment"),
    path("<delivery_id:id>/replay/", views.delivery_replay, name="delivery_replay"),
    path("<delivery_id:id>/attempts/<attempt_id:attempt>/", attempts.delivery_attempt, name="delivery_attempt"),
    path("<delivery_id:id>/attempts/<attempt_id:attempt>/body/", attempts.delivery_attempt_body, name="delivery_attempt_body"),
]
