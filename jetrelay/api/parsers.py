"""Bodies: JSON, and strictly so."""

from typing import Any

from rest_framework.parsers import BaseParser

from delivery.sources import strict_json
from jetrelay.api.problems import Problem


class StrictJsonParser(BaseParser):
    """UTF-8 JSON of a bounded size. An empty body is an empty object."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        body = parser_context["request"]._request.body
        most = parser_context["view"].max_body
        if len(body) > most:
            raise Problem(413, "too_large", f"The body has {len(body):,} bytes: at most {most:,} are taken here.")
        if not body:
            return {}
        try:
            return self.read(body)
        except strict_json.InvalidJson as error:
            raise Problem(400, "invalid_json", str(error)) from error

    def read(self, body: bytes) -> Any:
        """Raises InvalidJson."""
        return strict_json.loads(body)
