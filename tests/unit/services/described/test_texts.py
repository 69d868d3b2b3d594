import orjson
import pytest

from engine.model.batch import part_sequences
from engine.model.job import Job
from engine.services.described.texts import JsonText, Text, batch_names, check_names, form_of

JOB = Job("nightly", "http", "", (), "")


def column(name):
    return {"index": ["7", "8"], "key": ["k-7", "k-8"], "task.name": ['An "a"', "100%"]}[name]


def json_column(name):
    return {"index": [b"7", b"8"], "key": [b'"k-7"', b'"k-8"'], "task": [b'{"a": 1.0}', b"{}"]}[name]


def test_a_text_is_filled_for_a_batch():
    text = Text("/jobs/${id}/start?by=${job}")
    assert text.names == {"id", "job"}
    assert text.fill({"id": "7", "job": "nightly"}) == "/jobs/7/start?by=nightly"
    assert text.fill({"id": "a/b", "job": "j"}, quote=lambda one: one.replace("/", "%2F")) == "/jobs/a%2Fb/start?by=j"
    with pytest.raises(KeyError, match="id"):
        text.fill({"job": "j"})
    assert Text("plain").fill({}) == "plain"


def test_a_text_is_filled_for_each_record_of_a_batch():
    values = {"job": "50% off", "token": "t"}
    assert Text("${job}-${token}-${index}").each(2, values, column) == ["50% off-t-7", "50% off-t-8"]
    assert Text("${index}").each(2, {}, column) == ["7", "8"]
    assert Text("${index}:%s:${task.name}").each(2, {}, column) == ['7:%s:An "a"', "8:%s:100%"]
    assert Text("same-${job}").each(2, values, column) == ["same-50% off"] * 2


def test_a_value_is_filled_for_a_batch():
    value = {"name": "${job}-${batch}", "ids": ["${id}", 1, None], "deep": {"b": True}}
    filled = JsonText(value).fill({"job": "j", "batch": "7.1", "id": "x"})
    assert filled == {"name": "j-7.1", "ids": ["x", 1, None], "deep": {"b": True}}


def test_a_placeholder_alone_keeps_the_type_of_its_value_and_the_bytes_of_a_task():
    template = JsonText({"custom_id": "${key}", "n": "${index}", "body": "${task}", "said": 'x "${task.name}" %'})
    records = template.each(2, {}, column, json_column)
    assert b'{"a": 1.0}' in records[0]  # never rendered anew
    assert [orjson.loads(one)["said"] for one in records] == ['x "An "a"" %', 'x "100%" %']
    assert [orjson.loads(one)["n"] for one in records] == [7, 8]


def test_what_is_the_same_for_a_batch_becomes_part_of_the_literal():
    assert (
        JsonText({"mark": "${mark}", "at": "by ${job}"}).each(2, {"mark": 'a"b', "job": "j"}, column, json_column)
        == [rb'{"mark":"a\"b","at":"by j"}'] * 2
    )
    assert JsonText({"a": []}).each(2, {}, column, json_column) == [b'{"a":[]}'] * 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("${job", "has no end"),
        ({"a": ["x${"]}, r"place\.a\[0\]: a '\$\{' has no end"),
        ("${}", "is no name"),
        ("${row.a}", "is no name"),
        ("${task.}", "names no value"),
        ("${task.*}", "names no value"),
        ("${task.a..b}", "is no path"),
        ({"${job}": 1}, "the key .* is taken as it stands"),
        ({"a": float("inf")}, r"place\.a: inf is no JSON value"),
    ],
)
def test_what_is_miswritten_is_told_with_its_place(value, words):
    with pytest.raises(ValueError, match=words):
        JsonText(value, "place")


def test_a_name_that_nothing_fills_is_told_with_the_nearest_known_one():
    known = {"token": "", "index": "", "batch": "another batch may carry it"}
    with pytest.raises(ValueError, match=r"record\.key: \$\{tokn\}: nothing fills it; did you mean \$\{token\}\?"):
        check_names("${tokn}", known, "record.key")
    with pytest.raises(ValueError, match=r"\$\{batch\}: another batch may carry it"):
        check_names({"a": "${batch}"}, known, "record.key")
    check_names("${token}-${index}", known, "record.key")


def test_a_batch_has_a_mark_of_its_own():
    half, _ = part_sequences(7)
    assert batch_names(JOB, "t0", half) == {
        "job": "nightly",
        "token": "t0",
        "batch": "7.1",
        "mark": "nightly-t0-7.1",
    }


def test_a_table_becomes_a_form():
    form = form_of({"a": "x y", "deep": {"b": 1, "list": [True, {"c": 2.5}]}, "none": None})
    assert form == b"a=x+y&deep%5Bb%5D=1&deep%5Blist%5D%5B0%5D=true&deep%5Blist%5D%5B1%5D%5Bc%5D=2.5"
