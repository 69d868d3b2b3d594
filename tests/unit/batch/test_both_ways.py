"""What is valid does not depend on the way: a record that is proved in C would be taken by its values as well.

BULKSUBMIT_TORTURE=1 spoils a million records.
"""

import os
import random

import msgspec
import pytest
from fakes.inputs import sources_of

from engine.batch.mapping import Mapper
from engine.batch.planning import plan_batches
from engine.model.batch import Limits
from engine.model.record import Format, Position
from engine.model.settings import MappingSettings, SourceSettings
from engine.services.sama.tasks import PlainTask, field_error
from engine.source.json_text import proven
from engine.source.reader import read_blocks

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
LIMITS = Limits(3, 1 << 20)

# Values of the kinds that JSONTestSuite has.
GOOD = [
    b"{}", b"[]", b"[[]   ]", b'{"a":{},"":0}', b'{"a":1,"a":{}}', b'{"\\u0061":[]}', b'{"a":\r\t {} }', b" [1\t,2 ] ",
    b"null", b"true", b"false", b"0", b"-0", b"-1", b"0.0", b"-0.0", b"1.5e+3", b"1E22", b"0e1", b"0E+1", b"20e1",
    b"1e-2", b"123e-10000000", b"-123123e100000", b"1e999", b"-1e999", b"1E400", b"1.5e+9999", b"0e99999", b"1" * 400,
    b"-" + b"2" * 20, b"123456789012345678901234567890", b"4.9406564584124654e-324", b"1.7976931348623158e308",
    b"1.7976931348623159e308", b'""', b'" "', b'"\\u0000"', b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', b'"\\u0012\\uFFFF"',
    b'"\\uD801\\udc37"', b'"\\ud83d\\ude39\\ud83d\\udc8d"', b'"\xf4\x8f\xbf\xbf\xef\xbf\xbf\xc2\x80"',
    b'"\xe2\x80\xa8\xe2\x80\xa9"', b'"\x7f"', b'"a/*b*/c"', b'"[\\"1e999\\"]"', b'[1e999,"1e999",-1e999]',
    b'{"1e999":1e999}', b"[" * 900 + b"]" * 900, b"[" * 1020 + b"]" * 1020, b'{"a":' * 1020 + b"1" + b"}" * 1020,
    b'[{"[[[":"{{{"}]' + b" " * 3000, b"[" + b",".join([b"[{}]"] * 1000) + b"]",
]  # fmt: skip
BAD = [
    b"", b"[", b"]", b"{", b"}", b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b"[1}", b'{"a":1]', b"[1]]", b'{"a":1,}',
    b'{"a":1,,"b":2}', b'{"a" 1}', b'{"a"::1}', b"{a:1}", b"{'a':1}", b"{1:1}", b'{"a":1 "b":2}', b'{"a":1}}',
    b"{null:1}", b"nul", b"nulls", b"True", b"truth", b"NaN", b"-NaN", b"Infinity", b"-Infinity", b"+1", b"01", b"-01",
    b"-", b"--1", b"1.", b"-1.", b".5", b"-.5", b"1.e1", b"1e", b"1e+", b"1eE2", b"1e5e5", b"1.2.3", b"1-2", b"1_0",
    b"0x1", b"00", b"01e999", b"1e999x", b"1e999.5", b"1.e999", b"0.e1", b"1 000", b'"', b'"a', b'"\\"', b'"\\',
    b'"\\u"', b'"\\u12"', b'"\\u00zz"', b'"\\q"', b'"\\x00"', b'"\\\xf0\x9f\x8c\x80"', b'"\\ud800"', b'"\\udc00"',
    b'"\\ud800\\ud800\\n"', b'"\\udc00\\ud800"', b'"\\ud800abc"', b'"\\ud800\\u"', b'"\x00"', b'"\x01"', b'"\x1f"',
    b'"\t"', b'"\r"', b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x80"', b'"\xc3',
    b'{"\xff":1}', b'{"\\ud800":1}', b'{"a\x01":1}', b'{"\\q":1}', b"1\x00", b"1\x0b", b"1\x0c", b"1\xc2\xa0",
    b"\xef\xbb\xbf1", b"/**/1", b"1//", b"1#", b"[1e999,NaN]", b'["1e999]', b"[" * 1030 + b"]" * 1030,
    b"[" * 1030 + b"]" * 1029, b'{"a":' * 100_000, b'[{"a":' * 600 + b"1" + b"}]" * 600,
]  # fmt: skip
FIELDS = [
    b'{"data":{},"priority":%b}' % value
    for value in (b"1", b"-0", b"2147483647", b"-2147483648", b"2147483648", b"1.0", b"1e2", b"1e999", b"true", b'"1"')
] + [
    b'{"data":{}}', b'{"d\\u0061ta":{}}', b'{"data":{},"data":1}', b'{"data":1,"data":{}}', b'{"data":[]}',
    b'{"data":null}', b"{}", b"[]", b"[{}]", b"1", b'{"data":{},"reserve_for":"a"}',
    b'{"data":{},"reserve_for":9223372036854775808}', b'{"data":{},"reserve_for":-1}',
    b'{"data":{},"reserve_for":1.5}', b'{"data":{},"reserve_for":null}', b'{"data":{},"reserve_for":"\\ud800"}',
    b'{"data":{},"reserve_for":99999999999999999999}', b'{"data":{},"submit":true}', b'{"data":{},"submit":1}',
    b'{"data":{},"submit":true,"duration":5}', b'{"data":{},"duration":5}',
    b'{"data":{},"submit":true,"duration":1e999}', b'{"data":{},"submit":true,"duration":-1}',
    b'{"data":{},"other":1}', b'{"data":{},"priority":1,"priority":"x"}', b'{"data":{}} {"data":{}}', b'{"data":{}},',
    b'\xef\xbb\xbf{"data":{}}', b'{"data":{}}\x00', b'{"data":{}}\x0c', b' \t{"data":{}}\r',
    b'{"data":{}}\r{"data":{}}',
]  # fmt: skip


