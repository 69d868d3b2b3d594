import json
import os
import re
from pathlib import Path

import orjson
import pytest

from engine.model.errors import ConfigError
from engine.services.sama.schema import MAX_SCHEMA_BYTES, schema_check

from .scripted import service

SCHEMA = {
    "type": "object",
    "properties": {
        "data": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "maxLength": 5},
                "box": {"type": "array", "minItems": 4, "items": {"type": "integer"}},
                "a b": {"type": "null"},
            },
        }
    },
}


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "create_task.schema.json"
    path.write_bytes(orjson.dumps(SCHEMA))
    return path


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"name": "short"}, None),
        ({}, 'data: "name" is a required property'),
        ({"name": "much too long"}, 'data.name: "much too long" is longer than 5 characters'),
        ({"name": "x", "box": [1, 2]}, "data.box: [1,2] has less than 4 items"),
        ({"name": "x", "box": [1, 2, 3, "four"]}, 'data.box[3]: "four" is not of type "integer"'),
        ({"name": 5}, 'data.name: 5 is not of type "string"'),
        ({"name": "x", "a b": 5}, "data['a b']: 5 is not of type \"null\""),
    ],
)
def test_a_schema_of_the_project_finds_bad_tasks_and_names_the_field(schema, data, reason):
    assert service(task_schema=schema).check({"data": data}) == reason


def test_the_rules_of_sama_come_before_the_schema(schema):
    assert service(task_schema=schema).check({"data": {}, "priority": "x"}).startswith("priority: ")


LONG = "x" * 10_000
HIDDEN = [
    ({"maxLength": 5}, LONG, "maxLength: the value is longer than 5 characters"),
    ({"type": "integer"}, LONG, 'type: the value is not of type "integer"'),
    ({"enum": ["a", "b"]}, LONG, 'enum: the value is not one of "a" or "b"'),
    ({"pattern": "^y+$"}, LONG, 'pattern: the value does not match "^y+$"'),
    ({"minItems": 4}, [LONG], "minItems: the value has less than 4 items"),
    ({"propertyNames": {"maxLength": 5}}, {LONG: 1}, "propertyNames: the value is longer than 5 characters"),
    ({"propertyNames": {"maxLength": 5}}, {"longer": LONG}, '"longer" is longer than 5 characters'),
    ({"required": ["name"]}, {"box": LONG}, '"name" is a required property'),
    ({"const": 3}, LONG, "3 was expected"),
    ({"anyOf": [{"type": "null"}]}, LONG, "anyOf: the value is not valid under any of the schemas listed in the"),
    ({"not": {"const": LONG}}, LONG, 'not: {"const":"xxx'),
    ({"additionalProperties": False, "properties": {"a": {}}}, {LONG: 1}, "additionalProperties: Additional prop"),
]
"""(schema, value, what is said of it)"""


@pytest.mark.parametrize(("schema", "value", "reason"), HIDDEN)
def test_a_long_value_does_not_hide_what_it_breaks(schema, value, reason):
    said = schema_check({"properties": {"data": schema}}, None)({"data": value})
    assert said.startswith(f"data: {reason}")
    assert len(said) < 300


DRAFT_4, DRAFT_7 = (f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 7))
TREE = {"properties": {"next": {"$ref": "#"}, "value": {"type": "integer"}}}
VERDICTS = [
    ({"type": "integer"}, 1.0, True),
    ({"type": "integer"}, True, False),
    ({"$schema": DRAFT_4, "type": "integer"}, 1.0, False),
    ({"maximum": 10}, 10**400, False),
    ({"multipleOf": 3}, 10**30, False),
    ({"enum": [1]}, 1.0, True),
    ({"enum": [True]}, 1, False),
    ({"const": 0}, False, False),
    ({"uniqueItems": True}, [1, True], True),
    ({"uniqueItems": True}, [1, 1.0], False),
    ({"pattern": "^[a-z]+-[0-9]{2,4}$"}, "ab-123", True),
    ({"pattern": "b"}, "abc", True),
    ({"minLength": 2}, "\U0001f600", False),
    ({"format": "email"}, "x", True),
    ({"no such keyword": 5}, 1, True),
    ({"$schema": "http://example.com/own", "type": "object"}, 1, False),
    ({"$schema": DRAFT_7, "contentEncoding": "base64"}, "###", True),
    ({"$schema": DRAFT_7, "contentMediaType": "application/json"}, "{", True),
    ({"$schema": DRAFT_7, "items": [{"type": "string"}], "additionalItems": False}, ["a", 1], False),
    ({"$schema": DRAFT_7, "dependencies": {"a": ["b"]}}, {"a": 1}, False),
    ({"$schema": DRAFT_7, "definitions": {"a": {}}, "$ref": "#/definitions/a", "type": "string"}, 5, True),
    ({"$defs": {"a": {}}, "$ref": "#/$defs/a", "type": "string"}, 5, False),
    ({"$schema": DRAFT_4, "maximum": 3, "exclusiveMaximum": True}, 3, False),
    ({"patternProperties": {"^a": {"type": "string"}}, "additionalProperties": False}, {"ab": "x"}, True),
    ({"unevaluatedProperties": False, "properties": {"a": {}}}, {"b": 1}, False),
    ({"$id": "https://example.com/s", "$ref": "#/$defs/x", "$defs": {"x": {"type": "string"}}}, 1, False),
    (TREE, {"next": {"next": {"value": 5}}}, True),
    (TREE, {"next": {"next": {"value": "5"}}}, False),
    ({"allOf": [{"$ref": "#"}]}, 1, True),
    ({"type": "string", "nullable": True}, None, False),
    (True, 1, True),
    (False, 1, False),
]
"""(schema, value, whether it fits): what the engine before this one decided, too."""


