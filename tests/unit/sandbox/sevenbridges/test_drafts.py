import orjson
import pytest

from engine.sandbox.settings import App, AppInput, FileRule, SandboxPlatform
from engine.sandbox.sevenbridges.catalog import Catalog
from engine.sandbox.sevenbridges.drafts import children, file_ids, input_errors, new_draft

from .api import APP, PROJECT, batch, draft, files


def _errors(kind, value, *, required=False):
    catalog = Catalog(SandboxPlatform(apps=(App(APP, inputs=(AppInput("x", kind, required),)),)))
    inputs = {} if value is None else {"x": value}
    return input_errors(new_draft(draft(inputs=inputs), catalog, batch=None), catalog)


FILE = files("a")[0]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("any", {"deep": [1]}),
        ("any", True),
        ("File", FILE),
        ("File", {"class": "Directory", "path": "d"}),
        ("File[]", [FILE]),
        ("string", "s"),
        ("string[]", []),
        ("int", 1),
        ("float", 1),
        ("float[]", [1.5, 2]),
        ("boolean", False),
        ("int", None),
    ],
)
def test_an_input_that_fits(kind, value):
    assert _errors(kind, value) == ()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("File", "a"),
        ("File", [FILE]),
        ("File[]", FILE),
        ("string", 1),
        ("int", True),
        ("int", 1.5),
        ("boolean", 1),
        ("int[]", [1, "2"]),
        ("float", "1"),
    ],
)
def test_an_input_that_does_not_fit(kind, value):
    (error,) = _errors(kind, value)
    assert (error.input_id, error.type) == ("x", "error/task_validation/input/schema")


def test_a_required_input_may_not_be_missing():
    assert len(_errors("int", None, required=True)) == 1


def test_files_are_found_however_deep():
    value = {"a": [files("1", "2"), {"b": FILE}], "c": "3"}
    assert list(file_ids(value)) == ["1", "2", "a"]


def test_the_document_of_a_draft_is_the_body_that_made_it():
    body = draft("n", description="d", inputs={"x": [1]}, batch_input="x", batch_by={"type": "ITEM"})
    made = new_draft(body, Catalog(SandboxPlatform()), batch=None)
    assert made.document() == {**body, "app": f"{APP}/0"}
    assert orjson.loads(made.inputs) == {"x": [1]}


CATALOG = Catalog(SandboxPlatform(files=(FileRule(PROJECT, "f{n}", count=4, metadata={"parity": "{n}"}),)))
LOST = "nowhere"


def _groups(body):
    draft = new_draft(body, CATALOG, batch=None)
    return [child.group for child in children(draft, draft.batching, CATALOG)]


def test_an_item_is_named_by_itself_or_its_file_or_its_id():
    body = batch(f"00000001{2:016x}", LOST)
    body["inputs"]["reads"] += [{"class": "File", "path": LOST, "name": "own.fastq"}, 7]
    assert [group.value for group in _groups(body)] == ["f2", LOST, "own.fastq", "7"]


def test_groups_come_in_the_order_of_their_first_file():
    ids = [f"00000001{number:016x}" for number in (3, 1, 3)]
    assert [group.value for group in _groups(batch(*ids, criteria=("metadata.parity",)))] == ["3", "1"]


def test_a_value_that_a_file_lacks_is_undefined():
    (group,) = _groups(batch(LOST, "", criteria=("metadata.parity", "metadata.color")))
    assert group.value == "undefined, undefined"
    assert group.fields == {"metadata.parity": None, "metadata.color": None}
