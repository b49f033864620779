"""The last outcome of a delivery as people write it: `500`, `4xx`, `timed out`, `timeout`, `none`. Pure."""

import re
from typing import NamedTuple

from django.db.models import Q

from delivery.destinations.exchange import Error
from delivery.explain import explain
from delivery.outcomes import MISSING_EVENT

NONE = "none yet"
_ERRORS = {explain(None, name).words: name for name in (*(error.value for error in Error), MISSING_EVENT)}
# What a form offers; any status may be written besides.
OFFERED = ("2xx", "3xx", "4xx", "5xx", "429", *_ERRORS, NONE)


class Outcome(NamedTuple):
    """As it is written in full, and what a delivery's row has of it."""

    words: str
    condition: Q


def read(text: str) -> Outcome | None:
    """None where the text is no outcome."""
    text = " ".join(text.lower().split())
    if text in (NONE, "none"):
        return Outcome(NONE, Q(last_status=None, last_error=""))
    if re.fullmatch("[1-9]xx", text, re.ASCII):
        first = 100 * int(text[0])
        return Outcome(text, Q(last_error="", last_status__gte=first, last_status__lt=first + 100))
    if re.fullmatch("[1-9][0-9][0-9]", text, re.ASCII):
        return Outcome(text, Q(last_error="", last_status=int(text)))
    by_word = {words.lower(): (words, name) for words, name in _ERRORS.items()} | {name: (words, name) for words, name in _ERRORS.items()}
    if text in by_word:
        words, name = by_word[text]
        return Outcome(words, Q(last_error=name))
    return None
