"""How a signature may have been made instead of as it should: another key, another content, another body. Pure.

A recipe says what goes into the MAC. Each of its parts is as it should be (None) or is named for what is different about it.
"""

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from delivery.signing import Scheme

# What one search does at most, counted in bytes that are hashed: some tenths of a second's work.
BUDGET = 64_000_000
# What each attempt costs beside its content, and each comparison with a signature.
_ATTEMPT, _COMPARISON = 1000, 50
# Reading or writing a byte of JSON takes as long as hashing this many.
_JSON_BYTE = 10
# Signatures that are looked at. A rotation sends two.
MOST_SIGNATURES = 10
# JSON is written anew up to this size and depth: indenting what is deep makes it many times as large.
MOST_JSON = 64 * 1024
MOST_LEVELS = 64
MOST_WRITTEN = 4 * MOST_JSON
# More parts than these are not wrong at once in any program that was written with our documentation at hand.
MOST_DIFFERENCES = 4

_SIGNATURE = re.compile(r"(?:(v[0-9]+a?|sha256|sha1)[,=])?([A-Za-z0-9+/_-]{20,}={0,2})")
_MAC_SIZE = 32


class Secret(NamedTuple):
    """One secret of the endpoint, and what to call it: `the current secret`."""

    name: str
    text: str


class Given(NamedTuple):
    """A MAC as it was written somewhere: the bytes that it stands for, and how they were written."""

    mac: bytes
    encoding: str


@dataclass(frozen=True)
class Recipe:
    """What a signature was made of. Each None is as the scheme has it."""

    secret: str
    key: str | None = None
    content: str | None = None
    id: str | None = None
    time: str | None = None
    body: str | None = None

    @property
    def differences(self) -> int:
        return sum(part is not None for part in (self.key, self.content, self.id, self.time, self.body))


@dataclass(frozen=True)
class Facts:
    """What came, and what is known of it. `stored`: the body that was sent under this id; `times`: when it was, in Unix seconds."""

    id: str
    time: str
    body: bytes
    stored: bytes | None = None
    times: Sequence[int] = ()


class Search(NamedTuple):
    """What a search found, if anything, and what it did not try."""

    match: tuple[Recipe, Given] | None
    untried: Sequence[str]


class SpentError(Exception):
    """The budget does not reach any further."""


