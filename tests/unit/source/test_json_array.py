import os
import time
from random import Random

import msgspec
import orjson
import pytest
from fakes.inputs import read, sources_of

from engine.model.record import Format, Position
from engine.model.settings import SourceSettings
from engine.source.json_text import ElementScan, parse
from engine.source.reader import read_blocks


def read_array(content: bytes, **options):
    return read(content, kind=Format.JSON, **options)


@pytest.mark.parametrize(
    "content",
    [
        b'[{"a":1},{"b":2}]',
        b'[\n{"a":1},\n{"b":2}\n]\n',
        b' [ {"a":1} , {"b":2} ] ',
        b'\xef\xbb\xbf\r\n[{"a":1},\r\n{"b":2}]',
    ],
)
@pytest.mark.parametrize("window_bytes", [4, 1 << 17])
def test_elements_are_records_however_they_are_written(content, window_bytes):
    found = read_array(content, window_bytes=window_bytes)
    assert [record.raw for record in found.records] == [b'{"a":1}', b'{"b":2}']
    assert [record.offset for record in found.records] == [content.index(b'{"a'), content.index(b'{"b')]
    assert not found.rejects


@pytest.mark.parametrize("content", [b"", b" \n", b"\xef\xbb\xbf", b"[]", b" [ \n ] \n"])
def test_an_empty_array_holds_no_record(content):
    found = read_array(content)
    assert not found.records
    assert not found.rejects


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (b"5", "is a number, a record must be an object"),
        (b"[1,{}]", "is an array, a record must be an object"),
        (b'{"x":1}{"y":2}', "not valid JSON: unexpected content after document"),
        (b'{"x":1]', "not valid JSON"),
        (b'{"x":1}}', "not valid JSON"),
        (b'{"x":"\xff"}', "not valid UTF-8"),
        (b'{"x":\x00}', "not valid JSON"),
        (b'{"x":[1},{2]}', "not valid JSON"),
        (b"", "is empty: a comma stands there without a record"),
    ],
)
def test_a_bad_element_is_a_reject_and_the_rest_goes_on(element, reason):
    head = b'[{"a":1},{"a":2}, '
    found = read_array(head + element + b',{"a":3},{"a":4}]')
    assert [record.row["a"] for record in found.records] == [1, 2, 3, 4]
    (reject,) = found.rejects
    assert reject.reason.startswith(reason)
    assert (reject.index, reject.offset, reject.length) == (2, len(head), len(element))


@pytest.mark.parametrize(
    ("content", "good", "offset", "reason"),
    [
        (b'[{"a":1},{"a":2}', 2, 15, "the array is not closed"),
        (b'[{"a":1},{"a":2} \n', 2, 17, "the array is not closed"),
        (b'[{"a":1},', 1, 8, "the array is not closed"),
        (b"[", 0, 0, "the array is not closed"),
        (b'[{"a":1}] {"a":2}', 1, 10, "text after the array's closing ]"),
        (b'[{"a":1}][{"a":2}]', 1, 9, "text after the array's closing ]"),
        (b'[{"a":1},{"a":[1,2},{"a":3}]', 1, 9, "brackets or quotes do not balance"),
        (b'[{"a":1},{"a":"x},{"a":3}]', 1, 9, "brackets or quotes do not balance"),
        (b'{"a":1}', 0, 0, "the file does not begin with ["),
        (b'x[{"a":1}]', 0, 0, "the file does not begin with ["),
        (b'[{"a":1},]', 1, 9, "is empty: a comma stands there without a record"),
    ],
)
@pytest.mark.parametrize("window_bytes", [4, 1 << 17])
def test_what_cannot_be_told_apart_is_one_reject(content, good, offset, reason, window_bytes):
    found = read_array(content, window_bytes=window_bytes)
    assert len(found.records) == good
    (reject,) = found.rejects
    assert reason in reject.reason
    assert reject.offset == offset


ROWS = [{"id": number, "boxes": [{"id": 1, "t": "},{"}, {"id": 2}], "note": '},\n{"id":'} for number in range(3000)]


@pytest.mark.parametrize(
    "content",
    [
        orjson.dumps(ROWS),
        orjson.dumps(ROWS, option=orjson.OPT_INDENT_2),
        b"[" + b",\n".join(map(orjson.dumps, ROWS)) + b"]",
        b"[" + b",".join(orjson.dumps({f"k{row['id']}": row, "id": 1}) for row in ROWS) + b"]",
        b"[" + b",".join(orjson.dumps({"ab"[row["id"] % 2]: row}) for row in ROWS) + b"]",
        b"[" + b"".join(orjson.dumps(row) + (b",", b" , ")[row["id"] % 2] for row in ROWS) + b"{}]",
    ],
    ids=["compact", "pretty", "lines", "no first key alike", "two first keys", "separators vary"],
)
@pytest.mark.parametrize("window_bytes", [1000, 1 << 17])
def test_a_wrong_guess_of_the_separator_costs_no_record(content, window_bytes):
    found = read_array(content, window_bytes=window_bytes)
    assert not found.rejects
    assert [record.row for record in found.records] == orjson.loads(content)


