"""What the installation's own handler writes, in either form."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jetrelay.logs.rendering import Formatter
from jetrelay.logs.stream import Handler

FORMS = ("json", "console")


class Said:
    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Each line, which has to be an object."""
        found = [json.loads(line) for line in self.text.split("\n") if line]
        assert all(isinstance(each, dict) for each in found)
        return found


@contextmanager
def logged(form: str) -> Iterator[Said]:
    """Everything that is logged meanwhile, from INFO on, as it would stand in the log."""
    said, handler, root = Said(io.StringIO()), Handler(), logging.getLogger()
    handler.setStream(said._stream)
    handler.setFormatter(Formatter(form))
    level, handlers = root.level, root.handlers
    # Alone: that of pytest objects to what a log has to survive.
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    try:
        yield said
    finally:
        root.handlers = handlers
        root.setLevel(level)