def outcome(content, plain_task=None, *, window_bytes=1 << 17, kind=Format.NDJSON, most=1 << 20, **mapping):
    """Return the batches, the rejects and the tasks of a file, and how many records were proved."""
    mapper = Mapper(MappingSettings(**mapping), field_error, plain_task)
    sources, settings = sources_of(content, kind=kind), SourceSettings(max_record_bytes=most)
    plans = plan_batches(sources, settings, mapper, LIMITS, window_bytes=window_bytes)
    found = [(list(plan.batches), list(plan.rejects)) for plan in plans]
    blocks = list(read_blocks(sources, Position(), settings, window_bytes, proof=mapper.proof))
    tasks = [task for block in blocks for task in mapper.apply(block).raws]
    return (found, tasks), sum(len(block.raws) for block in blocks if block.rows is None)


def agreed(content, **options):
    """Return the rejects and the tasks of a file, and how many records were proved, once both ways say the same."""
    fast, proved = outcome(content, PlainTask, **options)
    slow, none = outcome(content, **options)
    assert fast == slow, content[:2000]
    assert not none
    found, tasks = fast
    return [reject for _, rejects in found for reject in rejects], tasks, proved


@pytest.mark.parametrize("window_bytes", [64, 1 << 17])
@pytest.mark.parametrize("value", GOOD)
def test_what_is_json_goes_up_as_it_stands_on_both_ways(value, window_bytes):
    for key, mapping in ((b'{"data":', {}), (b"", {"wrap": "data"})):
        record = key + b'{"x":' + value + b"}" + b"}" * bool(key)
        rejects, tasks, _ = agreed(record + b"\n" + record, window_bytes=window_bytes, **mapping)
        assert not rejects
        assert tasks == [b'{"data":{"x":' + value + b"}}"] * 2


@pytest.mark.parametrize("value", [value for value in GOOD if value.count(b"[") + value.count(b"{") < 900])
def test_what_is_json_needs_no_second_look(value):
    assert agreed(b'{"data":{"x":' + value + b"}}")[2] == 1


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_json_is_refused_on_both_ways(value):
    good = b'{"data":{"y":1}}\n'
    rejects, tasks, _ = agreed(good + b'{"data":{"x":' + value + b"}}\n" + good)
    assert [reject.index for reject in rejects] == [1]
    assert len(tasks) == 2
    assert len(agreed(value + b"\n" + good, wrap="data")[1]) >= 1


@pytest.mark.parametrize("record", FIELDS)
def test_fields_are_judged_alike_on_both_ways(record):
    for defaults in ({}, {"priority": 1}, {"duration": 1}, {"priority": "x"}):
        agreed(record, **({"wrap": "data", "defaults": defaults} if defaults else {}))
    agreed(record + b"\n" + record)


