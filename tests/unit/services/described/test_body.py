import hashlib
from email.parser import BytesParser
from urllib.parse import parse_qsl

import msgspec
import orjson
import pytest

from engine.model.job import Job
from engine.model.payload import Payload
from engine.model.settings import BatchSettings
from engine.model.tables import table_of
from engine.services.described.body import Framing
from engine.services.described.settings import DescribedSettings

BASE = {"kind": "http", "base_url": "https://api.example.com", "release": {"call": "POST /tasks", "payload": True}}
NAMES = {"job": "nightly", "token": "t0", "batch": "7", "mark": "nightly-t0-7"}
KEY = "${job}-${token}-${index}"
TASKS = [b'{"name": "a", "size": 1.0}', b'{"name":"b\\n\\"","size":null,"big":12345678901234567890123}']


def described(**tables):
    complaints = []
    settings = table_of(DescribedSettings, {**BASE, **tables}, "service", complaints)
    assert settings is not None, complaints
    return settings


def framing(**tables):
    return Framing(described(**tables))


def sent(made, tasks=TASKS, indexes=None, **names):
    return b"".join(made.body(Payload.of(tasks, indexes), {**NAMES, **names}))


# What goes up for a record


def test_tasks_go_up_as_the_array_that_was_frozen():
    payload = Payload.of(TASKS)
    assert framing().body(payload, NAMES) == (payload.array,)
    assert framing().content_type(payload) == "application/json"


def test_a_template_holds_the_tasks_own_bytes():
    made = framing(record={"key": KEY, "template": {"custom_id": "${key}", "body": "${task}"}})
    assert sent(made, indexes=[3, 9]) == (
        b'[{"custom_id":"nightly-t0-3","body":' + TASKS[0] + b'},{"custom_id":"nightly-t0-9","body":' + TASKS[1] + b"}]"
    )


def test_a_value_of_the_task_keeps_its_own_text():
    made = framing(record={"template": {"n": "${task.size}", "big": "${task.big}", "as": "size ${task.size}"}})
    tasks = [b'{"size": 1.50,"big":12345678901234567890123, "size": 1.0E+2}']
    assert sent(made, tasks) == b'[{"n":1.0E+2,"big":12345678901234567890123,"as":"size 1.0E+2"}]'


def test_values_are_found_at_any_depth_and_whatever_they_are_called():
    made = framing(record={"key": '${task.a.0."x.y"}', "template": {"id": "${key}", "all": "${task.a}"}})
    tasks = [b'{ "a" : [ {"x.y" : "deep \\u00e9"} , 2 ] }']
    assert sent(made, tasks) == '[{"id":"deep é","all":[ {"x.y" : "deep \\u00e9"} , 2 ]}]'.encode()
    nested = b'{"a":[' + b"[" * 600 + b"]" * 600 + b',{"x.y":"k"}],"c":1}'
    made = framing(record={"key": '${task.a.-1."x.y"}', "template": {"id": "${key}"}})
    assert sent(made, [nested]) == b'[{"id":"k"}]'


def test_members_are_added_to_a_task_before_its_own():
    made = framing(record={"key": KEY, "add": {"_id": "${key}"}})
    assert sent(made, [b'{"a":1}', b"{}", b' { \n"a":2}', b"{ }"]) == (
        b'[{"_id":"nightly-t0-0","a":1},{"_id":"nightly-t0-1"},{"_id":"nightly-t0-2", \n"a":2},{"_id":"nightly-t0-3" }]'
    )
    made = framing(record={"key": KEY, "add": {"_id": "${key}"}, "template": {"doc": "${task}"}})
    assert sent(made, [b'{"a":1}']) == b'[{"doc":{"_id":"nightly-t0-0","a":1}}]'


def test_the_mark_of_a_search_is_put_into_the_task():
    search = {"call": "GET /tasks", "mark": "data.mark", "key": "k"}
    made = framing(search=search)
    tasks = [b'{"data":{"a":1}}', b'{"x":1, "data": {}}', b'{"data":{"a":2},"data":{"a":3}}', b'{"data":{"b":"data"}}']
    assert [one["data"] for one in orjson.loads(sent(made, tasks))] == [
        {"mark": "nightly-t0-7", "a": 1},
        {"mark": "nightly-t0-7"},
        {"mark": "nightly-t0-7", "a": 3},
        {"mark": "nightly-t0-7", "b": "data"},
    ]
    assert sent(framing(search={**search, "mark": "m"}), [b"{}"]) == b'[{"m":"nightly-t0-7"}]'


