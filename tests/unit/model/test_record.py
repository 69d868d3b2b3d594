import pytest

from engine.model.record import Format, Source, source_at


def source(number: int, base: int, size: int) -> Source:
    return Source(number, f"{number}", Format.NDJSON, size, 0, base)


SOURCES = [source(0, 0, 10), source(1, 10, 0), source(2, 10, 5)]


def test_a_source_ends_where_the_next_begins():
    assert [each.end for each in SOURCES] == [10, 10, 15]


@pytest.mark.parametrize(("offset", "number"), [(0, 0), (9, 0), (10, 2), (14, 2), (15, 2)])
def test_a_joined_offset_names_a_byte_of_one_source(offset, number):
    assert source_at(SOURCES, offset).number == number
