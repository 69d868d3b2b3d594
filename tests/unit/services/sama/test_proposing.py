import json
import tomllib

import pytest

from engine.model.settings import SecretStr
from engine.services.base import Column
from engine.services.sama.proposing import propose_mapping
from engine.services.sama.settings import SamaSettings


def column(name, kind="string", *, textual=True):
    return Column(name, kind, ["x"], textual)


@pytest.fixture
def settings(tmp_path):
    def build(**inputs):
        path = None
        if inputs:
            path = tmp_path / "schema.json"
            properties = {name: {"type": kind} for name, kind in inputs.items()}
            path.write_text(json.dumps({"properties": {"data": {"properties": properties}}}))
        return SamaSettings(kind="sama", project_id=1, access_key=SecretStr("k"), task_schema=path)

    return build


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("priority", "integer", {"priority": "priority"}),
        ("Urgency", "integer", {"priority": "Urgency"}),
        ("urgency", "string", None),
        ("submit", "boolean", {"submit": "submit"}),
        ("reserve_for", "string", {"reserve_for": "reserve_for"}),
    ],
)
def test_a_column_is_a_key_of_the_task_if_its_values_can_be(settings, name, kind, fields):
    proposed = propose_mapping([column("a"), column(name, kind)], settings())
    assert proposed.mapping == {"wrap": "data"} | ({"fields": fields} if fields else {})


def test_two_columns_that_may_be_one_key_are_not_both_it(settings):
    proposed = propose_mapping([column("prio", "integer"), column("priority", "integer")], settings())
    assert proposed.mapping["fields"] == {"priority": "prio"}


def test_an_input_by_another_spelling_is_renamed_and_its_type_is_the_schema_s(settings):
    columns = [column("Image_URL"), column("n", "integer"), column("tags", "json"), column("stranger", "number")]
    proposed = propose_mapping(columns, settings(imageUrl="string", n="string", tags="array", wanted="string"))
    assert proposed.mapping == {"wrap": "data", "rename": {"Image_URL": "imageUrl"}}
    assert proposed.types == {"tags": "json", "stranger": "number"}
    assert any("stranger" in note for note in proposed.notes)
    assert any("wanted" in note for note in proposed.notes)


def test_rows_with_data_and_other_keys_of_a_task_are_tasks(settings):
    proposed = propose_mapping([column("data", "json", textual=False), column("priority", "integer")], settings())
    assert proposed.mapping == {}
    assert propose_mapping([column("data"), column("other")], settings()).mapping["wrap"] == "data"


def test_a_note_s_example_is_toml(settings):
    (note,) = [note for note in propose_mapping([column("a")], settings()).notes if "rename" in note]
    assert tomllib.loads(note.partition(": ")[2].rstrip("."))