def test_keys_follow_the_records_into_other_batches():
    made = framing(record={"key": KEY})
    whole = made.keys(Payload.of(TASKS * 2, [1, 2, 4, 8]), NAMES)
    half = made.keys(Payload.of(TASKS, [4, 8]), {**NAMES, "batch": "7.2", "mark": "nightly-t0-7.2"})
    assert whole[2:] == half == ["nightly-t0-4", "nightly-t0-8"]
    assert framing(record={"key": "${task.id}"}).keys(Payload.of([b'{"id":7}', b'{"id":"x"}']), NAMES) == ["7", "x"]
    assert framing().keys(Payload.of(TASKS), NAMES) == ()


def test_values_of_the_users_own_stand_in_records():
    made = framing(values={"model": "m1"}, record={"template": {"model": "${model}", "input": "${task.name}"}})
    assert sent(made, [b'{"name":"n"}']) == b'[{"model":"m1","input":"n"}]'


# Framings


def test_an_array_stands_under_a_member_beside_others():
    made = framing(body={"under": "inputs", "with": {"job": "${job}", "n": 1}})
    assert orjson.loads(sent(made, [b"{}"])) == {"inputs": [{}], "job": "nightly", "n": 1}
    made = framing(body={"under": "variables.input", "with": {"query": "mutation", "variables": {"by": "${mark}"}}})
    assert orjson.loads(sent(made, [b"{}"])) == {
        "query": "mutation",
        "variables": {"input": [{}], "by": "nightly-t0-7"},
    }


def test_ndjson_has_a_line_for_each_record_whatever_its_text_looks_like():
    made = framing(body={"framing": "ndjson"})
    assert sent(made, [b'{\r\n "a": "x\\n"\n}', b"{}"]) == b'{   "a": "x\\n" }\n{}\n'
    assert made.content_type(Payload.of([])) == "application/x-ndjson"
    made = framing(body={"framing": "ndjson"}, record={"template": {"v": "${task.a}"}})
    assert sent(made, [b'{"a": [\n1]}']) == b'{"v":[ 1]}\n'


def test_a_line_may_stand_before_each_record():
    made = framing(
        body={"framing": "ndjson", "type": "application/json"},
        record={"key": KEY, "head": {"create": {"_id": "${key}"}}},
    )
    assert sent(made, [b"{}", b'{"a":1}'], [5, 6]) == (
        b'{"create":{"_id":"nightly-t0-5"}}\n{}\n{"create":{"_id":"nightly-t0-6"}}\n{"a":1}\n'
    )
    assert made.content_type(Payload.of([])) == "application/json"


def test_csv_has_columns_in_their_order_and_values_as_they_are_written():
    made = framing(body={"framing": "csv", "columns": ["name", "size", "big", "more"]})
    tasks = [*TASKS, b'{"more":{"a": [1, 2]},"name":"x, y","size":true}', b'{"size":"\xc3\xa9"}']
    assert sent(made, tasks).decode().split("\n") == [
        "name,size,big,more",
        "a,1.0,,",
        '"b',
        '""",,12345678901234567890123,',
        '"x, y",true,,"{""a"": [1, 2]}"',
        ",é,,",
        "",
    ]
    assert made.content_type(Payload.of([])) == "text/csv; charset=utf-8"


def test_csv_without_columns_loses_no_member():
    made = framing(body={"framing": "csv", "delimiter": ";", "line_ending": "crlf"})
    assert sent(made, [b'{"a":1}', b'{"b":2,"a":""}']) == b"a;b\r\n1;\r\n;2\r\n"


def test_csv_of_a_template_has_its_members():
    record = {"key": KEY, "template": {"Name": "${task.name}", "Key": "${key}"}}
    assert (
        sent(framing(body={"framing": "csv"}, record=record), [b'{"name":"n","x":1}']) == b"Name,Key\nn,nightly-t0-0\n"
    )


