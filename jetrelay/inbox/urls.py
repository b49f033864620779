"""The built-in receiver."""

from django.urls import path

from jetrelay.inbox import views

urlpatterns = [
    path("<slug:token>", views.inbox, name="inbox"),
    path("<slug:token>/messages/", views.messages_fragment, name="inbox_messages_fragment"),
]
