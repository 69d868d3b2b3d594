import pytest

from engine.model.record import Format, Source, is_long_key, kept_key, shown_key, source_at


def source(number: int, base: int, size: int) -> Source:
    return Source(number, f"{number}", Format.NDJSON, size, 0, base)


SOURCES = [source(0, 0, 10), source(1, 10, 0), source(2, 10, 5)]


def test_a_source_ends_where_the_next_begins():
    assert [each.end for each in SOURCES] == [10, 10, 15]


@pytest.mark.parametrize(("offset", "number"), [(0, 0), (9, 0), (10, 2), (14, 2), (15, 2)])
def test_a_joined_offset_names_a_byte_of_one_source(offset, number):
    assert source_at(SOURCES, offset).number == number


@pytest.mark.parametrize(
    ("key", "kept", "shown"),
    [
        (b'"a-7"', b'"a-7"', "a-7"),
        (b"7.10", b"7.10", "7.10"),
        (b'{"a":\n 1}', b'{"a":  1}', '{"a":  1}'),
        (b'"' + b"x" * 254 + b'"', b'"' + b"x" * 254 + b'"', "x" * 254),
    ],
)
def test_a_key_is_kept_as_it_is_on_one_line(key, kept, shown):
    assert (kept_key(key), is_long_key(kept_key(key)), shown_key(kept_key(key))) == (kept, False, shown)


def test_of_a_long_key_only_its_length_and_its_hash_are_kept():
    key = b'"' + b"x" * 255 + b'"'
    assert is_long_key(kept_key(key))
    assert len(kept_key(key)) < 100
    assert shown_key(kept_key(key)).startswith("a key of 257 bytes, sha256 ")
    assert kept_key(key) != kept_key(key.replace(b"x", b"y"))