@pytest.mark.parametrize(
    "broken",
    [
        b'{"data":\n{}}',
        b'{"data":{}} {"data":\n{}}',
        b'{"data":{"a":"\n"}}',
        b'{"data":{"a":"\xc3\n\xa9"}}',
        b'{"data":{"a":[1\n,2]}}',
        b'{"data":{}}{"data":{}}\n',
    ],
)
def test_two_broken_lines_never_make_a_good_one(broken):
    rejects, tasks, _ = agreed(broken + b'\n{"data":{}}')
    assert len(rejects) == broken.count(b"\n") + 1 - broken.endswith(b"\n")
    assert tasks == [b'{"data":{}}']


def test_a_letter_that_the_window_cuts_is_whole_in_the_next_one():
    content = b"".join(b'{"data":{"n":"%b"}}\n' % ("é" * number).encode() for number in range(60))
    rejects, tasks, proved = agreed(content, window_bytes=256)
    assert (len(rejects), len(tasks), proved) == (0, 60, 60)


def test_a_record_that_is_too_long_is_told_from_the_others():
    rejects, tasks, _ = agreed(b'{"data":{}}\n{"data":{"long":"text"}}\n{"data":{}}', most=15)
    assert [reject.reason for reject in rejects] == ["longer than max_record_bytes (15)"]
    assert len(tasks) == 2


@pytest.mark.parametrize(
    ("mapping", "task"),
    [
        ({"wrap": "data", "rename": {"x": "y"}}, b'{"data":{"y":%b}}'),
        ({"fields": {"data": "o"}, "drop": ["x"]}, b'{"data":{"x":%b}}'),
        ({"template": {"data": {"y": "${row.x}", "t": "<${row.x}>"}}}, b'{"data":{"y":%b,"t":"<%b>"}}'),
    ],
)
@pytest.mark.parametrize("number", [b"1e999", b"-1E+400", b"9" * 310])
def test_a_number_beyond_a_double_goes_up_as_it_stands_through_any_mapping(mapping, task, number):
    _, tasks, _ = agreed(b'{"x":%b,"o":{"x":%b}}' % (number, number), **mapping)
    named = task % ((number,) * task.count(b"%b"))
    assert tasks == [
        named if b"rename" not in repr(mapping).encode() else b'{"data":{"y":%b,"o":{"x":%b}}}' % (number, number)
    ]


def test_nesting_is_counted_where_the_decoder_would_take_more():
    class Lenient:
        decode = staticmethod(lambda text: text)

    deep = b'{"a":' + b"[" * 1024 + b"]" * 1024 + b"}"
    assert not proven([b"{}", deep], len(deep), Lenient)
    assert proven([b"{}", deep.replace(b"[]", b"11")], len(deep), Lenient)


def test_only_objects_are_proved_whatever_a_service_declares():
    class Odd(msgspec.Struct):
        data: int | msgspec.Raw

    assert Mapper(MappingSettings(wrap="data"), field_error, Odd).proof is None
    assert Mapper(MappingSettings(wrap="other"), field_error, Odd).proof is None


SHREDS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b" ", b"\x00", b"\xff", b"\xc3", b"\xa9", b"1e999",
    b"-", b"0", b".", b"e9", b"\\u", b"\\ud800", b"null", b'"data"', b'"x":1,', b'{"data":{}}', b"\xef\xbb\xbf",
    b"[" * 600, b"]" * 600,
]  # fmt: skip


def spoilt(draw, text):
    """Return a text with some bytes of it cut out, doubled, or replaced."""
    for _ in range(draw.randrange(3)):
        at = draw.randrange(len(text) + 1)
        end = at + draw.choice([0, 0, 1, 1, 2, 9])
        text = text[:at] + draw.choice([*SHREDS, b"", text[at:end] * 2]) + text[end:]
    return text


@pytest.mark.parametrize("seed", range(400 if TORTURE else 4))
def test_spoilt_records_fare_alike_on_both_ways(seed):
    draw = random.Random(seed)
    for _ in range(500):
        fields = draw.choice(
            [b"", b"", b',"priority":7', b',"submit":true', b',"submit":true,"duration":2', b',"reserve_for":"a"']
        )
        records = [
            b'{"data":{"x":%b,"t":"%b"}%b}' % (draw.choice(GOOD[:40]), b"\xc3\xa9\\u00e9", fields) for _ in range(5)
        ]
        content = spoilt(draw, draw.choice([b"\n", b"\r\n", b" \n", b"\n\n"]).join(records))
        wrap = draw.choice([None, None, "data"])
        agreed(content, wrap=wrap, window_bytes=draw.choice([64, 300, 1 << 17]), most=draw.choice([200, 1 << 20]))
