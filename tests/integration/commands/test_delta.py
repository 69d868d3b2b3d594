"""Nights: the same load comes back, and only what no earlier job of its family has created is sent."""

from contextlib import closing

import apsw
import pytest

import engine
from engine.clock import SystemClock
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import AlreadyTaken, BulkSubmitError, ConfigError, JobError, JobLocked, TooManyNew
from engine.model.job import JobState

from .desk import counts, lines, once, tasks

BY_KEY = '[mapping]\nwrap = "data"\n[delta]\nkey = "id"\n{more}'


def keyed(numbers, **fields):
    """Return rows that [mapping] wraps, known by their `id`."""
    return [{"id": str(number), **fields} for number in numbers]


async def night(desk, records, job, config=None, **options):
    """Submit tonight's file, which is another one than last night's."""
    source = desk.source(records, f"{job}.ndjson")
    return await desk.submit(source, config, job=job, **{"delta": True, "family": "nightly", **options})


async def holds(desk, job):
    audit = await desk.audit(job)
    return audit.findings == [] and audit.holds


async def test_a_second_night_sends_only_what_is_new(desk):
    desk = await desk()
    await night(desk, tasks(35), "n1")
    second = await night(desk, tasks(50, 5), "n2")
    assert (counts(second), second.tally.skipped, second.exit_code) == ((20, 0, 0, 0, 0), 30, 0)
    assert desk.created() == once(55)
    first, *_ = lines(desk.folder / "state" / "n2" / "outcomes.ndjson")
    before = lines(desk.folder / "state" / "n1" / "outcomes.ndjson")[5]
    assert (first["state"], first["job"], first["record"]) == ("skipped", "n1", 5)
    assert (first["task_id"], first["batch_id"], first["url"]) == (
        before["task_id"],
        before["batch_id"],
        before["url"],
    )
    assert lines(desk.folder / "state" / "n2" / "rejects.ndjson") == []
    assert await holds(desk, "n2")
    found = await engine.find_record("n2", 3, desk.ledger)
    assert (found.state, found.task_id) == (
        "skipped",
        lines(desk.folder / "state" / "n1" / "outcomes.ndjson")[8]["task_id"],
    )


async def test_a_process_of_its_own_looks_up_what_is_known(desk):
    desk = await desk()
    await night(desk, [*tasks(35), *tasks(2)], "n1", processes=1)
    second = await night(desk, tasks(50, 5), "n2", processes=1)
    assert (counts(second)[0], second.tally.skipped) == (20, 30)
    assert await holds(desk, "n1")
    assert await holds(desk, "n2")


async def test_a_source_that_is_wholly_known_makes_batches_that_are_settled_as_they_are_frozen(desk):
    desk = await desk()
    await night(desk, tasks(40), "n1")
    again = await night(desk, tasks(40), "n2")
    assert (counts(again), again.tally.skipped, again.state, again.exit_code) == ((0, 0, 0, 0, 0), 40, "finished", 0)
    assert dict(again.tally.states) == {"settled": again.tally.batches}
    assert desk.created() == once(40)
    assert await holds(desk, "n2")


async def test_the_first_night_may_be_a_plain_one_of_the_family(desk):
    desk = await desk()
    await night(desk, tasks(20), "n1", delta=False)
    assert counts(await night(desk, tasks(25), "n2"))[0] == 5
    assert counts(await night(desk, tasks(26), "n3", family="another"))[0] == 26


async def test_a_file_that_was_loaded_outside_the_family_does_not_go_again_unseen(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(20)), job="plain")
    with pytest.raises(AlreadyTaken, match="job 'plain' has taken these records already"):
        await night(desk, tasks(20), "n1")
    assert desk.created() == once(20)


async def test_a_family_that_would_load_into_another_project_is_refused(desk):
    desk = await desk()
    await night(desk, tasks(20), "n1")
    elsewhere = desk.folder / "elsewhere.toml"
    elsewhere.write_text(desk.config().read_text().replace("project_id = 42", "project_id = 43"))
    with pytest.raises(ConfigError, match=r"family 'nightly' loads into .* 42 \(job 'n1'\).* 43: .* another --family"):
        await night(desk, tasks(20), "n2", elsewhere)
    with pytest.raises(ConfigError, match="another --family"):
        await night(desk, tasks(20), "n2", elsewhere, delta=False)


async def test_the_family_is_named_after_the_configuration_where_it_is_left_out(desk):
    desk = await desk()
    await night(desk, tasks(2), "n1", family=None)
    assert (await desk.status("n1")).job.family == "engine"


