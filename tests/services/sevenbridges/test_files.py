import asyncio

import pytest
from fakes.clock import until

from engine.model.errors import Refused
from engine.services.sevenbridges import files
from engine.services.sevenbridges.answers import Page
from engine.services.sevenbridges.calls import ListShifted
from engine.services.sevenbridges.files import MOST_CHARACTERS, MOST_NAMES, FileIds

from .scripted import PROJECT

PAGE_ITEMS = 10


class Store:
    """Files by name; keeps the names that each request asked for."""

    def __init__(self, **items):
        self.items = [
            {"id": file_id, "name": name.replace("_", "."), "type": "file"}
            for name, ids in items.items()
            for file_id in ids.split()
        ]
        self.requests = []
        self.pages = 0
        self.failures = []

    async def find(self, project, names):
        if names:
            self.requests.append((project, list(names)))
        await asyncio.sleep(0)
        found = [item for item in self.items if not names or item["name"] in names]
        for start in range(0, max(1, len(found)), PAGE_ITEMS):
            self.pages += not names
            if self.failures and not names:
                raise self.failures.pop(0)
            yield Page(found[start : start + PAGE_ITEMS], len(found))

    def ids(self):
        return FileIds(self.find)


def file(name, **more):
    return {"class": "File", "name": name, **more}


async def test_a_name_becomes_an_id_and_stays():
    store = Store(a_fastq="1", b_fastq="2")
    reads = [file("a.fastq"), file("b.fastq", metadata={"x": 1})]
    inputs = {"reads": reads, "threads": 4, "deep": {"x": file("a.fastq")}}
    filled = await store.ids().filled(PROJECT, inputs)
    assert filled == {
        "reads": [file("a.fastq", path="1"), file("b.fastq", path="2", metadata={"x": 1})],
        "threads": 4,
        "deep": {"x": file("a.fastq", path="1")},
    }
    assert store.requests == [(PROJECT, ["a.fastq", "b.fastq"])]
    assert "path" not in inputs["reads"][0]


async def test_inputs_with_ids_cost_no_request():
    store = Store()
    inputs = {"reads": file("a.fastq", path="1"), "n": 1, "record": {"class": "sheep", "name": "dolly"}}
    assert await store.ids().filled(PROJECT, inputs) is inputs
    assert store.requests == []


async def test_ids_are_remembered_by_project():
    store = Store(a_fastq="1")
    ids = store.ids()
    for project in (PROJECT, PROJECT, "other/project"):
        await ids.filled(project, {"reads": file("a.fastq", path=None)})
    assert [project for project, _ in store.requests] == [PROJECT, "other/project"]


async def test_while_one_request_is_under_way_the_names_of_others_gather_for_the_next():
    store = Store(**{f"f{number}": str(number) for number in range(20)})
    ids = store.ids()
    first = asyncio.create_task(ids.filled(PROJECT, {"x": file("f0")}))
    await until(lambda: store.requests)
    filled = await asyncio.gather(first, *(ids.filled(PROJECT, {"x": file(f"f{number}")}) for number in range(20)))
    assert [one["x"]["path"] for one in filled] == ["0", *map(str, range(20))]
    assert [len(names) for _, names in store.requests] == [1, 19]


async def test_a_name_that_is_not_there_is_no_matter_of_those_who_asked_together_with_it():
    ids = Store(a="1").ids()
    found, missing = await asyncio.gather(
        *(ids.filled(PROJECT, {"x": file(name)}) for name in ("a", "b")), return_exceptions=True
    )
    assert found["x"]["path"] == "1"
    assert isinstance(missing, Refused)


async def test_names_of_one_request_are_of_one_project():
    store = Store(a="1")
    ids = store.ids()
    await asyncio.gather(*(ids.filled(project, {"x": file("a")}) for project in ("o/p", "o/q", "o/p", "o/q")))
    assert sorted(store.requests) == [("o/p", ["a"]), ("o/q", ["a"])]


