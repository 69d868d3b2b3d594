import re
from pathlib import Path

import orjson
import pytest

from engine.model.errors import ConfigError

from .scripted import service

SCHEMA = {
    "type": "object",
    "properties": {
        "data": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 5}, "box": {"type": "array", "minItems": 4}},
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
        ({}, "data: 'name' is a required property"),
        ({"name": "much too long"}, "data.name: 'much too long' is too long"),
        ({"name": "x", "box": [1, 2]}, "data.box: [1, 2] is too short"),
        ({"name": 5}, "data.name: 5 is not of type 'string'"),
    ],
)
def test_a_schema_of_the_project_finds_bad_tasks_and_names_the_field(schema, data, reason):
    assert service(task_schema=schema).check({"data": data}) == reason


def test_the_rules_of_sama_come_before_the_schema(schema):
    assert service(task_schema=schema).check({"data": {}, "priority": "x"}).startswith("priority: ")


def test_a_long_value_does_not_fill_the_reason(schema):
    assert len(service(task_schema=schema).check({"data": {"name": "x" * 10_000}})) < 300


@pytest.mark.parametrize("text", ["no json", '{"type": "nonsense"}'])
def test_a_schema_that_is_none_is_an_error_of_the_configuration(tmp_path, text):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"service.task_schema: {path} is not a usable JSON Schema")):
        service(task_schema=path)


def test_a_schema_that_is_not_there_is_an_error_of_the_configuration():
    with pytest.raises(ConfigError, match=r"service\.task_schema: nowhere\.json"):
        service(task_schema=Path("nowhere.json"))
