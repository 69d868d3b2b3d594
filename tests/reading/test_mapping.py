import datetime as dt
import json

import orjson
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from engine.model.errors import ConfigError
from engine.model.records import Format, Position, TaskBlock
from engine.model.settings import MappingSettings, SourceSettings
from engine.reading.mapping import Mapper
from engine.reading.reader import read_blocks

from .inputs import sources_of

BIG = b"123456789012345678901234567890"


def mapped(content: bytes, check=lambda task: None, kind=Format.NDJSON, **settings) -> TaskBlock:
    (block,) = read_blocks(sources_of(content, kind=kind), Position(), SourceSettings())
    return Mapper(MappingSettings(**settings), check).apply(block)


@pytest.mark.parametrize(
    ("row", "settings", "task"),
    [
        (b'{ "a" : %s }' % BIG, {}, b'{ "a" : %s }' % BIG),
        (b'{ "a" : %s }' % BIG, {"wrap": "data"}, b'{"data":{ "a" : %s }}' % BIG),
        (b'{"a":1}', {"wrap": "data", "defaults": {"priority": 3}}, b'{"data":{"a":1},"priority":3}'),
        (b'{"data":{},"priority":7}', {"defaults": {"priority": 3}}, b'{"data":{},"priority":7}'),
        (b'{"data":{}}', {"defaults": {"priority": 3}}, b'{"data":{},"priority":3}'),
        (b'{"a":1.0E+2,"p":5}', {"wrap": "data", "fields": {"priority": "p"}}, b'{"data":{"a":1.0E+2},"priority":5}'),
        (b'{"a":1,"p":%s}' % BIG, {"wrap": "d", "fields": {"p": "p"}}, b'{"d":{"a":1},"p":%s}' % BIG),
        (b'{"a":1}', {"wrap": "d", "fields": {"p": "p"}, "defaults": {"p": 9}}, b'{"d":{"a":1},"p":9}'),
        (b'{"a":1,"p":null}', {"wrap": "d", "fields": {"p": "p"}, "defaults": {"p": 9}}, b'{"d":{"a":1},"p":9}'),
        (b'{"a":1,"p":null}', {"wrap": "d", "fields": {"p": "p"}}, b'{"d":{"a":1}}'),
        (b'{"a":1,"b":%s}' % BIG, {"rename": {"a": "z"}}, b'{"z":1,"b":%s}' % BIG),
        (b'{"a":1,"b":2}', {"drop": ["a", "no"]}, b'{"b":2}'),
        (b'{"b":2}', {"drop": ["a"], "rename": {"x": "y"}, "wrap": "d"}, b'{"d":{"b":2}}'),
        (b'{"a":1,"a":%s}' % BIG, {"rename": {"a": "z"}}, b'{"z":%s}' % BIG),
        (b'{"t":"\\u00e9","p":1}', {"drop": ["p"]}, b'{"t":"\\u00e9"}'),
        (b'{"p":1}', {"fields": {"priority": "p"}}, b'{"priority":1}'),
    ],
)
def test_a_row_becomes_a_task(row, settings, task):
    seen = []
    block = mapped(row, seen.append, **settings)
    assert block.tasks == [task]
    assert seen == [orjson.loads(task)]


def test_csv_rows_become_tasks_like_others():
    content = b"name,p\nx,5\ny,\n"
    sources = sources_of(content, kind=Format.CSV)
    (block,) = read_blocks(sources, Position(), SourceSettings(types={"p": "integer"}))
    settings = MappingSettings(wrap="data", fields={"priority": "p"}, defaults={"priority": 1})
    tasks = Mapper(settings, lambda task: None).apply(block).tasks
    assert tasks == [b'{"data":{"name":"x"},"priority":5}', b'{"data":{"name":"y"},"priority":1}']


def test_a_task_that_the_service_would_not_take_is_a_reject():
    block = mapped(
        b'{"a":1}\n\n[]\n{"a":2}\n{"a":3}\n',
        lambda task: "a must be odd" if task["data"]["a"] == 2 else None,
        wrap="data",
    )
    assert block.tasks == [b'{"data":{"a":1}}', b'{"data":{"a":3}}']
    assert list(block.indexes) == [0, 3]
    assert list(block.lines) == [1, 5]
    assert [(each.index, each.line, each.reason) for each in block.rejects] == [
        (1, 3, "is an array, a record must be an object"),
        (2, 4, "a must be odd"),
    ]


