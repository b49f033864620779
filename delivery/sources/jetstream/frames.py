"""Frames of the Jetstream v1 wire: bytes in, `Incoming` out. Pure.

Only what routing and deduplication need is decoded; the body is kept as it came. Unknown kinds and fields are kept,
not refused. Dedup keys hold across hosts and wires, so they never contain time_us, seq or cursor.
"""

import msgspec

from delivery.sources.incoming import Incoming, dedup_key
from subscriptions.validation import MAX_DID, MAX_NSID

# The largest frame seen is 12 KB; a record may hold up to 1 MB by the atproto data model. In bytes.
MAX_FRAME = 2 * 1024 * 1024


class InvalidFrame(Exception):
    """The frame cannot be an event; the message says why."""


class _Commit(msgspec.Struct, gc=False):
    rev: str
    operation: str
    collection: str
    rkey: str


class _Identity(msgspec.Struct, gc=False):
    time: str = ""
    handle: str | None = None


class _Account(msgspec.Struct, gc=False):
    time: str = ""
    active: bool | None = None
    status: str | None = None


class _Sync(msgspec.Struct, gc=False):
    rev: str = ""


class _Frame(msgspec.Struct, gc=False):
    did: str
    time_us: int
    kind: str
    cursor: int | None = None
    commit: _Commit | None = None
    identity: _Identity | None = None
    account: _Account | None = None
    sync: _Sync | None = None


_decode = msgspec.json.Decoder(_Frame).decode


def parse(body: bytes) -> Incoming:
    """The event in one text frame. Raises InvalidFrame; the caller counts it and goes on."""
    if len(body) > MAX_FRAME:
        raise InvalidFrame(f"{len(body):,} bytes, more than {MAX_FRAME:,}")
    try:
        # The decoder checks only the strings it keeps; receivers are promised UTF-8 all through.
        if not body.isascii():
            body.decode()
        frame = _decode(body)
        return _incoming(frame, body)
    except UnicodeError as error:
        raise InvalidFrame(f"not UTF-8: {error}") from error
    except RecursionError as error:
        raise InvalidFrame("nested too deeply") from error
    except msgspec.MsgspecError as error:
        raise InvalidFrame(str(error)) from error


def _incoming(frame: _Frame, body: bytes) -> Incoming:
    did, kind, operation, type = frame.did, frame.kind, "", frame.kind
    if frame.commit is not None and kind == "commit":
        commit = frame.commit
        type, operation = commit.collection, commit.operation
        parts = [did, commit.rev, type, commit.rkey, operation]
    elif frame.identity is not None and kind == "identity":
        parts = [did, frame.identity.time, _tell_apart(frame.identity.handle)]
    elif frame.account is not None and kind == "account":
        parts = [did, frame.account.time, str(frame.account.active), _tell_apart(frame.account.status)]
    elif frame.sync is not None and kind == "sync":
        parts = [did, frame.sync.rev]
    elif kind in ("commit", "identity", "account", "sync"):
        raise InvalidFrame(f"a frame of kind {kind} without its {kind}")
    else:
        # Something newer than this code: the whole body tells two events apart.
        parts = [did, body.decode()]
    _check(frame, type, operation)
    return Incoming(dedup_key([kind, *parts]), kind, type, operation, did, frame.time_us, frame.cursor, body)


def _tell_apart(value: str | None) -> str:
    return "" if value is None else f"={value}"


def _check(frame: _Frame, type: str, operation: str) -> None:
    """Bounds of what goes into columns. NUL is legal in JSON and in no PostgreSQL text."""
    if not frame.did or len(frame.did) > MAX_DID:
        raise InvalidFrame("did is empty or too long")
    if not 0 < len(frame.kind) <= 32 or len(operation) > 32 or not 0 < len(type) <= MAX_NSID:
        raise InvalidFrame("kind, operation or collection is empty or too long")
    if not (frame.did + frame.kind + type + operation).isprintable():
        raise InvalidFrame("did, kind, operation or collection has a character that is not printable")
    if not 0 <= frame.time_us < 2**63 or not (frame.cursor is None or 0 <= frame.cursor < 2**63):
        raise InvalidFrame("time_us or cursor is out of range")
