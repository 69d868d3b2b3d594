"""Values that are taken of tasks, members that are put into them, and what a struct says of a plain task."""

import msgspec
import orjson
import pytest

from engine.services.described.tasks import IN_TEXT, Addition, PlainFields, TaskValues, json_texts


def test_a_value_is_taken_as_its_own_text():
    values = TaskValues(["id", "box.size", "tags.1", "missing.name"])
    task = b'{"id": 1.10, "box": {"size":  1e400, "x": {}}, "tags": ["a", "\\u00e9"]}'
    assert values.of(task) == [b"1.10", b"1e400", b'"\\u00e9"', b""]


def test_a_task_that_is_nested_deep_is_read_all_the_same():
    task = b'{"id": 7, "deep": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert TaskValues(["id"]).of(task) == [b"7"]


@pytest.mark.parametrize(
    ("task", "put"),
    [
        (b'{"a": 1}', b'{"m":"x","a": 1}'),
        (b' { "a": 1}', b'{"m":"x", "a": 1}'),
        (b"{}", b'{"m":"x"}'),
        (b"{ }", b'{"m":"x" }'),
    ],
)
def test_members_stand_before_those_of_a_task(task, put):
    assert Addition({"m": "x"}, "record.add").put([task], [b'{"m":"x"}']) == [put]


@pytest.mark.parametrize(
    "task",
    [
        b'{"data": {"a": 1}}',
        b'{ "b": 2, "data": {"a": 1}}',
        b'{"data": {}, "b": "\\"data\\":{"}',
        b'{"data":{},"data":{"a":1}}',
    ],
)
def test_members_stand_in_an_object_of_a_task(task):
    before = orjson.loads(task)
    (put,) = Addition({"m": "x"}, "search.mark", "data").put([task], [b'{"m":"x"}'])
    assert orjson.loads(put) == {**before, "data": {"m": "x", **before["data"]}}


def test_a_task_without_that_object_is_told():
    added = Addition({"m": "x"}, "search.mark", "data")
    assert added.flaw({"a": 1}).startswith("has no object 'data'")
    assert added.flaw({"data": {"m": 1}}).startswith("has 'data.m' already")
    assert added.flaw({"data": {}}) is None
    with pytest.raises(ValueError, match="no object 'data'"):
        added.put([b'{"a": 1}'], [b'{"m":"x"}'])


def test_a_struct_takes_what_has_all_values_and_lacks_what_is_added():
    fields = PlainFields()
    fields.need(["box", "size"], IN_TEXT)
    fields.lack("", ["m"])
    decode = msgspec.json.Decoder(fields.struct()).decode
    decode(b'{"box": {"size": 1, "x": 2}, "other": null}')
    for bad in (b'{"box": {}}', b'{"box": {"size": null}}', b'{"box": {"size": 1}, "m": 1}'):
        with pytest.raises(msgspec.DecodeError):
            decode(bad)


def test_no_struct_can_say_what_stands_at_a_place_of_a_list():
    fields = PlainFields()
    fields.need(["tags", "0"], IN_TEXT)
    assert fields.struct() is None


@pytest.mark.parametrize("texts", [["a", "b-1"], ['a"b', "c"], ["é", "\n"], []])
def test_texts_become_json(texts):
    assert [orjson.loads(one) for one in json_texts(texts)] == texts
