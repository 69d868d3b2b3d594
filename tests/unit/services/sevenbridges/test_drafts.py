import asyncio

import pytest
from fakes.clock import FakeClock

from engine.model.errors import Unavailable
from engine.services.sevenbridges.calls import ListShifted, Page, Task, time_text
from engine.services.sevenbridges.drafts import (
    GATHER_SECONDS,
    LISTING_TRIES,
    DraftSearch,
)


class Project:
    """The tasks of a project, by the second in which they were created."""

    def __init__(self):
        self.clock = FakeClock(start=0.0)
        self.tasks = []
        self.listings = []
        self.page_seconds = 0.0
        self.failures = []

    def add(self, marker, at, **fields):
        body = {"id": f"t{len(self.tasks)}", "status": "DRAFT", "description": f"x {reference(marker)}", **fields}
        self.tasks.append(Task(**body, created_time=time_text(at)))
        return body["id"]

    async def list_since(self, since):
        self.listings.append(since)
        if self.failures:
            raise self.failures.pop(0)
        wanted = [task for task in self.tasks if task.created_time >= time_text(since)]
        for start in range(0, max(1, len(wanted)), 2):
            await self.clock.sleep(self.page_seconds)
            yield Page(wanted[start : start + 2], len(wanted))

    def search(self):
        return DraftSearch(self.list_since, self.clock)


LAG_SECONDS = 120.0
"""Longest time until a list shows what was created."""


def reference(name):
    return f"[bulksubmit {name}]"


@pytest.fixture
def project():
    return Project()


async def test_a_draft_that_is_there_is_found_by_its_marker_on_any_page(project):
    for number in range(7):
        project.add(f"j/{number}", 1000 + number)
    found = await project.search().find(reference("j/5"), 1000.0, LAG_SECONDS)
    assert (found.id, project.listings) == ("t5", [1000.0])


async def test_one_that_is_not_there_is_not_waited_for(project):
    project.add("j/1", 1000)
    assert await project.search().find(reference("j/2"), 1000.0, LAG_SECONDS) is None
    assert project.clock.slept == [GATHER_SECONDS, 0.0]
    assert len(project.listings) == 1


async def test_a_call_that_was_still_on_its_way_is_seen_by_the_next_look(project):
    search = project.search()
    assert await search.find(reference("j/2"), 900.0, LAG_SECONDS) is None
    project.add("j/2", 1000)
    assert (await search.find(reference("j/2"), 900.0, LAG_SECONDS)).id == "t0"


async def test_the_next_look_goes_back_by_the_lag_from_what_the_one_before_covers(project):
    project.add("j/1", 50_000)
    project.add("j/2", 60_000)
    search = project.search()
    for _ in range(2):
        await search.find(reference("j/3"), 0.0, LAG_SECONDS)
    assert project.listings == [0.0, 60_000.0 - LAG_SECONDS]


async def test_who_was_never_looked_for_needs_the_list_from_the_beginning(project):
    project.add("j/1", 50_000)
    search = project.search()
    await search.find(reference("j/3"), 0.0, LAG_SECONDS)
    await search.find(reference("j/4"), 40_000.0, LAG_SECONDS)
    assert project.listings == [0.0, 40_000.0]


async def test_a_list_that_lags_behind_hides_a_draft_no_longer_than_it_lags(project):
    project.add("j/1", 10_000)
    late = project.add("j/3", 10_000 - LAG_SECONDS + 1)
    shown = project.tasks.copy()
    project.tasks = shown[:1]  # the list does not show the other one yet
    search = project.search()
    assert await search.find(reference("j/3"), 0.0, LAG_SECONDS) is None
    project.tasks = shown
    assert (await search.find(reference("j/3"), 0.0, LAG_SECONDS)).id == late


async def test_what_was_created_during_a_listing_is_not_covered_by_it(project):
    project.page_seconds = 10.0
    project.add("j/1", 10_000)

    async def list_since(since):
        async for page in project.list_since(since):
            project.add("j/9", 20_000)
            yield page
            if len(project.listings) == 1:
                yield Page([project.tasks[-1]], 2)

    search = DraftSearch(list_since, project.clock)
    for _ in range(2):
        await search.find(reference("j/3"), 0.0, LAG_SECONDS)
    assert project.listings == [0.0, 10_000.0 - LAG_SECONDS]


async def test_one_listing_serves_all_who_lost_an_answer_before_it_began(project):
    ids = [project.add(f"j/{number}", 1000 + number) for number in range(20)]
    search = project.search()
    found = await asyncio.gather(
        *(search.find(reference(f"j/{number}"), 1000.0 + number, LAG_SECONDS) for number in range(20))
    )
    assert [one.id for one in found] == ids
    assert project.listings == [1000.0]  # as far back as the first of them needs


async def test_who_comes_while_a_listing_runs_is_served_by_the_next_together_with_others(project):
    project.page_seconds = 100.0
    ids = [project.add(f"j/{number}", 1000) for number in range(4)]
    search = project.search()

    async def late(number):
        await project.clock.sleep(150.0 + number)
        return await search.find(reference(f"j/{number}"), 1000.0, LAG_SECONDS)

    found = await asyncio.gather(
        search.find(reference("j/3"), 1000.0, LAG_SECONDS), *(late(number) for number in range(3))
    )
    assert [one.id for one in found] == [ids[3], *ids[:3]]
    assert len(project.listings) == 2


async def test_a_listing_that_fails_fails_for_one_and_the_next_begins_anew(project):
    project.add("j/1", 1000)
    project.add("j/2", 1000)
    project.failures = [Unavailable("down")]
    search = project.search()
    outcomes = await asyncio.gather(
        *(search.find(reference(f"j/{number}"), 1000.0, LAG_SECONDS) for number in (1, 2)), return_exceptions=True
    )
    assert isinstance(outcomes[0], Unavailable)
    assert outcomes[1].id == "t1"


async def test_a_listing_spoilt_by_a_deletion_is_read_again(project):
    project.add("j/1", 1000)
    project.failures = [ListShifted(), ListShifted()]
    assert (await project.search().find(reference("j/1"), 1000.0, LAG_SECONDS)).id == "t0"


async def test_a_list_that_never_holds_still_is_given_up(project):
    project.failures = [ListShifted()] * LISTING_TRIES
    with pytest.raises(ListShifted):
        await project.search().find(reference("j/1"), 1000.0, LAG_SECONDS)


async def test_children_and_clones_are_not_taken_for_the_draft(project):
    project.add("j/1", 1000, parent="t9")
    original = project.add("j/1", 1001)
    project.add("j/1", 1002)
    assert (await project.search().find(reference("j/1"), 1000.0, LAG_SECONDS)).id == original


async def test_what_is_settled_is_forgotten(project):
    project.add("j/1", 1000)
    search = project.search()
    await search.find(reference("j/1"), 1000.0, LAG_SECONDS)
    await search.find(reference("j/2"), 1000.0, LAG_SECONDS)
    assert (search._wanted, search._found) == ({}, {})


# Everything that has a marker


async def test_all_that_is_marked_is_listed_and_clones_are_listed_as_well(project):
    project.add("j/0", 900)
    project.add("j/1", 1000)
    project.add("j/1", 1001)
    project.add("j/2", 1002, parent="t1")
    project.add("j/3", 1003, description="without a marker")
    project.add("k/1", 1004, description=f"cloned from {reference('j/1')}, then {reference('k/1')}")
    found = [(marker, task.id) async for marker, task in project.search().referenced(1000.0)]
    assert found == [(reference("j/1"), "t1"), (reference("j/1"), "t2"), (reference("k/1"), "t5")]
