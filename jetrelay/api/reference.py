"""The OpenAPI document, for programs, and the same for people to read and to try. Public: neither holds anything of an installation."""

import json
from functools import cache

import yaml
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from jetrelay.api.schema import document
from jetrelay.dashboard.access import CONTENT_SECURITY_POLICY, confined

_JSON, _YAML = "application/json", "application/yaml"
# Swagger UI's style sheet draws its arrows and ticks from data: URLs.
_POLICY = f"{CONTENT_SECURITY_POLICY}; img-src 'self' data:"


@require_safe
def schema(request: HttpRequest) -> HttpResponse:
    """As JSON, or as YAML for whoever prefers that."""
    chosen = request.get_preferred_type([_JSON, _YAML]) or _JSON
    return HttpResponse(_text(chosen), content_type=chosen, headers={"Vary": "Accept", "X-Content-Type-Options": "nosniff"})


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    response = render(request, "api/docs.html")
    response["Content-Security-Policy"] = _POLICY
    return confined(response)


@cache
def _text(media_type: str) -> str:
    return json.dumps(document()) if media_type == _JSON else yaml.safe_dump(document(), sort_keys=False, allow_unicode=True)
