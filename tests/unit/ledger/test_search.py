"""A job is searched piece by piece: what is found is what is there, and where the time is up, the rest comes later."""

import pytest

from engine.ledger import search as module
from engine.ledger.search import Hit, LedgerSearch
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import JobError, LedgerError
from engine.model.outcome import LaterFate, Settlement
from engine.model.submission import State, Submission

from .values import a_batch, a_job, a_reject, frozen, ids

BATCHES = 7


@pytest.fixture
async def search(path, clock, monkeypatch):
    """Search a job of 7 batches of 2 records, of which the odd ones have failed; in slices of 2 batches."""
    monkeypatch.setattr(module, "_SLICE_BATCHES", 2)
    monkeypatch.setattr(module, "_SLICE_RECORDS", 5)
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger, BATCHES)
        for sequence in range(BATCHES - 1):
            await ledger.move("j", Submission(sequence, State.RELEASING, f"remote-{sequence}"), expected=State.FROZEN)
            await ledger.move("j", Submission(sequence, State.RELEASED, f"remote-{sequence}"), expected=State.RELEASING)
            failed = {1: f'no "image" {sequence}%'} if sequence % 2 else {}
            task_ids = [id_ if position not in failed else None for position, id_ in enumerate(ids(2, sequence))]
            settled = Submission(sequence, State.SETTLED, f"remote-{sequence}")
            await ledger.settle("j", settled, Settlement(task_ids, failed), expected=State.RELEASED)
        doubt = Submission(BATCHES - 1, State.RELEASING)
        await ledger.move("j", doubt, expected=State.FROZEN)
        lost = Submission(BATCHES - 1, State.UNCERTAIN, None, 0.0, "the Answer was lost")
        await ledger.move("j", lost, expected=State.RELEASING)
        await ledger.note_later("j", {0: LaterFate("failed", "out of memory", 1.0)})
        await ledger.create_job(a_job("k"))
        await ledger.freeze("k", [a_batch(0, 1, rejected=1)], [a_reject(0, "no image in it")], last=True)
        with LedgerSearch(path, 1.0, clock.monotonic) as search:
            yield search


def test_a_task_is_found_by_its_whole_id(search):
    wanted = ids(2, 4)[1]
    assert search.task("j", wanted, "", 50).hits == [Hit(4, [1], state="created")]
    for other in (wanted[:-1], wanted.upper(), "%", "_" * 24, '"', ids(1, 99)[0]):
        assert search.task("j", other, "", 50).hits == []
    assert search.task("k", wanted, "", 50).hits == []


def test_a_batch_is_found_by_its_name(search):
    assert search.named("j", "remote-3", 50).hits == [Hit(3)]
    assert search.named("j", "remote", 50).hits == []


def test_a_reason_is_found_by_some_of_its_words_wherever_it_stands(search):
    assert search.reason("j", 'NO "image" 3%', "", 50).hits == [Hit(3, [1], state="failed", reason='no "image" 3%')]
    assert [hit.sequence for hit in search.reason("j", "image", "", 50).hits] == [1, 3, 5]
    assert search.reason("j", "answer was", "", 50).hits == [Hit(6, state="uncertain", reason="the Answer was lost")]
    assert search.reason("j", "memory", "", 50).hits == [Hit(index=0, state="failed", reason="out of memory")]
    assert search.reason("k", "image", "", 50).hits == [Hit(index=0, state="rejected", reason="no image in it")]
    for nothing in ("%", "i_age", '":[', "positions"):
        found = {hit.reason for hit in search.reason("j", nothing, "", 50).hits}
        assert all(nothing in reason for reason in found)


@pytest.mark.parametrize("most", [1, 2, 50])
def test_page_by_page_each_hit_comes_once(search, most):
    hits, place = [], ""
    while True:
        found = search.reason("j", "o", place, most)
        hits += found.hits
        place = found.goes_on
        if not place:
            break
        assert 0 < found.looked_through <= 1
    assert [(hit.sequence, hit.index) for hit in hits] == [(6, None), (1, None), (3, None), (5, None), (None, 0)]


def test_when_the_time_is_up_it_says_where_to_go_on(path, search, clock):
    class Running:
        """A clock that goes on with each look at it."""

        def __call__(self):
            clock.time += 1
            return clock.time

    with LedgerSearch(path, 0.5, Running()) as hurried:
        wanted = ids(2, 4)[1]
        first = hurried.task("j", wanted, "", 50)
        assert (first.hits, first.goes_on) == ([], "1")
        assert first.looked_through == pytest.approx(4 / 14)
        second = hurried.task("j", wanted, first.goes_on, 50)
        assert second.hits == []
        assert hurried.task("j", wanted, second.goes_on, 50).hits == [Hit(4, [1], state="created")]


def test_batches_are_listed_by_state_and_after_one_of_them(search):
    assert [row.sequence for row in search.batches("j", ["settled"], 2, 2)] == [3, 4]
    (row,) = search.batches("j", ["uncertain"])
    assert (row.start_index, row.end_index, row.count, row.note) == (12, 14, 2, "the Answer was lost")


def test_what_is_not_there_is_an_error(search, tmp_path):
    with pytest.raises(JobError, match="there is no job 'x'"):
        search.task("x", "y", "", 1)
    with pytest.raises(LedgerError), LedgerSearch(tmp_path / "none.db"):
        pass
