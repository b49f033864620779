"""Why a signature does not fit: which part of a request differs, and what to change. Pure.

    diagnose(Scheme.STANDARD, secrets, headers, facts, now)

never says what the signature should have been: whoever could ask for that could sign anything.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from delivery import recipes
from delivery.recipes import Facts, Given, Recipe, Secret
from delivery.signing import NAMES, TOLERANCE_S, Scheme

_TITLES = {Scheme.STANDARD: "Standard Webhooks", Scheme.TIMESTAMPED: "X-Webhook-Signature", Scheme.HOOKSTREAM: "X-Hookstream-Signature"}
_KEYS = {
    recipes.DECODED: "The key was the secret's base64 decoded. This scheme takes the whole secret as its text, whsec_ included.",
    recipes.TEXT: "The key was the secret as a text. Take what stands after whsec_ and decode it as base64: the key is those bytes.",
    "text without whsec_": "The key was the text after whsec_, not decoded.",
    "decoded with whsec_": "The key was the whole secret decoded as base64: whsec_ was decoded along, as Node's Buffer does. Cut it off first.",
}
_OTHER = "It was to be checked as {}: change the endpoint's scheme, or how the receiver checks."
_TEXT_KEY = " This scheme takes the whole secret as its text, whsec_ included."
_DECODE = " Decode it as base64: the key is those bytes."
_RAW = "Check the bytes of the request as they arrive, before anything parses them or writes them anew."


class Finding(NamedTuple):
    """One thing that was looked at. `part` of the request; whether it is `good`; in words, with what to do about it."""

    part: str
    good: bool
    words: str
    advice: str = ""


_UNREADABLE = (Finding("headers", False, "None could be read.", "Write one in a line, as `Name: value`, or paste them as a JSON object."),)


class Diagnosis(NamedTuple):
    fits: bool
    findings: Sequence[Finding]


def read_headers(text: str) -> dict[str, str]:
    """Headers as people paste them: lines of `Name: value`, also from curl's -v or a WSGI environment, or a JSON object. Names in lower case."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        firsts = ((name, each[0] if isinstance(each, list) and each else each) for name, each in value.items())
        pairs = [(name, str(each)) for name, each in firsts if isinstance(each, str | int | float)]
    else:
        pairs = [(name, each) for name, colon, each in (line.lstrip("<> \t").partition(":") for line in text.splitlines()) if colon]
    return {name: each.strip().strip("\"',") for name, each in ((_name(name), each) for name, each in pairs) if name}


def _name(name: str) -> str:
    name = name.strip().strip("\"'").lower()
    return name.removeprefix("http_").replace("_", "-")


def diagnose(scheme: Scheme, secrets: Sequence[Secret], headers: Mapping[str, str], facts: Facts, now: float) -> Diagnosis:
    """`facts` without id and time, which are in the headers. `secrets`: the current one first. `now` in Unix seconds."""
    id_name, time_name, signature_name, _ = NAMES[scheme]
    findings = [*(_missing(scheme, headers) if headers else _UNREADABLE)]
    time = headers.get(time_name.lower(), "") if time_name else ""
    if time:
        findings.append(_time(time_name, time, now))
    facts = replace(facts, id=headers.get(id_name.lower(), ""), time=time or _any_time(headers))
    given = recipes.read_signatures(headers.get(signature_name.lower(), "") or _any_signature(headers))
    if not given:
        if headers.get(signature_name.lower()):
            findings.append(
                Finding(signature_name, False, "There is no HMAC-SHA256 in it, which has 32 bytes.", "It may have been cut off, or made by another hash.")
            )
        return Diagnosis(False, [*findings, *_body(facts, facts.body)])
    match, untried = recipes.find(scheme, secrets, facts, given)
    if len(given) > recipes.MOST_SIGNATURES:
        words = f"It has {len(given):,} signatures: the first {recipes.MOST_SIGNATURES} were looked at."
        findings.append(Finding(signature_name, match is not None, words))
    if match is None:
        findings.append(
            Finding(
                signature_name,
                False,
                "It was made by none of this endpoint's secrets in any way that we know.",
                "Another endpoint's secret, one that has been rotated out, or a body, id or time that was changed beyond recognition.",
            )
        )
        findings += [Finding("body", False, words) for words in untried]
        return Diagnosis(False, [*findings, *_body(facts, facts.body)])
    findings += _differences(scheme, *match, facts, secrets)
    return Diagnosis(all(finding.good for finding in findings), findings)


def _missing(scheme: Scheme, headers: Mapping[str, str]) -> Iterator[Finding]:
    id_name, time_name, signature_name, _ = NAMES[scheme]
    other = next((each for each in Scheme if each is not scheme and headers.get(NAMES[each][2].lower())), None)
    for name in (id_name, time_name, signature_name):
        if name and not headers.get(name.lower()):
            advice = "Something in between, or the receiver's framework, may have dropped it: paste the headers as they arrive."
            if name == signature_name and other:
                advice = f"There is one of another scheme, {_TITLES[other]}: the endpoint's scheme was changed, or the receiver looks for the wrong one."
            yield Finding(name, False, "It is missing.", advice)


