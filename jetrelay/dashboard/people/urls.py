"""Who may do what, and who did: keys, members, the audit log, and one's own account."""

from django.urls import path

from jetrelay.dashboard.people import account, api_keys, audit_log, members

urlpatterns = [
    path("keys/", api_keys.keys, name="keys"),
    path("keys/new/", api_keys.key_new, name="key_new"),
    path("keys/<key_id:id>/", api_keys.key, name="key"),
    path("keys/<key_id:id>/rotate/", api_keys.key_rotate, name="key_rotate"),
    path("keys/<key_id:id>/revoke/", api_keys.key_revoke, name="key_revoke"),
    path("members/", members.members, name="members"),
    path("members/new/", members.member_new, name="member_new"),
    path("members/<int:id>/", members.member, name="member"),
    path("members/<int:id>/role/", members.member_role, name="member_role"),
    path("members/<int:id>/remove/", members.member_remove, name="member_remove"),
    path("members/<int:id>/link/", members.member_link, name="member_link"),
    path("audit/", audit_log.audit, name="audit"),
    path("account/", account.account, name="account"),
    path("account/password/", account.account_password, name="account_password"),
    path("account/sessions/", account.account_sessions, name="account_sessions"),
]