class Labelled(msgspec.Struct):
    a: object


BLANKS = [b"", b"", b"", b" ", b"\n", b"\r\n\t"]
VALUES = [
    b"1", b'"},{"', b'"},{\\"a\\":"', b"[]", b"{}", b'[{"a":1},{"a":2}]', b'{"a":{"a":"]"}}', b'"\\\\"', b'"\xc3\xa9"',
]  # fmt: skip
BROKEN = [
    b"", b"5", b"[{},{}]", b"{}{}", b'{"a":1]', b'{"a":1}}', b'{"a":"\xff"}', b'{"a":\x00}', b'{"a":[1},{2]}', b"}",
    b'{"a":01}', b'{"a":1,}', b'{"a":"\x01"}', b'{"a":"\\ud800"}', b'{"a":1} {"a":2}',
]  # fmt: skip


def drawn_elements(random):
    """Return elements, and what stands before each and after the last one."""
    keys, broken, same = random.choice([b"a", b"ab"]), random.choice([0, 0, 0.02, 0.3]), random.choice([0, 0.5, 1])
    blank = lambda: random.choice(BLANKS)  # noqa: E731
    member = lambda: b"".join((blank(), b'"%c":' % random.choice(keys), blank(), random.choice(VALUES), blank()))  # noqa: E731
    good = lambda: b"{" + b",".join(member() for _ in range(random.randint(1, 3))) + b"}"  # noqa: E731
    count, usual = random.choice([2, 3, 40, 300]), blank() + b"," + blank()
    elements = [random.choice(BROKEN) if random.random() < broken else good() for _ in range(count)]
    commas = [usual if random.random() < same else blank() + b"," + blank() for _ in elements[1:]]
    return elements, [blank() + b"[" + blank(), *commas, blank() + b"]" + blank()]


@pytest.mark.parametrize("seed", range(6000 if os.environ.get("BULKSUBMIT_TORTURE") else 60))
def test_elements_are_found_whatever_stands_in_and_between_them(seed):
    random = Random(seed)
    elements, gaps = drawn_elements(random)
    content, wanted = gaps[0], []
    for element, gap in zip(elements, gaps[1:], strict=True):
        at = len(content) + (0 if element else len(gap) - len(gap.lstrip()))  # nothing at all stands where a comma does
        wanted.append((at, element, parse([element], 1000)[1].get(0)))
        content += element + gap
    sources = sources_of(content, kind=Format.JSON)
    for proof in (None, msgspec.json.Decoder(Labelled)):
        window_bytes = random.choice([4, 7, 16, 61, 300, 6000, 1 << 17])
        found = []
        for block in read_blocks(sources, Position(), SourceSettings(), window_bytes, proof=proof):
            assert block.rows == list(map(orjson.loads, block.raws)) or (proof and block.rows is None)
            found += [(offset, raw, None) for offset, raw in zip(block.offsets, block.raws, strict=True)]
            found += [(each.offset, content[each.offset :][: each.length], each.reason) for each in block.rejects]
        assert sorted(found, key=lambda each: each[0]) == wanted


def test_elements_that_begin_with_one_key_or_another_are_not_scanned(monkeypatch):
    scanned = []
    feed = ElementScan.feed
    monkeypatch.setattr(ElementScan, "feed", lambda self, data, at=0: scanned.append(at) or feed(self, data, at))
    found = read_array(
        b"[" + b",".join(orjson.dumps({"abc"[number % 3]: [{"d": 1}, {"d": 2}]}) for number in range(9000)) + b"]"
    )
    assert len(found.records) == 9000
    assert len(scanned) < 20


def test_blanks_without_end_behind_the_array_are_one_reject():
    found = read_array(b'[{"a":1}]' + b" " * 9000, window_bytes=64, max_record_bytes=100)
    assert len(found.records) == 1
    (reject,) = found.rejects
    assert (reject.index, reject.offset) == (1, 9)
    assert "text after the array's closing ]" in reject.reason


def test_records_keep_their_lines():
    found = read_array(orjson.dumps([{"a": 1}, {"a": 2}, {"a": 3}], option=orjson.OPT_INDENT_2))
    assert [record.line for record in found.records] == [2, 5, 8]


@pytest.mark.parametrize(
    "element",
    [
        b'{"a":[' + b"{}," * 300_000 + b"{}]}",
        b'{"a":"' + b"},{" * 300_000 + b'"}',
        b'{"a":"' + b'\\"},{\\"a\\":' * 100_000 + b'"}',
        b"[" * 300_000 + b"]" * 300_000,
    ],
    ids=["brackets", "quoted brackets", "escapes", "depth"],
)
def test_hostile_elements_take_linear_time(element):
    began = time.process_time()
    found = read_array(b'[{"a":1},' + b",".join([element] * 2) + b',{"a":2}]')
    assert len(found.records) + len(found.rejects) == 4
    assert {0, 3} <= {record.index for record in found.records}
    assert time.process_time() - began < 10  # a second or two; quadratic would be an hour