def _time(name: str, text: str, now: float) -> Finding:
    if not (text.isascii() and text.isdecimal()):
        return Finding(name, False, "It is not a number of seconds since 1970.", "It was changed on the way: leave it as it came.")
    seconds = int(text[:20])
    if len(text) >= 13:
        return Finding(name, False, "It is in milliseconds; it is sent in seconds.", "Leave it as it came.")
    off = round(now - seconds)
    if off > TOLERANCE_S:
        words = f"It is {_span(off)} old: receivers take {_span(TOLERANCE_S)} as a rule."
        return Finding(
            name, False, words, "Fine if you are looking at an old request. Otherwise the request waited too long, or the receiver's clock is ahead."
        )
    if off < -TOLERANCE_S:
        words = f"It is {_span(-off)} in the future: receivers take {_span(TOLERANCE_S)} as a rule."
        return Finding(name, False, words, "The receiver's clock, or this machine's, is wrong.")
    return Finding(name, True, f"It is {_span(abs(off))} {'old' if off >= 0 else 'ahead'}, which is within the {_span(TOLERANCE_S)} that receivers allow.")


def _differences(scheme: Scheme, recipe: Recipe, given: Given, facts: Facts, secrets: Sequence[Secret]) -> Iterator[Finding]:
    """What is different about the way in which this signature was made."""
    id_name, time_name, signature_name, _ = NAMES[scheme]
    made = f"It was made with {recipe.secret}"
    if recipe.secret == secrets[0].name:
        yield Finding("secret", True, f"{made}.")
    else:
        yield Finding("secret", False, f"{made}.", "Give the receiver the current one: it can be revealed on the endpoint's page.")
    other = _other_scheme(scheme, recipe)
    if other:
        yield Finding(signature_name, False, f"It was made as the scheme {_TITLES[other]} does.", _OTHER.format(_TITLES[scheme]))
    else:
        if recipe.key:
            yield Finding("key", False, _KEYS[recipe.key] + _more_on_key(scheme, recipe.key))
        if recipe.content:
            yield Finding("signed content", False, f"{_content(recipe.content)} was signed.", f"Sign {_content(recipes.content_of(scheme)).lower()}.")
    if given.encoding != recipes.encoding_of(other or scheme):
        yield Finding(signature_name, False, f"It is written as {given.encoding}.", f"It has to be {recipes.encoding_of(other or scheme)}.")
    if recipe.id:
        yield Finding(id_name, False, f"It was changed: what was signed is this id {recipe.id}.", "Leave it as it came.")
    if recipe.time:
        yield Finding(time_name or "time", False, f"It was changed: what was signed is {recipe.time}.", "Leave it as it came.")
    if "body" not in (recipe.content or recipes.content_of(scheme)):
        return
    if not recipe.body:
        yield Finding("body", True, "It is the one that was signed.")
    elif recipe.body == "as it is stored":
        yield from _body(facts, facts.body)
    else:
        yield Finding("body", False, f"It was changed: the signature fits it {recipe.body}.", _RAW)


def _other_scheme(scheme: Scheme, recipe: Recipe) -> Scheme | None:
    """The scheme whose recipe this is, if it is another one's altogether."""
    for other in Scheme:
        same_key = recipes.key_of(other) == (recipe.key or recipes.key_of(scheme))
        if other is not scheme and same_key and recipes.content_of(other) == (recipe.content or recipes.content_of(scheme)):
            return other
    return None


def _more_on_key(scheme: Scheme, key: str) -> str:
    if key == "text without whsec_":
        return _DECODE if scheme is Scheme.STANDARD else _TEXT_KEY
    return _TEXT_KEY if key == "decoded with whsec_" and scheme is not Scheme.STANDARD else ""


def _content(name: str) -> str:
    names = [{"time": "timestamp", "id": "id", "body": "body"}[part] for part in name.split(".")]
    return f"The {names[0]} alone" if len(names) == 1 else f"The {', '.join(names[:-1])} and {names[-1]}, with a dot between them"


def _body(facts: Facts, body: bytes) -> Iterator[Finding]:
    """How a body differs from the one that was sent under this id, if that is known."""
    stored = facts.stored
    if stored is None:
        if not body:
            yield Finding("body", False, "It is empty.", "Paste it, or give it as a file: the signature is made of its bytes.")
        return
    if stored == body:
        yield Finding("body", True, "It is, byte for byte, the body of the event that this id names.")
    elif stored.split() == body.split() or stored.strip() == body.strip():
        how = "a line end or a space at its end was added or taken away" if stored.strip() == body.strip() else "line ends or spaces were changed"
        yield Finding("body", False, f"It is the body of the event that this id names, but {how}.", _RAW)
    elif _same_json(stored, body):
        yield Finding("body", False, "It is the same JSON as the event that this id names, but written differently: it was parsed and written anew.", _RAW)
    else:
        place = next((at for at, (one, other) in enumerate(zip(stored, body, strict=False)) if one != other), min(len(stored), len(body)))
        words = f"It differs from the event that this id names, from byte {place + 1:,} on: {len(body):,} bytes here, {len(stored):,} were sent."
        yield Finding("body", False, words, "It was changed or cut off on the way, or belongs to another request.")


def _same_json(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False


def _any_time(headers: Mapping[str, str]) -> str:
    return next((headers[name.lower()] for _, name, _, _ in NAMES.values() if name and headers.get(name.lower())), "")


def _any_signature(headers: Mapping[str, str]) -> str:
    return next((headers[name.lower()] for _, _, name, _ in NAMES.values() if headers.get(name.lower())), "")


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit}"
    return f"{seconds:.0f} s"
