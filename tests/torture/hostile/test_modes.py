"""Everything that a job writes, under a umask that forbids nothing: for its owner alone, also while it is written."""

import os
from contextlib import closing

import pytest

from engine.model.settings import SourceSettings
from engine.reports.outcomes import _Growing
from engine.sandbox.server import running_sandbox
from engine.source.spool import Original, blocks_of_stream, spool

from .command import files, mode


def open_to_others(*folders) -> dict[str, str]:
    """Return files and folders below that others may use, with their modes."""
    found = [(path, 0o600) for folder in folders for path in files(folder)]
    found += [(path, 0o700) for folder in folders for path in (folder, *folder.rglob("*")) if path.is_dir()]
    return {str(path): oct(mode(path)) for path, wanted in found if mode(path) != wanted}


async def test_a_whole_job_and_its_retry_write_for_their_owner_alone(place):
    source = place.write_tasks(20)
    source.write_text(source.read_text() + '{"no": "task"}\n')
    output = place.folder / "deep" / "er" / "out"
    async with running_sandbox() as sandbox:
        config = place.configure(sandbox.url)
        first = ("submit", "-", "--config", config, "--job", "j", "--output", output)
        for command, standard_input in [(first, source), (("retry", "j"), None)]:
            done = await place.run(*command, stdin=standard_input, umask=0)
            assert done.code == 3, done.err
    written = {path.name for path in files(place.folder)}
    assert {"outcomes.ndjson", "rejects.ndjson", "ledger.db", "records.ndjson", "standard-input"} <= written
    assert open_to_others(place.folder / ".bulksubmit", place.folder / "deep") == {}


@pytest.mark.parametrize("at", ["create", "put"])
async def test_what_is_open_amid_a_run_is_private_as_well(place, at):
    async with running_sandbox() as sandbox:
        source, config = place.write_tasks(3), place.configure(sandbox.url)
        command = ("submit", "-", "--config", config)
        done = await place.run(*command, stdin=source, umask=0, accident="kill", DIE_AT=at)
    assert done.code == -9
    names = {path.name for path in files(place.folder / ".bulksubmit")}
    assert {"ledger.db-wal", "ledger.db-shm", "ledger.db.lock", "standard-input"} <= names
    assert open_to_others(place.folder / ".bulksubmit") == {}


@pytest.fixture
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_a_report_is_private_while_it_is_written(tmp_path):
    with closing(_Growing(tmp_path / "outcomes.ndjson").file):
        assert [(path.name, mode(path)) for path in tmp_path.iterdir()] == [(".outcomes.ndjson.partial", 0o600)]


@pytest.mark.usefixtures("no_umask")
async def test_a_spool_is_private_while_it_is_written(tmp_path):
    folder = tmp_path / "job"
    seen = []

    class Stream:
        def read(self, size):
            seen.extend((path.name, mode(path)) for path in folder.iterdir())
            return b'{"a":1}\n' if len(seen) == 1 else b""

    stream = blocks_of_stream(Stream(), "standard input")
    await spool(stream, folder / "standard-input", Original("standard input"), SourceSettings())
    assert seen == [("standard-input.part", 0o600)] * 2
    assert mode(folder) == 0o700
