"""`/subscriptions`: which events of a source an endpoint wants."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from delivery.trial import MOST, trial
from jetrelay.api.fields import Checked, Choice, Flag, List, Moment, PublicId, Strict, Text, Whole, id_of
from jetrelay.api.pages import PARAMETERS, page
from jetrelay.api.problems import bad_query
from jetrelay.api.sources import api_source_of, visible_sources
from jetrelay.api.views import ApiView, check_match, etag, one
from subscriptions import quotas, validation
from subscriptions.compiled import filter_of
from subscriptions.models import Endpoint, Source, Subscription, Tenant

MAX_DIDS = validation.MAX_WANTED_DIDS
MAX_PATTERNS = validation.MAX_WANTED_COLLECTIONS
# A collection or type, as `validation.clean_pattern` has it.
PATTERN = r"^(\*|[A-Za-z0-9][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9][A-Za-z0-9_-]{0,62})*(\.\*)?)$"
_PATTERN_WORDS = "Write a full name (app.bsky.feed.post), a prefix that ends in .* (app.bsky.feed.*), or * for everything."

_SOURCE_PATTERN = rf"^(jetstream|api|{Source.prefix}_[0-9a-f]{{32}})$"
_NO_SOURCE = 'There is no such source: write "jetstream", "api", or an id from /sources.'


def _patterns(**kwargs: Any) -> List:
    each = Text(PATTERN, _PATTERN_WORDS, max_length=validation.MAX_NSID)
    return List(child=each, min_length=1, max_length=MAX_PATTERNS, required=False, **kwargs)


class Wish(Strict):
    """What is wanted: of the Jetstream by `collections`, of events that were posted by `types`."""

    source = Text(  # type: ignore[assignment]  # DRF takes it away before it could hide Field.source
        _SOURCE_PATTERN,
        _NO_SOURCE,
        required=False,
        max_length=100,
        help_text='"jetstream", "api", or the id of a source. Without it: api where types are named, else jetstream.',
    )
    collections = _patterns(help_text="Of the Jetstream: full names, prefixes that end in .*, or *.")
    types = _patterns(help_text="Of events that were posted to this API, written like collections.")
    dids = List(
        child=Checked(validation.clean_did, max_length=validation.MAX_DID), required=False, max_length=MAX_DIDS, help_text="Only these accounts. Empty: all."
    )
    operations = List(child=Choice(choices=list(validation.OPERATIONS)), required=False, max_length=3, help_text="Only these operations. Empty: all.")
    kinds = List(
        child=Choice(choices=list(validation.STREAM_KINDS)),
        required=False,
        min_length=1,
        max_length=4,
        help_text="Of the Jetstream. Commits alone unless others are named.",
    )
    active = Flag(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "collections" in attrs and "types" in attrs:
            raise ValidationError({"types": ["Name collections or types: a subscription is to one source."]})
        return attrs


class NewSubscription(Wish):
    endpoint = PublicId(Endpoint.prefix)


class PreviewRequest(Wish):
    last = Whole(required=False, min_value=1, max_value=MOST, help_text="How many of the newest stored events of the source to look at.")


def source_of(wish: Mapping[str, Any], tenant: Tenant) -> Source:
    """The source that a wish is about. Raises ValidationError."""
    name = wish.get("source") or ("api" if "types" in wish else "jetstream")
    if name == "api":
        return api_source_of(tenant)
    rows = visible_sources(tenant)
    if name == "jetstream":
        found = rows.filter(kind=Source.Kind.JETSTREAM).first()
    else:
        id = id_of(Source.prefix, name)
        found = rows.filter(pk=id).first() if id else None
    if found is None:
        raise ValidationError({"source": [_NO_SOURCE]})
    return found


def put(wish: Mapping[str, Any], subscription: Subscription) -> Subscription:
    """Write the wish into a subscription, which has its source. Raises ValidationError for what does not go with that source."""
    posted = subscription.source.kind == Source.Kind.API
    foreign = ("collections", "dids", "operations", "kinds") if posted else ("types",)
    if wrong := [name for name in foreign if name in wish]:
        words = "Events that were posted have types alone." if posted else "A Jetstream has collections: write them there."
        raise ValidationError({name: [words] for name in wrong})
    if posted:
        subscription.kinds = ["api"]
    for name in ("dids", "operations", "kinds", "active"):
        if name in wish:
            setattr(subscription, name, wish[name])
    if (patterns := wish.get("types" if posted else "collections")) is not None:
        subscription.collections = patterns
    return subscription


def new(wish: Mapping[str, Any], endpoint: Endpoint, tenant: Tenant) -> Subscription:
    """A subscription that is not saved yet. Raises ValidationError."""
    source = source_of(wish, tenant)
    narrow = bool(wish.get("dids")) or "commit" not in wish.get("kinds", ["commit"])
    if source.kind == Source.Kind.JETSTREAM and "collections" not in wish and not narrow:
        raise ValidationError({"collections": ['Say which: ["app.bsky.feed.post"], or ["*"] for the whole network.']})
    return put(wish, Subscription(endpoint=endpoint, source=source))


def show(subscription: Subscription) -> dict[str, Any]:
    """Read together with its source."""
    posted = subscription.source.kind == Source.Kind.API
    return {
        "id": subscription.public_id,
        "endpoint": PublicId(Endpoint.prefix).to_representation(subscription.endpoint_id),
        "source": PublicId(Source.prefix).to_representation(subscription.source_id),
        "source_kind": subscription.source.kind,
        "collections": None if posted else subscription.collections,
        "types": subscription.collections if posted else None,
        "dids": subscription.dids,
        "operations": subscription.operations,
        "kinds": subscription.kinds,
        "active": subscription.active,
        "created_at": Moment().to_representation(subscription.created_at),
        "updated_at": Moment().to_representation(subscription.updated_at),
    }


def show_all(subscriptions: Sequence[Subscription]) -> list[dict[str, Any]]:
    return [show(each) for each in subscriptions]


class _Subscriptions(ApiView):
    max_body = 1024 * 1024

    def rows(self) -> Any:
        mine = Subscription.objects.filter(endpoint__tenant=self.tenant).exclude(endpoint__state=Endpoint.State.DELETED)
        return mine.select_related("source").order_by("-id")


class SubscriptionList(_Subscriptions):
    scopes = {"GET": "endpoints:read", "POST": "endpoints:write"}
    query = {"GET": (*PARAMETERS, "endpoint")}

    def get(self, request: Request) -> Response:
        rows = self.rows()
        if (text := request.query_params.get("endpoint")) is not None:
            rows = rows.filter(endpoint=_endpoint_filter(text))
        return page(request, rows, show_all)

    def post(self, request: Request) -> Response:
        wish = self.body(NewSubscription)
        endpoint = Endpoint.objects.for_tenant(self.tenant).present().without_secrets().filter(pk=wish["endpoint"]).first()
        if endpoint is None:
            raise ValidationError({"endpoint": ["There is no such endpoint."]})
        subscription = new(wish, endpoint, self.tenant)
        subscription.full_clean()
        quotas.check_subscription(quotas.hold(self.tenant), endpoint.pk)
        subscription.save()
        self.note("subscription.create", subscription.public_id, f"for {endpoint.public_id}")
        return Response(show(subscription), 201, headers={"ETag": etag(show(subscription))})


class SubscriptionDetail(_Subscriptions):
    scopes = {"GET": "endpoints:read", "PATCH": "endpoints:write", "DELETE": "endpoints:write"}

    def get(self, request: Request, id: str) -> Response:
        shown = show(one(self.rows(), id))
        return Response(shown, headers={"ETag": etag(shown)})

    def patch(self, request: Request, id: str) -> Response:
        subscription = one(self.rows().select_for_update(of=("self",)), id)
        check_match(request, show(subscription))
        wish = self.body(Wish, partial=True)
        if "source" in wish and source_of(wish, self.tenant).pk != subscription.source_id:
            raise ValidationError({"source": ["A subscription stays with its source: make another one."]})
        if wish:
            # Else nothing has changed, and `updated_at` says when something did.
            put(wish, subscription).full_clean()
            subscription.save()
            self.note("subscription.change", subscription.public_id, ", ".join(sorted(wish)))
        return Response(show(subscription), headers={"ETag": etag(show(subscription))})

    def delete(self, request: Request, id: str) -> Response:
        subscription = one(self.rows(), id)
        check_match(request, show(subscription))
        self.note("subscription.delete", subscription.public_id, f"of {PublicId(Endpoint.prefix).to_representation(subscription.endpoint_id)}")
        subscription.delete()
        return Response(status=204)


class SubscriptionPreview(_Subscriptions):
    """What a subscription would have brought, from the events that are stored: nothing is saved."""

    scopes = {"POST": "events:read"}
    noted = False

    def post(self, request: Request) -> Response:
        wish = self.body(PreviewRequest)
        with transaction.atomic():
            tried = new(wish, Endpoint(tenant=self.tenant), self.tenant)
        found = trial(tried.source, filter_of(tried), wish.get("last", 1000))
        return Response(
            {
                "source": tried.source.public_id,
                "looked_at": found.looked_at,
                "matched": found.matched,
                "oldest_at": Moment().to_representation(found.oldest_at),
                "per_type": [{"kind": kind, "type": type, "matched": count} for (kind, type), count in found.per_type],
                "samples": [
                    {
                        "id": event.public_id,
                        "kind": event.kind,
                        "type": event.type,
                        "operation": event.operation,
                        "subject": event.subject,
                        "received_at": Moment().to_representation(event.received_at),
                    }
                    for event in found.samples
                ],
            }
        )


def _endpoint_filter(text: str) -> Any:
    id = id_of(Endpoint.prefix, text)
    if id is None:
        raise bad_query("endpoint", "write an endpoint's id, such as ep_… .")
    return id