def test_one_record_goes_alone():
    assert sent(framing(body={"framing": "single"}), [b'{"a": 1}']) == b'{"a": 1}'
    made = framing(body={"framing": "single", "under": "task", "with": {"v": 1}})
    assert sent(made, [b'{"a": 1}']) == b'{"v":1,"task":{"a": 1}}'
    with pytest.raises(ValueError, match="2 records cannot be sent as a single one"):
        sent(made)
    form = framing(body={"framing": "form"})
    assert parse_qsl(sent(form, [b'{"a":{"b":1},"c":["x&y"],"n":null}']).decode()) == [("a[b]", "1"), ("c[0]", "x&y")]
    assert form.content_type(Payload.of([])) == "application/x-www-form-urlencoded"


def test_numbers_stand_in_a_form_as_they_are_written():
    task = b'{"price":1.10,"id":123456789012345678901,"huge":1e999,"yes":true}'
    wanted = [("price", "1.10"), ("id", "123456789012345678901"), ("huge", "1e999"), ("yes", "true")]
    assert parse_qsl(sent(framing(body={"framing": "form"}), [task]).decode()) == wanted


def test_a_record_without_a_name_is_not_sent_where_its_name_is_its_key():
    made = framing(record={"key": "${task.id}"})
    assert made.flaw({"id": ""}) == "'id' is empty, and it is the record's key"
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"id":""}', type=made.plain_task)
    for good in ({"id": "a"}, {"id": 0}, {"id": False}):
        assert made.flaw(good) is None
        msgspec.json.decode(orjson.dumps(good), type=made.plain_task)
    assert framing(record={"key": "${job}-${task.id}"}).flaw({"id": ""}) is None


def test_a_file_in_a_form_is_the_same_bytes_in_each_attempt():
    body = {"framing": "ndjson", "part": "file", "fields": {"purpose": "batch", 'a"b': "${id}"}}
    stage = {"call": "POST /open", "take": {"id": "id"}}
    upload = {"call": "PUT /${id}", "payload": True}
    made = framing(body=body, stage=stage, upload=upload, release={"call": "POST /${id}"})
    payload = Payload.of(TASKS)
    one, other = (b"".join(made.body(payload, {**NAMES, "id": "x"})) for _ in range(2))
    assert one == other
    content_type = made.content_type(payload)
    assert hashlib.sha256(payload.array).hexdigest()[:40] in content_type
    parts = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + one).get_payload()
    assert [part.get_param("name", header="content-disposition") for part in parts] == ["purpose", "a%22b", "file"]
    assert [part.get_payload(decode=True) for part in parts[:2]] == [b"batch", b"x"]
    assert parts[2].get_filename() == "batch.ndjson"
    assert parts[2].get_content_type() == "application/x-ndjson"
    assert parts[2].get_payload(decode=True).strip() == b"\n".join(TASKS)


def test_the_call_that_carries_one_record_may_name_it():
    release = {"call": "PUT /docs/${key}", "payload": True, "query": {"by": "${task.by}"}, "headers": {"X": "${index}"}}
    made = framing(release=release, record={"key": "${task.id}"}, body={"framing": "single"})
    named = made.with_record(Payload.of([b'{"id":"a/b","by":7}'], [4]), NAMES)
    assert {name: named[name] for name in ("key", "index", "task.by")} == {"key": "a/b", "index": "4", "task.by": "7"}
    assert made.flaw({"id": 1}) == "has no 'by', which release.query.by takes from it"
    assert framing().with_record(Payload.of(TASKS), NAMES) is NAMES


# What cannot be sent


@pytest.mark.parametrize(
    ("tables", "task", "words"),
    [
        ({"record": {"key": "${task.id}"}}, {}, "has no 'id', which record.key takes from it"),
        ({"record": {"key": "${task.id}"}}, {"id": None}, "'id' is null, and record.key puts it into a text"),
        ({"record": {"key": "${task.a.0}"}}, {"a": [{}]}, "is no text and no number"),
        ({"record": {"template": {"x": "${task.id}"}}}, {"id": None}, None),
        ({"record": {"template": {"x": "${task.id}"}}}, {}, "has no 'id', which record.template takes from it"),
        ({"record": {"template": {"x": "no. ${task.id}"}}}, {"id": []}, "record.template puts it into a text"),
        ({"record": {"add": {"_id": "x"}}}, {"_id": 1}, "has '_id' already, which record.add puts there"),
        ({"search": {"call": "GET /", "mark": "data.m", "key": "k"}}, {"data": 1}, "has no object 'data'"),
        ({"search": {"call": "GET /", "mark": "data.m", "key": "k"}}, {"data": {"m": 1}}, "has 'data.m' already"),
        ({"body": {"framing": "csv", "columns": ["a"]}}, {"a": 1, "b": 2}, "has 'b', which is none of body.columns"),
        ({"body": {"framing": "csv", "columns": ["a"]}}, {}, None),
        ({}, {"anything": [1]}, None),
        ({"record": {"key": KEY}}, {"anything": [1]}, None),
    ],
)
def test_a_task_that_could_not_be_sent_is_told_beforehand(tables, task, words):
    made = framing(**tables)
    flaw = made.flaw(task)
    assert flaw is None if words is None else words in flaw
    plain = made.plain_task
    if plain is not None and words is not None:  # what the quick look takes has no flaw
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(orjson.dumps(task), type=plain)


