import asyncio
import os
import random
import stat
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from fakes.bench import a_bench
from fakes.clock import until
from fakes.fates import BIG, every_fate, settle, write, writer_of
from msgspec.structs import replace

from engine.model.batch import Limits
from engine.model.errors import SourceChanged
from engine.model.outcome import Settlement
from engine.model.submission import State, Submission
from engine.progress.events import BatchSettled
from engine.reports.audit import audit
from engine.reports.outcomes import KnownBatch, batch_fates, fate_of, outcome_lines


@pytest.fixture
async def bench(tmp_path):
    async with every_fate(tmp_path) as bench:
        yield bench


def lines_of(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


async def test_the_outcomes_hold_one_line_for_each_record_by_index(bench, tmp_path):
    reports = await write(bench)
    a, b = str(tmp_path / "a.ndjson"), str(tmp_path / "b.ndjson")
    url = "https://fake.example/tasks/t0"
    rows = [
        (0, a, 0, "created", "t0", "r1", url, None),
        (1, a, 20, "rejected", None, None, None, "not valid JSON: unexpected character: line 1 column 2 (char 1)"),
        (2, a, 28, "failed", None, "r1", None, "data.n: too big"),
        (3, b, 1, "uncertain", None, "r2", None, "the answer was lost"),
        (4, b, 21, "uncertain", None, "r2", None, "the answer was lost"),
        (5, b, 41, "unresolved", None, None, None, "its batch is frozen"),
        (6, b, 61, "rejected", None, None, None, "data: missing"),
    ]
    keys = ("index", "source", "offset", "state", "task_id", "batch_id", "url", "error")
    written = lines_of(reports.outcomes)
    assert [tuple(line) for line in written] == [keys] * 7
    written[1]["error"] = rows[1][-1]  # its words are the parser's
    assert [tuple(line.values()) for line in written] == rows


async def test_an_outcome_stands_on_one_line_in_the_order_that_people_are_promised(bench, tmp_path):
    reports = await write(bench)
    assert reports.outcomes.read_bytes().splitlines()[0] == (
        b'{"index":0,"source":"%s","offset":0,"state":"created","task_id":"t0","batch_id":"r1",'
        b'"url":"https://fake.example/tasks/t0","error":null}' % str(tmp_path / "a.ndjson").encode()
    )


async def test_the_offset_of_a_line_finds_the_record_in_its_source(bench):
    reports = await write(bench)
    found = [record_at(line["source"], line["offset"]) for line in lines_of(reports.outcomes)]
    assert found[:2] == [b'{"data":{"id":"0"}}', b"no json"]
    assert [orjson.loads(record)["data"]["id"] for record in found[2:6]] == ["1", "2", "3", "4"]


def record_at(path, offset):
    return Path(path).read_bytes()[offset:].partition(b"\n")[0]


async def test_the_rejects_hold_every_record_that_was_not_created_and_is_not_on_its_way(bench):
    reports = await write(bench)
    assert [(line["index"], line["state"]) for line in lines_of(reports.rejects)] == [
        (1, "rejected"),
        (2, "failed"),
        (3, "uncertain"),
        (4, "uncertain"),
        (6, "rejected"),
    ]


async def test_a_reject_holds_the_record_as_it_stands_in_the_source(bench, tmp_path):
    reports = await write(bench)
    failed = reports.rejects.read_bytes().splitlines()[1]
    assert failed == (
        b'{"job":"j","index":2,"source":"%s","offset":28,'
        b'"line":3,"state":"failed","error":"data.n: too big","attempts":1,'
        b'"record":{"data":{"id":"1","n":%s}}}' % (str(tmp_path / "a.ndjson").encode(), BIG.encode())
    )


async def test_a_reject_that_is_no_json_stands_there_as_text_with_its_line(bench):
    reports = await write(bench)
    first, *_, last = lines_of(reports.rejects)
    assert (first["line"], first["record"]) == (2, "no json")
    assert (last["line"], last["record"]) == (5, {"input": "é"})


async def test_attempts_are_counted_over_retries(bench):
    bench.job = replace(bench.job, attempt=3)
    assert {line["attempts"] for line in lines_of((await write(bench)).rejects)} == {3}


async def test_a_record_over_several_lines_is_one_line_of_the_rejects(tmp_path):
    path = tmp_path / "tasks.json"
    path.write_bytes(b'[\n  {\n    "data": {\n      "id": "0",\n      "text": "a\\nb"\n    }\n  }\n]\n')
    async with a_bench(tmp_path, sources=[path]) as bench:
        (batch,) = await bench.freeze()
        await settle(bench, batch, Settlement.refused(1, "no"))
        (line,) = lines_of((await write(bench)).rejects)
        assert line["record"] == {"data": {"id": "0", "text": "a\nb"}}


async def test_a_record_of_a_settled_batch_of_which_nobody_knows_is_told_as_uncertain(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        (batch,) = await bench.freeze()
        await settle(bench, batch, Settlement(["t0", None, None], {1: "no"}, uncertain={2: "not found again"}))
        reports = await write(bench)
        keys = ("state", "task_id", "batch_id", "url", "error")
        assert [tuple(line[key] for key in keys) for line in lines_of(reports.outcomes)] == [
            ("created", "t0", "r1", "https://fake.example/tasks/t0", None),
            ("failed", None, "r1", None, "no"),
            ("uncertain", None, "r1", None, "not found again"),
        ]
        assert [(line["index"], line["state"], line["error"]) for line in lines_of(reports.rejects)] == [
            (1, "failed", "no"),
            (2, "uncertain", "not found again"),
        ]
        alone = await fate_of(bench.job, bench.ledger, bench.service.task_url, 2)
        assert (alone.state, alone.error) == ("uncertain", "not found again")


async def test_created_tasks_without_an_id_have_no_page(tmp_path):
    async with a_bench(tmp_path, records=1) as bench:
        (batch,) = await bench.freeze()
        await settle(bench, batch, Settlement([""]))
        (line,) = lines_of((await write(bench)).outcomes)
        assert (line["state"], line["task_id"], line["url"]) == ("created", "", None)


async def test_what_else_the_service_says_of_a_task_stands_behind_its_outcome(tmp_path):
    async with a_bench(tmp_path, records=2) as bench:
        (batch,) = await bench.freeze()
        await settle(bench, batch, Settlement(["t0", "t1"], details={1: {"status": "RUNNING", "children": [1, 2]}}))
        plain, detailed = lines_of((await write(bench)).outcomes)
        assert list(plain)[-1] == "error"
        assert list(detailed.items())[-2:] == [("status", "RUNNING"), ("children", [1, 2])]


TRICKY = {
    "plain": ["t0", "t1", "t2", "t3", "t4"],
    "commas": ["a,b", "c", '","', "d", "e"],
    "quotes and beyond ASCII": ['"', "\\", "\n", "é", "\U0001f600"],
    "some without an id": ["t0", "", "t2", "", "t4"],
    "all without an id": ["", "", "", "", ""],
    "some failed": ["t0", None, "t2", "t3", None],
    "all failed": [None, None, None, None, None],
}


@pytest.mark.parametrize("task_ids", TRICKY.values(), ids=TRICKY)
@pytest.mark.parametrize("details", [{}, {2: {"status": "RUNNING"}}], ids=["plain", "detailed"])
@pytest.mark.parametrize("folder", ["plain", 'a ", "b'])
@pytest.mark.parametrize("known", [True, False], ids=["failed", "uncertain"])
async def test_the_lines_of_a_batch_are_those_that_each_record_would_get_alone(
    tmp_path, task_ids, details, folder, known
):
    path = tmp_path / folder / "tasks.ndjson"
    path.parent.mkdir()
    path.write_bytes(b'no json\n{"data":{}}\n{"data":{}}\n\n{"data":{}}\n{}\n{"data":{}}\n{"data":{}}\nno json')
    async with a_bench(tmp_path, sources=[path]) as bench:
        (batch,) = await bench.freeze()
        reasons = {at: "no, it is bad" for at, task_id in enumerate(task_ids) if task_id is None}
        errors, uncertain = (reasons, {}) if known else ({}, reasons)
        settlement = Settlement(task_ids, errors, details=details, uncertain=uncertain)
        await settle(bench, batch, settlement, remote_id='r",1')
        rejects = await bench.ledger.rejects("j", 0, 8)
        submission = Submission(0, State.SETTLED, 'r",1')
        alone = batch_fates(bench.job, KnownBatch(batch, submission, settlement, rejects), bench.service.task_url)
        assert [fated.outcome.index for fated in alone] == list(range(8))
        assert (await write(bench)).outcomes.read_bytes() == b"".join(outcome_lines(alone))


async def test_a_batch_over_two_files_names_the_file_of_each_record(tmp_path):
    paths = [tmp_path / "a.ndjson", tmp_path / "b.ndjson", tmp_path / "c.ndjson"]
    for path, text in zip(paths, [b'{"data":{}}\n', b"", b'{"data":{}}\n'], strict=True):
        path.write_bytes(text)
    async with a_bench(tmp_path, sources=paths) as bench:
        (batch,) = await bench.freeze()
        await settle(bench, batch, Settlement(["t0", "t1"]))
        found = [(line["source"], line["offset"]) for line in lines_of((await write(bench)).outcomes)]
        assert found == [(str(paths[0]), 0), (str(paths[2]), 0)]


async def test_a_job_of_which_nothing_was_read_has_empty_reports(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        reports = await write(bench)
        assert (reports.outcomes.read_bytes(), reports.rejects.read_bytes()) == (b"", b"")


# The files


async def test_the_reports_are_for_their_owner_only(bench):
    reports = await write(bench)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (reports.outcomes, reports.rejects)] == [0o600, 0o600]
    assert stat.S_IMODE(reports.outcomes.parent.stat().st_mode) == 0o700


async def test_the_folder_of_the_reports_is_made_with_those_above_it(bench, tmp_path):
    bench.job = replace(bench.job, output=str(tmp_path / "2026" / "11" / "j"))
    assert (await write(bench)).outcomes.parent == tmp_path / "2026" / "11" / "j"


async def test_a_reader_sees_the_old_reports_until_the_new_ones_are_whole(bench):
    reports = await write(bench)
    before = reports.outcomes.read_bytes(), reports.rejects.read_bytes()
    seen = []

    def record_at(offset, length):
        seen.append((reports.outcomes.read_bytes(), reports.rejects.read_bytes()))
        return b'"new"'

    with reports.rejects.open("rb") as held:
        await write(bench, record_at)
        assert held.read() == before[1]
    assert seen == [before] * 5
    assert {line["record"] for line in lines_of(reports.rejects)} == {"new"}


async def test_reports_that_could_not_be_written_leave_the_old_ones(bench):
    reports = await write(bench)
    before = reports.outcomes.read_bytes(), reports.rejects.read_bytes()

    def gone(offset, length):
        raise SourceChanged

    with pytest.raises(SourceChanged):
        await write(bench, gone)
    assert (reports.outcomes.read_bytes(), reports.rejects.read_bytes()) == before
    await write(bench)  # what the failed attempt left behind is in nobody's way
    assert sorted(path.name for path in reports.outcomes.parent.iterdir()) == [
        "outcomes.ndjson",
        "rejects.csv",
        "rejects.ndjson",
    ]


async def test_a_link_laid_in_the_way_is_not_followed(bench, tmp_path):
    folder, victim = tmp_path / "output", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("mine")
    (folder / ".rejects.ndjson.partial").symlink_to(victim)
    await write(bench)
    assert victim.read_text() == "mine"


ONE_RECORD = Limits(1, 1 << 20)


class Counted:
    """A ledger that notes how often it is asked what became of batches."""

    def __init__(self, ledger):
        self._ledger = ledger
        self.asked = []

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    async def settlements(self, job, sequences):
        self.asked.append(list(sequences))
        return await self._ledger.settlements(job, sequences)


async def test_small_batches_are_asked_about_together(tmp_path):
    async with a_bench(tmp_path, records=5, limits=ONE_RECORD) as bench:
        for batch in (await bench.freeze())[:3]:
            await settle(bench, batch, Settlement([f"t{batch.sequence}"]), f"r{batch.sequence}")
        bench.ledger = Counted(bench.ledger)
        reports = await write(bench)
        assert bench.ledger.asked == [[0, 1, 2]]
    found = [(line["index"], line["task_id"], line["batch_id"]) for line in lines_of(reports.outcomes)]
    assert found == [(0, "t0", "r0"), (1, "t1", "r1"), (2, "t2", "r2"), (3, None, None), (4, None, None)]


async def test_however_many_batches_there_are_each_record_has_its_line(tmp_path):
    async with a_bench(tmp_path, records=2001, limits=ONE_RECORD) as bench:
        await bench.freeze()
        reports = await write(bench)
    assert [line["index"] for line in lines_of(reports.outcomes)] == list(range(2001))


# Beside a run


ENOUGH = BatchSettled(0, 10_000, 0)
"""Enough is settled for a look, whatever it is."""


@asynccontextmanager
async def followed(bench, record_at=None, **options):
    """Write the reports beside the block."""
    with writer_of(bench, record_at, **options) as writer:
        following = asyncio.create_task(writer.follow())
        try:
            yield writer, following
        finally:
            following.cancel()
            await asyncio.wait([following])


def growing(bench, name="outcomes.ndjson"):
    """Return what is written so far."""
    try:
        return (Path(bench.job.output) / f".{name}.partial").read_bytes()
    except FileNotFoundError:  # not begun, or what was left there is just removed
        return b""


async def look(writer, bench, lines):
    """Have the writer look, and wait until it has written so many lines."""
    writer.hear(ENOUGH)
    await until(lambda: growing(bench).count(b"\n") == lines)


async def advance(bench, draw, batch):
    """Take a frozen batch some way; return the parts that stand for it, if any do."""
    rejects = await bench.ledger.rejects("j", batch.start.index, batch.end.index)
    step = draw.choice(["settle", "settle", "refuse", "split"] * 4 + ["doubt"])
    if step == "split" and batch.count > 1:
        halves = await bench.halves(batch, [reject.index for reject in rejects])
        await bench.ledger.split("j", Submission(batch.sequence, State.SPLIT), halves, expected=State.FROZEN)
        return halves
    if step == "doubt":
        await bench.bring(batch, State.RELEASED, f"r{batch.sequence}")
        doubt = Submission(batch.sequence, State.UNCERTAIN, f"r{batch.sequence}", note="lost")
        await bench.ledger.move("j", doubt, expected=State.RELEASED)
        return ()
    ids = [f"t{batch.sequence}-{number}" for number in range(batch.count)]
    settlement = Settlement.refused(batch.count, "no") if step == "refuse" else Settlement(ids)
    await settle(bench, batch, settlement, f"r{batch.sequence}")
    return ()


async def settled_prefix(bench):
    """Count the records before the first one whose batch is not settled."""
    count = 0
    for batch, submission in await bench.batches():
        if submission.state is not State.SETTLED:
            break
        count = batch.end.index
    return count


@pytest.mark.parametrize("seed", range(8))
async def test_reports_follow_the_settled_batches_and_are_at_last_what_they_would_be_written_at_once(tmp_path, seed):
    draw = random.Random(seed)
    paths = [tmp_path / f"{name}.ndjson" for name in "abc"]
    for path in paths:
        path.write_bytes(b"".join(draw.choice([b'{"data":{}}\n'] * 4 + [b"no json\n"]) for _ in range(15)))
    async with a_bench(tmp_path, sources=paths, limits=Limits(4, 1 << 20)) as bench:
        waiting = [batch for batch in await bench.freeze() if batch.count]
        async with followed(bench) as (writer, following):
            while len(waiting) > draw.randrange(4):
                batch = waiting.pop(draw.choice([0, 0, -1]))
                waiting = [*await advance(bench, draw, batch), *waiting]
                await look(writer, bench, await settled_prefix(bench))
            assert not following.done()
            following.cancel()
            for partial in (tmp_path / "output").glob(".*.partial"):  # one may have got no line for hours
                os.utime(partial, (0, 0))
            reports = await writer.finish()
        written = reports.outcomes.read_bytes(), reports.rejects.read_bytes()
        assert min(path.stat().st_mtime for path in (reports.outcomes, reports.rejects)) > 0
        assert (await audit(bench.job, bench.ledger, bench.evidence)).holds
        reports = await write(bench)
        assert written == (reports.outcomes.read_bytes(), reports.rejects.read_bytes())


async def settled_three(bench):
    for batch in await bench.freeze():
        await settle(bench, batch, Settlement([f"t{batch.sequence}"]), f"r{batch.sequence}")


async def test_what_an_earlier_process_left_behind_counts_for_nothing(tmp_path):
    async with a_bench(tmp_path, records=3, limits=ONE_RECORD) as bench:
        await settled_three(bench)
        (tmp_path / "output").mkdir()
        (tmp_path / "output" / ".outcomes.ndjson.partial").write_text("half a li")
        async with followed(bench) as (writer, _):
            await look(writer, bench, 3)
            assert len(lines_of((await writer.finish()).outcomes)) == 3


async def test_reports_that_cannot_be_written_beside_a_run_end_nothing_and_are_written_after_it(tmp_path):
    async with a_bench(tmp_path, records=3, limits=ONE_RECORD) as bench:
        await settled_three(bench)
        async with followed(bench, room_bytes=1 << 62) as (writer, following):
            writer.hear(ENOUGH)
            await following
            assert list((tmp_path / "output").iterdir()) == []
            assert len(lines_of((await writer.finish()).outcomes)) == 3


async def test_a_source_that_is_gone_for_a_while_beside_a_run_is_read_after_it(tmp_path):
    answers = [SourceChanged(), b'"there again"']

    def record_at(offset, length):
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    async with a_bench(tmp_path, records=2, limits=ONE_RECORD) as bench:
        created, refused = await bench.freeze()
        await settle(bench, created, Settlement(["t0"]))
        await settle(bench, refused, Settlement.refused(1, "no"), "r2")
        async with followed(bench, record_at) as (writer, following):
            writer.hear(ENOUGH)
            await following
            reports = await writer.finish()
        assert [line["state"] for line in lines_of(reports.outcomes)] == ["created", "failed"]
        assert [line["record"] for line in lines_of(reports.rejects)] == ["there again"]


async def test_reports_that_are_written_by_somebody_else_meanwhile_are_written_anew(tmp_path):
    async with a_bench(tmp_path, records=3, limits=ONE_RECORD) as bench:
        await settled_three(bench)
        async with followed(bench) as (writer, _):
            await look(writer, bench, 3)
            (await write(bench)).outcomes.unlink()
            assert len(lines_of((await writer.finish()).outcomes)) == 3


async def test_nothing_is_left_of_reports_whose_run_breaks_off(tmp_path):
    async with a_bench(tmp_path, records=3, limits=ONE_RECORD) as bench:
        await settled_three(bench)
        async with followed(bench) as (writer, _):
            await look(writer, bench, 3)
        assert list((tmp_path / "output").iterdir()) == []


PAGES = {
    "the id at the end": lambda task_id: f"https://x.example/tasks/{task_id}",
    "the id in the middle": lambda task_id: f"https://x.example/tasks/{task_id}/edit",
    "the id twice": lambda task_id: f"https://x.example/{task_id}/{task_id}",
    "no id": lambda task_id: f"https://x.example/{len(task_id)}",
    "a part of the id": lambda task_id: f"https://x.example/{task_id[-1]}/{task_id}",
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("ids", [["t,1", 't"2', "t3"], ["tasks", "x", "x.example"], ["same", "same"], ["one"]])
async def test_lines_by_columns_are_the_lines_made_one_by_one_whatever_the_pages_are(tmp_path, page, ids):
    async with a_bench(tmp_path, records=len(ids)) as bench:
        (batch,) = await bench.freeze()
        settlement = Settlement(ids)
        await settle(bench, batch, settlement)
        bench.service.task_url = page
        reports = await write(bench)
    submission = Submission(0, State.SETTLED, "r1")
    alone = outcome_lines(batch_fates(bench.job, KnownBatch(batch, submission, settlement, ()), page))
    assert reports.outcomes.read_bytes() == b"".join(alone)
