"""Somebody else has put something where a job writes: the command says so, soon, and neither uses nor changes it."""

import os
from pathlib import Path

import pytest

from engine.sandbox.server import running_sandbox

JOB = ("submit", "-", "--job", "j")
LEDGER, LOCK, OUTPUT = (Path(".bulksubmit") / name for name in ("ledger.db", "ledger.db.j.lock", "j"))
PLACES = {
    "ledger": (LEDGER, 9),
    "its log": (Path(f"{LEDGER}-wal"), 9),
    "its lock": (LOCK, 9),
    "spool": (OUTPUT / "standard-input.part", 0),
    "reports": (OUTPUT / ".outcomes.ndjson.partial", 0),
}
"""What a job writes, and how it ends if something is there: what is only a remnant of ours is replaced."""


@pytest.mark.parametrize("what", ["a pipe", "a link"])
@pytest.mark.parametrize("which", PLACES)
async def test_no_pipe_holds_a_command_and_no_link_leads_it_elsewhere(place, which, what):
    where, code = PLACES[which]
    path, victim = place.folder / where, place.folder / "victim"
    victim.write_bytes(b"theirs")
    path.parent.mkdir(parents=True, mode=0o700)
    if what == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(victim)
    async with running_sandbox() as sandbox:
        done = await place.run(*JOB, "--config", place.configure(sandbox.url), stdin=place.write_tasks(3))
    assert victim.read_bytes() == b"theirs"
    assert done.code == code, done.err
    assert not code or path.name in done.err
    assert "Traceback" not in done.err


async def test_a_folder_that_everybody_may_write_is_refused_before_anything_is_sent(place):
    shared = place.folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    async with running_sandbox() as sandbox:
        config, source = place.configure(sandbox.url), place.write_tasks(3)
        output = await place.run("submit", source, "--config", config, "--output", shared)
        ledger = await place.run("submit", source, "--config", config, "--ledger", shared / "ledger.db")
        within = await place.run("submit", source, "--config", config, "--ledger", shared / "mine" / "ledger.db")
    for done, code in ((output, 2), (ledger, 9)):
        assert done.code == code
        assert "everybody may write into this folder: chmod o-w" in done.err
    assert within.code == 0


async def test_rejects_that_became_a_pipe_are_not_waited_for(place):
    source = place.write_tasks(3)
    source.write_text(source.read_text() + '{"no": "task"}\n')
    async with running_sandbox() as sandbox:
        config = place.configure(sandbox.url)
        assert (await place.run("submit", source, "--config", config, "--job", "j")).code == 3
        rejects = place.folder / OUTPUT / "rejects.ndjson"
        rejects.unlink()
        os.mkfifo(rejects)
        retried = await place.run("retry", "j")
        audited = await place.run("audit", "j")
    assert retried.code == 2
    assert "no regular file" in retried.err
    assert audited.code == 1
    assert "Traceback" not in audited.err
