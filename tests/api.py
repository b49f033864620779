"""The REST API as a client sees it: requests with a key, and answers that are read once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.http import HttpResponse
from django.test import Client

from subscriptions.keys import SCOPES
from subscriptions.models import ApiKey, Tenant
from tests.builders import make_api_key

ROOT = "/api/v1/"
NO_BODY = object()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content) if self.content else None

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def problem(self) -> tuple[int, str]:
        """The status and the code of an error; no code where there was none."""
        found = self.json
        return self.status, found.get("code", "") if isinstance(found, dict) else ""

    @property
    def pointers(self) -> list[str]:
        return [error["pointer"] for error in self.json["errors"]]

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.json["data"]]


class Api:
    """Whoever has this key; without one, anybody. What the key is, `key` says."""

    def __init__(self, text: str | None = None, key: ApiKey | None = None) -> None:
        self.text, self.key = text, key
        self._client = Client()

    def request(
        self, method: str, path: str, body: Any = NO_BODY, *, headers: Mapping[str, str] | None = None, content_type: str = "application/json"
    ) -> Answer:
        """`body` goes as JSON; bytes go as they are."""
        content = b"" if body is NO_BODY else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = dict(headers or {})
        if self.text is not None:
            given.setdefault("Authorization", f"Bearer {self.text}")
        return read(self._client.generic(method, ROOT + path, content, content_type=content_type if content else "", headers=given))

    def get(self, path: str, **kwargs: Any) -> Answer:
        return self.request("GET", path, **kwargs)

    def post(self, path: str, body: Any = NO_BODY, **kwargs: Any) -> Answer:
        return self.request("POST", path, body, **kwargs)

    def patch(self, path: str, body: Any = NO_BODY, **kwargs: Any) -> Answer:
        return self.request("PATCH", path, body, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> Answer:
        return self.request("DELETE", path, **kwargs)

    def pages(self, path: str) -> list[Answer]:
        """All pages of a list, one after the other."""
        pages = [self.get(path)]
        parts = urlsplit(path)
        query = {name: value for name, value in parse_qsl(parts.query) if name != "cursor"}
        while pages[-1].json["has_more"]:
            assert len(pages) < 1000, "this list does not end"
            pages.append(self.get(f"{parts.path}?{urlencode(query | {'cursor': pages[-1].json['next_cursor']})}"))
        return pages


def read(response: Any) -> Answer:
    assert isinstance(response, HttpResponse)
    return Answer(response.status_code, response.headers, response.content)


def api_of(tenant: Tenant | None = None, *, without: str = "", **over: Any) -> Api:
    """A client with a new key of this tenant, and all scopes but one."""
    scopes = over.pop("scopes", [scope for scope in SCOPES if scope != without])
    key, text = make_api_key(tenant=tenant, scopes=scopes, **over)
    return Api(text, key)