async def test_what_failed_or_was_rejected_is_sent_again_and_mended_records_are_new(desk):
    desk = await desk()
    bad = [{"data": {"id": "30"}, "priority": "high"}, {"data": {"id": "31"}}]
    first = await night(desk, [*tasks(30), *bad], "n1")
    assert counts(first) == (31, 0, 1, 0, 0)
    mended = await night(desk, [*tasks(30), {"data": {"id": "30"}, "priority": 1}, {"data": {"id": "31"}}], "n2")
    assert (counts(mended), mended.tally.skipped) == ((1, 0, 0, 0, 0), 31)
    assert desk.created() == once(32)


async def test_the_same_record_twice_goes_twice_and_both_are_known(desk):
    desk = await desk()
    twins = [*tasks(15), *tasks(15)]
    await night(desk, twins, "n1")
    assert set(desk.created().values()) == {2}
    second = await night(desk, twins, "n2")
    assert (second.tally.skipped, counts(second)[0]) == (30, 0)
    assert await holds(desk, "n1")
    assert await holds(desk, "n2")


class TestByKey:
    async def test_a_changed_record_is_sent_by_its_key(self, desk):
        desk = await desk()
        config = desk.config(more=BY_KEY.format(more=""))
        await night(desk, keyed(range(12), v=1), "n1", config)
        second = await night(desk, [*keyed(range(2), v=2), *keyed(range(2, 14), v=1)], "n2", config)
        assert (counts(second)[0], second.tally.skipped) == (4, 10)
        third = await night(desk, [*keyed(range(2), v=2), *keyed(range(2, 14), v=1)], "n3", config)
        assert (counts(third)[0], third.tally.skipped) == (0, 14)
        assert await holds(desk, "n2")
        assert await holds(desk, "n3")

    @pytest.mark.parametrize(("changed", "error"), [("skip", None), ("report", "other content: not sent")])
    async def test_a_changed_record_is_left_alone_where_that_is_asked_for(self, desk, changed, error):
        desk = await desk()
        config = desk.config(more=BY_KEY.format(more=f'changed = "{changed}"'))
        await night(desk, keyed(range(12), v=1), "n1", config)
        second = await night(desk, keyed(range(12), v=2), "n2", config)
        assert (counts(second)[0], second.tally.skipped) == (0, 12)
        first, *_ = lines(desk.folder / "state" / "n2" / "outcomes.ndjson")
        assert (error in first["error"]) if error else (first["error"] is None)
        assert ("12 records changed since job n1" in second.message) is (changed == "report")
        assert await holds(desk, "n2")

    async def test_a_second_record_of_a_key_is_rejected_with_both_places(self, desk):
        desk = await desk()
        config = desk.config(more=BY_KEY.format(more=""))
        first = await night(desk, [*keyed(range(25)), *keyed([3, 24], v=2)], "n1", config)
        assert counts(first) == (25, 0, 2, 0, 0)
        rejects = lines(desk.folder / "state" / "n1" / "rejects.ndjson")
        assert [line["line"] for line in rejects] == [26, 27]
        assert rejects[0]["error"].startswith("its key is that of record 3 (")
        assert rejects[0]["error"].endswith("n1.ndjson, byte 33), which came first")
        assert await holds(desk, "n1")
        second = await night(desk, [*keyed(range(25)), *keyed([3, 24], v=2)], "n2", config)
        assert (counts(second), second.tally.skipped) == ((0, 0, 2, 0, 0), 25)
        assert await holds(desk, "n2")

    async def test_a_record_without_its_key_is_rejected_and_a_number_is_another_key_than_a_text(self, desk):
        desk = await desk()
        config = desk.config(more=BY_KEY.format(more=""))
        text = b'{"id":"1"}\n{"id":1}\n{"id":12345678901234567890123}\n{"id":12345678901234567890124}\n{"x":2}\n'
        source = desk.folder / "n1.ndjson"
        source.write_bytes(text)
        first = await desk.submit(source, config, job="n1", delta=True, family="nightly")
        assert counts(first) == (4, 0, 1, 0, 0)
        (reject,) = lines(desk.folder / "state" / "n1" / "rejects.ndjson")
        assert reject["error"] == "has no value in column 'id', the key of its family (delta.key)"
        assert await holds(desk, "n1")