@pytest.mark.parametrize("name", ["f{}", "f{}" + "x" * 500, "f{}" + "é" * 100])
async def test_a_request_stays_short_enough_for_an_address(name):
    names = [name.format(number) for number in range(120)]
    store = Store(**{one: one for one in names})
    filled = await store.ids().filled(PROJECT, {"reads": [file(one) for one in names]})
    assert [one["path"] for one in filled["reads"]] == names
    assert max(len(asked) for _, asked in store.requests) <= MOST_NAMES
    encoded = max(sum(len(files.quote(one)) for one in asked) for _, asked in store.requests)
    assert encoded <= MOST_CHARACTERS


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "c.fastq",
            "inputs.x[1]: project owner/project has no file named 'c.fastq'; upload it, or give its id as path",
        ),
        ("two", "inputs.x[1]: project owner/project has 2 of the name 'two' (7, 8); give the id as path"),
    ],
)
async def test_a_name_of_none_or_several_is_refused_with_the_input_that_has_it(name, complaint):
    store = Store(a="1", two="7 8")
    with pytest.raises(Refused) as refused:
        await store.ids().filled(PROJECT, {"x": [file("a"), file(name)]})
    assert str(refused.value) == complaint


async def test_a_file_that_was_missing_is_asked_for_again():
    store = Store()
    ids = store.ids()
    with pytest.raises(Refused):
        await ids.filled(PROJECT, {"x": file("a")})
    store.items.append({"id": "1", "name": "a"})
    assert (await ids.filled(PROJECT, {"x": file("a")}))["x"]["path"] == "1"


async def test_files_and_folders_of_one_name_are_told_apart_where_the_service_tells():
    store = Store(a="1")
    store.items.append({"id": "2", "name": "a", "type": "folder"})
    filled = await store.ids().filled(PROJECT, {"x": file("a"), "y": {"class": "Directory", "name": "a"}})
    assert (filled["x"]["path"], filled["y"]["path"]) == ("1", "2")


async def test_a_cohort_is_known_once_as_many_pages_of_the_list_are_read_as_names_were_asked_for():
    names = [f"f{number}" for number in range(100)]
    store = Store(**{one: f"id-{one}" for one in names}, twice="1 2")
    ids = store.ids()
    for name in names:
        assert (await ids.filled(PROJECT, {"x": file(name)}))["x"]["path"] == f"id-{name}"
    assert (len(store.requests), store.pages) == (11, 11)
    with pytest.raises(Refused, match="has 2 of the name 'twice'"):
        await ids.filled(PROJECT, {"x": file("twice")})
    assert len(store.requests) == 11


@pytest.mark.parametrize("failure", [ListShifted(), Refused("no")])
async def test_a_list_that_cannot_be_read_to_its_end_is_no_matter(failure):
    names = [f"f{number}" for number in range(30)]
    store = Store(**{one: one for one in names})
    store.failures = [failure]
    ids = store.ids()
    for name in names:
        assert (await ids.filled(PROJECT, {"x": file(name)}))["x"]["path"] == name
    assert len(store.requests) == (4 if isinstance(failure, ListShifted) else 30)


async def test_the_list_of_a_project_that_has_too_many_files_is_not_read(monkeypatch):
    monkeypatch.setattr(files, "MOST_KNOWN", 20)
    names = [f"f{number}" for number in range(30)]
    store = Store(**{one: one for one in names})
    ids = store.ids()
    for name in names:
        await ids.filled(PROJECT, {"x": file(name)})
    assert (len(store.requests), store.pages) == (30, 1)


async def test_names_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(files, "MOST_KNOWN", 10)
    names = [f"f{number}" for number in range(30)]
    ids = Store(**{one: one for one in names}).ids()
    filled = await ids.filled(PROJECT, {"x": [file(one) for one in names]})
    assert [one["path"] for one in filled["x"]] == names
    assert len(ids._known) == 10
