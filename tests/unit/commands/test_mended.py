"""Lines of rejects files, and of files that a person names: which record each is of, and the text that is sent."""

from pathlib import Path

import pytest

from engine.commands.mended import given_records, mended_records
from engine.model.errors import JobError
from engine.model.job import Job
from engine.model.record import Format, Source


class Alone:
    """The attempts at a job that nobody has tried again."""

    ledger = None

    def __init__(self, job):
        self.job = job

    def above(self, _job):
        return [self.job]

    def below(self, _job):
        return []

    async def climb(self, _holder, indexes, _job):
        return indexes


@pytest.fixture
def job(tmp_path):
    source = Source(0, str(tmp_path / "tasks.ndjson"), Format.NDJSON, 1, 1, 0)
    return Job("j", "sama", "", (source,), str(tmp_path))


async def from_rejects(job, text, records=4):
    (Path(job.output) / "rejects.ndjson").write_bytes(text)
    pages = mended_records(job, Alone(job), bytearray(b"\1" * records))
    return [one async for page in pages for one in page]


async def from_file(job, path, text, flags, tell=lambda _: None):
    path.write_bytes(text)
    return [one async for page in given_records(path, job, Alone(job), flags, {}, tell) for one in page]


async def test_a_line_is_sent_as_it_stands_to_the_last_digit(job):
    text = b'{"index":2,"record":{"n": 12345678901234567890123, "x": 1.10}}\n\n{"index":0,"record":"plain"}\n'
    assert await from_rejects(job, text) == [(2, b'{"n": 12345678901234567890123, "x": 1.10}'), (0, b"plain")]


async def test_a_record_that_is_not_to_be_sent_again_is_left_alone_and_counted(job, tmp_path):
    said, path = [], tmp_path / "mended.ndjson"
    text = b'{"index":0,"record":{"a":1}}\n{"index":1,"record":{"a":2}}\n'
    taken = await from_file(job, path, text, bytearray(b"\0\1"), said.append)
    assert taken == [(1, b'{"a":2}')]
    assert said == [f"1 record of {path} left alone: created, uncertain or on its way, here or in a retry"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"[]", "not a line of a rejects file: it needs index and record"),
        (b'{"index":0}', "the record is missing"),
        (b'{"index":"0","record":1}', "its index is no number"),
        (b'{"index":9,"record":1}', "job 'j' has no record 9; indexes count from 0"),
        (b'{"index":0,"record":1,"job":"other"}', "a record of job 'other', not of 'j'; retry that one"),
        (b'{"index":0,"record":1,"state":"lost"}', "not a line of a rejects file"),
        (b'{"index":0,"record":1}\n{"index":0,"record":2}', "record 0 has a line before this one; keep one of the two"),
    ],
)
async def test_a_line_that_cannot_be_used_is_named_by_file_and_number(job, line, complaint):
    with pytest.raises(JobError) as caught:
        await from_rejects(job, line + b"\n")
    assert complaint in str(caught.value)
    assert f"{job.output}/rejects.ndjson, line " in str(caught.value)


async def test_a_file_that_is_not_there_says_how_it_comes_back(job, tmp_path):
    with pytest.raises(JobError, match="`bulksubmit report j` writes it again"):
        [page async for page in mended_records(job, Alone(job), bytearray(b"\1"))]
    with pytest.raises(JobError, match="cannot be read"):
        await anext(given_records(tmp_path / "none", job, Alone(job), bytearray(b"\1"), {}, lambda _: None))