class TestGuard:
    MORE = "[delta]\njudged_records = 20\n"

    async def test_a_load_that_is_mostly_new_is_refused_before_there_is_a_job(self, desk):
        desk = await desk()
        config = desk.config(more=self.MORE)
        await night(desk, tasks(30), "n1", config)
        with pytest.raises(TooManyNew, match=r"30 of the first 30 records are new to family 'nightly': .*--accept-new"):
            await night(desk, tasks(30, 100), "n2", config)
        assert [status.job.name for status in await engine.status(ledger=desk.ledger)] == ["n1"]
        assert desk.created() == once(30)
        accepted = await night(desk, tasks(30, 100), "n2", config, accept_new=True)
        assert counts(accepted)[0] == 30

    async def test_by_key_a_record_that_changed_counts_as_new_if_it_would_be_sent(self, desk):
        desk = await desk()
        mapping = self.MORE + 'key = "id"\n[mapping]\nwrap = "data"\n'
        await night(desk, keyed(range(30), v=1), "n1", desk.config(more=mapping))
        with pytest.raises(TooManyNew):
            await night(desk, keyed(range(30), v=2), "n2", desk.config(more=mapping))

    async def test_a_fifth_may_be_new_and_a_small_load_is_not_judged(self, desk):
        desk = await desk()
        config = desk.config(more=self.MORE)
        await night(desk, tasks(30), "n1", config)
        assert counts(await night(desk, [*tasks(16), *tasks(4, 100)], "n2", config))[0] == 4
        assert counts(await night(desk, tasks(19, 200), "n3", config))[0] == 19


class TestDoubt:
    async def test_what_is_still_on_its_way_in_an_open_job_is_named_and_not_sent(self, desk):
        desk = await desk()
        desk.stop_at = 3
        first = await night(desk, tasks(60), "n1", desk.config(send="max_in_flight = 1"))
        desk.stop_at = None
        assert first.state == "open"
        second = await night(desk, tasks(60), "n2")
        assert second.exit_code == 4
        assert "not sent, since nobody knew what became of the same in job n1" in second.message
        assert counts(second)[0] + second.tally.skipped == 60
        assert await holds(desk, "n2")
        assert (await desk.resume("n1")).tally.unresolved == 0
        third = await night(desk, tasks(60), "n3")
        assert (counts(third)[0], third.exit_code) == (0, 0)
        assert desk.created() == once(60)

    async def test_what_a_canceled_job_has_not_sent_goes_and_that_job_cannot_go_on(self, desk):
        desk = await desk()
        desk.stop_at = 3
        await night(desk, tasks(60), "n1", desk.config(send="max_in_flight = 1"))
        desk.stop_at = None
        await desk.cancel("n1")
        second = await night(desk, tasks(60), "n2")
        assert (second.state, second.exit_code) == (JobState.FINISHED, 0)
        assert desk.created() == once(60)
        assert await holds(desk, "n2")

    async def test_what_a_job_left_unsent_when_it_was_ended_is_sent_by_the_next_one_alone(self, desk):
        desk = await desk()
        desk.stop_at = 3
        await night(desk, tasks(60), "n1", desk.config(send="max_in_flight = 1"))
        desk.stop_at = None
        async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
            await ledger.set_job_state("n1", JobState.CANCELED)
        await night(desk, tasks(60), "n2")
        with pytest.raises(JobError, match="cannot go on: job 'n2' of its family has sent records of it since"):
            await desk.resume("n1", reopen=True)
        assert desk.created() == once(60)
        assert await holds(desk, "n1")
        assert await holds(desk, "n2")

    async def test_a_retry_does_not_send_what_another_night_has_created_since(self, desk):
        desk = await desk()
        bad = {"data": {"id": "5"}, "priority": "high"}
        await night(desk, [*tasks(5), bad], "n1")
        await night(desk, tasks(6), "n2")
        rejects = desk.folder / "state" / "n1" / "rejects.ndjson"
        rejects.write_bytes(rejects.read_bytes().replace(b',"priority":"high"', b""))
        again = await desk.retry("n1")
        assert (counts(again), again.tally.skipped) == ((0, 0, 0, 0, 0), 1)
        assert desk.created() == once(6)

    async def test_two_jobs_of_a_family_are_never_worked_on_at_once(self, desk):
        desk = await desk()
        await night(desk, tasks(5), "n1")
        async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
            with ledger.lock_family("nightly"):
                with pytest.raises(JobLocked, match="is working on a job of family 'nightly'"):
                    await night(desk, tasks(5), "n2")
                assert counts(await night(desk, tasks(6), "n3", family="another"))[0] == 6


async def test_a_family_with_a_name_that_no_file_could_have_is_refused(desk):
    desk = await desk()
    with pytest.raises(JobError, match="cannot be used"):
        await night(desk, tasks(1), "n1", family="../x")


