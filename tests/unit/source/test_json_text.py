import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.source.json_text import ElementScan, members

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
WRITERS = st.sampled_from(
    [
        orjson.dumps,
        lambda value: orjson.dumps(value, option=orjson.OPT_INDENT_2),
        lambda value: json.dumps(value).encode(),
    ]
)


@given(st.dictionaries(st.text(max_size=4), JSON), WRITERS)
def test_members_are_the_text_of_each_value(row, write):
    found = members(write(row))
    assert {name: orjson.loads(text) for name, text in found.items()} == row
    assert all(text == text.strip() for text in found.values())


@pytest.mark.parametrize("levels", [3, 1020])
def test_members_of_any_depth_are_found(levels):
    deep = b"[" * levels + b'{"a":"]"}' + b"]" * levels
    assert members(b'{"a":' + deep + b' , "b" :1.0E+2,"c":1e999}') == {"a": deep, "b": b"1.0E+2", "c": b"1e999"}


def test_of_duplicate_names_the_last_counts_however_it_is_written():
    assert members(b'{"a":1,"b":2,"\\u0061":3}') == {"a": b"3", "b": b"2"}


@given(JSON, WRITERS, st.sampled_from([b",", b"]"]), st.data())
def test_an_element_ends_at_the_same_byte_whatever_the_windows(value, write, end, data):
    text = write(value)
    whole = text + end + b'"rest]'
    assert ElementScan().feed(whole) == len(text)

    scan, at = ElementScan(), 0
    while at < len(whole):
        step = data.draw(st.integers(1, 9))
        found = scan.feed(whole[at : at + step])
        if found is not None:
            assert at + found == len(text)
            return
        at += step
    raise AssertionError("no end was found")


@given(
    st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b'"],"', b"\\", b'"\\"["', b",", b"x" * 50]), max_size=40)
)
def test_long_elements_end_where_short_steps_find_it(pieces):
    text = b"[[[" + b"".join(pieces) * 40 + b"]]],"
    steps = ElementScan()
    found = (steps.feed(text[at : at + 100]) for at in range(0, len(text), 100))
    ends = [number * 100 + end for number, end in enumerate(found) if end is not None]
    assert ElementScan().feed(text) == (ends[0] if ends else None)
