from engine.sandbox.settings import FileRule, SandboxPlatform
from engine.sandbox.sevenbridges.catalog import Catalog
from engine.sandbox.sevenbridges.drafts import children, new_draft

from .api import PROJECT, batch

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
