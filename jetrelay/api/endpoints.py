"""`/endpoints`: where deliveries go, on what terms, and what may be asked of them."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from delivery import endpoints, verification
from delivery.standing import standing
from jetrelay import busy
from jetrelay.api import subscriptions
from jetrelay.api.fields import Checked, Choice, Flag, Items, Moment, Named, Number, Strict, Text, Whole
from jetrelay.api.pages import PARAMETERS, page
from jetrelay.api.problems import Problem, bad_query, escaped
from jetrelay.api.views import After, ApiView, check_match, etag, one
from subscriptions import quotas, validation
from subscriptions.models import Endpoint, Subscription

State = Endpoint.State
MAX_SUBSCRIPTIONS = 100
_PRIORITIES = {priority.label.lower(): priority for priority in Endpoint.Priority}
STATES = [state.value for state in State if state is not State.DELETED]

# The state has acts of its own, and secrets their rotation.
_SETTINGS = (
    *("url", "name", "signature_scheme", "bearer_token", "extra_headers", "timeout_s", "max_in_flight", "rate_limit_per_s", "priority"),
    *("ordered", "batch_size", "batch_wait_ms"),
    *("retry_strategy", "retry_schedule_s", "retry_first_s", "retry_factor", "retry_step_s", "retry_longest_s", "retry_count"),
    *("retry_jitter_percent", "retry_on"),
)

# --- how it is written ---------------------------------------------------------------------------------------------


class Retry(Strict):
    """When to try again. Which numbers count, the strategy says."""

    strategy = Choice(choices=Endpoint.RetryStrategy.values, required=False)
    schedule_s = Items(
        child=Number(min_value=0, max_value=validation.MAX_WAIT_S),
        required=False,
        max_length=validation.MAX_RETRIES,
        help_text="schedule: seconds to wait after the first, second, … failed attempt; then the delivery is dead.",
    )
    first_s = Number(required=False, min_value=0, max_value=validation.MAX_WAIT_S, help_text="exponential, linear, fixed: the first wait.")
    factor = Number(required=False, min_value=1, max_value=validation.MAX_RETRY_FACTOR, help_text="exponential: each wait is so many times the one before.")
    step_s = Number(required=False, min_value=0, max_value=validation.MAX_WAIT_S, help_text="linear: each wait is so much longer.")
    longest_s = Number(required=False, min_value=0, max_value=validation.MAX_WAIT_S, help_text="exponential, linear: no wait is longer.")
    count = Whole(required=False, min_value=0, max_value=validation.MAX_RETRIES, help_text="exponential, linear, fixed: how many retries.")
    jitter_percent = Whole(required=False, min_value=0, max_value=25)
    on = Choice(choices=Endpoint.RetryOn.values, required=False, help_text="any: every failure; transient: 408, 425, 429, 5xx and network errors alone.")


_RETRY = {name: f"retry_{name}" for name in Retry().fields}


class EndpointBody(Strict):
    url = Checked(validation.clean_webhook_url, max_length=validation.MAX_URL, help_text="http or https, without user name, password or fragment.")
    name = Text(required=False, max_length=100, help_text="Without it: the URL's host.")
    signature_scheme = Choice(choices=Endpoint.SignatureScheme.values, required=False)
    bearer_token = Checked(
        validation.clean_bearer_token,
        required=False,
        allow_null=True,
        max_length=validation.MAX_BEARER_TOKEN,
        write_only=True,
        help_text="Sent as Authorization: Bearer …. null: none.",
    )
    headers = Named(
        validation.MAX_HEADERS,
        validation.TOO_MANY_HEADERS,
        child=Text(max_length=validation.MAX_HEADERS_SIZE),
        required=False,
        write_only=True,
        help_text="Sent along, as names and values. Replaces all that there were.",
    )
    timeout_s = Number(required=False, min_value=0.1, max_value=300, help_text="For one attempt, DNS and connect included.")
    max_in_flight = Whole(required=False, min_value=1, max_value=1000, help_text="Requests open at once.")
    rate_limit_per_s = Number(
        required=False,
        allow_null=True,
        min_value=validation.MIN_RATE,
        max_value=validation.MAX_RATE,
        help_text="Requests started per second, evenly. null: no limit.",
    )
    priority = Choice(choices=list(_PRIORITIES), required=False)
    ordered = Flag(required=False, help_text="Each subject's events one after the other.")
    batch_size = Whole(required=False, min_value=1, max_value=validation.MAX_BATCH_SIZE, help_text="Above 1, a request carries a JSON array of events.")
    batch_wait_ms = Whole(required=False, min_value=0, max_value=60_000, help_text="How long an event waits for others to go with it.")
    retry = Retry(required=False)


class NewEndpoint(EndpointBody):
    secret = Checked(
        validation.clean_secret,
        required=False,
        max_length=validation.MAX_SECRET,
        write_only=True,
        help_text="whsec_ and the base64 of 24 to 64 bytes. Without it, one is made.",
    )
    subscriptions = Items(child=subscriptions.Wish(), required=False, max_length=MAX_SUBSCRIPTIONS)


def put(wish: Mapping[str, Any], endpoint: Endpoint) -> Endpoint:
    """Write the settings into the endpoint, which is not saved."""
    for name in ("url", "name", "signature_scheme", "timeout_s", "max_in_flight", "rate_limit_per_s", "ordered", "batch_size", "batch_wait_ms", "secret"):
        if name in wish:
            setattr(endpoint, name, wish[name])
    if "priority" in wish:
        endpoint.priority = _PRIORITIES[wish["priority"]]
    if "bearer_token" in wish:
        endpoint.bearer_token = wish["bearer_token"] or ""
    if "headers" in wish:
        endpoint.extra_headers = _header_lines(wish["headers"])
    for name, value in wish.get("retry", {}).items():
        setattr(endpoint, _RETRY[name], value)
    return endpoint


def check(endpoint: Endpoint) -> None:
    """Raise ValidationError, by the API's own names, for what does not go together."""
    names = {field: f"/retry/{name}" for name, field in _RETRY.items()} | {"extra_headers": "/headers"}
    try:
        endpoint.full_clean()
    except DjangoValidationError as error:
        errors = [("" if field == "__all__" else names.get(field, f"/{field}"), " ".join(words)) for field, words in error.message_dict.items()]
        raise Problem(422, "invalid", f"{errors[0][0]}: {errors[0][1]}", errors) from error


