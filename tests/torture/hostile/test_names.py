"""Names that lead elsewhere, of jobs, folders, files and links: nothing outside is touched, and a person is told."""

import os
import shutil
from pathlib import Path

import pytest
from integration.commands.desk import Desk, counts, lines, tasks

import engine
from engine.commands.configuration import MAX_FILE_BYTES
from engine.model.errors import ConfigError, JobError, LedgerError, SourceError
from engine.sandbox.server import running_sandbox

VICTIM = b"mine\n"


@pytest.fixture
async def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    folder = tmp_path / "work"
    folder.mkdir()
    async with running_sandbox() as sandbox:
        yield Desk(folder, sandbox)


@pytest.fixture
def victim(tmp_path):
    """Somebody's file beside the working folder; untouched when the test is over."""
    path = tmp_path / "victim"
    path.write_bytes(VICTIM)
    before = path.stat()
    yield path
    after = path.stat()
    assert path.read_bytes() == VICTIM
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)


def outside(desk) -> set[str]:
    """Return what stands beside the working folder."""
    return {path.name for path in desk.folder.parent.iterdir()}


EVIL_NAMES = [
    *("../evil", "..", ".", "", "/evil", "a/b", "a/../../evil", ".hidden", "-rf", "a\0b", "a\nb", "a b"),
    *(
        "a\\b",
        "a\x1b[2Jb",
        "a..b",
        "\u202eevil",
        "\uff0e\uff0e\uff0fevil",
        "$(id)",
        "`id`",
        "a;b",
        "a*",
        "~",
        "x" * 101,
    ),
]


@pytest.mark.parametrize("name", EVIL_NAMES, ids=ascii)
async def test_a_job_cannot_be_named_so_that_it_leaves_its_folder(desk, name):
    before = outside(desk)
    if name:
        with pytest.raises(JobError, match="cannot be used"):
            await desk.submit(desk.source(tasks(1)), job=name)
    for ask in (engine.report, engine.audit):
        with pytest.raises(JobError):
            await ask(name, desk.ledger)
    for work in (engine.resume, engine.retry, engine.cancel):
        with pytest.raises(JobError):
            await work(name, desk.ledger)
    assert outside(desk) == before
    assert not desk.created()


@pytest.mark.parametrize("name", ["../evil\n.toml", "a b.toml", "$(id).toml"])
async def test_a_job_is_not_named_after_a_configuration_whose_name_is_no_name(desk, name):
    (desk.folder / "in").mkdir()
    config = desk.folder / "in" / name
    config.write_text(desk.config().read_text())
    with pytest.raises(JobError, match="cannot be used"):
        await desk.submit(desk.source(tasks(1)), config, job=None)


@pytest.mark.parametrize("name", ["outcomes.ndjson", "rejects.ndjson"])
@pytest.mark.parametrize("dangling", [False, True])
async def test_reports_are_not_written_where_a_link_stands_already(desk, victim, name, dangling):
    output = desk.folder / "out"
    output.mkdir()
    (output / name).symlink_to(victim.with_name("nothing") if dangling else victim)
    with pytest.raises(JobError, match="holds the reports of another job"):
        await desk.submit(desk.source(tasks(1)), output=output)
    assert not desk.created()


LEFT_BEHIND = [".probe", ".outcomes.ndjson.partial", ".rejects.ndjson.partial"]


async def test_links_left_in_the_folder_of_reports_are_not_written_through(desk, victim):
    output = desk.folder / "out"
    output.mkdir()
    for name in LEFT_BEHIND:
        (output / name).symlink_to(victim)
    result = await desk.submit(desk.source(tasks(3)), output=output)
    assert counts(result) == (3, 0, 0, 0, 0)
    assert not result.outcomes.is_symlink()


async def test_a_report_that_was_exchanged_for_a_link_takes_its_place_back(desk, victim):
    result = await desk.submit(desk.source(tasks(3)))
    result.outcomes.unlink()
    result.outcomes.symlink_to(victim)
    result = await engine.report("j", desk.ledger)
    assert not result.outcomes.is_symlink()
    assert result.outcomes.read_bytes().count(b"\n") == 3


