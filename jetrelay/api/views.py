"""What every view of the API does, in this order: key, scope, rate, method, query, body, deed, headers.

A method that changes something runs in one transaction, with the audit entry and the answer that is kept for its
`Idempotency-Key`. What has to happen after the commit, such as asking a receiver, is the response's `afterwards`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPMethod
from typing import Any, ClassVar, TypeVar, cast
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from rest_framework.authentication import BaseAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jetrelay.api import idempotency, limits
from jetrelay.api.authentication import HasScope, KeyAuthentication
from jetrelay.api.fields import Strict, id_of
from jetrelay.api.parsers import StrictJsonParser
from jetrelay.api.problems import Problem, invalid, not_found
from subscriptions import quotas
from subscriptions.ids import PublicModel
from subscriptions.keys import Bearer
from subscriptions.models import AuditEntry, Tenant

_SAFE = (HTTPMethod.GET, HTTPMethod.HEAD, HTTPMethod.OPTIONS)
IN_CHUNKS = "Send the body with a Content-Length: in chunks it cannot be read here."
M = TypeVar("M", bound=PublicModel)


class Json(BaseContentNegotiation):
    """Every answer is JSON: whatever a client says it accepts, it then has words and not an empty 406."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        given = (request.content_type or "").partition(";")[0].strip().lower()
        # A request without a body says nothing of its type.
        return parsers[0] if given == parsers[0].media_type or not request._request.body else None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class After(Response):
    """A response that something is still to be done for, once it is committed: `afterwards` gives the final one."""

    def __init__(self, data: Any, status: int, afterwards: Callable[[], Response]) -> None:
        super().__init__(data, status)
        self.afterwards = afterwards


def _check_encoding(request: Request) -> None:
    """Say of a body that is compressed that it is, and not that it is bad JSON. Unpacked, it could have any size."""
    for coding in request.META.get("HTTP_CONTENT_ENCODING", "").split(","):
        if (name := coding.strip()) and name.lower() != "identity" and request._request.body:
            words = f"The body comes with Content-Encoding: {name[:60]}, which is not unpacked here: send it as it is, without that header."
            raise Problem(415, "unsupported_content_encoding", words)


