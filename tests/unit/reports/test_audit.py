import apsw
import pytest
from fakes.bench import a_bench
from fakes.fates import every_fate, settle

from engine.cli.output.checks import audit_screen
from engine.model.batch import Limits
from engine.model.errors import Exit
from engine.model.job import JobState
from engine.model.outcome import Settlement
from engine.reports.audit import MOST_FINDINGS, audit


@pytest.fixture
async def bench(tmp_path):
    async with every_fate(tmp_path) as bench:
        yield bench


async def audited(bench):
    return await audit(await bench.ledger.job("j"), bench.ledger, bench.evidence)


def tamper(folder, sql):
    """Change the ledger's file behind its back."""
    connection = apsw.Connection(str(folder / "ledger.db"))
    connection.execute(sql)
    connection.close()


# What is as it should be


async def test_an_audit_counts_each_record_once_by_its_fate(bench):
    result = await audited(bench)
    assert result.findings == []
    assert result.holds
    assert (result.job, result.batches, result.records, result.unread_bytes) == ("j", 3, 7, 0)
    assert result.fates == {"created": 1, "failed": 1, "rejected": 2, "uncertain": 2, "unresolved": 1}


async def test_a_finished_job_holds(tmp_path):
    async with a_bench(tmp_path, records=45) as bench:
        await bench.work()
        result = await audited(bench)
        assert result.holds
        assert result.fates == {"created": 45, "failed": 0, "rejected": 0, "uncertain": 0}


async def test_a_settled_batch_with_records_of_which_nobody_knows_holds(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        (batch,) = await bench.freeze()
        await settle(bench, batch, Settlement(["t0", None, None], {1: "no"}, uncertain={2: "lost"}))
        result = await audited(bench)
        assert result.findings == []
        assert result.fates == {"created": 1, "failed": 1, "rejected": 0, "uncertain": 1}


async def test_an_empty_job_holds(tmp_path):
    async with a_bench(tmp_path, records=0) as bench:
        await bench.work()
        assert (await audited(bench)).holds


async def test_a_job_stopped_while_it_read_holds_as_far_as_it_went(tmp_path):
    async with a_bench(tmp_path, records=100, limits=Limits(5, 1 << 20)) as bench:
        frozen = next(plan for plan in bench.plans() if plan.batches)
        await bench.ledger.freeze("j", frozen.batches, frozen.rejects, last=False)
        result = await audited(bench)
        assert result.holds
        assert result.records == result.fates["unresolved"] > 0
        assert result.unread_bytes == bench.job.size_bytes - frozen.batches[-1].end.offset > 0


async def test_records_called_created_without_an_id_are_found_and_are_no_duplicates(bench, tmp_path):
    tamper(tmp_path, """UPDATE settlements SET task_ids = '["",""]', errors = '{}'""")
    tamper(tmp_path, "UPDATE batches SET created = 2, failed = 0 WHERE sequence = 0")
    (finding,) = (await audited(bench)).findings
    assert "batch 0: 2 records called created without a task id" in finding


# What is not


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        (
            "UPDATE batches SET sha256 = zeroblob(32) WHERE sequence = 1",
            "its records are other ones",
        ),
        (
            "UPDATE spans SET spans = (SELECT spans FROM spans WHERE sequence = 2) WHERE sequence = 0",
            "batch 0 (records 0 to 2",
        ),
        ("UPDATE spans SET spans = x'00' WHERE sequence = 0", "batch 0 (records 0 to 2"),
        ("UPDATE batches SET start_offset = start_offset + 1 WHERE sequence = 1", "batch 1: begins at joined byte"),
        ("UPDATE batches SET start_offset = start_offset - 1 WHERE sequence = 1", "batch 1: begins at joined byte"),
        ("UPDATE batches SET end_offset = end_offset - 1 WHERE sequence = 0", "batch 1: begins at joined byte"),
        ("UPDATE batches SET end_index = end_index + 1 WHERE sequence = 0", "batch 1: begins at joined byte"),
        ("UPDATE batches SET start_index = 1 WHERE sequence = 0", "batch 0: begins at joined byte 0, record 1"),
        ("UPDATE batches SET end_offset = end_offset - 1 WHERE sequence = 2", "bytes, the batches cover"),
        ("DELETE FROM batches WHERE sequence = 1", "batch 2: begins at joined byte"),
        ("DELETE FROM batches WHERE sequence = 0", "batch 1: begins at joined byte"),
        ("DELETE FROM batches WHERE sequence = 2", "bytes, the batches cover"),
        ("DELETE FROM rejects WHERE record_index = 1", "batch 0: 1 records were rejected, 0 rejects are there"),
        ("INSERT INTO rejects VALUES (1, 0, 5, 5, 1, 'x')", "batch 0: 1 records were rejected, 2 rejects are there"),
        ("UPDATE rejects SET start_offset = 0 WHERE record_index = 6", "the ledger has a reject of"),
        ("DELETE FROM settlements", "batch 0: 2 records went up, 0 outcomes are there"),
        (
            "UPDATE settlements SET task_ids = '[\"t0\"]', errors = '{}'",
            "batch 0: 2 records went up, 1 outcomes are there",
        ),
        ('UPDATE settlements SET task_ids = \'["a",null,"b"]\'', "batch 0: 2 records went up, 3 outcomes are there"),
        ("UPDATE settlements SET errors = '{}'", "batch 0: position 1 of it has no single outcome"),
        ("UPDATE settlements SET errors = '{\"no\":[0,1]}'", "batch 0: position 0 of it has no single outcome"),
        (
            "UPDATE settlements SET task_ids = '[\"a\",\"a\"]', errors = '{}'",
            "record 0 (batch 0) and record 2 (batch 0) have the same task id 'a'",
        ),
        ("UPDATE batches SET created = 2 WHERE sequence = 0", "the ledger's totals say"),
        ("UPDATE batches SET failed = 0 WHERE sequence = 0", "the ledger's totals say"),
        (
            "UPDATE batches SET uncertain = 1 WHERE sequence = 0",
            "batch 0: it counts 1 created, 1 failed, 1 uncertain, its outcomes are 1 created, 1 failed, 0 uncertain",
        ),
        (
            "UPDATE settlements SET uncertain = '{\"lost\":[1]}'",
            "batch 0: position 1 of it has no single outcome",
        ),
        (
            "UPDATE settlements SET errors = '{}', uncertain = '{\"lost\":[1]}'",
            "batch 0: it counts 1 created, 1 failed, 0 uncertain, its outcomes are 1 created, 0 failed, 1 uncertain",
        ),
        ("UPDATE settlements SET uncertain = '[1]'", "batch 0: its settlement cannot be read"),
        (
            "UPDATE batches SET uncertain = 2 WHERE sequence = 1",
            "batch 1: it is uncertain, and has the outcomes of a settled one",
        ),
        ("UPDATE batches SET count = 1 WHERE sequence = 1", "batch 1: 1 records were rejected, 0 rejects are there"),
        ("UPDATE batches SET state = 'settled' WHERE sequence = 2", "batch 2: 1 records went up, 0 outcomes are there"),
        ("UPDATE sources SET size = size + 1 WHERE number = 1", "bytes, the batches cover"),
    ],
)
async def test_a_ledger_that_was_changed_does_not_hold(bench, tmp_path, sql, finding):
    tamper(tmp_path, sql)
    result = await audited(bench)
    assert not result.holds
    assert any(finding in found for found in result.findings), result.findings