def _header_lines(headers: Mapping[str, str]) -> str:
    """As the endpoint keeps them. Raises ValidationError by the header's name."""
    for name, value in headers.items():
        try:
            validation.clean_headers(f"{name}: {value}")
            if ":" in name or name != name.strip():
                raise DjangoValidationError("A header's name is made of letters, digits and hyphens.")
        except DjangoValidationError as error:
            raise ValidationError({"headers": {escaped(name): error.messages}}) from error
    try:
        return validation.clean_headers("\n".join(f"{name}: {value}" for name, value in headers.items()))
    except DjangoValidationError as error:
        raise ValidationError({"headers": error.messages}) from error


# --- how it is shown -----------------------------------------------------------------------------------------------


def show(endpoint: Endpoint) -> dict[str, Any]:
    """Read together with its health and its subscriptions and their sources."""
    now = timezone.now()
    stands = standing(endpoint, now)
    return settings_of(endpoint) | {
        "state": endpoint.state,
        "state_reason": endpoint.state_reason,
        "state_changed_at": Moment().to_representation(endpoint.state_changed_at),
        "health": {
            "status": stands.kind.value.replace(" ", "_"),
            "words": stands.words,
            "failing_since": Moment().to_representation(stands.failing_since),
            "last_failure": stands.last_failure,
        },
        "created_at": Moment().to_representation(endpoint.created_at),
    }


def settings_of(endpoint: Endpoint) -> dict[str, Any]:
    """What people set: two clients that both change it must not undo each other's work, so this is what its ETag is made of."""
    return {
        "id": endpoint.public_id,
        "name": endpoint.name,
        "url": endpoint.url,
        "signature_scheme": endpoint.signature_scheme,
        "has_bearer_token": bool(endpoint.bearer_token),
        "header_names": endpoint.extra_header_names,
        "timeout_s": endpoint.timeout_s,
        "max_in_flight": endpoint.max_in_flight,
        "rate_limit_per_s": endpoint.rate_limit_per_s,
        "priority": Endpoint.Priority(endpoint.priority).label.lower(),
        "ordered": endpoint.ordered,
        "batch_size": endpoint.batch_size,
        "batch_wait_ms": endpoint.batch_wait_ms,
        "retry": {name: getattr(endpoint, field) for name, field in _RETRY.items()},
        "subscriptions": subscriptions.show_all(list(endpoint.subscriptions.all())),
    }


def show_all(found: Sequence[Endpoint]) -> list[dict[str, Any]]:
    return [show(endpoint) for endpoint in found]


def tried(outcome: verification.Outcome) -> dict[str, Any]:
    timings = outcome.timings
    return {
        "passed": outcome.passed,
        "words": outcome.words,
        "status": outcome.status,
        "error": outcome.error or None,
        "timings_ms": {name.removesuffix("_ms"): round(value, 3) for name, value in timings._asdict().items()} if timings else None,
        "answer": outcome.answer,
    }