class Work:
    """What one search may still do, and what it had to leave out."""

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.untried: list[str] = []

    def charge(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise SpentError


Named = tuple[str | None, bytes]


class _Choices:
    """The right value first, then the others: each is made when it is first asked for, and kept. Equal ones count once."""

    def __init__(self, values: Iterator[Named]) -> None:
        self._values = values
        self._made: list[Named] = []
        self._seen: set[bytes] = set()

    def __iter__(self) -> Iterator[Named]:
        yield from self._made
        for name, value in self._values:
            if value not in self._seen:
                self._seen.add(value)
                self._made.append((name, value))
                yield name, value


DECODED, TEXT = "decoded", "text"
_KEYS = {Scheme.STANDARD: DECODED, Scheme.TIMESTAMPED: TEXT, Scheme.HOOKSTREAM: TEXT}
_CONTENTS = {Scheme.STANDARD: "id.time.body", Scheme.TIMESTAMPED: "time.body", Scheme.HOOKSTREAM: "body"}
_ALL_CONTENTS = ("id.time.body", "time.body", "body", "id.body", "id.time")


def encoding_of(scheme: Scheme) -> str:
    return "base64" if scheme is Scheme.STANDARD else "hex"


def key_of(scheme: Scheme) -> str:
    return _KEYS[scheme]


def content_of(scheme: Scheme) -> str:
    return _CONTENTS[scheme]


def read_signatures(header: str) -> list[Given]:
    """The MACs in a signature header, whatever scheme it is written by."""
    return [given for _, text in _SIGNATURE.findall(header) if (given := _decoded(text))]


def find(scheme: Scheme, secrets: Sequence[Secret], facts: Facts, given: Sequence[Given]) -> Search:
    """The recipe with the fewest differences that one of the first signatures was made by, as far as the budget goes."""
    given, work = given[:MOST_SIGNATURES], Work(BUDGET)
    try:
        for recipe, key, content in _attempts(scheme, secrets, facts, work):
            work.charge(len(content) + _ATTEMPT + _COMPARISON * len(given))
            mac = hmac.digest(key, content, "sha256")
            for each in given:
                if hmac.compare_digest(mac, each.mac):
                    return Search((recipe, each), work.untried)
    except SpentError:
        work.untried.append("Not every mix of mistakes was tried: with a body of this size that takes too long.")
    return Search(None, work.untried)


def _attempts(scheme: Scheme, secrets: Sequence[Secret], facts: Facts, work: Work) -> Iterator[tuple[Recipe, bytes, bytes]]:
    """Recipes with their keys and contents, those with fewer differences first. Each is made when it is asked for."""
    keys: dict[bytes, tuple[str, str | None]] = {}
    for secret in secrets:
        for kind, key in _keys(scheme, secret.text):
            keys.setdefault(key, (secret.name, kind))
    contents = [None, *(name for name in _ALL_CONTENTS if name != _CONTENTS[scheme])]
    choices = {"id": _Choices(_ids(facts, work)), "time": _Choices(_times(facts)), "body": _Choices(_bodies(facts, work))}
    for rank in range(MOST_DIFFERENCES + 1):
        for (key, (name, kind)), content in product(keys.items(), contents):
            # What is not signed has no say in it.
            parts = (content or _CONTENTS[scheme]).split(".")
            for chosen in _chosen([choices[part] for part in parts], rank - (kind is not None) - (content is not None)):
                differences = {part: difference for part, (difference, _) in zip(parts, chosen, strict=True)}
                yield Recipe(name, kind, content, **differences), key, b".".join(value for _, value in chosen)


def _chosen(choices: Sequence[Iterable[Named]], differences: int) -> Iterator[tuple[Named, ...]]:
    """One value of each, of which just so many are not the right one. Others than the right ones are not made before they are needed."""
    if not 0 <= differences <= len(choices):
        return
    if not choices:
        yield ()
        return
    for value in choices[0]:
        for rest in _chosen(choices[1:], differences - (value[0] is not None)):
            yield value, *rest
        if not differences:
            return


def _keys(scheme: Scheme, secret: str) -> list[Named]:
    """The right one first. Node's base64 reads `whsec_` as well, as if it belonged to it."""
    bare = secret.removeprefix("whsec_")
    kinds = {DECODED: _base64(bare), TEXT: secret.encode(), "text without whsec_": bare.encode(), "decoded with whsec_": _base64(secret)}
    right = _KEYS[scheme]
    return [(None if kind == right else kind, key) for kind, key in sorted(kinds.items(), key=lambda item: item[0] != right) if key]


def _ids(facts: Facts, work: Work) -> Iterator[Named]:
    yield None, _encoded(facts.id)
    prefix, underscore, rest = facts.id.rpartition("_")
    others = {
        "without its prefix": rest if underscore and prefix else "",
        "as a dashed UUID": f"{rest[:8]}-{rest[8:12]}-{rest[12:16]}-{rest[16:20]}-{rest[20:]}" if re.fullmatch(r"[0-9a-f]{32}", rest) else "",
        "with evt_ in front": f"evt_{facts.id.replace('-', '')}" if not underscore else "",
        "in lower case": facts.id.lower(),
        "the id in the body": _id_in(facts.body, work),
    }
    yield from _named(others)


def _times(facts: Facts) -> Iterator[Named]:
    yield None, _encoded(facts.time)
    others = {}
    if facts.time.isascii() and facts.time.isdecimal():
        number = int(facts.time[:20])
        others = {"in seconds": str(number // 1000), "in milliseconds": str(number * 1000)}
    yield from _named(others | {f"the time of an attempt ({at})": str(at) for at in facts.times})


def _named(others: Mapping[str, str]) -> Iterator[Named]:
    return ((name, _encoded(value)) for name, value in others.items() if value)


def _encoded(text: str) -> bytes:
    """JSON can hold half a surrogate pair, which no header can: it then fits nothing."""
    return text.encode(errors="surrogatepass")


def _bodies(facts: Facts, work: Work) -> Iterator[Named]:
    """The body as it came, then as it may have been when it was signed."""
    body = facts.body
    yield None, body
    if facts.stored is not None:
        yield "as it is stored", facts.stored
    for name, make in _CHANGES:
        work.charge(len(body))
        yield name, make(body)
    for other in written_anew(body, work):
        yield "as the same JSON, written differently", other
    yield "empty", b""


_CHANGES: Sequence[tuple[str, Callable[[bytes], bytes]]] = (
    ("without what is blank at its ends", bytes.strip),
    ("with a line end after it", lambda body: body + b"\n"),
    ("with a line end after it", lambda body: body + b"\r\n"),
    ("with other line ends", lambda body: body.replace(b"\r\n", b"\n")),
    ("with other line ends", lambda body: body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")),
    ("without its byte order mark", lambda body: body.removeprefix(b"\xef\xbb\xbf")),
)


def written_anew(body: bytes, work: Work) -> Iterator[bytes]:
    """The same JSON as other programs write it. What would take too long is left out, and said to be."""
    if len(body) > MOST_JSON:
        work.untried.append(f"{_UNTRIED}: it is larger than {MOST_JSON:,} bytes.")
        return
    work.charge(len(body) * _JSON_BYTE)
    try:
        value = json.loads(body)
        deep = nests_deeper(value, MOST_LEVELS)
    except ValueError:
        return
    except RecursionError:
        deep = True
    if deep:
        work.untried.append(f"{_UNTRIED}: it nests deeper than {MOST_LEVELS} levels.")
        return
    for separators, indent in (((",", ":"), None), ((", ", ": "), None), ((",", ": "), 2)):
        for ascii_only, in_order in product((False, True), (False, True)):
            encoder = json.JSONEncoder(separators=separators, indent=indent, ensure_ascii=ascii_only, sort_keys=in_order)
            text = _written(encoder, value, work)
            if text is None:
                work.untried.append(f"It was not tried in every way in which JSON is written: some make it larger than {MOST_WRITTEN:,} bytes.")
                return
            yield text


_UNTRIED = "It was not tried as the same JSON, written differently"


def _written(encoder: json.JSONEncoder, value: Any, work: Work) -> bytes | None:
    """None as soon as it gets too large."""
    size, pieces = 0, []
    # Without indentation it cannot become much larger, and is written in one go, which is faster.
    for piece in encoder.iterencode(value) if encoder.indent else [encoder.encode(value)]:
        piece_bytes = _encoded(piece)
        size += len(piece_bytes)
        work.charge(len(piece_bytes) * _JSON_BYTE)
        if size > MOST_WRITTEN:
            return None
        pieces.append(piece_bytes)
    return b"".join(pieces)


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects stand in each other more than so many times. Goes by layers: recursion is what this is to prevent."""
    layer = [value]
    for _ in range(levels):
        layer = [inner for each in layer if isinstance(each, list | dict) for inner in (each.values() if isinstance(each, dict) else each)]
    return any(isinstance(each, list | dict) for each in layer)


def _id_in(body: bytes, work: Work) -> str:
    if len(body) > MOST_JSON:
        return ""
    work.charge(len(body) * _JSON_BYTE)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and len(found) <= 200 and found.isprintable() and found.isascii() else ""


def _decoded(text: str) -> Given | None:
    """What a MAC is written as. Base64 of its hex is a mistake that some make."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return Given(bytes.fromhex(text), "hex")
    raw = _base64(text)
    if len(raw) == _MAC_SIZE:
        return Given(raw, "base64" if not re.search(r"[_-]", text) else "base64 for URLs")
    if re.fullmatch(rb"[0-9a-f]{64}", raw):
        return Given(bytes.fromhex(raw.decode()), "base64 of hex")
    return None


def _base64(text: str) -> bytes:
    """As lenient readers decode it: both alphabets, padding or none. Empty where it cannot be."""
    text = text.replace("-", "+").replace("_", "/").rstrip("=")
    # One character alone stands for no byte: Node drops it.
    text = text[:-1] if len(text) % 4 == 1 else text
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return b""
