import asyncio

import pytest
from fakes.clock import until

from engine.model.errors import Refused, Unavailable, UnexpectedAnswer
from engine.services.sevenbridges import files as looking_up
from engine.services.sevenbridges.calls import ListedFile, ListShifted, Page
from engine.services.sevenbridges.files import MOST_CHARACTERS, MOST_NAMES, FileIds, quote

from .scripted import PROJECT

PAGE_ITEMS = 10
TOO_MUCH = Refused("maintenance, or too much", status=503)
TIMED_OUT = Unavailable("it timed out 2 times")
TIMED_OUT.timed_out = True
TURNED_AWAY = Unavailable("a page, twice", status=414)
TURNED_AWAY.by_proxy = True


class Store:
    """Files by name, in a project's root and in folders; keeps which place was listed, and asked for which names."""

    def __init__(self, *, listable=True, **items):
        self.items = [
            {"id": file_id, "name": name.replace("_", "."), "type": "file"}
            for name, ids in items.items()
            for file_id in ids.split()
        ]
        self.inside = {}
        self.listable = listable
        self.listed = []
        self.requests = []
        self.failures = []
        """What becomes of the next pages of lists."""
        self.most_names = 1000
        self.refusal = TOO_MUCH

    def folder(self, folder_id, name, *names, within="", kinds=("folder", "file")):
        """Put a folder into another or the root, and files into it."""
        (self.inside[within] if within else self.items).append({"id": folder_id, "name": name, "type": kinds[0]})
        self.inside[folder_id] = [
            {"id": f"{folder_id}.{number}", "name": one, "type": kinds[1]} for number, one in enumerate(names)
        ]
        return self

    async def find(self, place, names):
        at = place.folder or place.project
        if names:
            self.requests.append((at, list(names)))
        await asyncio.sleep(0)
        if len(names) > self.most_names:
            raise self.refusal
        here = self.inside[place.folder] if place.folder else self.items
        found = [item for item in here if not names or item["name"] in names]
        for start in range(0, max(1, len(found)), PAGE_ITEMS):
            if not names:
                self.listed.append(at)
                if self.failures or not self.listable:
                    raise self.failures.pop(0) if self.failures else Refused("no lists")
            yield Page([ListedFile(**item) for item in found[start : start + PAGE_ITEMS]], len(found))

    def ids(self):
        return FileIds(self.find)


def file(name, **more):
    return {"class": "File", "name": name, **more}


async def test_a_name_becomes_an_id_and_stays():
    store = Store(listable=False, a_fastq="1", b_fastq="2")
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
    store = Store(listable=False, a_fastq="1")
    ids = store.ids()
    for project in (PROJECT, PROJECT, "other/project"):
        await ids.filled(project, {"reads": file("a.fastq", path=None)})
    assert [project for project, _ in store.requests] == [PROJECT, "other/project"]


async def test_while_one_request_is_under_way_the_names_of_others_gather_for_the_next():
    store = Store(listable=False, **{f"f{number}": str(number) for number in range(20)})
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
    store = Store(listable=False, a="1")
    ids = store.ids()
    await asyncio.gather(*(ids.filled(project, {"x": file("a")}) for project in ("o/p", "o/q", "o/p", "o/q")))
    assert sorted(store.requests) == [("o/p", ["a"]), ("o/q", ["a"])]


@pytest.mark.parametrize("name", ["f{}", "f{}" + "x" * 500, "f{}" + "é" * 100])
async def test_a_request_stays_short_enough_for_an_address(name):
    names = [name.format(number) for number in range(120)]
    store = Store(listable=False, **{one: one for one in names})
    filled = await store.ids().filled(PROJECT, {"reads": [file(one) for one in names]})
    assert [one["path"] for one in filled["reads"]] == names
    assert max(len(asked) for _, asked in store.requests) <= MOST_NAMES
    encoded = max(sum(len(quote(one)) for one in asked) for _, asked in store.requests)
    assert encoded <= MOST_CHARACTERS


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "c.fastq",
            "has no file named 'c.fastq' outside its folders; upload it, write folder/name, or give its id as path",
        ),
        ("two", "has 2 of the name 'two' (7, 8); give the id as path"),
    ],
)
async def test_a_name_of_none_or_several_is_refused_with_the_input_that_has_it(name, complaint):
    store = Store(a="1", two="7 8")
    with pytest.raises(Refused) as refused:
        await store.ids().filled(PROJECT, {"x": [file("a"), file(name)]})
    assert str(refused.value) == f"inputs.x[1]: project owner/project {complaint}"


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
    assert (len(store.requests), len(store.listed)) == (10, 11)
    with pytest.raises(Refused, match="has 2 of the name 'twice'"):
        await ids.filled(PROJECT, {"x": file("twice")})
    assert len(store.requests) == 10


