"""Frames of the Jetstream v2 wire: bytes in, `Incoming` with a v1 body out. Pure.

Subscribers must not notice which wire brought an event, so its body is composed here, once, into the line that the
same server sends on v1: the values keep their bytes, and only their order and the envelope change.
"""

from datetime import datetime

import msgspec
from msgspec import UNSET, Raw, UnsetType

from delivery.sources.incoming import Incoming, dedup_key, microseconds
from delivery.sources.jetstream import frames
from delivery.sources.jetstream.frames import InvalidFrame

PREFIX = "network.bsky.jetstream.subscribeEvents#"


class Info(msgspec.Struct, frozen=True):
    """What the host says about the stream: `OutdatedCursor` or `FutureCursor`. No event."""

    name: str
    message: str


class HostError(Exception):
    """The host's last word before it closes: `ConsumerTooSlow`, `InternalError`."""


class _Payload(msgspec.Struct, gc=False):
    type: str = msgspec.field(name="$type", default="")
    did: str = ""
    seq: int | None = None
    time: datetime | None = None
    rev: str = ""
    operation: str = ""
    collection: str = ""
    rkey: str = ""
    record: Raw | UnsetType = UNSET
    cid: Raw | UnsetType = UNSET
    identity: Raw | UnsetType = UNSET
    account: Raw | UnsetType = UNSET
    sync: Raw | UnsetType = UNSET
    name: str = ""
    message: str = ""


class _Frame(msgspec.Struct, gc=False):
    type: str = msgspec.field(name="$type")
    payload: _Payload | None = None
    error: str = ""
    message: str = ""


_decode = msgspec.json.Decoder(_Frame).decode
_decode_identity = msgspec.json.Decoder(frames.Identity).decode
_decode_account = msgspec.json.Decoder(frames.Account).decode
_decode_sync = msgspec.json.Decoder(frames.Sync).decode
_decode_values = msgspec.json.Decoder(dict[str, Raw]).decode


def parse(frame: bytes, origin: str = "") -> Incoming | Info:
    """The event in one text frame. Raises InvalidFrame, or HostError when the frame is the host's farewell."""
    try:
        frames.check_bytes(frame)
        whole = _decode(frame)
        if whole.type == "error":
            raise HostError(frames.one_line(": ".join(filter(None, (whole.error, whole.message)))) or "an error without a name")
        if whole.type != "message" or whole.payload is None:
            raise InvalidFrame(f"neither a message nor an error, but {whole.type[:80]!r}")
        payload = whole.payload
        if payload.type == PREFIX + "info":
            return Info(frames.one_line(payload.name), frames.one_line(payload.message))
        return _incoming(payload, frame, origin)
    except UnicodeError as error:
        raise InvalidFrame(f"not UTF-8: {error}") from error
    except RecursionError as error:
        raise InvalidFrame("nested too deeply") from error
    except msgspec.MsgspecError as error:
        raise InvalidFrame(str(error)) from error


def _incoming(payload: _Payload, frame: bytes, origin: str) -> Incoming:
    did, seq = payload.did, payload.seq
    if not payload.type.startswith(PREFIX):
        raise InvalidFrame(f"a payload of another lexicon: {payload.type[:80]!r}")
    if seq is None or payload.time is None or payload.time.tzinfo is None:
        raise InvalidFrame("a payload without seq or time")
    kind, operation, time_us = payload.type.removeprefix(PREFIX), "", microseconds(payload.time)
    type = kind
    if kind == "commit":
        type, operation = payload.collection, payload.operation
        if not (type and payload.rev and payload.rkey and operation):
            raise InvalidFrame("a commit without rev, operation, collection or rkey")
        inner = _commit(payload)
        key = frames.commit_key(did, payload.rev, type, payload.rkey, operation)
    elif kind == "identity" and payload.identity is not UNSET:
        inner = bytes(payload.identity)
        key = frames.identity_key(did, _decode_identity(inner))
    elif kind == "account" and payload.account is not UNSET:
        inner = bytes(payload.account)
        key = frames.account_key(did, _decode_account(inner))
    elif kind == "sync" and payload.sync is not UNSET:
        inner = bytes(payload.sync)
        key = frames.sync_key(did, _decode_sync(inner))
    elif kind in ("identity", "account", "sync"):
        raise InvalidFrame(f"a frame of kind {kind} without its {kind}")
    else:
        # Something newer than this code: what is special about it is kept whole, and tells two of them apart.
        inner = _rest(frame)
        key = dedup_key([kind, did, inner.decode()])
    frames.check(did, kind, type, operation, time_us, seq)
    body = b'{"did":%b,"time_us":%d,"cursor":%d,"kind":%b,%b:%b}' % (_quoted(did), time_us, seq, _quoted(kind), _quoted(kind), inner)
    return Incoming(key, kind, type, operation, did, time_us, seq, body, origin)


def _commit(payload: _Payload) -> bytes:
    record = b"" if payload.record is UNSET else b',"record":%b' % payload.record
    cid = b"" if payload.cid is UNSET else b',"cid":%b' % payload.cid
    names = _quoted(payload.rev), _quoted(payload.operation), _quoted(payload.collection), _quoted(payload.rkey)
    return b'{"rev":%b,"operation":%b,"collection":%b,"rkey":%b%b%b}' % (*names, record, cid)


def _rest(frame: bytes) -> bytes:
    values = _decode_values(_decode_values(frame)["payload"])
    return msgspec.json.encode({name: value for name, value in values.items() if name not in ("$type", "did", "seq", "time")})


def _quoted(text: str) -> bytes:
    return msgspec.json.encode(text)