@pytest.mark.parametrize(
    ("row", "settings", "names"),
    [
        (b'{"a":1,"b":2}', {"rename": {"a": "b"}}, ("'a'", "'b'")),
        (b'{"a":1,"b":2}', {"rename": {"a": "c", "b": "c"}}, ("'a'", "'b'", "'c'")),
        (b'{"p":1,"priority":2}', {"fields": {"priority": "p"}}, ("'p'", "'priority'")),
    ],
)
def test_columns_that_become_one_key_reject_the_row_and_are_named(row, settings, names):
    block = mapped(row + b'\n{"x":1}', **settings)
    assert block.tasks == [b'{"x":1}']
    assert all(name in block.rejects[0].reason for name in names)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"wrap": "data", "fields": {"data": "a"}}, "mapping.fields.data"),
        ({"wrap": "data", "defaults": {"data": {}}}, "mapping.defaults.data"),
        ({"fields": {"p": "a"}, "rename": {"a": "b"}}, "mapping.fields and mapping.rename both take column 'a'"),
        ({"drop": ["a"], "rename": {"a": "b"}}, "mapping.rename and mapping.drop both take column 'a'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, names):
    with pytest.raises(ConfigError, match=names):
        Mapper(MappingSettings(**settings), lambda task: None)


@pytest.mark.parametrize("value", [2**64, float("inf"), float("nan"), dt.date(2024, 1, 1), [{"a": 2**70}]])
def test_a_default_that_is_no_json_is_refused(value):
    with pytest.raises(ConfigError, match=r"mapping\.defaults\.p: .* is no JSON value"):
        Mapper(MappingSettings(defaults={"p": value}), lambda task: None)


def test_routes_are_forgotten_before_they_fill_the_memory():
    rows = [{f"k{number}": number, "p": 1} for number in range(2500)]
    tasks = []
    mapper = Mapper(MappingSettings(wrap="d", fields={"p": "p"}), lambda task: None)
    for block in read_blocks(sources_of(b"\n".join(map(orjson.dumps, rows))), Position(), SourceSettings()):
        tasks += mapper.apply(block).tasks
    assert list(map(orjson.loads, tasks)) == [{"d": {f"k{number}": number}, "p": 1} for number in range(2500)]
    assert len(mapper._routes) <= 1000


NAMES = st.sampled_from("abcde")


@given(
    st.lists(st.dictionaries(NAMES, st.integers(0, 9) | st.text(max_size=3) | st.lists(st.floats(0, 1)))),
    st.sampled_from([json.dumps, lambda row: orjson.dumps(row).decode()]),
    st.builds(
        MappingSettings,
        wrap=st.none() | st.just("data"),
        fields=st.dictionaries(st.sampled_from("pq"), NAMES, max_size=2),
        defaults=st.dictionaries(st.sampled_from("pqa"), st.integers(), max_size=2),
        rename=st.dictionaries(NAMES, st.sampled_from("xyab"), max_size=2),
        drop=st.lists(NAMES, max_size=2),
    ),
)
def test_mapping_does_what_its_words_say(rows, write, settings):
    try:
        mapper = Mapper(settings, lambda task: None)
    except ConfigError:
        reject()
    blocks = read_blocks(sources_of("\n".join(map(write, rows)).encode()), Position(), SourceSettings())
    for block in blocks:
        result = mapper.apply(block)
        expected = {index: task for index, row in enumerate(rows) if (task := plainly(row, settings)) is not None}
        assert dict(zip(result.indexes, map(orjson.loads, result.tasks), strict=True)) == expected
        assert mapper.render([write(rows[index]).encode() for index in result.indexes]) == result.tasks


def plainly(row: dict, settings: MappingSettings) -> dict | None:
    """Do the same as the mapper in the plainest way; None where two columns become one key."""
    picked = {key: row[column] for key, column in settings.fields.items() if column in row}
    kept = [name for name in row if name not in settings.drop and name not in settings.fields.values()]
    renamed = [settings.rename.get(name, name) for name in kept]
    inputs = dict(zip(renamed, (row[name] for name in kept), strict=True))
    if len(inputs) < len(renamed) or (settings.wrap is None and picked.keys() & inputs.keys()):
        return None
    task = {**inputs, **picked} if settings.wrap is None else {settings.wrap: inputs, **picked}
    return {**settings.defaults, **task}
