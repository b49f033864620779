"""Who may do what, and who did: keys, members, the audit log, and one's own account."""

from django.urls import path

from jetrelay.dashboard.people import views

urlpatterns = [
    path("keys/", views.keys, name="keys"),
    path("members/", views.members, name="members"),
    path("audit/", views.audit, name="audit"),
    path("account/", views.account, name="account"),
]
