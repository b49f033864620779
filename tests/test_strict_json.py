"""JSON from strangers: what two parsers could read differently is refused, with words that say what to change."""

import json
from typing import Any

import pytest

from delivery.sources.strict_json import MAX_DEPTH, InvalidJson, loads


def nested(depth: int, start: str = "[", end: str = "]", core: str = "0") -> bytes:
    return (start * depth + core + end * depth).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b' \n{"a": [1, 2.5, -0, 1e3, true, false, null, "x"]}\t',
        b'{"a": {"a": {"a": 1}}, "b": {"a": 1}}',
        '{"é": "😀", "": "\\ud83d\\ude00"}'.encode(),
        b'"\\\\ud800 is written out"',
        b"123456789012345678901234567890",
        nested(MAX_DEPTH),
        nested(MAX_DEPTH, '{"a":', "}"),
        b"[" + b",".join([b"[]"] * 500) + b"]",
    ],
)
def test_it_reads_what_every_parser_reads_alike(text: bytes) -> None:
    assert loads(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"{", "not valid JSON.* line 1, column 2"),
        (b'{"a": 1,}', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 01}', "not valid JSON"),
        (b'{"a": +1}', "not valid JSON"),
        (b'{"a": .5}', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'{"a": "line\nbreak"}', "not valid JSON"),
        (b'{"a": "\\x41"}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        # A half of a pair, written in UTF-8 as no encoder may.
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": 1, "a": 1}', "'a' stands twice"),
        (b'{"a": {"b": [{"c": 1, "d": 2, "c": 3}]}}', "'c' stands twice"),
        (b'{"a": 1, "\\u0061": 2}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        # RFC 8259, 6: read as infinite by some, and as an error by others.
        (b'{"a": 1e400}', "too large"),
        (b"[-1E+309]", "too large"),
        (b"9" * 400 + b".0", "too large"),
        (b"1" * 5000, "too many digits"),
        (b'"\\ud800"', r"\\ud800 without its other half"),
        (b'{"a": ["\\uDFFF"]}', r"\\udfff without its other half"),
        (b'{"\\ud83d": 1}', "without its other half"),
        (b'"\\ude00\\ud83d"', "without its other half"),
        (nested(MAX_DEPTH + 1), "deeper than 64"),
        (nested(MAX_DEPTH + 1, '{"a":', "}"), "deeper than 64"),
        (nested(100_000), "deeper than 64"),
        (nested(50_000, '{"a":[', "]}"), "deeper than 64"),
    ],
)
def test_it_refuses_what_is_left_to_chance(text: bytes, words: str) -> None:
    with pytest.raises(InvalidJson, match=words):
        loads(text)


@pytest.mark.parametrize("value", [{"a": 1.5}, [1e308], {"deep": [[[]]]}, "\u2028", {"a": "\u0000"}])
def test_it_reads_what_it_is_given_however_it_is_escaped(value: Any) -> None:
    for ascii in (True, False):
        assert loads(json.dumps(value, ensure_ascii=ascii).encode()) == value


def test_it_says_which_name_without_repeating_all_of_it() -> None:
    name = "x" * 10_000
    with pytest.raises(InvalidJson) as caught:
        loads(f'{{"{name}": 1, "{name}": 2}}'.encode())
    assert len(str(caught.value)) < 200
