"""Endpoints, what may be asked of them, and what they want."""

from django.urls import path

from jetrelay.dashboard.endpoints import acting, debugger, detail, listing, making, signing_secrets, wanting

_ONE = "<endpoint_id:id>/"
_WISH = f"{_ONE}subscriptions/<subscription_id:subscription>/"

urlpatterns = [
    path("", listing.endpoints, name="endpoints"),
    path("new/", making.endpoint_new, name="endpoint_new"),
    path(_ONE, detail.endpoint, name="endpoint"),
    path(f"{_ONE}doing/", detail.endpoint_fragment, name="endpoint_fragment"),
    path(f"{_ONE}edit/", making.endpoint_edit, name="endpoint_edit"),
    *(path(f"{_ONE}{act}/", acting.endpoint_act, {"act": act}, name=f"endpoint_{act}") for act in acting.ACTS),
    *(path(f"{_ONE}{act}/", acting.endpoint_try, {"act": act}, name=f"endpoint_{act}") for act in acting.TRIES),
    path(f"{_ONE}delete/", acting.endpoint_delete, name="endpoint_delete"),
    path(f"{_ONE}secret/", signing_secrets.endpoint_secret, name="endpoint_secret"),
    path(f"{_ONE}secret/rotate/", signing_secrets.endpoint_rotate, name="endpoint_rotate"),
    path(f"{_ONE}signature/", debugger.endpoint_signature, name="endpoint_signature"),
    path(f"{_ONE}subscriptions/new/", wanting.subscription_new, name="subscription_new"),
    path(_WISH, wanting.subscription_edit, name="subscription_edit"),
    path(f"{_WISH}switch/", wanting.subscription_switch, name="subscription_switch"),
    path(f"{_WISH}remove/", wanting.subscription_remove, name="subscription_remove"),
]