async def test_a_place_with_few_files_is_known_by_one_page_of_its_list():
    store = Store(a="1", b="2")
    ids = store.ids()
    filled = [await ids.filled(PROJECT, {"x": file(name)}) for name in ("a", "b")]
    assert [one["x"]["path"] for one in filled] == ["1", "2"]
    assert (store.requests, store.listed) == ([], [PROJECT])


@pytest.mark.parametrize("failure", [ListShifted(), Refused("no")])
async def test_a_list_that_cannot_be_read_to_its_end_is_no_matter(failure):
    names = [f"f{number}" for number in range(30)]
    store = Store(**{one: one for one in names})
    store.failures = [failure]
    ids = store.ids()
    for name in names:
        assert (await ids.filled(PROJECT, {"x": file(name)}))["x"]["path"] == name
    assert len(store.requests) == (3 if isinstance(failure, ListShifted) else 30)


async def test_the_list_of_a_project_that_has_too_many_files_is_not_read(monkeypatch):
    monkeypatch.setattr(looking_up, "MOST_KNOWN", 20)
    names = [f"f{number}" for number in range(30)]
    store = Store(**{one: one for one in names})
    ids = store.ids()
    for name in names:
        await ids.filled(PROJECT, {"x": file(name)})
    assert (len(store.requests), len(store.listed)) == (30, 1)


async def test_names_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(looking_up, "MOST_KNOWN", 10)
    names = [f"f{number}" for number in range(30)]
    ids = Store(**{one: one for one in names}).ids()
    filled = await ids.filled(PROJECT, {"x": [file(one) for one in names]})
    assert [one["path"] for one in filled["x"]] == names
    assert len(ids._names._known) == 10


async def test_lists_that_were_begun_are_given_up_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(looking_up, "MOST_LISTS", 3)
    ids = Store(a="1").ids()
    for number in range(10):
        await ids.filled(f"o/p{number}", {"x": file("a")})
    assert [place.project for place in ids._names._lists] == ["o/p7", "o/p8", "o/p9"]


# Many names at once


@pytest.mark.parametrize("refusal", [TOO_MUCH, Refused("too long", status=414), TIMED_OUT, TURNED_AWAY])
async def test_names_that_are_too_many_at_once_are_halved_until_they_are_taken(refusal):
    names = [f"f{number}" for number in range(30)]
    store = Store(listable=False, **{one: f"id-{one}" for one in names})
    store.most_names, store.refusal = 5, refusal
    filled = await store.ids().filled(PROJECT, {"x": [file(one) for one in names]})
    assert [one["path"] for one in filled["x"]] == [f"id-{one}" for one in names]
    assert [len(asked) for _, asked in store.requests] == [30, 15, 7, 3, 4, 5, 6, 3, 4, 5, 6, 3, 3]


async def test_one_name_that_is_too_much_is_no_matter_of_how_many_there_are():
    store = Store(listable=False, a="1", b="2")
    store.most_names = 0
    with pytest.raises(Refused, match="maintenance"):
        await store.ids().filled(PROJECT, {"x": [file("a"), file("b")]})
    assert [len(asked) for _, asked in store.requests] == [2, 1]


@pytest.mark.parametrize("failure", [Refused("no", status=400), Unavailable("down", status=503)])
async def test_other_failures_are_no_reason_to_ask_for_fewer_names(failure):
    store = Store(listable=False, a="1", b="2")
    store.most_names, store.refusal = 1, failure
    with pytest.raises(type(failure)):
        await store.ids().filled(PROJECT, {"x": [file("a"), file("b")]})
    assert len(store.requests) == 1


# In folders


def cohort(kinds=("folder", "file")):
    store = Store(index_fa="1").folder("R", "runs", "x.fq", kinds=kinds)
    store.folder("S1", "s1", "x.fq", "y.fq", within="R", kinds=kinds)
    return store.folder("S2", "s2", "x.fq", within="R", kinds=kinds)


