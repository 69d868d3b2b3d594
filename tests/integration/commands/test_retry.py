import stat

import orjson
import pytest
from fakes.fates import BIG, every_fate, write

from engine.commands.retry import retry_source
from engine.model.errors import JobError


@pytest.fixture
async def bench(tmp_path):
    async with every_fate(tmp_path) as bench:
        yield bench


async def retried(bench, folder):
    source = await retry_source(bench.job, folder)
    return source, (folder / "records.ndjson").read_bytes()


async def test_what_failed_or_was_rejected_is_tried_again_and_what_is_uncertain_is_not(bench, tmp_path):
    await write(bench)
    source, text = await retried(bench, tmp_path / "again")
    assert text == b'no json\n{"data":{"id":"1","n":%s}}\n{"input":"\xc3\xa9"}\n' % BIG.encode()
    assert (source.base, source.size, source.number) == (0, len(text), 0)
    assert stat.S_IMODE((tmp_path / "again" / "records.ndjson").stat().st_mode) == 0o600


async def test_a_line_that_a_person_mended_is_sent_as_mended(bench, tmp_path):
    reports = await write(bench)
    mended = reports.rejects.read_bytes().replace(b'{"input":"\xc3\xa9"}', b'{ "data": {"input":\r 1e999} }')
    mended = mended.replace(b'"record":"no json"', b'"record":{"data":{}}')
    reports.rejects.write_bytes(mended + b"\n\n")
    _, text = await retried(bench, tmp_path / "again")
    assert text.splitlines()[0] == b'{"data":{}}'
    assert b'{ "data": {"input":\r 1e999} }\n' in text


async def test_text_that_is_mended_as_text_is_tried_as_what_it_says(bench, tmp_path):
    reports = await write(bench)
    mended = reports.rejects.read_bytes().replace(b'"no json"', orjson.dumps('{"data":{"a":"\\n"},\n"priority":1}'))
    reports.rejects.write_bytes(mended)
    _, text = await retried(bench, tmp_path / "again")
    assert text.splitlines()[0] == b'{"data":{"a":"\\n"}, "priority":1}'


async def test_lines_may_be_taken_out(bench, tmp_path):
    reports = await write(bench)
    reports.rejects.write_bytes(reports.rejects.read_bytes().splitlines(keepends=True)[1])
    _, text = await retried(bench, tmp_path / "again")
    assert text.count(b"\n") == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"{not json}", "line 6: not a line of a rejects file"),
        (b"[1]", "line 6: not a line of a rejects file"),
        (b'{"record":{}}', "line 6: not a line of a rejects file"),
        (b'{"state":"failed"}', "line 6: the record is missing"),
        (b'{"state":["failed"],"record":{}}', "line 6: not a line of a rejects file"),
        (b'{"state":"Failed","record":{}}', "line 6: not a line of a rejects file"),
    ],
)
async def test_a_damaged_line_is_named_and_nothing_is_tried(bench, tmp_path, damage, said):
    reports = await write(bench)
    reports.rejects.write_bytes(reports.rejects.read_bytes() + damage + b"\n")
    with pytest.raises(JobError, match=said):
        await retry_source(bench.job, tmp_path / "again")


async def test_the_rejects_of_another_job_are_not_tried(bench, tmp_path):
    reports = await write(bench)
    reports.rejects.write_bytes(reports.rejects.read_bytes().replace(b'{"job":"j"', b'{"job":"k"', 1))
    with pytest.raises(JobError, match="line 1: a record of job 'k', not of 'j'; retry that one"):
        await retry_source(bench.job, tmp_path / "again")


async def test_without_a_rejects_file_there_is_a_way_to_get_one(bench, tmp_path):
    with pytest.raises(JobError, match="`bulksubmit report` writes it again"):
        await retry_source(bench.job, tmp_path / "again")


async def test_nothing_to_try_again_is_said(bench, tmp_path):
    reports = await write(bench)
    uncertain = [line for line in reports.rejects.read_bytes().splitlines() if b'"uncertain"' in line]
    reports.rejects.write_bytes(b"\n".join(uncertain))
    with pytest.raises(JobError, match="nothing to try again"):
        await retry_source(bench.job, tmp_path / "again")