class ApiView(APIView):
    authentication_classes: Sequence[type[BaseAuthentication]] = (KeyAuthentication,)
    permission_classes: Sequence[type[BasePermission]] = (HasScope,)
    parser_classes = (StrictJsonParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = Json
    throttle_classes = ()
    # By method: the scope that it takes, and the query parameters that it knows.
    scopes: ClassVar[Mapping[str, str]] = {}
    query: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    max_body: ClassVar[int] = 256 * 1024
    # Whether a method that changes something is one transaction. Not for those that ask other hosts.
    atomic: ClassVar[bool] = True
    # Whether what changes something here is written down in the audit log.
    noted: ClassVar[bool] = True

    quota: limits.Quota | None = None

    # --- a request from end to end -------------------------------------------------------------------------------

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """As APIView has it, with `_carry_out` in place of the bare call of the handler."""
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        try:
            self.initial(self.request, *args, **kwargs)
            response = self._carry_out(self.request, getattr(self, (request.method or "").lower()))
        except Exception as error:  # noqa: BLE001 - the exception handler has an answer to everything
            response = self.handle_exception(error)
        self.response = self.finalize_response(self.request, response, *args, **kwargs)
        return self.response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if self.authentication_classes:
            self.quota = limits.take(self.bearer)
            if self.quota.remaining < 0:
                who = "All keys of this tenant together" if self.quota.tenants else "This key"
                detail = f"{who} may make {self.quota.limit:,} requests in {limits.WINDOW_S} s: try again in {self.quota.reset_s} s."
                raise Problem(429, "too_many_requests", detail, headers={"Retry-After": str(self.quota.reset_s)})
        # Before the query, which belongs to a method.
        if request.method not in self.allowed_methods:
            self.http_method_not_allowed(request)
        self._check_query(request)
        if request.META.get("HTTP_TRANSFER_ENCODING") and not request.META.get("CONTENT_LENGTH"):
            # WSGI has no end for it, and what cannot be read must not pass for nothing.
            raise Problem(411, "length_required", IN_CHUNKS)
        length = request.META.get("CONTENT_LENGTH") or ""
        if length.isdecimal() and len(length) < 19 and len(request._request.body) != int(length):
            # Else a request that was cut off would be done without what it says: all replayed, or an old secret left valid.
            raise Problem(400, "incomplete_body", f"The body was cut off: {length} bytes were promised, and {len(request._request.body):,} came.")
        _check_encoding(request)

    def _check_query(self, request: Request) -> None:
        known = self.query.get(request.method or "", ())
        for name in request.query_params:
            if name not in known:
                advice = f"use {', '.join(known)}" if known else "this takes none"
                raise Problem(400, "unknown_query", f"Unknown query parameter {name[:60]!r}: {advice}.")
            if len(request.query_params.getlist(name)) > 1:
                raise Problem(400, "invalid_query", f"Query parameter {name}: write it once.")
            if "\0" in request.query_params[name]:
                raise Problem(400, "invalid_query", f"Query parameter {name}: leave out NUL.")

    def _carry_out(self, request: Request, handler: Any) -> Response:
        if request.method in _SAFE:
            return cast(Response, handler(request, *self.args, **self.kwargs))
        # What ends something is always possible: how much of that there is, is bounded by what was made.
        if self.noted and request.method != HTTPMethod.DELETE:
            quotas.check_audit(self.bearer.tenant_id, self.bearer.quotas)
        key = idempotency.key_of(request) if request.method == HTTPMethod.POST and not getattr(self, "has_own_idempotency", False) else None
        if key is None:
            return self._do(handler, _keep_nothing)
        return idempotency.once(request, self.bearer, key, lambda keep: self._do(handler, keep))

    def _do(self, handler: Any, keep: idempotency.Keep) -> Response:
        if not self.atomic:
            response: Response = handler(self.request, *self.args, **self.kwargs)
            keep(response)
            return response
        with transaction.atomic():
            response = handler(self.request, *self.args, **self.kwargs)
            keep(response)
        if isinstance(response, After):
            response = response.afterwards()
            keep(response)
        return response

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["X-Request-Id"] = getattr(getattr(request, "_request", request), "request_id", "")
        response["Cache-Control"] = "no-store"
        if self.quota:
            for name, value in limits.headers(self.quota):
                response[name] = value
        if isinstance(response, Response):
            response.add_post_render_callback(lambda rendered: _let_go(self, rendered))
        return response

    def options(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return Response(status=204, headers={"Allow": ", ".join(self.allowed_methods)})

    @property
    def allowed_methods(self) -> list[str]:
        """Those that can be had here, for every `Allow` alike: Django would add HEAD."""
        return [method for method in super().allowed_methods if method in self.scopes or method == HTTPMethod.OPTIONS]

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        allowed = ", ".join(self.allowed_methods)
        raise Problem(405, "method_not_allowed", f"{request.method} is not possible here: use {allowed}.", headers={"Allow": allowed})

    # --- what views are made of ----------------------------------------------------------------------------------

    @property
    def bearer(self) -> Bearer:
        """Whoever holds the key of this request."""
        return cast(Bearer, self.request.auth)

    @cached_property
    def tenant(self) -> Tenant:
        """Whose key it is. A row that was not read: its id is all that queries need."""
        return Tenant(pk=self.bearer.tenant_id)

    def body(self, form: type[Strict], **kwargs: Any) -> Any:
        """What the request says, checked."""
        data = self.request.data
        if data is None:
            raise invalid(("", "Write a JSON object."))
        serializer = form(data=data, context={"tenant": self.tenant}, **kwargs)
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data

    def note(self, action: str, target: str = "", detail: str = "") -> None:
        """Write down who did what, in the transaction of the deed."""
        address = self.request.META.get("REMOTE_ADDR") or None
        AuditEntry.note(self.bearer.tenant_id, self.bearer.actor, action, target, detail, address)


def one(rows: "QuerySet[M]", text: str) -> M:
    """The row with this public id. Rows of others are not there."""
    id: UUID | None = id_of(rows.model.prefix, text)
    found = rows.filter(pk=id).first() if id else None
    if found is None:
        name = rows.model._meta.verbose_name
        raise not_found(f"There is no {name} {text[:60]!r}.")
    return found


def etag(shown: Mapping[str, Any]) -> str:
    return f'"{hashlib.sha256(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()[:32]}"'


def check_match(request: Request, shown: Mapping[str, Any]) -> None:
    """Raise Problem if the client changes another version than the one that is there (RFC 9110, 13.1.1)."""
    wanted = request.headers.get("If-Match")
    if wanted is not None and wanted.strip() != "*" and etag(shown) not in [each.strip() for each in wanted.split(",")]:
        raise Problem(412, "changed_meanwhile", "It has been changed since you read it: read it again, and then change it.")


def _keep_nothing(_response: Response) -> None:
    pass


def _let_go(view: ApiView, response: Response) -> None:
    """Undo the rings in which DRF's request, view and response hold each other, and with them the body: it would stay in memory until
    the next garbage collection, which is a rare thing here."""
    response.renderer_context = {}  # type: ignore[attr-defined] # set by DRF
    request = view.request
    if isinstance(request, Request):
        request.parser_context = {}
    del view.request, view.response


class NotThere(ApiView):
    """Whatever is not in `urls.py`."""

    authentication_classes = ()
    permission_classes = ()

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        hint = " URLs have no slash at their end." if request.path.endswith("/") else ""
        raise not_found(f"There is nothing at {request.path[:200]}.{hint} /api/docs/ lists what there is.")

    options = http_method_not_allowed
