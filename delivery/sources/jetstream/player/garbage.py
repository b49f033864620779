"""Malformed frames, one sort after another. The last of them is legal: a kind and fields that nobody knows yet."""

from collections.abc import Callable
from typing import NamedTuple

from delivery.sources.jetstream.player.stretch import BINARY, TEXT, frame

LONG_BYTES = 3 * 1024 * 1024  # far above any event, and low enough to be read and dropped
DEPTH = 100_000

_CONTINUATION, _LAST_CONTINUATION = 0x00, 0x80
_NOT_WHOLE = 0x7F  # takes the bit that says that a frame is a message's last

_UNKNOWN = {
    1: b'{"did":"did:example:nobody","time_us":1,"kind":"omen","omen":{"sky":["red",null]},"weather":7}',
    2: b'{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#omen","did":"did:example:nobody",'
    b'"omen":{"sky":["red",null]},"time":"1970-01-01T00:00:00.000001Z","weather":7}}',
}
_WRONG_TYPES = {
    1: b'{"did":7,"time_us":"noon","kind":["commit"],"commit":"none"}',
    2: b'{"$type":"message","payload":{"$type":7,"did":[],"seq":"first","time":12}}',
}


class Sort(NamedTuple):
    name: str
    payload: Callable[[int], bytes]  # by wire
    parts: int = 1


SORTS = (
    Sort("bad JSON", lambda wire: b'{"did":"did:example:nobody","time_us":'),
    Sort("wrong types", lambda wire: _WRONG_TYPES[wire]),
    Sort("too deep", lambda wire: b'{"kind":' + b"[" * DEPTH + b"]" * DEPTH + b"}"),
    Sort("invalid UTF-8", lambda wire: b'{"did":"\xff\xfe\xc3"}'),
    Sort("a fragmented message", lambda wire: b'{"in":"three parts"}', parts=3),
    Sort("over-long", lambda wire: b'{"long":"' + b"x" * LONG_BYTES + b'"}'),
    Sort("unknown kind", lambda wire: _UNKNOWN[wire]),
)


def malformed(number: int, wire: int, compress: Callable[[bytes], bytes] | None) -> bytes:
    """The number-th malformed message of a connection, counted from 0, as frames ready for the socket."""
    sort = SORTS[number % len(SORTS)]
    payload, first = sort.payload(wire), TEXT
    if compress is not None:
        payload, first = compress(payload), BINARY
    if sort.parts == 1:
        return frame(payload, first)
    length = -(-len(payload) // sort.parts)
    pieces = [payload[start : start + length] for start in range(0, len(payload), length)]
    opcodes = [first & _NOT_WHOLE, *[_CONTINUATION] * (len(pieces) - 2), _LAST_CONTINUATION]
    return b"".join(frame(piece, opcode) for piece, opcode in zip(pieces, opcodes, strict=True))


def damaged(frame_of_zstd: bytes, number: int) -> bytes:
    """The same binary frame with contents that no zstd decoder takes: no magic number, or cut short, in turn."""
    size = frame_of_zstd[1]
    head = 2 if size < 126 else 4 if size == 126 else 10
    payload = frame_of_zstd[head:]
    broken = b"\0\0\0\0" + payload[4:] if number % 2 == 0 else payload[: len(payload) // 2]
    return frame(broken, BINARY)
