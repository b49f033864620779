"""The built-in receiver."""

from django.urls import path

from jetrelay.dashboard import ids  # noqa: F401 - registers the converters
from jetrelay.inbox import views

urlpatterns = [
    path("of/<endpoint_id:id>", views.inbox_of, name="inbox_of"),
    path("<slug:token>", views.inbox, name="inbox"),
    path("<slug:token>/messages/", views.messages_fragment, name="inbox_messages_fragment"),
]
