"""How a signature may have been made instead of as it should: another key, another content, another body. Pure.

A recipe says what goes into the MAC. Each of its parts is as it should be (None) or is named for what is different about it.
"""

import base64
import binascii
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from delivery.signing import Scheme

# What one search hashes at most, in bytes: a tenth of a second's work.
BUDGET = 64_000_000
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


Named = list[tuple[str | None, bytes]]

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


def find(scheme: Scheme, secrets: Sequence[Secret], facts: Facts, given: Sequence[Given]) -> tuple[Recipe, Given] | None:
    """The recipe with the fewest differences that one of the given signatures was made by; None where none was, as far as the budget goes."""
    left = BUDGET
    for recipe, key, content in _attempts(scheme, secrets, facts):
        left -= len(content) + 200
        if left < 0:
            return None
        mac = hmac.digest(key, content, "sha256")
        for each in given:
            if hmac.compare_digest(mac, each.mac):
                return recipe, each
    return None


def _attempts(scheme: Scheme, secrets: Sequence[Secret], facts: Facts) -> Iterator[tuple[Recipe, bytes, bytes]]:
    """Recipes with their keys and contents, those with fewer differences first."""
    keys = [(secret.name, kind, key) for secret in secrets for kind, key in _keys(scheme, secret.text)]
    contents = [None, *(name for name in _ALL_CONTENTS if name != _CONTENTS[scheme])]
    parts = list(product(contents, _ids(facts), _times(facts), _bodies(facts)))
    seen: set[tuple[Any, ...]] = set()
    found: list[list[tuple[Recipe, bytes, tuple[str, bytes, bytes, bytes]]]] = [[] for _ in range(MOST_DIFFERENCES + 1)]
    for (secret, kind, key), (content, (id_, id_bytes), (time_, time_bytes), (body_, body)) in product(keys, parts):
        template = content or _CONTENTS[scheme]
        has_id, has_time, has_body = ("id" in template, "time" in template, "body" in template)
        # What is not signed has no say in it.
        same = (key, template, has_id and id_bytes, has_time and time_bytes, has_body and id(body))
        recipe = Recipe(secret, kind, content, id_ if has_id else None, time_ if has_time else None, body_ if has_body else None)
        if same not in seen and recipe.differences <= MOST_DIFFERENCES:
            seen.add(same)
            found[recipe.differences].append((recipe, key, (template, id_bytes, time_bytes, body)))
    for rank in found:
        for recipe, key, (template, id_bytes, time_bytes, body) in rank:
            values = {"id": id_bytes, "time": time_bytes, "body": body}
            yield recipe, key, b".".join(values[part] for part in template.split("."))


def _keys(scheme: Scheme, secret: str) -> Named:
    """The right one first. Node's base64 reads `whsec_` as well, as if it belonged to it."""
    bare = secret.removeprefix("whsec_")
    kinds = {DECODED: _base64(bare), TEXT: secret.encode(), "text without whsec_": bare.encode(), "decoded with whsec_": _base64(secret)}
    right = _KEYS[scheme]
    return [(None if kind == right else kind, key) for kind, key in sorted(kinds.items(), key=lambda item: item[0] != right) if key]


def _ids(facts: Facts) -> Named:
    prefix, underscore, rest = facts.id.rpartition("_")
    others = {
        "without its prefix": rest if underscore and prefix else "",
        "as a dashed UUID": f"{rest[:8]}-{rest[8:12]}-{rest[12:16]}-{rest[16:20]}-{rest[20:]}" if re.fullmatch(r"[0-9a-f]{32}", rest) else "",
        "with evt_ in front": f"evt_{facts.id.replace('-', '')}" if not underscore else "",
        "in lower case": facts.id.lower(),
        "the id in the body": _id_in(facts.body),
    }
    return _named(facts.id, others)


def _times(facts: Facts) -> Named:
    others = {}
    if facts.time.isascii() and facts.time.isdecimal():
        number = int(facts.time[:20])
        others = {"in seconds": str(number // 1000), "in milliseconds": str(number * 1000)}
    return _named(facts.time, others | {f"the time of an attempt ({at})": str(at) for at in facts.times})


def _named(right: str, others: Mapping[str, str]) -> Named:
    return [(None, right.encode()), *((name, value.encode()) for name, value in others.items() if value and value != right)]


def _bodies(facts: Facts) -> Named:
    """The body as it came, then as it may have been when it was signed."""
    body, seen = facts.body, {facts.body}
    found: Named = [(None, body)]
    for name, other in _other_bodies(facts):
        if other not in seen:
            seen.add(other)
            found.append((name, other))
    return found


def _other_bodies(facts: Facts) -> Iterator[tuple[str, bytes]]:
    body = facts.body
    if facts.stored is not None:
        yield "as it is stored", facts.stored
    yield "without what is blank at its ends", body.strip()
    yield "with a line end after it", body + b"\n"
    yield "with a line end after it", body + b"\r\n"
    yield "with other line ends", body.replace(b"\r\n", b"\n")
    yield "with other line ends", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "without its byte order mark", body.removeprefix(b"\xef\xbb\xbf")
    try:
        value = json.loads(body)
        for separators, indent in (((",", ":"), None), ((", ", ": "), None), ((",", ": "), 2)):
            for ascii_only, in_order in product((False, True), (False, True)):
                text = json.dumps(value, separators=separators, indent=indent, ensure_ascii=ascii_only, sort_keys=in_order)
                yield "as the same JSON, written differently", text.encode()
    except (ValueError, RecursionError, TypeError):
        pass
    yield "empty", b""


def _id_in(body: bytes) -> str:
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
