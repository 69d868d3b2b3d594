import datetime as dt
import json

import orjson
import pytest
from fakes.inputs import sources_of
from hypothesis import given, reject
from hypothesis import strategies as st
from msgspec import structs

from engine.batch.mapping import Mapper
from engine.model.errors import ConfigError
from engine.model.record import Block, Format, Position
from engine.model.settings import MappingSettings, SourceSettings
from engine.services.decoding import Anything
from engine.source.reader import read_blocks

BIG = b"123456789012345678901234567890"


def mapped(content: bytes, check=lambda task: None, kind=Format.NDJSON, **settings) -> Block:
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
    assert block.raws == [task]
    assert seen == [orjson.loads(task)]


@pytest.mark.parametrize("plain_task", [None, Anything])
@pytest.mark.parametrize("settings", [{}, {"wrap": "data"}, {"rename": {"a": "b"}}])
def test_a_task_that_is_longer_than_the_service_takes_is_rejected(settings, plain_task):
    content = b'{"a":1}\n{"a":"%s"}\n{"a":2}\n' % (b"x" * 60)
    (block,) = read_blocks(sources_of(content), Position(), SourceSettings())
    block = block if plain_task is None or settings.get("rename") else structs.replace(block, rows=None)
    mapper = Mapper(MappingSettings(**settings), lambda task: None, plain_task, task_bytes=60)
    mapped = mapper.apply(block)
    assert list(mapped.indexes) == [0, 2]
    ((index, reason),) = [(reject.index, reject.reason) for reject in mapped.rejects]
    length = 77 if "wrap" in settings else 68
    assert index == 1
    assert reason == f"its task has {length} bytes, and the service takes 60 at once (service.limit.bytes)"


def test_csv_rows_become_tasks_like_others():
    content = b"name,p\nx,5\ny,\n"
    sources = sources_of(content, kind=Format.CSV)
    (block,) = read_blocks(sources, Position(), SourceSettings(types={"p": "integer"}))
    settings = MappingSettings(wrap="data", fields={"priority": "p"}, defaults={"priority": 1})
    tasks = Mapper(settings, lambda task: None).apply(block).raws
    assert tasks == [b'{"data":{"name":"x"},"priority":5}', b'{"data":{"name":"y"},"priority":1}']


def test_a_task_that_the_service_would_not_take_is_a_reject():
    block = mapped(
        b'{"a":1}\n\n[]\n{"a":2}\n{"a":3}\n',
        lambda task: "a must be odd" if task["data"]["a"] == 2 else None,
        wrap="data",
    )
    assert block.raws == [b'{"data":{"a":1}}', b'{"data":{"a":3}}']
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
    assert block.raws == [b'{"x":1}']
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
        tasks += mapper.apply(block).raws
    assert list(map(orjson.loads, tasks)) == [{"d": {f"k{number}": number}, "p": 1} for number in range(2500)]
    assert mapper._route.cache_info().currsize <= 1000


DEEP = b"[" * 300 + b"]" * 300


@pytest.mark.parametrize(
    ("settings", "task"),
    [({"drop": ["p"]}, b'{"a":%s}'), ({"template": {"x": {"y": "${row.a}"}}}, b'{"x":{"y":%s}}')],
)
def test_a_value_deeper_than_orjson_writes_goes_up_as_it_is(settings, task):
    assert mapped(b'{"p":1,"a":%s}' % DEEP, **settings).raws == [task % DEEP]


# Templates


@pytest.mark.parametrize(
    ("row", "template", "task"),
    [
        (b'{"a":1}', {"x": "${row.a}", "y": {"z": [True, "${row.a}"]}}, b'{"x":1,"y":{"z":[true,1]}}'),
        (b'{"a":%s}' % BIG, {"x": ["${row.a}"]}, b'{"x":[%s]}' % BIG),
        (b'{"a":%s,"b":1.50}' % BIG, {"x": "n${row.a}-${row.b}"}, b'{"x":"n%s-1.50"}' % BIG),
        (b'{"a":1.0E+2}', {"x": "${row.a}", "y": "${row.a} "}, b'{"x":1.0E+2,"y":"1.0E+2 "}'),
        (
            b'{"a":"\\u00e9\\"","n":1.0E+2}',
            {"x": "${row.a}", "y": "<${row.a}>"},
            b'{"x":"\\u00e9\\"","y":"<\xc3\xa9\\">"}',
        ),
        (b'{"a":"s1","b":2}', {"name": "align ${row.a}/${row.b}${row.a}"}, b'{"name":"align s1/2s1"}'),
        (b'{"a":[1, 2],"b":true}', {"x": "${row.a}", "y": "${row.a}:${row.b}"}, b'{"x":[1,2],"y":"[1,2]:true"}'),
        (b'{"a":null}', {"x": "${row.a}"}, b'{"x":null}'),
        (b'{"a b.c":1,"n":2}', {"x": "${row.a b.c}"}, b'{"x":1}'),
        (
            b'{"a":1}',
            {"x": "$(inputs.a) ${a} ${{row.a}} $row.a", "n": 4},
            b'{"x":"$(inputs.a) ${a} ${{row.a}} $row.a","n":4}',
        ),
    ],
)
def test_a_template_takes_values_of_the_row(row, template, task):
    seen = []
    block = mapped(row, seen.append, template=template)
    assert block.raws == [task]
    assert list(map(orjson.loads, block.raws)) == [orjson.loads(task)]
    assert seen == [orjson.loads(task)]


