"""A run of consecutive events, each already a WebSocket frame, beside the facts that filters ask about.

Frames are made once and sent many times; sending a run that is wanted whole is one join of bytes.
"""

from bisect import bisect_right
from struct import pack
from typing import NamedTuple

import msgspec

from delivery.sources.jetstream.player.options import Filter

LENGTH = 1_000  # events in a full stretch: about 600 KB, and a few ms to make one afresh


class Facts(NamedTuple):
    """What filters and cursors ask about one line. None passes every filter of its kind."""

    collection: str | None = None
    did: str | None = None
    time_us: int | None = None


class _Commit(msgspec.Struct):
    collection: str | None = None


class _Head(msgspec.Struct):
    did: str | None = None
    time_us: int | None = None
    kind: str | None = None
    commit: _Commit | None = None


_decode = msgspec.json.Decoder(_Head).decode


def facts_of(line: bytes) -> Facts:
    """The facts of a line. Only a commit has a collection; a line that is no event at all has no facts,
    so that garbage put into a file to try a client's nerves reaches filtered clients too."""
    try:
        head = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Facts()
    collection = head.commit.collection if head.kind == "commit" and head.commit else None
    return Facts(collection, head.did, head.time_us)


def text_frame(payload: bytes) -> bytes:
    """The payload as one unfragmented, unmasked, uncompressed text frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return pack("!BB", 0x81, size) + payload
    if size < 65_536:
        return pack("!BBH", 0x81, 126, size) + payload
    return pack("!BBQ", 0x81, 127, size) + payload


class Stretch:
    """Up to LENGTH events in order; events are only ever added at the end."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._sizes: list[int] = []  # of the payloads
        self._ends: list[int] = []  # bytes of all frames up to and including this one
        self._collections: list[str | None] = []
        self._dids: list[str | None] = []

    def __len__(self) -> int:
        return len(self._frames)

    def append(self, line: bytes, facts: Facts) -> None:
        frame = text_frame(line)
        self._frames.append(frame)
        self._sizes.append(len(line))
        self._ends.append((self._ends[-1] if self._ends else 0) + len(frame))
        self._collections.append(facts.collection)
        self._dids.append(facts.did)

    def lines(self) -> list[bytes]:
        return [frame[-size:] for frame, size in zip(self._frames, self._sizes, strict=True)]

    def chunk_end(self, first: int, max_bytes: int) -> int:
        """The index after the last event that fits into max_bytes together with the one at `first`; at least that one does."""
        before = self._ends[first - 1] if first else 0
        return max(first + 1, bisect_right(self._ends, before + max_bytes))

    def frames(self, first: int, last: int, wanted: Filter) -> bytes:
        """The frames from `first` to before `last` that the filter wants, ready for the socket."""
        frames = self._frames[first:last]
        if wanted.wants_everything:
            return b"".join(frames)
        if wanted.collections:
            verdicts = wanted.wants_collection
            keep = [verdicts[collection] for collection in self._collections[first:last]]
        else:
            keep = [True] * len(frames)
        if wanted.dids:
            dids = wanted.wants_did
            keep = [kept and did in dids for kept, did in zip(keep, self._dids[first:last], strict=True)]
        if wanted.max_bytes:
            keep = [kept and size <= wanted.max_bytes for kept, size in zip(keep, self._sizes[first:last], strict=True)]
        return b"".join([frame for frame, kept in zip(frames, keep, strict=True) if kept])
