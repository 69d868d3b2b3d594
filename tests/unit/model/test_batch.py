from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.batch import (
    ROOTS,
    Batch,
    batch_name,
    decode_lines,
    decode_side_by_side,
    decode_spans,
    encode_lines,
    encode_spans,
    good_indexes,
    part_sequences,
    parts_above,
)
from engine.model.record import Position

STEPS = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)))


@given(st.integers(0, 2**50), STEPS)
def test_spans_are_decoded_as_they_were_encoded(start, steps):
    edges = list(accumulate((step for pair in steps for step in pair), initial=start))
    offsets, lengths = edges[1::2], [length for _, length in steps]
    spans = encode_spans(start, offsets, lengths)
    assert decode_spans(start, spans) == (offsets, lengths)
    if offsets:
        apart = any(gap != 1 for gap, _ in steps[1:])
        assert decode_side_by_side(start, spans) == (None if apart else (offsets[0], lengths))
    assert len(spans) == 1 + 8 * len(steps)


def test_records_one_byte_apart_lie_side_by_side():
    assert decode_side_by_side(5, encode_spans(5, [7, 18, 39], [10, 20, 2])) == (7, [10, 20, 2])
    assert decode_side_by_side(5, encode_spans(5, [7, 19, 40], [10, 20, 2])) is None
    assert decode_side_by_side(5, encode_spans(5, [2**33, 2**33 + 11], [10, 20])) == (2**33, [10, 20])


def test_a_gap_over_four_gibibytes_takes_twice_the_room():
    spans = encode_spans(5, [5, 2**33], [10, 20])
    assert decode_spans(5, spans) == ([5, 2**33], [10, 20])
    assert decode_side_by_side(5, spans) is None
    assert len(spans) == 1 + 16 * 2


@given(st.integers(1, 2**40), st.lists(st.integers(-(2**33), 2**33) | st.integers(0, 2), min_size=1))
def test_lines_are_decoded_as_they_were_encoded_also_where_the_next_source_begins_anew(start, steps):
    lines = list(accumulate(steps[1:], initial=start + steps[0]))
    packed = encode_lines(start, lines)
    assert list(decode_lines(lined(start, len(lines), packed))) == lines


@pytest.mark.parametrize(
    ("lines", "room"), [(range(7, 1007), 1), ([8, *range(9, 1008)], 1 + 16), (range(7, 5007, 5), 1 + 16)]
)
def test_lines_take_little_room_whether_a_record_is_a_line_or_several(lines, room):
    packed = encode_lines(7, lines)
    assert len(packed) == room
    assert list(decode_lines(lined(7, len(lines), packed))) == list(lines)


@pytest.mark.parametrize("damaged", [b"i\1\0\0\0", b"i\1\0\0\0\3\0\0\0", b"x", b"i" + b"\xff" * 8])
def test_lines_of_another_number_of_records_are_refused(damaged):
    with pytest.raises(ValueError, match="lines"):
        decode_lines(lined(1, 2, damaged))


def lined(start, count, lines):
    return Batch(0, Position(0, 0, start), Position(99, count, 1), count, 2, b"", b"I", lines=lines)


def batch(first: int, last: int, count: int) -> Batch:
    return Batch(0, Position(0, first, 1), Position(99, last, 9), count, 2, b"", b"I")


def test_a_batch_counts_what_it_leaves_out():
    assert batch(10, 20, 7).rejected == 3


@pytest.mark.parametrize(("rejected", "good"), [([], [4, 5, 6, 7]), ([5, 7], [4, 6]), ([4, 5, 6, 7], [])])
def test_the_good_indexes_are_the_others(rejected, good):
    assert list(good_indexes(batch(4, 8, 4 - len(rejected)), rejected)) == good


@given(st.integers(0, ROOTS - 1), st.lists(st.integers(0, 1), max_size=30))
def test_a_part_says_whose_part_it_is(root, halves):
    sequence = root
    for half in halves:
        sequence = part_sequences(sequence)[half]
    assert sequence % ROOTS == root
    assert sequence < 2**63  # what SQLite holds
    assert batch_name(sequence) == ".".join(map(str, [root, *(half + 1 for half in halves)]))


def test_what_a_part_is_part_of():
    first, second = part_sequences(7)
    assert list(parts_above(7)) == [7]
    assert list(parts_above(second)) == [second, 7]
    assert list(parts_above(part_sequences(first)[1])) == [part_sequences(first)[1], first, 7]
