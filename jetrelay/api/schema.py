"""The OpenAPI document, made by drf-spectacular from the views, the serializers, `operations.py` and `shapes.py`.

`make schema` writes it to docs/openapi.yaml.

What a view says is taken from there and written nowhere else: scopes, names of query parameters, sizes, and the errors
that follow from them.
"""

from collections.abc import Iterator
from functools import cache
from http import HTTPMethod, HTTPStatus
from typing import Any, cast

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

from delivery.models import Delivery, Event, Replay
from jetrelay.api import idempotency, problems
from jetrelay.api.events import MAX_KEY
from jetrelay.api.examples import EXAMPLES
from jetrelay.api.fields import Checked
from jetrelay.api.operations import BODIES, OPERATIONS, QUERY, TAGS, Operation
from jetrelay.api.shapes import COMPONENTS, REQUEST_ID, Schema, public_id, ref
from jetrelay.api.subscriptions import Wish
from jetrelay.api.views import ApiView
from subscriptions import keys, validation
from subscriptions.models import ApiKey, Endpoint, Source, Subscription

JSON = "application/json"
PREFIX = "/api/v1/"

_IDS = {
    "sources": Source.prefix,
    "endpoints": Endpoint.prefix,
    "subscriptions": Subscription.prefix,
    "events": Event.prefix,
    "deliveries": Delivery.prefix,
    "replays": Replay.prefix,
    "keys": ApiKey.prefix,
}
_DESCRIPTION = f"""\
Events in, signed webhooks out.

Send a key with every request: `Authorization: Bearer jr_…`. `manage.py create_api_key` makes the first one. A key has scopes; each operation
says which one it takes.

- **Bodies and answers are JSON.** Unknown fields and unknown query parameters are errors. URLs have no slash at their end.
- **Errors** are `application/problem+json` (RFC 9457), with a `code` for programs and JSON pointers to what is wrong. A method that a URL does not have is
  answered 405, and `Allow` says which it has.
- **Lists** are newest first: send `next_cursor` as `cursor` for the next page.
- **A POST with an `{idempotency.HEADER}`** that comes again within 24 hours, with the same key, is answered as it was the first time, and done once.
- **An `ETag`** comes with what can be changed. Send it as `If-Match`, and a change of what somebody else has changed meanwhile is answered 412.
- **Limits** stand in `RateLimit-Policy` and `RateLimit`. Beyond them is 429, with `Retry-After`.
- **Quotas** of the tenant stand in `/quotas`. What would go beyond one is 409, or 429 where it is enough to wait, with the code `quota_exceeded`.
"""
_MEANINGS = {
    HTTPStatus.BAD_REQUEST: "The query, a header or the JSON cannot be read.",
    HTTPStatus.UNAUTHORIZED: "There is no key, or it opens nothing.",
    HTTPStatus.FORBIDDEN: "The key does not have the scope.",
    HTTPStatus.NOT_FOUND: "There is nothing with this id, or it is somebody else's.",
    HTTPStatus.CONFLICT: "A request with this Idempotency-Key is under way, or came with a key that this one replaced; or a quota is used up.",
    HTTPStatus.PRECONDITION_FAILED: "It has been changed since it had the ETag in If-Match.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not application/json, or has a Content-Encoding.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The body can be read and not be used, or the Idempotency-Key came with another request before.",
    HTTPStatus.TOO_MANY_REQUESTS: "The key, or its tenant, has made its requests for this moment; or a quota is used up that waiting refills.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The database does not answer. Nothing is lost: try again.",
}
# Raised before the key's requests are counted, or perhaps so.
_UNCOUNTED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)

_HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        "description": "The id of this request: the one that it came with under this name, if that is an id, else a new one.",
        "schema": REQUEST_ID,
    },
    "RateLimit-Policy": {
        "description": "How many requests (q) the key may make in how many seconds (w); in a 429 that names the tenant, all of its keys together.",
        "schema": {"type": "string", "pattern": r'^"(key|tenant)";q=[0-9]+;w=[0-9]+$'},
    },
    "RateLimit": {
        "description": "How many of them are left (r), and for how many seconds (t) that holds.",
        "schema": {"type": "string", "pattern": r'^"(key|tenant)";r=[0-9]+;t=[0-9]+$'},
    },
    "Retry-After": {"description": "In how many seconds to try again.", "schema": {"type": "integer", "minimum": 0}},
    "ETag": {"description": "The version that this is.", "schema": {"type": "string", "pattern": '^"[0-9a-f]{32}"$'}},
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string", "pattern": "^Bearer"}},
    "Idempotent-Replayed": {"description": "true: this is the answer to an earlier request with the same key.", "schema": {"type": "string", "enum": ["true"]}},
}


