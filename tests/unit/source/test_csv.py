import csv
import io

import orjson
import pytest
from fakes.inputs import WINDOWS, read
from hypothesis import given
from hypothesis import strategies as st

from engine.model.errors import SourceError
from engine.model.record import Format


def read_csv(content: bytes, **options):
    return read(content, kind=Format.CSV, **options)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=8), st.sampled_from(["\n", "\r\n"]), WINDOWS, st.booleans())
def test_what_the_csv_module_writes_is_read_back(rows, newline, window_bytes, bom):
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows([("a", "ü b"), *rows])
    found = read_csv(written.getvalue().encode("utf-8-sig" if bom else "utf-8"), window_bytes=window_bytes)
    assert not found.rejects
    assert [record.row for record in found.records] == [{"a": a, "ü b": b} for a, b in rows]


def test_a_row_knows_its_bytes_and_its_line():
    content = b'a,b\r\n\r\n1,2\r\n"x\ny",3\r\n\n4,5'
    found = read_csv(content)
    spans = [content[record.offset : record.offset + record.length] for record in found.records]
    assert spans == [b"1,2", b'"x\ny",3', b"4,5"]
    assert [record.line for record in found.records] == [3, 4, 7]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"a,b", b"a,b\n", b"\n\na,b\r\n\n"])
def test_a_header_alone_holds_no_record(content):
    found = read_csv(content)
    assert not found.records
    assert not found.rejects


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1", "has 1 values and the header 2 names"),
        (b"1,2,3", "has 3 values and the header 2 names"),
        (b'"x"y,2', "not valid CSV: ',' expected after '\"'"),
        (b"1\r1,2", "a carriage return stands in a value: quote the value"),
        (b"\xff,2", "not valid UTF-8 at byte 1 of the record"),
        (b"1," + b"x" * 100, "longer than max_record_bytes (64)"),
    ],
)
def test_a_bad_row_is_a_reject_and_the_rest_goes_on(row, reason):
    found = read_csv(b"a,b\n0,0\n" + row + b"\n1,1\n", max_record_bytes=64)
    assert [record.index for record in found.records] == [0, 2]
    (reject,) = found.rejects
    assert reject.reason.startswith(reason)
    assert (reject.offset, reject.length, reject.line) == (8, len(row), 3)


TYPED = [
    ("integer", "12", b"12"),
    ("integer", " -7 ", b"-7"),
    ("integer", "123456789012345678901234567890", b"123456789012345678901234567890"),
    ("integer", "", b"null"),
    ("integer", "1.5", None),
    ("integer", "007", None),
    ("number", "1.50", b"1.50"),
    ("number", "1E5", b"1E5"),
    ("number", "NaN", None),
    ("number", "Infinity", None),
    ("number", "1e999", None),
    ("number", "1,5", None),
    ("boolean", "TRUE", b"true"),
    ("boolean", "0", b"false"),
    ("boolean", "maybe", None),
    ("json", '[1, {"a": 12345678901234567890123}]', b'[1, {"a": 12345678901234567890123}]'),
    ("json", "{", None),
    ("json", "[NaN]", None),
    ("json", "[" * 1024 + "]" * 1024, None),
    ("string", "", b"null"),
    ("string", "12", b'"12"'),
]


@pytest.mark.parametrize(("kind", "text", "value"), TYPED)
def test_values_are_typed_and_keep_their_text(kind, text, value):
    written = io.StringIO(newline="")
    csv.writer(written).writerows([("key", "v"), ("", text)])
    found = read_csv(written.getvalue().encode(), types={"v": kind})
    if value is None:
        assert "column 'v'" in found.rejects[0].reason or "nested deeper" in found.rejects[0].reason
    else:
        assert [record.raw for record in found.records] == [b'{"key":"","v":' + value + b"}"]
        assert found.records[0].row == orjson.loads(found.records[0].raw)


def test_a_long_bad_value_is_shown_by_its_beginning():
    (reject,) = read_csv(b"a\n" + b"x" * 5000, types={"a": "integer"}).rejects
    assert reject.reason == f"column 'a': '{'x' * 60}…' is no integer"


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (b"a,b,a\n", {}, "names 'a' more than once: rename one"),
        (b"a,,b\n", {}, "column 2 in the header of .* has no name"),
        (b"a, \n", {}, "column 2 in the header of .* has no name"),
        (b"\xe9,b\n", {}, "is not of its encoding"),
        (b'"a"x,b\n', {}, "the header of .* cannot be read: not valid CSV"),
        (b'"a,b\n1,2\n', {}, "the header of .* cannot be read: a quote is opened"),
        (b"a" * 100_000, {"max_record_bytes": 50}, "the header of .* is longer than max_record_bytes"),
        (b"a" * 100, {"max_record_bytes": 50}, "the header of .* is longer than max_record_bytes"),
        (b"prio,b\n", {"types": {"pri0": "integer"}}, "did you mean 'prio'"),
        (b"a,b\n", {"types": {"zzz": "integer"}}, "it has 'a', 'b'"),
        (b"a,b\n", {"delimiter": '"'}, "source.delimiter cannot be"),
    ],
)
def test_a_header_that_cannot_be_used_says_what_to_do(content, options, reason):
    with pytest.raises(SourceError, match=reason):
        read_csv(content, **options)


def test_other_delimiters_are_configured_or_known_by_extension():
    assert read_csv(b"a;b\n1;2\n", delimiter=";").records[0].row == {"a": "1", "b": "2"}
    assert read_csv(b"a\tb\n1\t2\n", suffix=".tsv").records[0].row == {"a": "1", "b": "2"}


def test_a_header_may_be_longer_than_the_first_look():
    names = [f"column {number:09d}" for number in range(20_000)]
    content = ",".join(names) + "\n" + ",".join("x" for _ in names) + "\n"
    (record,) = read_csv(content.encode()).records
    assert list(record.row) == names


CSV_TEXT = st.lists(
    st.sampled_from([b'"', b'"', b",", b"\n", b"\r", b"x", b'""', b',"', b'",', b"y" * 5000]), min_size=1, max_size=14
)


@given(CSV_TEXT, WINDOWS)
def test_a_long_row_ends_where_the_csv_module_ends_it(pieces, window_bytes):
    content = b"a,b\n" + b"".join(pieces) + b"\n1,2\n"
    whole = read_csv(content, max_record_bytes=4000)
    parts = read_csv(content, max_record_bytes=4000, window_bytes=window_bytes)
    assert [record.raw for record in parts.records] == [record.raw for record in whole.records]
    assert [(each.index, each.offset) for each in parts.rejects] == [
        (each.index, each.offset) for each in whole.rejects
    ]
