"""What the pages of JETRELAY_DEBUG show of settings, of the request and of variables.

All of it, without passwords.

Django hides what stands under a name such as `SECRET_KEY`. A broker's URL has its password under no
such name.
"""

from typing import Any

from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from jetrelay.logs import masking


class Filter(SafeExceptionReporterFilter):
    """Django's, which knows this process's secrets too."""

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        cleansed = super().cleanse_setting(key, value)
        return masking.text(cleansed) if isinstance(cleansed, str) else cleansed

    def get_traceback_frame_variables(self, request: HttpRequest, tb_frame: Any) -> Any:
        shown = super().get_traceback_frame_variables(request, tb_frame)
        return [(name, _masked(value)) for name, value in shown]


class Reporter(ExceptionReporter):
    """Django's, whose page has no secret that this process knows, wherever it came from."""

    def get_traceback_html(self) -> SafeString:
        return _safe(super().get_traceback_html())

    def get_traceback_text(self) -> SafeString:
        return _safe(super().get_traceback_text())


def _safe(page: str) -> SafeString:
    # It was escaped before, and what was put into it has nothing to escape.
    return SafeString(masking.text(page))


def _masked(value: Any) -> Any:
    """The value itself where it shows no secret."""
    shown = masking.shown(value)
    masked = masking.text(shown)
    return value if masked == shown else _Shown(masked)


class _Shown:
    def __init__(self, words: str) -> None:
        self._words = words

    def __repr__(self) -> str:
        return self._words