@pytest.mark.parametrize("name", ["a.ndjson", "b.ndjson"])
async def test_a_source_in_which_one_byte_changed_does_not_hold(bench, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(path.read_bytes().replace(b'"id":"', b'"iD":"', 1))
    result = await audited(bench)
    assert not result.holds
    assert [found for found in result.findings if str(path) in found and "sha256" in found]


async def test_a_source_that_is_gone_or_shorter_does_not_hold(bench, tmp_path):
    path = tmp_path / "b.ndjson"
    path.write_bytes(path.read_bytes()[:-40])
    assert not (await audited(bench)).holds
    path.unlink()
    assert not (await audited(bench)).holds


@pytest.mark.parametrize("how", ["gone", "longer", "a folder", "of the same size"])
async def test_of_a_finished_job_a_source_that_is_another_file_is_told_once_and_the_rest_is_proven(tmp_path, how):
    async with a_bench(tmp_path, records=45) as bench:
        await bench.work()
        await bench.ledger.set_job_state("j", JobState.FINISHED)
        path = tmp_path / "tasks.ndjson"
        whole = path.read_bytes()
        path.unlink()
        if how == "a folder":
            path.mkdir()
        elif how != "gone":
            path.write_bytes(whole * 2 if how == "longer" else whole.replace(b"data", b"atad"))
        result = await audited(bench)
        assert (result.findings, result.consistent, result.holds) == ([], True, False)
        (said,) = result.unproven
        assert f"{path} is not the file that the job has read: that had {len(whole):,} bytes" in said
        assert audit_screen(result, bench.ledger.address).exit_code == Exit.SOME_UNCERTAIN
        tamper(tmp_path, "UPDATE settlements SET errors = '{\"no\":[0]}'")
        broken = await audited(bench)
        assert not broken.consistent
        assert audit_screen(broken, bench.ledger.address).exit_code == Exit.ERROR


async def test_a_copy_that_was_put_back_proves_all(tmp_path):
    async with a_bench(tmp_path, records=45) as bench:
        await bench.work()
        path = tmp_path / "tasks.ndjson"
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(whole)
        assert (await audited(bench)).holds


async def test_a_wrecked_ledger_is_described_within_bounds(tmp_path):
    async with a_bench(tmp_path, records=120, limits=Limits(1, 1 << 20)) as bench:
        await bench.work()
        tamper(tmp_path, "UPDATE batches SET sha256 = zeroblob(32)")
        result = await audited(bench)
        assert len(result.findings) == MOST_FINDINGS
        assert (result.batches, result.records) == (120, 120)


async def test_an_audit_changes_nothing(bench, tmp_path):
    before = await bench.batches()
    await audited(bench)
    assert await bench.batches() == before
