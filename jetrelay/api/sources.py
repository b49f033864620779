"""`/sources`: where events come from. The Jetstream is everybody's; posted events are a tenant's own."""

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from jetrelay.api.fields import Flag, Moment, Strict, Text
from jetrelay.api.pages import PARAMETERS, page
from jetrelay.api.problems import not_found
from jetrelay.api.views import ApiView, check_match, etag, one
from subscriptions import quotas
from subscriptions.models import Source, Tenant
from subscriptions.models.sources import POSTED_NAME

DEFAULT_NAME = POSTED_NAME


class SourceBody(Strict):
    name = Text(max_length=100)
    keep_unmatched = Flag(required=False, help_text="Whether events that nobody wants are stored, so that a later endpoint can recover them.")


def visible_sources(tenant: Tenant) -> "QuerySet[Source]":
    return Source.objects.for_tenants([tenant])


def api_source_of(tenant: Tenant) -> Source:
    return Source.of_posts(tenant)


def show(source: Source) -> dict[str, Any]:
    return {
        "id": source.public_id,
        "kind": source.kind,
        "name": source.name,
        "shared": source.tenant_id is None,
        "keep_unmatched": source.keep_unmatched,
        "created_at": Moment().to_representation(source.created_at),
    }


def show_all(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return [show(source) for source in sources]


class SourceList(ApiView):
    scopes = {"GET": "endpoints:read", "POST": "endpoints:write"}
    query = {"GET": PARAMETERS}

    def get(self, request: Request) -> Response:
        api_source_of(self.tenant)
        return page(request, visible_sources(self.tenant), show_all)

    def post(self, request: Request) -> Response:
        wish = self.body(SourceBody)
        # First the one that events go to if they name none: that is the oldest.
        api_source_of(self.tenant)
        quotas.check_source(quotas.hold(self.tenant))
        source = Source(tenant=self.tenant, kind=Source.Kind.API, keep_unmatched=True)
        _save(source, wish)
        self.note("source.create", source.public_id, source.name)
        return Response(show(source), 201, headers={"ETag": etag(show(source))})


class SourceDetail(ApiView):
    scopes = {"GET": "endpoints:read", "PATCH": "endpoints:write"}

    def get(self, request: Request, id: str) -> Response:
        shown = show(one(visible_sources(self.tenant), id))
        return Response(shown, headers={"ETag": etag(shown)})

    def patch(self, request: Request, id: str) -> Response:
        source = one(visible_sources(self.tenant).select_for_update(), id)
        if source.tenant_id is None:
            raise not_found("This source is shared by all: only the operator changes it.")
        check_match(request, show(source))
        _save(source, self.body(SourceBody, partial=True))
        self.note("source.change", source.public_id)
        return Response(show(source), headers={"ETag": etag(show(source))})


def _save(source: Source, wish: dict[str, Any]) -> None:
    for name, value in wish.items():
        setattr(source, name, value)
    if Source.objects.filter(tenant=source.tenant_id, name=source.name).exclude(pk=source.pk).exists():
        raise ValidationError({"name": ["A source of yours has this name: choose another one."]})
    source.save()