@pytest.mark.parametrize("kinds", [("folder", "file"), ("FOLDER", "FILE"), ("Folder", "File")])
async def test_files_and_folders_in_folders_are_found_by_their_paths(kinds):
    named = [file(name) for name in ("index.fa", "runs/x.fq", "runs/s1/x.fq", "runs/s1/y.fq", "runs/s2/x.fq")]
    folders = [{"class": "Directory", "name": name} for name in ("runs", "runs/s2")]
    filled = await cohort(kinds).ids().filled(PROJECT, {"x": named, "d": folders})
    assert [one["path"] for one in filled["x"]] == ["1", "R.0", "S1.0", "S1.1", "S2.0"]
    assert [one["path"] for one in filled["d"]] == ["R", "S2"]
    assert [one["name"] for one in filled["x"]] == ["index.fa", "x.fq", "x.fq", "y.fq", "x.fq"]


async def test_each_folder_on_the_way_is_looked_up_once_and_then_known():
    store = cohort()
    ids = store.ids()
    for name in ("runs/s1/x.fq", "runs/s1/y.fq", "runs/s2/x.fq", "runs/s1/x.fq"):
        await ids.filled(PROJECT, {"x": file(name)})
    assert (store.listed, store.requests) == ([PROJECT, "R", "S1", "S2"], [])


async def test_where_nothing_can_be_listed_the_folders_are_asked_for_by_name():
    store = cohort()
    store.listable = False
    await store.ids().filled(PROJECT, {"x": [file("runs/s1/x.fq"), file("runs/s2/x.fq"), file("index.fa")]})
    assert store.requests == [(PROJECT, ["runs", "index.fa"]), ("R", ["s1", "s2"]), ("S1", ["x.fq"]), ("S2", ["x.fq"])]


async def test_several_folders_are_read_on_side_by_side():
    store = Store()
    for folder in ("A", "B"):
        store.folder(folder, folder, *(f"f{number}" for number in range(30)))
    ids = store.ids()
    for number in range(30):
        for folder in ("A", "B"):
            assert (await ids.filled(PROJECT, {"x": file(f"{folder}/f{number}")}))["x"]["path"] == f"{folder}.{number}"
    assert (len(store.listed), len(store.requests)) == (7, 4)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("x.fq", "has no file named 'x.fq' outside its folders; upload it, write folder/name, or give its id as path"),
        ("run/x.fq", "has no folder 'run' for the file 'x.fq'"),
        ("runs/s3/x.fq", "has no folder 'runs/s3' for the file 'x.fq'"),
        ("index.fa/x.fq", "has no folder 'index.fa' for the file 'x.fq'"),
        ("runs/s2/y.fq", "has no file named 'y.fq' in the folder 'runs/s2'; upload it, or give its id as path"),
        ("runs/s1", "has no file named 's1' in the folder 'runs'; upload it, or give its id as path"),
        ("runs/twice", "has 2 of the name 'runs/twice' (T.0 in runs R, T.1 in runs R); give the id as path"),
        ("same/x", "has 2 of the name 'same/x' (F1.0 in same F1, F2.0 in same F2); give the id as path"),
    ],
)
async def test_what_is_not_there_or_in_several_places_is_told_with_the_place(name, complaint):
    store = cohort().folder("F1", "same", "x").folder("F2", "same", "x", "y")
    store.inside["R"] += [{"id": f"T.{number}", "name": "twice", "type": "file"} for number in range(2)]
    with pytest.raises(Refused) as refused:
        await store.ids().filled(PROJECT, {"x": [file("index.fa"), file(name)]})
    assert str(refused.value) == f"inputs.x[1]: project owner/project {complaint}"
    assert (await store.ids().filled(PROJECT, {"x": file("same/y")}))["x"]["path"] == "F2.1"


async def test_a_list_that_was_broken_off_by_an_odd_page_is_begun_anew():
    store = Store(a_fastq="1", b_fastq="2")
    store.failures = [UnexpectedAnswer("no list")]
    ids = store.ids()
    with pytest.raises(UnexpectedAnswer):
        await ids.filled(PROJECT, {"r": file("a.fastq")})
    assert await ids.filled(PROJECT, {"r": file("a.fastq")}) == {"r": file("a.fastq", path="1")}