class TestMissing:
    async def test_what_the_source_no_longer_has_is_listed_by_key_where_its_own_source_is_there(self, desk):
        desk = await desk()
        config = desk.config(more=BY_KEY.format(more=""))
        await night(desk, keyed(range(25), v=1), "n1", config)
        await night(desk, keyed(range(5, 30), v=1), "n2", config)
        gone = await engine.missing("n2", desk.ledger)
        assert (gone.records, [line["key"] for line in lines(gone.file)]) == (5, [str(at) for at in range(5)])
        tonight = [*keyed(range(0, 30, 2), v=1), *keyed([1], v=2)]
        await night(desk, tonight, "n3", config)
        desk.source(keyed([]), "n2.ndjson")
        gone = await engine.missing("n3", desk.ledger)
        assert [(line["key"], line["job"], line["record"]) for line in lines(gone.file)] == [
            *((str(at), "n1", at) for at in range(3, 25, 2)),
            *((str(at), "n2", at - 5) for at in range(25, 30, 2)),
        ]
        assert all(line["task_id"] and line["url"] for line in lines(gone.file))

    async def test_by_content_records_are_named_by_job_and_task(self, desk):
        desk = await desk()
        await night(desk, tasks(12), "n1")
        await night(desk, [*tasks(5), *tasks(5), *tasks(3, 9)], "n2")
        gone = await engine.missing("n2", desk.ledger)
        assert [(line["key"], line["job"], line["record"]) for line in lines(gone.file)] == [
            (None, "n1", at) for at in range(5, 9)
        ]

    async def test_only_a_night_that_has_read_its_source_can_tell(self, desk):
        desk = await desk()
        await night(desk, tasks(2), "n1", delta=False)
        with pytest.raises(JobError, match="was not submitted with --delta"):
            await engine.missing("n1", desk.ledger)


async def test_the_audit_finds_what_was_changed_of_skips(desk):
    """Every column and row of what a night has skipped, and of what its family knows of it."""
    desk = await desk()
    config = desk.config(more=BY_KEY.format(more='changed = "report"'))
    await night(desk, keyed(range(12), v=1), "n1", config)
    await night(desk, [*keyed(range(3, 9), v=1), *keyed([20, 21]), *keyed([2, 3], v=2)], "n2", config)
    assert await holds(desk, "n2")
    whole = desk.ledger.read_bytes()
    missed = []
    for sql in tampering(desk.ledger):
        desk.ledger.write_bytes(whole)
        with closing(apsw.Connection(str(desk.ledger))) as connection:
            try:
                connection.execute(sql)
            except apsw.ConstraintError:
                continue
        try:
            found = not await holds(desk, "n2")
        except (ValueError, BulkSubmitError):
            found = True
        if not found:
            missed.append(sql)
    assert missed == []


def tampering(path):
    """Yield statements that change a row or a value of what is kept of skips."""
    with closing(apsw.Connection(str(path))) as connection:
        skips = connection.execute("SELECT record_index, why FROM skips").fetchall()
        hashes = connection.execute("SELECT hash FROM known WHERE job = 1 AND record_index IN (2, 3, 8)").fetchall()
    for at, why in skips:
        here = f"WHERE job = 2 AND record_index = {at}"
        yield f"DELETE FROM skips {here}"  # noqa: S608 - numbers
        for column in ("record_index", "count", "start_offset", "other", "other_index", "job"):
            yield f"UPDATE skips SET {column} = {column} + 1 {here}"  # noqa: S608 - numbers
            yield f"UPDATE skips SET {column} = {column} - 1 {here}"  # noqa: S608 - numbers
        yield f"UPDATE skips SET spans = substr(spans, 1, length(spans) - 1) {here}"  # noqa: S608 - numbers
        yield f"UPDATE skips SET spans = spans || x'00' {here}"  # noqa: S608 - numbers
        for other in {"created", "changed", "uncertain", "x"} - {why}:
            yield f"UPDATE skips SET why = '{other}' {here}"  # noqa: S608 - numbers
    yield "UPDATE batches SET skipped = skipped + 1 WHERE job = 2"
    yield "UPDATE batches SET skipped = skipped - 1, count = count + 1 WHERE job = 2"
    for (hash_,) in hashes:
        yield f"DELETE FROM known WHERE hash = {hash_}"  # noqa: S608 - numbers
        yield f"UPDATE known SET hash = hash + 1 WHERE hash = {hash_}"  # noqa: S608 - numbers
        yield f"UPDATE known SET record_index = record_index + 1 WHERE hash = {hash_}"  # noqa: S608 - numbers
        yield f"UPDATE known SET rest = substr(rest, 2) || x'00' WHERE hash = {hash_}"  # noqa: S608 - numbers
