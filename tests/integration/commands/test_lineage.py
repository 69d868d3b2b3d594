"""Records are told by line and by the user's own key, also when their source is another file by now."""

import apsw
import pytest

import engine
from engine.model.errors import JobError, SourceChanged
from engine.sandbox.behaviour import FailureRule

from .desk import counts, lines, tasks

BROKEN = FailureRule(path="data.status", equals="broken", message="must not be broken")
BY_KEY = '[mapping]\nwrap = "data"\n[delta]\nkey = "id"'
LONG = "x" * 300


def row(key, **fields):
    return {"id": key, **fields}


async def night(desk, records, job, more=BY_KEY):
    """Load tonight's file, which is written over each night."""
    source = desk.source(records, "export.ndjson")
    return await desk.submit(source, desk.config(more=more), job=job, delta=True, family="nightly")


async def found(desk, job, key):
    story = await engine.tell_story(job, desk.ledger, key=key)
    return story.asked.job, story.asked.outcome.index, story.asked.outcome.state, story.asked.line, story.key


class TestAKeyIsFoundAfterItsSourceWasOverwritten:
    @pytest.fixture
    async def desk(self, desk):
        desk = await desk(failures=(BROKEN,))
        first = [row("a"), row("b", status="broken"), row(7), row(LONG), row("d", priority=1), row("a", n=2)]
        assert counts(await night(desk, first, "n1")) == (4, 1, 1, 0, 0)
        await night(desk, [row("c"), row("a"), row("b"), row("9")], "n2")
        desk.source(tasks(99), "export.ndjson")
        return desk

    @pytest.mark.parametrize(
        ("job", "key", "expected"),
        [
            pytest.param("n1", "a", ("n1", 0, "created", 1, "a"), id="created"),
            pytest.param("n1", "7", ("n1", 2, "created", 3, "7"), id="a number"),
            pytest.param("n1", LONG, ("n1", 3, "created", 4), id="too long to be kept"),
            pytest.param("n1", "b", ("n1", 1, "failed", 2, "b"), id="failed, and created by a later job since"),
            pytest.param("n2", "c", ("n2", 0, "created", 1, "c"), id="created by a later job"),
            pytest.param("n2", "a", ("n2", 1, "skipped", None, "a"), id="skipped"),
            pytest.param("n2", "b", ("n2", 2, "created", 3, "b"), id="created after it had failed"),
        ],
    )
    async def test_whatever_became_of_it(self, desk, job, key, expected):
        assert (await found(desk, job, key))[: len(expected)] == expected

    async def test_a_record_that_was_asked_for_by_number_tells_its_key(self, desk):
        story = await engine.tell_story("n1", desk.ledger, record=5)
        assert (story.key, story.asked.outcome.state, story.asked.line) == ("a", "rejected", 6)
        story = await engine.tell_story("n1", desk.ledger, record=3)
        assert story.key.startswith("a key of 302 bytes, sha256 ")

    async def test_a_key_that_no_record_has_is_not_found_and_why(self, desk):
        with pytest.raises(SourceChanged, match="knows no record of job 'n1' with 'c' in 'id', and its source cannot"):
            await engine.tell_story("n1", desk.ledger, key="c")

    async def test_what_is_missing_is_named_by_its_key(self, desk):
        gone = lines((await engine.missing("n2", desk.ledger)).file)
        assert [(line["key"], line["job"], line["record"]) for line in gone] == [
            (7, "n1", 2),
            (None, "n1", 3),
            ("d", "n1", 4),
        ]
        assert gone[1]["long_key"].startswith("a key of 302 bytes, sha256 ")
        assert "long_key" not in gone[0]


async def test_a_record_that_its_check_rejects_keeps_its_key(desk):
    desk = await desk()
    more = BY_KEY.replace('wrap = "data"', 'wrap = "data"\nfields = { priority = "urgency" }')
    assert counts(await night(desk, [row("a", urgency=1), row("b", urgency="high")], "n1", more)) == (1, 0, 1, 0, 0)
    desk.source(tasks(99), "export.ndjson")
    assert await found(desk, "n1", "b") == ("n1", 1, "rejected", 2, "b")


async def test_a_key_of_a_text_and_one_of_a_number_are_two(desk):
    desk = await desk()
    await night(desk, [row("7"), row(7)], "n1")
    with pytest.raises(JobError, match=r"several records with '7' in 'id': 0, 1; ask by --record"):
        await engine.tell_story("n1", desk.ledger, key="7")


async def test_of_a_job_whose_keys_were_not_kept_the_source_is_read_as_long_as_it_is_there(desk):
    desk = await desk()
    await night(desk, [row("a"), row("b", n=1)], "n1")
    await night(desk, [row("c")], "n2")
    connection = apsw.Connection(str(desk.ledger))
    connection.execute("DELETE FROM keys; DELETE FROM known; UPDATE spans SET lines = x''")
    connection.close()
    assert await found(desk, "n2", "c") == ("n2", 0, "created", 1, "c")
    with pytest.raises(SourceChanged):
        await found(desk, "n1", "b")
    assert (await engine.tell_story("n1", desk.ledger, record=1)).asked.line is None


async def test_keys_of_many_records_take_little_more_than_their_texts(desk):
    desk = await desk()
    texts = [f"SKU-{number:06}" for number in range(1500)]
    await night(desk, [row(text) for text in texts], "n1")
    connection = apsw.Connection(str(desk.ledger))
    (rows, size), *_ = connection.execute("SELECT COUNT(*), SUM(LENGTH(keys)) FROM keys")
    connection.close()
    assert size + rows == len(texts) * (len('"SKU-000000"') + 1)
    desk.source([], "export.ndjson")
    assert (await found(desk, "n1", texts[1001]))[1] == 1001


@pytest.mark.parametrize("overwritten", [False, True])
async def test_failed_rows_are_told_by_the_line_on_which_they_begin(desk, overwritten):
    desk = await desk(failures=(BROKEN,))
    path = desk.folder / "rows.csv"
    path.write_text('id,text,status\n1,"two\nlines",ok\n2,"x\n\ny",broken\n\n3,,ok\n4,"a\nb",broken\n5,,broken\n')
    result = await desk.submit(path, desk.config(more='[mapping]\nwrap = "data"'))
    if overwritten:
        path.write_text("id\n")
    assert [(line["index"], line["line"]) for line in lines(result.rejects)] == [(1, 4), (3, 9), (4, 11)]
    table = result.rejects.with_name("rejects.csv").read_text("utf-8-sig").splitlines()
    assert [line.split(",")[:3] for line in table if line.startswith("j,")] == [
        ["j", "1", "4"],
        ["j", "3", "9"],
        ["j", "4", "11"],
    ]
    assert (await engine.tell_story("j", desk.ledger, record=4)).asked.line == 11


async def test_a_job_whose_source_was_overwritten_is_audited_but_for_its_source(desk):
    desk = await desk(failures=(BROKEN,))
    await night(desk, [row("a"), row("b", status="broken"), *(row(str(at)) for at in range(20))], "n1")
    await night(desk, [row("a"), row("b"), row("c")], "n2")
    desk.source(tasks(50), "export.ndjson")
    for job in ("n1", "n2"):
        audit = await desk.audit(job)
        assert (audit.findings, audit.consistent, audit.holds, audit.mended) == ([], True, False, 0)
        (said,) = audit.unproven
        assert "export.ndjson is not the file that the job has read: that had" in said
    connection = apsw.Connection(str(desk.ledger))
    connection.execute("UPDATE batches SET created = created - 1 WHERE created > 1")
    connection.close()
    assert not (await desk.audit("n1")).consistent