def test_rows_of_a_manifest_become_tasks_by_a_template():
    template = {"name": "${row.sample}", "inputs": {"reads": {"class": "File", "path": "${row.id}"}, "n": "${row.n}"}}
    (block,) = read_blocks(
        sources_of(b"sample,id,n\ns1,f1,4\n", kind=Format.CSV), Position(), SourceSettings(types={"n": "integer"})
    )
    tasks = Mapper(MappingSettings(template=template), lambda task: None).apply(block).raws
    assert tasks == [b'{"name":"s1","inputs":{"reads":{"class":"File","path":"f1"},"n":4}}']


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"b":1}', "has no column 'a', which mapping.template takes from it"),
        (b'{"a":null,"b":1}', "column 'a' is null, and mapping.template puts it into a text"),
    ],
)
def test_a_row_that_lacks_a_column_of_the_template_is_a_reject_that_names_it(row, reason):
    block = mapped(row + b'\n{"a":1,"b":2}', template={"x": "n${row.a}", "y": "${row.b}"})
    assert block.raws == [b'{"x":"n1","y":2}']
    assert [(each.index, each.reason) for each in block.rejects] == [(0, reason)]


def test_what_a_template_made_is_made_again_for_the_payload():
    rows = [b'{"a":%s}' % BIG, b'{ "a": "x" }']
    template = {"x": "${row.a}", "y": "-${row.a}"}
    tasks = mapped(b"\n".join(rows), template=template).raws
    assert Mapper(MappingSettings(template=template), lambda task: None).render(rows) == tasks


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"template": {"x": "a ${row.}"}},
            r"mapping\.template\.x: '\$\{row\.\}' is no placeholder; write \$\{row\.column\}",
        ),
        ({"template": {"x": {"y": ["${row:a}"]}}}, r"mapping\.template\.x\.y\[0\]: '\$\{row:a\}' is no placeholder"),
        ({"template": {"x": "${ row.a }"}}, r"'\$\{ row\.a \}' is no placeholder"),
        ({"template": {"x": "${rows.a}"}}, r"'\$\{rows\.a\}' is no placeholder"),
        ({"template": {"x": "${row.a"}}, r"'\$\{row\.a' is no placeholder"),
        ({"template": {"${row.a}": 1}}, r"mapping\.template: the key '\$\{row\.a\}' is taken as it stands"),
        ({"template": {"x": 1}, "wrap": "data"}, r"mapping\.template and mapping\.wrap do not go together"),
        ({"template": {"x": 1}, "drop": ["a"]}, r"mapping\.template and mapping\.drop do not go together"),
        ({"template": {"x": 1}, "defaults": {"y": 1}}, r"mapping\.template and mapping\.defaults do not go together"),
        (
            {"template": {"x": {"y": dt.date(2024, 1, 1)}}},
            r"mapping\.template\.x: .* is no JSON value; put it into quotes",
        ),
    ],
)
def test_a_template_that_cannot_be_meant_is_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Mapper(MappingSettings(**settings), lambda task: None)


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
        assert dict(zip(result.indexes, map(orjson.loads, result.raws), strict=True)) == expected
        assert mapper.render([write(rows[index]).encode() for index in result.indexes]) == result.raws


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


def test_a_wrapped_record_needs_no_look_where_any_object_is_a_task():
    mapper = Mapper(MappingSettings(wrap="data"), lambda _: None, Anything)
    assert mapper.proof is not None
    assert mapper.proof.decode(b'{"a": 1}') == Anything()
