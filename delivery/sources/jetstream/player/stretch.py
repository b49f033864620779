"""A run of consecutive events, each already a WebSocket frame, beside the facts that filters ask about.

Frames are made once and sent many times; sending a run that is wanted whole is one join of bytes.
"""

from bisect import bisect_right
from struct import pack
from sys import intern
from typing import Any, NamedTuple

import msgspec

from delivery.sources.jetstream.player.options import Filter
from delivery.sources.jetstream.player.wires import NAMESPACE, NOT_AN_EVENT, unix_us

LENGTH = 1_000  # events in a full stretch: about 600 KB, and a few ms to make one afresh

TEXT, BINARY = 0x81, 0x82  # the first byte of a whole message (RFC 6455, 5.2)


class Facts(NamedTuple):
    """What filters and cursors ask about one line. None passes every filter of its kind."""

    collection: str | None = None
    did: str | None = None
    time_us: int | None = None
    kind: str | None = None
    seq: int | None = None
    is_v2: bool = False


class _Commit(msgspec.Struct):
    collection: str | None = None


class _Head(msgspec.Struct):
    did: str | None = None
    time_us: int | None = None
    kind: str | None = None
    commit: _Commit | None = None
    cursor: Any = None
    type: Any = msgspec.field(name="$type", default=None)


class _Payload(msgspec.Struct):
    type: str = msgspec.field(name="$type")
    collection: str | None = None
    did: str | None = None
    time: str | None = None
    seq: Any = None


class _Frame(msgspec.Struct):
    payload: _Payload | None = None


_decode = msgspec.json.Decoder(_Head).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode


def facts_of(line: bytes) -> Facts:
    """The facts of a line of either wire. Only a commit has a collection; a line that is no event at all has no facts,
    so that garbage put into a file to try a client's nerves reaches filtered clients too."""
    try:
        head = _decode(line)
        if head.type is not None:
            return _facts_of_frame(_decode_frame(line).payload)
    except NOT_AN_EVENT:
        return Facts()
    collection = head.commit.collection if head.kind == "commit" and head.commit else None
    # One object for each name, however many events bear it: a long file fits into memory.
    return Facts(collection and intern(collection), head.did and intern(head.did), head.time_us, head.kind and intern(head.kind), _integer(head.cursor))


def _facts_of_frame(payload: _Payload | None) -> Facts:
    if payload is None:
        return Facts(is_v2=True)
    namespace, _, kind = payload.type.partition("#")
    if namespace != NAMESPACE or payload.did is None:
        return Facts(is_v2=True)
    time_us = None if payload.time is None else unix_us(payload.time)
    collection = payload.collection if kind == "commit" else None
    return Facts(collection and intern(collection), intern(payload.did), time_us, intern(kind), _integer(payload.seq), is_v2=True)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def frame(payload: bytes, first: int = TEXT) -> bytes:
    """The payload as one unmasked frame (RFC 6455, 5.2) that begins with this byte: a whole text message unless told otherwise."""
    size = len(payload)
    if size < 126:
        return pack("!BB", first, size) + payload
    if size < 65_536:
        return pack("!BBH", first, 126, size) + payload
    return pack("!BBQ", first, 127, size) + payload


class Stretch:
    """Up to LENGTH events in order; events are only ever added at the end. `is_v1` as long as no line came from a v2 wire."""

    def __init__(self) -> None:
        self.is_v1 = True
        self._frames: list[bytes] = []
        self._sizes: list[int] = []  # of the events as text
        self._ends: list[int] = []  # bytes of all frames up to and including this one
        self._collections: list[str | None] = []
        self._dids: list[str | None] = []
        self._kinds: list[str | None] = []

    def __len__(self) -> int:
        # The list that grows last: another thread may be in the middle of adding an event.
        return len(self._kinds)

    def append(self, line: bytes, facts: Facts) -> None:
        self.append_frame(frame(line), len(line), facts)

    def append_frame(self, frame: bytes, size: int, facts: Facts) -> None:
        """A frame made elsewhere, for an event of so many bytes as text. Empty: the event does not exist on this wire."""
        self.is_v1 = self.is_v1 and not facts.is_v2
        self._frames.append(frame)
        self._sizes.append(size)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(frame))
        self._collections.append(facts.collection)
        self._dids.append(facts.did)
        self._kinds.append(facts.kind)

    def line(self, index: int) -> bytes:
        """The text of an event whose frame is a text frame."""
        size = self._sizes[index]
        return self._frames[index][-size:] if size else b""

    def lines(self) -> list[bytes]:
        return [self.line(index) for index in range(len(self))]

    def facts(self, index: int) -> Facts:
        """What filters ask; times and numbers are not kept."""
        return Facts(self._collections[index], self._dids[index], kind=self._kinds[index])

    def size(self, index: int) -> int:
        return self._sizes[index]

    def chunk_end(self, first: int, max_bytes: int) -> int:
        """The index after the last event that fits into max_bytes together with the one at `first`; at least that one does."""
        before = self._ends[first - 1] if first else 0
        return max(first + 1, bisect_right(self._ends, before + max_bytes))

    def frames(self, first: int, last: int, wanted: Filter, without: str | None = None) -> bytes:
        """The frames from `first` to before `last` that the filter wants, ready for the socket; none of the collection `without`."""
        if wanted.wants_everything and without is None:
            return b"".join(self._frames[first:last])
        return b"".join([frame for _, frame in self.chosen(first, last, wanted, without)])

    def chosen(self, first: int, last: int, wanted: Filter, without: str | None = None) -> list[tuple[int, bytes]]:
        """The same one by one, each with its index."""
        frames = self._frames[first:last]
        keep = [bool(frame) for frame in frames]
        if wanted.collections:
            verdicts = wanted.wants_collection
            keep = [kept and verdicts[collection] for kept, collection in zip(keep, self._collections[first:last], strict=True)]
        if without is not None:
            keep = [kept and collection != without for kept, collection in zip(keep, self._collections[first:last], strict=True)]
        if wanted.kinds:
            kinds = wanted.wants_kind
            keep = [kept and kind in kinds for kept, kind in zip(keep, self._kinds[first:last], strict=True)]
        if wanted.dids:
            dids = wanted.wants_did
            keep = [kept and did in dids for kept, did in zip(keep, self._dids[first:last], strict=True)]
        if wanted.max_bytes:
            keep = [kept and size <= wanted.max_bytes for kept, size in zip(keep, self._sizes[first:last], strict=True)]
        return [(index, frame) for index, (frame, kept) in enumerate(zip(frames, keep, strict=True), first) if kept]
