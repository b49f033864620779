"""Where members sign in, and where they come to for the first time. A session is good for the admin too, for those who may be there."""

from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, PasswordResetConfirmView
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse_lazy

from jetrelay.dashboard.access import confined
from jetrelay.dashboard.people.account import note_of_oneself


class SignIn(LoginView):
    template_name = "sign_in.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return confined(super().dispatch(request, *args, **kwargs))


class Welcome(PasswordResetConfirmView):
    """A first password, by the link that an owner hands over. Django moves the token from the URL into the session before it shows a page."""

    template_name = "welcome.html"
    success_url = reverse_lazy("overview")
    post_reset_login = True

    def dispatch(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with transaction.atomic():
            response = confined(super().dispatch(*args, **kwargs))
        if response.status_code == 302:
            # The address that is left here has the token in it. The form's has none, and needs its referrer: no browser says
            # where a form comes from without one, and Django asks.
            response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Robots-Tag"] = "noindex, nofollow"
        return response

    def get_user(self, uidb64: str) -> User | None:
        """Only somebody who has no password yet, and is not in the admin's hands."""
        user = super().get_user(uidb64)
        if user is not None and self.request.method == "POST":
            # Until the password is set: an owner may be ending the link at this moment, or taking the account away.
            user = User.objects.select_for_update().filter(pk=user.pk).first()
        fits = user is not None and user.is_active and not (user.is_staff or user.is_superuser or user.has_usable_password())
        return user if fits else None

    def form_valid(self, form: Any) -> HttpResponse:
        with transaction.atomic():
            response = super().form_valid(form)
            note_of_oneself(form.user, "account.welcome")
        messages.success(self.request, "Your password is set, and you are signed in.")
        return response