class OperationSchema(AutoSchema):
    """One method of one view."""

    @property
    def described(self) -> ApiView:
        return cast(ApiView, self.view)

    def get_operation(self, path: str, path_regex: str, path_prefix: str, method: str, registry: Any) -> dict[str, Any] | None:
        view = type(self.described)
        if not view.scopes:
            # It only says that there is nothing.
            return None
        self.registry, self.method, self.path = registry, method, path
        operation = OPERATIONS[view, HTTPMethod(method)]
        resource = _resource(path)
        scope = view.scopes[method]
        description = [operation.words, f"Takes the scope `{scope}`: {keys.SCOPES[scope]}."]
        found: dict[str, Any] = {
            "operationId": operation.name,
            "summary": operation.summary,
            "description": " ".join(filter(None, description)),
            "tags": ["deliveries" if resource == "dead-letters" else resource],
            "parameters": list(self._parameters(operation)),
            "security": [{"key": []}],
            "responses": dict(self._responses(operation)),
        }
        if operation.body is not None:
            found["requestBody"] = self._request_body(operation)
        return found

    def _parameters(self, operation: Operation) -> Iterator[Schema]:
        if "{id}" in self.path:
            yield {"name": "id", "in": "path", "required": True, "schema": public_id(_IDS[_resource(self.path)])}
        for name in self.described.query.get(self.method, ()):
            schema = dict(operation.query.get(name) or QUERY[name])
            description = schema.pop("description", "")
            yield {"name": name, "in": "query", "required": name in operation.required, "schema": schema} | (
                {"description": description} if description else {}
            )
        if self.method == HTTPMethod.POST:
            yield _idempotency_key(own=self._has_own_idempotency)
        if operation.matched:
            text = "The ETag that it had when it was read. Something else since: 412."
            yield {"name": "If-Match", "in": "header", "description": text, "schema": {"type": "string"}}

    @property
    def _has_own_idempotency(self) -> bool:
        return getattr(self.described, "has_own_idempotency", False)

    def _request_body(self, operation: Operation) -> Schema:
        if isinstance(operation.body, str):
            schema, required = ref(operation.body), True
        else:
            assert operation.body is not None
            component = self.resolve_serializer(operation.body(partial=self.method == HTTPMethod.PATCH), "request")
            # An empty body is an empty object.
            schema, required = component.ref, bool(component.schema.get("required"))
        content: Schema = {"schema": schema}
        if example := EXAMPLES.get(operation.name):
            content["examples"] = {"request": {"value": example.request}}
        return {"content": {JSON: content}, "required": required, "description": f"At most {self.described.max_body:,} bytes."}

    def _responses(self, operation: Operation) -> Iterator[tuple[str, Schema]]:
        for status, component in operation.answers.items():
            headers = _headers("X-Request-Id", "RateLimit-Policy", "RateLimit", *(["ETag"] if operation.tagged else []))
            if self.method == HTTPMethod.POST and not self._has_own_idempotency:
                headers |= _headers("Idempotent-Replayed", required=False)
                # What is kept of an answer is its body.
                headers |= _headers("ETag", required=False) if operation.tagged else {}
            response: Schema = {"description": HTTPStatus(status).phrase, "headers": headers}
            if component is not None:
                content: Schema = {"schema": ref(component) if component else {}}
                if (example := EXAMPLES.get(operation.name)) and example.answer is not None and status == min(operation.answers):
                    content["examples"] = {"answer": {"value": example.answer}}
                response["content"] = {JSON: content}
            yield str(status), response
        usual = set(self._errors(operation))
        for error in sorted(usual | operation.errors.keys()):
            own = operation.errors.get(error)
            if own is None:
                yield str(error.value), {"$ref": f"#/components/responses/{_named(error)}"}
            else:
                yield str(error.value), _error(error, f"{own} Or: {_MEANINGS[error]}" if error in usual else own)

    def _errors(self, operation: Operation) -> Iterator[HTTPStatus]:
        """Those that follow from what the operation takes."""
        yield from (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        named = self.described.query.get(self.method, ())
        if "{id}" in self.path or "source" in named:
            yield HTTPStatus.NOT_FOUND
        if self.method == HTTPMethod.POST and not self._has_own_idempotency:
            yield HTTPStatus.CONFLICT
        if operation.body is not None:
            yield from (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)
        if operation.matched:
            yield HTTPStatus.PRECONDITION_FAILED


def _resource(path: str) -> str:
    return path.removeprefix(PREFIX).partition("/")[0]


def _idempotency_key(*, own: bool) -> Schema:
    if own:
        schema: Schema = {"type": "string", "pattern": f"^[!-~]{{1,{MAX_KEY}}}$"}
        text = "Stands for the ids of events that have none: one that comes again with it is stored once."
    else:
        schema = {"type": "string", "pattern": f"^[!-~]([ -~]{{0,{idempotency.MAX_KEY - 2}}}[!-~])?$"}
        text = "Makes a request that comes again within 24 hours be done once."
    return {"name": idempotency.HEADER, "in": "header", "description": text, "schema": schema}


def _headers(*names: str, required: bool = True) -> dict[str, Schema]:
    """Those that always come, or those that may come."""
    return {name: {"$ref": f"#/components/headers/{name}"} if required else _HEADERS[name] for name in names}


def _named(status: HTTPStatus) -> str:
    # Not by its phrase, which is another one in Python 3.13.
    return f"Problem{status.value}"


def _error(status: HTTPStatus, description: str) -> Schema:
    headers = _headers("X-Request-Id") | _headers("RateLimit-Policy", "RateLimit", required=status not in _UNCOUNTED)
    if status == HTTPStatus.UNAUTHORIZED:
        headers = _headers("X-Request-Id", "WWW-Authenticate")
    elif status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers |= _headers("Retry-After")
    elif status == HTTPStatus.CONFLICT:
        headers |= _headers("Retry-After", required=False)
    return {"description": description, "headers": headers, "content": {problems.MEDIA_TYPE: {"schema": ref("Problem")}}}


# --- what serializers take ------------------------------------------------------------------------------------------

# `fields.Text` takes no control characters, and no spaces at its ends.
TEXT_PATTERN = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"
_QUARTET = "[A-Za-z0-9+/]"
# The base64 of 24 to 64 bytes.
_SECRET_PATTERN = rf"^whsec_(({_QUARTET}{{4}}){{8,20}}({_QUARTET}{{4}}|{_QUARTET}{{3}}=|{_QUARTET}{{2}}==)?|({_QUARTET}{{4}}){{21}}({_QUARTET}{{2}}==)?)$"
# By what checks the field: as exact as a pattern can say it.
_CHECKED: dict[Any, Schema] = {
    validation.clean_webhook_url: {"format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"},
    validation.clean_bearer_token: {"pattern": "^[!-~]+$"},
    validation.clean_secret: {"pattern": _SECRET_PATTERN},
    validation.clean_did: {"pattern": "^did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]$"},
}


class TextSchema(OpenApiSerializerFieldExtension):
    target_class = "jetrelay.api.fields.Text"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> Schema:
        exact = _CHECKED[self.target.clean] if isinstance(self.target, Checked) else {"pattern": self.target.pattern or TEXT_PATTERN}
        return {"type": "string"} | exact


class PublicIdSchema(OpenApiSerializerFieldExtension):
    target_class = "jetrelay.api.fields.PublicId"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> Schema:
        return public_id(self.target.prefix)


class HeadersSchema(OpenApiSerializerFieldExtension):
    """The one dictionary that the API takes."""

    target_class = "jetrelay.api.fields.Named"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> Schema:
        values: Schema = {"type": "string", "pattern": "^[!-~]([ -~]*[!-~])?$", "maxLength": 4096}
        names: Schema = {"pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$"}
        return {"type": "object", "propertyNames": names, "additionalProperties": values, "maxProperties": validation.MAX_HEADERS}


class StrictSchema(OpenApiSerializerExtension):
    target_class = "jetrelay.api.fields.Strict"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> Schema:
        schema: Schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True) | {"additionalProperties": False}
        # Not what it inherits from Strict.
        schema.pop("description", None)
        if own := type(self.target).__dict__.get("__doc__"):
            schema["description"] = own
        if isinstance(self.target, Wish):
            schema["not"] = {"required": ["collections", "types"]}
        return schema


def finish(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """drf-spectacular's last hook: what belongs to no operation."""
    components = result["components"]
    for schema in components["schemas"].values():
        _drop(schema, "x-spec-enum-id")
    components["schemas"] = dict(sorted((components["schemas"] | BODIES | COMPONENTS).items()))
    components["headers"] = {name: header | {"required": True} for name, header in _HEADERS.items()}
    components["responses"] = {_named(status): _error(status, meaning) for status, meaning in _MEANINGS.items()}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "jr_…"}}
    result["info"]["description"] = _DESCRIPTION
    result["tags"] = [{"name": name, "description": description} for name, description in TAGS.items()]
    return result


def _drop(value: Any, name: str) -> None:
    """Take this name out of all objects in the value."""
    if isinstance(value, dict):
        value.pop(name, None)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _drop(inner, name)


@cache
def document() -> dict[str, Any]:
    """The whole document. It depends on the code alone, so each process makes it once."""
    found: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    return found
