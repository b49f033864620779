"""The two wires of a Jetstream: how to ask, and what comes back. Pure.

v1  /subscribe                                        the filter can change on a running connection
v2  /xrpc/network.bsky.jetstream.subscribeEvents      another filter needs another connection
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from urllib.parse import urlencode

from delivery.sources.incoming import Incoming
from delivery.sources.jetstream import frames, frames_v2
from delivery.sources.jetstream.frames_v2 import Info
from subscriptions.matching import Wanted
from subscriptions.validation import V2_PATH

# Filters longer than this do not go into a v1 URL: servers refuse long request lines. In characters.
_MAX_QUERY = 4000


@dataclass(frozen=True, slots=True)
class Asked:
    """What one connection asks for. `dictionary` is the id of the zstd dictionary to compress with."""

    wanted: Wanted
    cursor: int | None = None
    dictionary: int | None = None


class Wire(ABC):
    """How one host is spoken to."""

    name: str
    # Whether the filter of a running connection can be replaced.
    updates: bool

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def address(self, asked: Asked) -> tuple[str, bool]:
        """The URL to connect to, and whether the filter is still to be sent as the first message."""

    @abstractmethod
    def parse(self, frame: bytes) -> Incoming | Info:
        """Raises InvalidFrame, and HostError for a host's farewell."""


class V1(Wire):
    name = "v1"
    updates = True

    def address(self, asked: Asked) -> tuple[str, bool]:
        whole = self._query(asked, asked.wanted)
        if len(whole) <= _MAX_QUERY:
            return _joined(self.url, whole), False
        return _joined(self.url, f"{self._query(asked, Wanted())}&requireHello=true".lstrip("&")), True

    def parse(self, frame: bytes) -> Incoming | Info:
        return frames.parse(frame, self.url)

    @staticmethod
    def _query(asked: Asked, wanted: Wanted) -> str:
        fields = [("wantedCollections", each) for each in wanted.collections]
        fields += [("wantedDids", did) for did in wanted.dids]
        if asked.cursor is not None:
            fields.append(("cursor", str(asked.cursor)))
        if asked.dictionary is not None:
            fields.append(("compress", "true"))
        return urlencode(fields, safe="*:.")


class V2(Wire):
    name = "v2"
    updates = False

    def address(self, asked: Asked) -> tuple[str, bool]:
        fields = [("kinds", kind) for kind in asked.wanted.kinds]
        fields += [("collections", each) for each in asked.wanted.collections]
        fields += [("dids", did) for did in asked.wanted.dids]
        if asked.cursor is not None:
            fields.append(("cursor", str(asked.cursor)))
        if asked.dictionary is not None:
            fields.append(("zstdDictionary", str(asked.dictionary)))
        return _joined(self.url, urlencode(fields, safe="*:.")), False

    def parse(self, frame: bytes) -> Incoming | Info:
        return frames_v2.parse(frame, self.url)


def wire_of(url: str) -> Wire:
    """The wire that the path of this URL stands for."""
    return V2(url) if url.endswith(V2_PATH) else V1(url)


def _joined(url: str, query: str) -> str:
    return f"{url}?{query}" if query else url
