"""A batch is taken apart before it is read: what comes of it is what came of reading all of it, at a bounded cost."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.sources import api, strict_json
from jetrelay.api.batches import BatchParser
from jetrelay.api.problems import Problem

MANY = 3_000_000

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "events", '"events":[', "é", "😀", "a [0]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["events", "type", "data"]), inner, max_size=3),
    max_leaves=8,
)


def cut(body: bytes) -> list[bytes] | None:
    """The events' texts; None where it is no batch."""
    try:
        return BatchParser().read(body)
    except (strict_json.InvalidJson, Problem):
        return None


@given(items=st.lists(values, min_size=1, max_size=5), loose=st.booleans(), padding=st.booleans())
def test_a_batch_comes_apart_into_its_events(items: list[Any], loose: bool, padding: bool) -> None:
    body = json.dumps({"events": items}, indent=1 if loose else None, separators=None if loose else (",", ":")).encode()
    # A large body goes another way.
    found = cut(body + b" " * 300_000 if padding else body)
    assert found is not None
    assert [json.loads(text) for text in found] == items


@pytest.mark.parametrize("padding", [b"", b" " * 300_000])
@pytest.mark.parametrize(
    "body",
    [
        b'{"events":[1],"events":[1]}',
        b'{"events":[1],"\\u0065vents":[1]}',
        b'{"events":["events"],"events":["events"]}',
        b'{"events":[1],"events":[[1]]}',
        b'{"events":[[1]],"events":[1]}',
        b'{"x":[1],"events":[1]}',
        b'{"events":[1],"x":1}',
        b'{"events":{"0":1}}',
        b'{"events":[]}',
        b'{"events":[1],}',
        b'{"events":[1]} 2',
        b'{"events":[1,]}',
        b"[1]",
        b"\xff",
        b"[" * 200_000,
        b'{"events":[' + b"[" * 200_000,
        b'{"events":[' + b"1," * 1000 + b"1]}",
    ],
)
def test_what_is_no_batch_is_refused_whatever_its_size(body: bytes, padding: bytes) -> None:
    assert cut(body + padding) is None


@pytest.mark.parametrize("filler", [b"[],", b"{},", b"1,", b'"",'])
def test_no_body_of_10_mb_becomes_hundreds_of_megabytes(filler: bytes) -> None:
    body = b'{"events":[{"type":"a","data":[' + filler * (api.MAX_EVENT * 39 // len(filler)) + b"0]}]}"
    tracemalloc.start()
    try:
        (text,) = BatchParser().read(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) > api.MAX_EVENT
    assert peak < 4 * len(body)
