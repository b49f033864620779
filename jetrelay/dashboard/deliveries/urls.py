"""The list of deliveries, dead letters included, and one delivery with its attempts."""

from django.urls import path

from jetrelay.dashboard.deliveries import views

urlpatterns = [
    path("", views.deliveries, name="deliveries"),
    path("<delivery_id:id>/", views.delivery, name="delivery"),
    path("<delivery_id:id>/state/", views.delivery_fragment, name="delivery_fragment"),
    path("<delivery_id:id>/replay/", views.delivery_replay, name="delivery_replay"),
]