@pytest.mark.parametrize(
    ("tables", "task"),
    [
        ({}, {"a": 1}),
        ({"record": {"key": '${task."a b".c}'}}, {"a b": {"c": 7}, "x": None}),
        ({"record": {"add": {"_id": "x"}, "template": {"t": "${task.n}"}}}, {"n": None}),
        ({"search": {"call": "GET /", "mark": "data.m", "key": "k"}}, {"data": {}}),
        ({"body": {"framing": "csv", "columns": ["a", "b"]}, "record": {"key": "${task.b}"}}, {"b": 1.5}),
    ],
)
def test_a_quick_look_takes_most_tasks(tables, task):
    made = framing(**tables)
    assert made.flaw(task) is None
    msgspec.json.decode(orjson.dumps(task), type=made.plain_task)


def test_a_place_in_a_list_needs_a_closer_look():
    assert framing(record={"key": "${task.a.0}"}).plain_task is None


# Limits

JOB = Job("nightly", "http", "", (), "")


def test_the_smaller_limits_hold():
    limits = framing(limit={"records": 100, "bytes": 2_000_000}).limits(BatchSettings(), JOB)
    assert (limits.records, limits.bytes) == (100, 2_000_000)
    limits = framing(limit={"records": 5000, "bytes": 10**9}).limits(BatchSettings(), JOB)
    assert (limits.records, limits.bytes) == (1000, BatchSettings().max_bytes)
    assert framing(body={"framing": "single"}).limits(BatchSettings(), JOB).records == 1


@pytest.mark.parametrize(
    ("tables", "most"),
    [
        ({}, 500),
        ({"body": {"framing": "ndjson"}}, 500),
        ({"record": {"template": {"of": {"data": "${task}"}}}}, 500),
        ({"record": {"template": {"name": "${task.name}"}}}, None),
        ({"body": {"framing": "csv"}}, None),
    ],
)
def test_a_task_that_goes_up_whole_is_no_longer_than_a_body(tables, most):
    assert framing(limit={"bytes": 500}, **tables).limits(BatchSettings(), JOB).task_bytes == most
    assert framing(**tables).limits(BatchSettings(), JOB).task_bytes is None


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"body": {"under": "a.b", "with": {"mark": "${mark}", "n": [1, 2]}}},
        {
            "record": {
                "key": KEY,
                "template": {"custom_id": "${key}", "n": "${index}", "at": "by ${mark}", "b": "${task}"},
            }
        },
        {"record": {"key": KEY, "head": {"create": {"_id": "${key}"}}}, "body": {"framing": "ndjson"}},
        {"record": {"key": KEY, "add": {"_id": "${key}"}}},
        {"search": {"call": "GET /", "mark": "data.m", "key": "k"}},
        {"record": {"key": KEY, "template": {"a": "${task.a}", "Key": "${key}"}}, "body": {"framing": "csv"}},
        {"body": {"framing": "ndjson", "part": "file", "fields": {"purpose": "${mark}"}}},
    ],
)
def test_limits_foresee_what_framing_adds(tables):
    made = framing(**tables)
    limits = made.limits(BatchSettings(), JOB)
    tasks = [b'{"a":"xyz","data":{}}'] * 50
    payload = Payload.of(tasks, [10**9 + at for at in range(50)])
    names = {**NAMES, "token": "0123456789abcdef", "mark": "nightly-0123456789abcdef-7"}
    body = b"".join(made.body(payload, names))
    assert len(body) <= len(payload.array) + limits.fixed_bytes + limits.record_bytes * len(tasks)
