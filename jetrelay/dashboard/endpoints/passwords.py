"""A password entered again before a secret is shown, and the brake on guessing it."""

from time import time
from typing import Any

from django import forms
from django.core.cache import caches
from django.core.exceptions import ValidationError

# Tries of one user in one minute, over all web processes that share a Redis; otherwise in each process.
GUESSES = 5
WINDOW_S = 60


class PasswordForm(forms.Form):
    password = forms.CharField(
        label="Your password",
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        help_text="Entered again, so that nobody who finds this page open can go further.",
    )

    def __init__(self, data: Any, user: Any) -> None:
        super().__init__(data)
        self._user = user

    def clean_password(self) -> str:
        if not _may_guess(self._user.pk):
            raise ValidationError(f"Too many tries: {GUESSES} a minute are allowed. Wait a minute, then try again.")
        password = str(self.cleaned_data["password"])
        if not self._user.check_password(password):
            if not self._user.has_usable_password():
                raise ValidationError("Your account has no password here: whoever runs this Jetrelay can set one, in the admin.")
            raise ValidationError("This is not your password.")
        caches["tries"].delete(_name(self._user.pk))
        # Nobody needs it any more.
        return ""


def _may_guess(user: Any) -> bool:
    """Count one try. While nobody can count them, there are none."""
    name = _name(user)
    try:
        caches["tries"].add(name, 0, timeout=2 * WINDOW_S)
        return int(caches["tries"].incr(name)) <= GUESSES
    except Exception as error:  # whatever the cache's client raises
        raise ValidationError("Passwords cannot be checked now, because tries cannot be counted: Redis does not answer. Try again later.") from error


def _name(user: Any) -> str:
    return f"jetrelay:passwords:{user}:{int(time() // WINDOW_S)}"