async def test_a_folder_of_reports_may_be_a_link_and_touches_nothing_else_there(desk, victim):
    elsewhere = desk.folder.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(victim, elsewhere / "theirs")
    (desk.folder / "out").symlink_to(elsewhere)
    result = await desk.submit(desk.source(tasks(3)), output=desk.folder / "out")
    assert counts(result) == (3, 0, 0, 0, 0)
    assert sorted(path.name for path in elsewhere.iterdir()) == [
        "log.ndjson",
        "outcomes.ndjson",
        "rejects.csv",
        "rejects.ndjson",
        "theirs",
    ]
    assert (elsewhere / "theirs").read_bytes() == VICTIM


@pytest.mark.parametrize(
    "output", ["victim", "dangling", "loop", "victim/below", "a\0b", "x" * 300, "\udcff"], ids=ascii
)
async def test_an_output_that_can_be_no_folder_is_an_error_before_anything_is_sent(desk, victim, output):
    parent = desk.folder.parent
    (parent / "dangling").symlink_to(parent / "nothing")
    (parent / "loop").symlink_to(parent / "loop")
    with pytest.raises(JobError, match="cannot hold the reports"):
        await desk.submit(desk.source(tasks(1)), output=parent / output)
    assert not desk.created()
    assert not (parent / "nothing").exists()


async def test_records_to_retry_are_not_written_through_a_link(desk, victim):
    await desk.submit(desk.source([*tasks(2), {"no": "task"}]))
    folder = desk.ledger.parent / "j.retry"
    folder.mkdir()
    (folder / "records.ndjson").symlink_to(victim)
    await desk.retry()
    assert not (folder / "records.ndjson").is_symlink()


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db.lock", "ledger.db.j.lock"])
async def test_a_ledger_or_a_lock_that_is_a_link_to_a_file_leaves_the_file_alone(desk, victim, name):
    desk.ledger.parent.mkdir()
    (desk.ledger.parent / name).symlink_to(victim)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        await desk.submit(desk.source(tasks(1)))
    assert not desk.created()


@pytest.mark.parametrize("target", ["/dev/zero", "victim/x", "folder", "loop", "a\0b"], ids=ascii)
async def test_a_configuration_that_is_none_is_refused_in_bounded_time(desk, victim, target):
    parent = desk.folder.parent
    (parent / "folder").mkdir()
    (parent / "loop").symlink_to(parent / "loop")
    with pytest.raises(ConfigError, match="cannot be read"):
        await desk.submit(desk.source(tasks(1)), parent / target)


@pytest.mark.parametrize("target", ["/dev/zero", "/nowhere/at/all", "\\u0000"])
async def test_a_secret_in_no_file_is_refused_and_the_key_named(desk, target):
    config = desk.config()
    config.write_text(config.read_text().replace("${env:SAMA_ACCESS_KEY}", f"${{file:{target}}}"))
    with pytest.raises(ConfigError, match=r"service\.access_key: .* cannot be read"):
        await desk.submit(desk.source(tasks(1)), config)


async def test_a_secret_file_that_is_no_text_does_not_show_what_it_holds(desk):
    (desk.folder / "key").write_bytes(b"canary\xff")
    config = desk.config()
    config.write_text(config.read_text().replace("env:SAMA_ACCESS_KEY", f"file:{desk.folder / 'key'}"))
    with pytest.raises(ConfigError) as caught:
        await desk.submit(desk.source(tasks(1)), config)
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_no_configuration_comes_near_the_limit():
    assert (
        max(path.stat().st_size for path in (Path(__file__).parents[3] / "configs").glob("*.toml"))
        < MAX_FILE_BYTES / 50
    )


@pytest.mark.parametrize("name", ["a\nb.ndjson", "\x1b[2J.ndjson", "-.ndjson", "\u202e.ndjson", "~"], ids=ascii)
async def test_a_source_may_have_an_odd_name(desk, name):
    result = await desk.submit(desk.source(tasks(1), name))
    assert counts(result) == (1, 0, 0, 0, 0)
    (outcome,) = lines(result.outcomes)
    assert outcome["source"] == str(desk.folder / name)


async def test_a_source_whose_name_no_report_can_hold_is_refused(desk):
    with pytest.raises(SourceError, match="is not UTF-8: rename it"):
        await desk.submit(desk.source(tasks(1), os.fsdecode(b"\xff.ndjson")))
