"""Where members sign in. Staff may do so here as well as at the admin's own page: a session is good for both."""

from typing import Any

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponseBase

from jetrelay.dashboard.access import confined


class SignIn(LoginView):
    template_name = "sign_in.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return confined(super().dispatch(request, *args, **kwargs))