# --- views ---------------------------------------------------------------------------------------------------------


class Endpoints(ApiView):
    max_body = 1024 * 1024

    def rows(self) -> "QuerySet[Endpoint]":
        with_source = Prefetch("subscriptions", Subscription.objects.select_related("source").order_by("-id"))
        return Endpoint.objects.for_tenant(self.tenant).present().select_related("health").prefetch_related(with_source)

    def mine(self, id: str) -> Endpoint:
        return one(self.rows(), id)

    def shown(self, endpoint: Endpoint, status: int = 200, **more: Any) -> Response:
        """As it is now, whatever was done to it."""
        fresh = self.rows().get(pk=endpoint.pk)
        return Response(show(fresh) | more, status, headers={"ETag": etag(settings_of(fresh))})


class EndpointList(Endpoints):
    scopes = {"GET": "endpoints:read", "POST": "endpoints:write"}
    query = {"GET": (*PARAMETERS, "state")}

    def get(self, request: Request) -> Response:
        rows = self.rows()
        if (state := request.query_params.get("state")) is not None:
            if state not in STATES:
                raise bad_query("state", f"use one of {', '.join(STATES)}.")
            rows = rows.filter(state=state)
        return page(request, rows, show_all)

    def post(self, request: Request) -> Response:
        wish = self.body(NewEndpoint)
        endpoint = Endpoint(tenant=self.tenant, state=verification.first_state())
        challenged = endpoint.state == State.UNVERIFIED
        wish.setdefault("name", (urlsplit(wish["url"]).hostname or "")[:100])
        check(put(wish, endpoint))
        wished = len(wish.get("subscriptions", ()))
        held = quotas.hold(self.tenant)
        quotas.check_endpoint(held)
        quotas.check_subscription(held, endpoint.pk, wished)
        endpoint.save()
        for number, each in enumerate(wish.get("subscriptions", ())):
            try:
                subscription = subscriptions.new(each, endpoint, self.tenant)
            except ValidationError as error:
                raise ValidationError({"subscriptions": {str(number): error.detail}}) from error
            subscription.full_clean()
            subscription.save()
        self.note("endpoint.create", endpoint.public_id, endpoint.url)
        once = {"secret": endpoint.secret}
        response = self.shown(endpoint, 201, **once, verification=None)
        if not challenged:
            return response
        return After(response.data, 201, lambda: self.shown(endpoint, 201, **once, verification=tried(verification.verify(endpoint))))


class EndpointDetail(Endpoints):
    scopes = {"GET": "endpoints:read", "PATCH": "endpoints:write", "DELETE": "endpoints:write"}
    # A new URL is challenged before it is taken over, and no transaction waits for that.
    atomic = False

    def get(self, request: Request, id: str) -> Response:
        return self.shown(self.mine(id))

    def patch(self, request: Request, id: str) -> Response:
        wish = self.body(EndpointBody, partial=True)
        endpoint = self.mine(id)
        check_match(request, settings_of(endpoint))
        if "url" in wish and wish["url"] != endpoint.url:
            self._check_new_url(wish, endpoint)
        with transaction.atomic():
            Endpoint.objects.select_for_update().filter(pk=endpoint.pk).first()
            endpoint = self.mine(id)
            check_match(request, settings_of(endpoint))
            check(put(wish, endpoint))
            endpoint.save(update_fields=_SETTINGS)
            self.note("endpoint.change", endpoint.public_id, ", ".join(sorted(wish)))
        return self.shown(endpoint)

    def delete(self, request: Request, id: str) -> Response:
        endpoint = self.mine(id)
        check_match(request, settings_of(endpoint))
        try:
            with transaction.atomic():
                self.note("endpoint.delete", endpoint.public_id, endpoint.url)
                done = endpoints.delete(endpoint, f"deleted by {self.bearer.actor}")
        except endpoints.NotDeletable as refusal:
            raise Problem(409, "not_deletable", str(refusal)) from refusal
        return Response({"id": endpoint.public_id, "cancelled": done.cancelled, "finished": done.finished})

    def _check_new_url(self, wish: Mapping[str, Any], endpoint: Endpoint) -> None:
        try:
            verification.check_move(endpoint, put(wish, self.mine(endpoint.public_id)))
        except verification.OperatorsUrl as refusal:
            raise Problem(409, "operators_url", str(refusal), [("/url", str(refusal))]) from refusal
        except verification.NotAsked as refusal:
            raise busy.problem(str(refusal), verification.RETRY_AFTER_S) from refusal
        except verification.NotAnswered as refusal:
            raise Problem(422, "not_verified", str(refusal), [("/url", str(refusal))]) from refusal
