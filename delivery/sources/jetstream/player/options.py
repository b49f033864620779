"""What a v1 client asks for: the query of `/subscribe`, and the options_update message that replaces its filter.

Every refusal is a BadOption whose text begins with the name of the parameter. Unknown parameters are ignored.
subscription.py reads what a v2 client asks for, into the same Request.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import msgspec

MAX_COLLECTIONS = 100
MAX_DIDS = 10_000
MAX_CURSOR = 2**63 - 1
V1_NAMES = ("wantedCollections", "wantedDids")

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_AUTHORITY = rf"(?=[A-Za-z]){_LABEL}(?:\.{_LABEL})*"
_NSID = re.compile(rf"(?=.{{1,317}}\Z){_AUTHORITY}\.{_LABEL}\.[A-Za-z][A-Za-z0-9]{{0,62}}\Z")
_PREFIX = re.compile(rf"(?=.{{1,317}}\Z){_AUTHORITY}\.\*\Z")
_DID = re.compile(r"(?=.{1,2048}\Z)did:[a-z]+:[A-Za-z0-9._:%-]*[A-Za-z0-9._-]\Z")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}\Z")


class BadOption(ValueError):
    """A parameter or a filter that this server refuses."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")


class _Verdicts(dict[str | None, bool]):
    """Whether a collection is wanted, worked out once for each. None, an event without one, always is."""

    def __init__(self, patterns: Iterable[str]) -> None:
        super().__init__({None: True})
        self._exact = frozenset(pattern for pattern in patterns if not pattern.endswith("*"))
        self._prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))

    def __missing__(self, collection: str | None) -> bool:
        verdict = collection is not None and (collection in self._exact or collection.startswith(self._prefixes))
        self[collection] = verdict
        return verdict


@dataclass(frozen=True)
class Filter:
    """The events that a client wants. An empty list, or 0 bytes, means no limit of that kind."""

    collections: tuple[str, ...] = ()
    dids: tuple[str, ...] = ()
    max_bytes: int = 0
    kinds: tuple[str, ...] = ()
    wants_collection: Mapping[str | None, bool] = field(init=False, repr=False, compare=False)
    wants_did: frozenset[str | None] = field(init=False, repr=False, compare=False)
    wants_kind: frozenset[str | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wants_collection", _Verdicts(self.collections))
        object.__setattr__(self, "wants_did", frozenset((*self.dids, None)))
        object.__setattr__(self, "wants_kind", frozenset((*self.kinds, None)))

    @property
    def wants_everything(self) -> bool:
        return not (self.collections or self.dids or self.max_bytes or self.kinds)

    @classmethod
    def build(cls, collections: Iterable[str], dids: Iterable[str], max_bytes: int, kinds: tuple[str, ...] = (), names: tuple[str, str] = V1_NAMES) -> "Filter":
        """The filter after dedupe; a negative size means no limit. Raises BadOption, with the parameter's name on this wire."""
        collections_name, dids_name = names
        collections, dids = tuple(dict.fromkeys(collections)), tuple(dict.fromkeys(dids))
        if len(collections) > MAX_COLLECTIONS:
            raise BadOption(collections_name, f"{len(collections)} collections, but at most {MAX_COLLECTIONS} are allowed")
        if len(dids) > MAX_DIDS:
            raise BadOption(dids_name, f"{len(dids)} DIDs, but at most {MAX_DIDS:,} are allowed")
        for collection in collections:
            if not (_NSID.match(collection) or _PREFIX.match(collection)):
                raise BadOption(collections_name, f"{short(collection)} is neither a full NSID nor a prefix such as app.bsky.*")
        for did in dids:
            if not _DID.match(did):
                raise BadOption(dids_name, f"{short(did)} is not a DID")
        return cls(collections, dids, max(max_bytes, 0), kinds)


@dataclass(frozen=True)
class Request:
    """One client's query. The cursor is inclusive, in Unix µs or a seq; None is the live tail.

    `compressed` is what v1 asks for; v2 names the dictionary instead.
    """

    filter: Filter
    cursor: int | None
    require_hello: bool = False
    compressed: bool = False
    dictionary_id: int | None = None


class _Payload(msgspec.Struct, rename="camel"):
    wanted_collections: list[str] | None = None
    wanted_dids: list[str] | None = None
    max_message_size_bytes: int | None = None


class _Message(msgspec.Struct):
    type: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"{}")


def read_query(query: str) -> Request:
    """The query of `/subscribe`. A parameter given empty counts as absent, but an empty pattern or DID does not. Raises BadOption."""
    given = parse_qs(query, keep_blank_values=True)
    cursor = read_integer(given, "cursor")
    if cursor is not None and cursor < 0:
        raise BadOption("cursor", f"{cursor} is negative; give Unix microseconds")
    return Request(
        filter=Filter.build(given.get("wantedCollections", ()), given.get("wantedDids", ()), read_integer(given, "maxMessageSizeBytes") or 0),
        cursor=cursor,
        require_hello=_first(given, "requireHello") == "true",
        compressed=_first(given, "compress") == "true",
    )


def read_message(message: str | bytes) -> Filter | None:
    """The new filter of an options_update; None for a message of another type.

    Raises msgspec.MsgspecError when the message is no JSON object, BadOption when its options are bad.
    """
    update = msgspec.json.decode(message, type=_Message)
    if update.type != "options_update":
        return None
    try:
        payload = msgspec.json.decode(update.payload, type=_Payload)
    except msgspec.MsgspecError as error:
        raise BadOption("payload", str(error)) from error
    return Filter.build(payload.wanted_collections or (), payload.wanted_dids or (), payload.max_message_size_bytes or 0)


def _first(given: Mapping[str, list[str]], name: str) -> str:
    return given.get(name, [""])[0]


def read_integer(given: Mapping[str, list[str]], name: str) -> int | None:
    """The parameter as an integer of at most 63 bits; None when it is absent or empty. Raises BadOption."""
    text = _first(given, name)
    if not text:
        return None
    if not _INTEGER.match(text) or int(text) > MAX_CURSOR:
        raise BadOption(name, f"{short(text)} is not an integer")
    return int(text)


def short(text: str) -> str:
    """The text quoted, cut to what fits a close reason (123 bytes)."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")
