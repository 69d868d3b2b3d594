"""Failures are grouped by cause, whatever numbers, ids and values their messages name, with a few examples each."""

import random

import pytest
from fakes.bench import a_bench, write_records
from fakes.fates import every_fate, settle

from engine.model.batch import Limits
from engine.model.outcome import Later, LaterFate, Settlement
from engine.reports.causes import EXAMPLES_TOLD, MOST_CAUSES, MOST_TRACKED, cause_of, find_causes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("record 7: at most 30 letters", "record 8: at most 30 letters"),
        ("data.age must not be -3.5e7", "data.age must not be 12"),
        ("value 'a b' is not known", "value 'it is c' is not known"),
        ('"x" is not one of them', "\"some 'other'\" is not one of them"),
        ("task 6b0aeea1345dc6e900000000 is gone", "task 6b0aeea1345dc6e9000000ff is gone"),
        (
            "no file 123e4567-e89b-12d3-a456-426614174000 here",
            "no file 00000000-e89b-12d3-a456-4266141740ff here",
        ),
        ("items[3].name is missing", "items[14].name is missing"),
    ],
)
def test_messages_that_differ_only_in_particulars_are_one_cause(one, other):
    assert cause_of(one) == cause_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP 400: bad request", "HTTP 413: too large"),
        ("data.image is missing", "data.name is missing"),
        ("it doesn't fit and can't be sent", "it doesn't exist and can't be sent"),
    ],
)
def test_messages_that_say_something_else_are_not(one, other):
    assert cause_of(one) != cause_of(other)


def test_a_cause_is_found_in_a_time_that_grows_with_the_length_only():
    for text in ("'" * 2_000, '"' * 1_999 + "x", "a1-" * 700, "1," * 1_000, "“" * 2_000):
        assert len(cause_of(text)) <= 300


@pytest.fixture
async def bench(tmp_path):
    async with every_fate(tmp_path) as bench:
        yield bench


def causes_of(bench):
    return find_causes(bench.job, bench.ledger, bench.service.task_url)


async def test_each_fate_that_is_no_success_is_told_with_where_its_records_stand(bench, tmp_path):
    await bench.ledger.note_later("j", {0: LaterFate(Later.FAILED, "out of memory", 9.0)})
    causes = await causes_of(bench)
    assert causes.records == 6
    assert causes.others == 0
    found = {(cause.fate, cause.words): cause for cause in causes.top}
    assert {fate for fate, _ in found} == {"failed", "rejected", "uncertain", "failed later"}
    (failed,) = found["failed", "data.n: too big"].examples
    assert (failed.index, failed.source, failed.offset, failed.line) == (2, str(tmp_path / "a.ndjson"), 28, 3)
    assert (failed.batch, failed.task_id, failed.url) == ("0", None, None)
    uncertain = found["uncertain", "the answer was lost"]
    assert [one.index for one in uncertain.examples] == [3, 4]
    (later,) = found["failed later", "out of memory"].examples
    assert (later.index, later.task_id, later.url) == (0, "t0", "https://fake.example/tasks/t0")
    (missing,) = found["rejected", "data: missing"].examples
    assert (missing.index, missing.line) == (6, 5)


async def test_one_cause_is_told_by_what_its_messages_share_and_has_a_few_examples(tmp_path):
    async with a_bench(tmp_path, 50, limits=Limits(25, 1 << 20)) as bench:
        for batch in await bench.freeze():
            reasons = {at: f"value 'v{at}' is not known" for at in range(25)}
            await settle(bench, batch, Settlement([None] * 25, reasons))
        (cause,) = (await causes_of(bench)).top
    assert (cause.words, cause.records, len(cause.examples)) == ("value … is not known", 50, EXAMPLES_TOLD)
    assert cause.examples[3].message == "value 'v3' is not known"


async def test_causes_beyond_those_that_are_told_are_counted(tmp_path):
    letters = random.Random(1)
    records = MOST_TRACKED + 100
    async with a_bench(tmp_path, records, limits=Limits(records, 1 << 20)) as bench:
        (batch,) = await bench.freeze()
        reasons = {at: "".join(letters.choices("abcdef", k=12)) for at in range(records)}
        await settle(bench, batch, Settlement([None] * records, reasons | {0: "usual", 1: "usual"}))
        causes = await causes_of(bench)
    assert (len(causes.top), causes.records) == (MOST_CAUSES, records)
    assert causes.others == records - sum(cause.records for cause in causes.top)
    assert (causes.top[0].words, causes.top[0].records) == ("usual", 2)


async def test_a_job_of_successes_has_no_causes(tmp_path):
    async with a_bench(tmp_path, sources=[write_records(tmp_path / "a.ndjson", 2)]) as bench:
        (batch,) = await bench.freeze()
        await settle(bench, batch, Settlement(["t0", "t1"]))
        assert (await causes_of(bench)).top == []
