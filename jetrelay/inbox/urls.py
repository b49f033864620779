"""The built-in receiver."""

from django.urls import path

from jetrelay.inbox import views

urlpatterns = [
    path("<str:token>", views.inbox, name="inbox"),
    path("<str:token>/messages/", views.messages_fragment, name="inbox_messages_fragment"),
]