@pytest.mark.parametrize(("schema", "value", "fits"), VERDICTS)
def test_what_fits_is_what_the_standard_says(schema, value, fits):
    check = schema_check(schema, None)
    assert (check(value) is None) == fits


def doubled(levels, link="#/$defs/d{}", **named):
    """Return a schema of few lines in which one value is checked against 2 ** levels parts."""
    parts = {
        f"d{level}": {"allOf": [{"$ref": link.format(level - 1)}] * 2} | dict.fromkeys(named, f"d{level}")
        for level in range(1, levels + 1)
    }
    return {"$defs": {"d0": {"type": "object"} | dict.fromkeys(named, "d0"), **parts}, "$ref": link.format(levels)}


def nested(levels):
    schema = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


BEYOND_US = {
    "fetched from a server": ({"$ref": "http://127.0.0.1:9/schema"}, "nothing is fetched"),
    "read from a device": ({"properties": {"a": {"$ref": "file:///dev/zero"}}}, "nothing is fetched"),
    "relative to its name": ({"$id": "http://10.0.0.1/a", "$ref": "b"}, "nothing is fetched"),
    "nowhere": ({"$ref": "#/nowhere"}, "nowhere"),
    "a pattern that looks ahead": (
        {"pattern": "(?=a)b"},
        'the pattern "(?=a)b" is none, or cannot be matched in linear time',
    ),
    "a pattern that refers back": ({"patternProperties": {r"(a)\1": {}}}, "cannot be matched in linear time"),
    "a pattern that needs much memory": ({"pattern": "(a{1000}){1000}"}, "cannot be matched in linear time"),
    "references that double": (doubled(60), "refers to itself so often"),
    "names that double": (doubled(60, "#d{}", **{"$anchor": 1}), "refers to itself so often"),
    "schemas that double": (doubled(60, "d{}", **{"$id": 1}), "refers to itself so often"),
    "nesting": (nested(500), "Recursion limit reached"),
    "too many parts": ({"enum": [{}] * 100_001}, "has more than 100,000 parts"),
    "no schema": ([1], "[1] is not of types"),
    "a wrong word": ({"minItems": -1}, "-1 is less than the minimum of 0"),
    "a long wrong word": ({"type": "x" * 300}, "anyOf: the value is not valid under any"),
}


@pytest.mark.parametrize("name", BEYOND_US)
def test_what_cannot_be_checked_in_bounded_time_without_fetching_is_an_error(name):
    schema, why = BEYOND_US[name]
    with pytest.raises(ConfigError, match=re.escape(why)):
        schema_check(schema, Path("s.json"))


def test_a_pattern_takes_a_time_that_grows_with_the_text_only():
    check = schema_check({"properties": {"data": {"properties": {"a": {"pattern": "^(a+)+$"}}}}}, None)
    assert check({"data": {"a": "a" * 100_000}}) is None
    assert check({"data": {"a": "a" * 100_000 + "!"}}).startswith("data.a: ")


def test_a_value_that_cannot_be_checked_is_a_reason_against_its_task():
    check = schema_check({"properties": {"data": {"pattern": "x"}}}, None)
    assert "cannot be checked" in check({"data": "\ud83d"})


def test_a_long_file_is_no_schema(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"description": "x" * MAX_SCHEMA_BYTES}))
    with pytest.raises(ConfigError, match="longer than 1024 KiB"):
        service(task_schema=path)


def test_a_pipe_or_a_device_is_no_schema_and_holds_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=rf"{path} is not a usable JSON Schema: .*no regular file"):
            service(task_schema=path)


@pytest.mark.parametrize("text", ["no json", '{"type": "nonsense"}'])
def test_a_schema_that_is_none_is_an_error_of_the_configuration(tmp_path, text):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"service.task_schema: {path} is not a usable JSON Schema")):
        service(task_schema=path)


def test_a_schema_that_is_not_there_is_an_error_of_the_configuration():
    with pytest.raises(ConfigError, match=r"service\.task_schema: nowhere\.json"):
        service(task_schema=Path("nowhere.json"))
