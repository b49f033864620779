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


def one_line(text: str, most: int = 200) -> str:
    """What a host says, fit for a log and a page: cut, and without what could pass for another line."""
    cut = text if len(text) <= most else text[:most] + "…"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in cut)


class Identity(msgspec.Struct, gc=False):
    time: str = ""
    handle: str | None = None


class Account(msgspec.Struct, gc=False):
    time: str = ""
    active: bool | None = None
    status: str | None = None


class Sync(msgspec.Struct, gc=False):
    rev: str = ""


class _Commit(msgspec.Struct, gc=False):
    rev: str
    operation: str
    collection: str
    rkey: str


class _Frame(msgspec.Struct, gc=False):
    did: str
    time_us: int
    kind: str
    cursor: int | None = None
    commit: _Commit | None = None
    identity: Identity | None = None
    account: Account | None = None
    sync: Sync | None = None


_decode = msgspec.json.Decoder(_Frame).decode


def parse(body: bytes, origin: str = "") -> Incoming:
    """The event in one text frame. Raises InvalidFrame; the caller counts it and goes on."""
    try:
        check_bytes(body)
        frame = _decode(body)
        return _incoming(frame, body, origin)
    except UnicodeError as error:
        raise InvalidFrame(f"not UTF-8: {error}") from error
    except RecursionError as error:
        raise InvalidFrame("nested too deeply") from error
    except msgspec.MsgspecError as error:
        raise InvalidFrame(str(error)) from error


def check_bytes(body: bytes) -> None:
    """Raises InvalidFrame when there are too many, UnicodeError when they are no UTF-8.

    The decoder checks only the strings it keeps; receivers are promised UTF-8 all through.
    """
    if len(body) > MAX_FRAME:
        raise InvalidFrame(f"more than {MAX_FRAME:,} bytes")
    if not body.isascii():
        body.decode()


def _incoming(frame: _Frame, body: bytes, origin: str) -> Incoming:
    did, kind, operation, type = frame.did, frame.kind, "", frame.kind
    if frame.commit is not None and kind == "commit":
        commit = frame.commit
        type, operation = commit.collection, commit.operation
        key = commit_key(did, commit.rev, type, commit.rkey, operation)
    elif frame.identity is not None and kind == "identity":
        key = identity_key(did, frame.identity)
    elif frame.account is not None and kind == "account":
        key = account_key(did, frame.account)
    elif frame.sync is not None and kind == "sync":
        key = sync_key(did, frame.sync)
    elif kind in ("commit", "identity", "account", "sync"):
        raise InvalidFrame(f"a frame of kind {kind} without its {kind}")
    else:
        # Something newer than this code: the whole body tells two events apart.
        key = dedup_key([kind, did, body.decode()])
    check(did, kind, type, operation, frame.time_us, frame.cursor)
    return Incoming(key, kind, type, operation, did, frame.time_us, frame.cursor, body, origin)


def commit_key(did: str, rev: str, collection: str, rkey: str, operation: str) -> bytes:
    """Several operations may share one rev."""
    return dedup_key(["commit", did, rev, collection, rkey, operation])


def identity_key(did: str, identity: Identity) -> bytes:
    return dedup_key(["identity", did, identity.time, _tell_apart(identity.handle)])


def account_key(did: str, account: Account) -> bytes:
    return dedup_key(["account", did, account.time, str(account.active), _tell_apart(account.status)])


def sync_key(did: str, sync: Sync) -> bytes:
    return dedup_key(["sync", did, sync.rev])


def _tell_apart(value: str | None) -> str:
    return "" if value is None else f"={value}"


def check(did: str, kind: str, type: str, operation: str, time_us: int, cursor: int | None) -> None:
    """Bounds of what goes into columns. NUL is legal in JSON and in no PostgreSQL text. Raises InvalidFrame."""
    if not did or len(did) > MAX_DID:
        raise InvalidFrame("did is empty or too long")
    if not 0 < len(kind) <= 32 or len(operation) > 32 or not 0 < len(type) <= MAX_NSID:
        raise InvalidFrame("kind, operation or collection is empty or too long")
    if not (did + kind + type + operation).isprintable():
        raise InvalidFrame("did, kind, operation or collection has a character that is not printable")
    if not -(2**63) <= time_us < 2**63 or not (cursor is None or 0 <= cursor < 2**63):
        raise InvalidFrame("time_us or cursor is out of range")
