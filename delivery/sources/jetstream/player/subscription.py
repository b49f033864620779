"""What a v2 client asks for: the query of `subscribeEvents`, and the XRPC errors that refuse it."""

from urllib.parse import parse_qs

import msgspec

from delivery.sources.jetstream.player.options import BadOption, Filter, Request, read_integer, short

KINDS = ("commit", "identity", "account", "sync")
MAX_MESSAGE_BYTES = 2**32 - 1  # the highest maxMessageSizeBytes
_NAMES = ("collections", "dids")
_OF_V1 = {"wantedCollections": "collections", "wantedDids": "dids"}


class XrpcError(Exception):
    """A refusal before the upgrade, with its name: 400 and `{"error":…,"message":…}`."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error

    @property
    def body(self) -> bytes:
        return msgspec.json.encode({"error": self.error, "message": str(self)})


def read_subscription(query: str) -> Request:
    """The query of `subscribeEvents`. Raises XrpcError (InvalidRequest)."""
    given = parse_qs(query, keep_blank_values=True)
    try:
        for name in given:
            if name.startswith("wanted"):
                instead = _OF_V1.get(name)
                raise BadOption(name, f"this is a v1 parameter{f': here it is called {instead}' if instead else ''}")
        kinds = tuple(dict.fromkeys(given.get("kinds", ())))
        for kind in kinds:
            if kind not in KINDS:
                raise BadOption("kinds", f"{short(kind)} is none of {', '.join(KINDS)}")
        if kinds and "commit" not in kinds and given.get("collections"):
            raise BadOption("collections", "they are of commits alone, which kinds excludes")
        limit = _at_least(given, "maxMessageSizeBytes", 0) or 0
        if limit > MAX_MESSAGE_BYTES:
            raise BadOption("maxMessageSizeBytes", f"{limit} is above {MAX_MESSAGE_BYTES}")
        return Request(
            filter=Filter.build(given.get("collections", ()), given.get("dids", ()), limit, kinds, _NAMES),
            cursor=_at_least(given, "cursor", 0),
            dictionary_id=_at_least(given, "zstdDictionary", 1),
        )
    except BadOption as error:
        raise XrpcError("InvalidRequest", str(error)) from error


def read_dictionary_query(query: str) -> int | None:
    """The id that a `getZstdDictionary` names; None is the current one. Raises XrpcError (InvalidRequest)."""
    try:
        return _at_least(parse_qs(query, keep_blank_values=True), "id", 1)
    except BadOption as error:
        raise XrpcError("InvalidRequest", str(error)) from error


def unknown_dictionary(asked: int, current: int) -> XrpcError:
    return XrpcError("UnknownZstdDictionary", f"there is no dictionary {asked} here; the current one is {current}")


def _at_least(given: dict[str, list[str]], name: str, least: int) -> int | None:
    value = read_integer(given, name)
    if value is not None and value < least:
        raise BadOption(name, f"{value} is below {least}")
    return value
