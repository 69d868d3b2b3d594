import pytest
from fakes.inputs import read

WHERE = [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize(
    ("content", "offsets", "lines"),
    [
        (b'{"a":1}\n{"b":2}\n', [0, 8], [1, 2]),
        (b'{"a":1}\n{"b":2}', [0, 8], [1, 2]),
        (b'{"a":1}\r\n{"b":2}\r\n', [0, 9], [1, 2]),
        (b'\n\n{"a":1}\n \t\n\r\n{"b":2}\n\n', [2, 15], [3, 6]),
        (b'\xef\xbb\xbf{"a":1}\n{"b":2}', [3, 11], [1, 2]),
        (b'  {"a":1} \n\t{"b":2}\t\n', [2, 12], [1, 2]),
        (b'  {"a":1}\n{"b":2}', [2, 10], [1, 2]),
    ],
)
@pytest.mark.parametrize("window_bytes", [4, 1 << 17])
def test_lines_are_records_in_every_spelling(content, offsets, lines, window_bytes):
    found = read(content, window_bytes=window_bytes)
    assert [record.raw for record in found.records] == WHERE
    assert [record.offset for record in found.records] == offsets
    assert [record.line for record in found.records] == lines
    assert not found.rejects


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_no_line_is_no_record(content):
    found = read(content)
    assert not found.records
    assert not found.rejects


@pytest.mark.parametrize(
    "raw",
    [
        b'{"n":123456789012345678901234567890}',
        b'{"n":1.0E+2}',
        '{"t":"é漢\u2028\x7f"}'.encode(),
        b'{"a":1,"a":2}',
        b'{ "a" : [ 1 , 2 ] }',
        b'{"t":"\\u00e9\\/"}',
        b"{}",
        b'{"d":' + b"[" * 1000 + b"]" * 1000 + b"}",
    ],
)
def test_what_a_record_says_is_kept_to_the_byte(raw):
    (record,) = read(b"\n" + raw + b"\n").records
    assert record.raw == raw


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"id": 1, "name"', "not valid JSON: unexpected end of data at column 17"),
        (b"[1]", "is an array, a record must be an object"),
        (b'"text"', "is a string, a record must be an object"),
        (b'{"a":1}\x0c', "not valid JSON: unexpected content after document at column 8"),  # Python's blank, not JSON's
        (b"12", "is a number, a record must be an object"),
        (b"null", "is null, a record must be an object"),
        (b"true", "is a boolean, a record must be an object"),
        (b'{"a":NaN}', "not valid JSON: NaN is no value that JSON has"),
        (b'{"a":1} {"b":2}', "not valid JSON: unexpected content after document at column 9"),
        (b'{"a":"\xff"}', "not valid UTF-8 at byte 7 of the record"),
        (b'{"a":\x00}', "not valid JSON: unexpected character"),
        (b'{"a":' + b"[" * 1100 + b"]" * 1100 + b"}", "nested deeper than 1024 levels"),
        (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),  # only a file begins with a byte order mark
        (b'{"a":"' + b"x" * 100 + b'"}', "longer than max_record_bytes (64)"),
    ],
)
def test_a_bad_record_is_a_reject_with_its_reason_and_the_rest_goes_on(raw, reason):
    limit = 64 if reason.startswith("longer") else 1 << 24
    found = read(b'{"a":1}\n' + raw + b'\n{"a":2}\n', max_record_bytes=limit)
    assert [record.index for record in found.records] == [0, 2]
    (reject,) = found.rejects
    assert reject.reason.startswith(reason)
    assert (reject.index, reject.offset, reject.length, reject.line) == (1, 8, len(raw), 2)


def test_a_record_of_exactly_the_limit_is_good():
    raw = b'{"a":"xyz"}'
    assert read(b" " + raw + b"  \r\n", max_record_bytes=len(raw)).records
    assert read(raw, max_record_bytes=len(raw) - 1).rejects
