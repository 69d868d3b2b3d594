"""Where the ledger is that nobody has named, and what messages say of it."""

import sys
from pathlib import Path

import pytest

import engine
from engine.clock import SystemClock
from engine.commands.paths import command, folder_beside, ledger_path, open_ledger, spelled, spelling
from engine.commands.wiring import configured_ledger
from engine.files import DEFAULT_LEDGER, find_ledger
from engine.ledger.address import PostgresAddress
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import ConfigError, JobError, JobLocked, LedgerError
from engine.model.job import Job
from engine.progress.events import JobEnded, Noticed, Stopping

CONFIG = '[service]\nkind = "sama"\nproject_id = 1\naccess_key = "${env:KEY}"\n'


@pytest.fixture(autouse=True)
def _new_user(tmp_path, monkeypatch):
    """Stand in an empty folder, with a home and nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BULKSUBMIT_LEDGER")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/her")


def test_the_first_of_variable_configuration_folder_and_data_folder_is_taken(tmp_path, monkeypatch):
    configured = tmp_path / "by-config.db"
    assert find_ledger() == Path("/home/her/.local/share/bulksubmit/ledger.db")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert find_ledger() == Path("/data/bulksubmit/ledger.db")
    DEFAULT_LEDGER.parent.mkdir()
    assert find_ledger() == Path("/data/bulksubmit/ledger.db")
    DEFAULT_LEDGER.touch()
    assert find_ledger() == DEFAULT_LEDGER
    assert find_ledger(configured) == configured
    monkeypatch.setenv("BULKSUBMIT_LEDGER", "there.db")
    assert find_ledger(configured) == "there.db"


def test_a_ledger_that_is_named_is_that_one(tmp_path):
    assert ledger_path(".bulksubmit/ledger.db") == Path(".bulksubmit/ledger.db")
    assert ledger_path(Path(".bulksubmit/ledger.db"), tmp_path / "c.db") == Path(".bulksubmit/ledger.db")
    assert ledger_path(DEFAULT_LEDGER, tmp_path / "c.db") == tmp_path / "c.db"


def test_of_a_ledger_that_was_moved_without_its_newest_steps_no_new_one_is_begun_elsewhere(tmp_path):
    DEFAULT_LEDGER.parent.mkdir()
    DEFAULT_LEDGER.with_name("ledger.db-wal").touch()
    assert find_ledger() == DEFAULT_LEDGER


def test_a_folder_for_data_that_is_not_absolute_does_not_count(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert find_ledger() == Path("/home/her/.local/share/bulksubmit/ledger.db")


def test_without_home_the_user_has_one_all_the_same_or_is_told_what_to_do(monkeypatch):
    monkeypatch.delenv("HOME")
    assert find_ledger().is_absolute()
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where a user has no entry: in containers
    with pytest.raises(ConfigError, match="--ledger or BULKSUBMIT_LEDGER names one"):
        find_ledger()


def test_the_configuration_names_it_from_its_own_folder(tmp_path):
    path = tmp_path / "there" / "c.toml"
    assert configured_ledger(path, CONFIG) is None
    assert configured_ledger(path, 'ledger = "l.db"\n' + CONFIG) == tmp_path / "there" / "l.db"
    assert configured_ledger(path, 'ledger = "/l.db"\n' + CONFIG) == Path("/l.db")
    assert configured_ledger(path, 'ledger = "~/l.db"\n' + CONFIG) == Path("/home/her/l.db")
    with pytest.raises(ConfigError, match="ledger: must be a text"):
        configured_ledger(path, "ledger = 7\n" + CONFIG)


URL = "postgresql://loader@one,two/jobs?target_session_attrs=read-write&sslmode=verify-full"


def test_a_database_is_named_wherever_a_file_is(monkeypatch):
    address = PostgresAddress(URL)
    assert ledger_path(URL) == ledger_path(address) == address
    assert configured_ledger("there/c.toml", f'ledger = "{URL}"\n' + CONFIG) == address
    assert ledger_path(DEFAULT_LEDGER, address) == address
    monkeypatch.setenv("BULKSUBMIT_LEDGER", URL)
    assert ledger_path(DEFAULT_LEDGER, Path("c.db")) == address
    assert command("resume j", address) == "bulksubmit resume j"
    monkeypatch.delenv("BULKSUBMIT_LEDGER")
    assert command("resume j", address) == f"bulksubmit resume j --ledger '{URL}'"


def test_a_password_in_a_configuration_does_not_get_further():
    for named in ("postgresql://loader:secret@host/jobs", "postgres://host/jobs?password=secret"):
        with pytest.raises(ConfigError, match="a password in the URL is seen") as told:
            configured_ledger("c.toml", f'ledger = "{named}"\n' + CONFIG)
        assert "secret" not in str(told.value)


def test_jobs_of_a_database_write_into_its_folder_where_those_of_a_ledger_that_nobody_has_named_do(tmp_path):
    assert folder_beside(tmp_path / "l.db", "j") == tmp_path / "j"
    assert folder_beside(PostgresAddress(URL), "j") == Path("/home/her/.local/share/bulksubmit/one-jobs/j")
    DEFAULT_LEDGER.parent.mkdir()
    assert folder_beside(PostgresAddress(URL), "j") == Path(".bulksubmit/one-jobs/j")


async def test_without_its_client_a_database_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'bulksubmit\[postgres\]'"):
        await engine.status("j", URL)


async def test_what_is_said_of_a_job_names_the_ledger(tmp_path):
    path = tmp_path / "l.db"
    with pytest.raises(JobError, match=f"there is no ledger at {path}"):
        await engine.status("j", path)
    async with SqliteLedger.open(path, SystemClock()) as holder:
        await holder.create_job(Job("j", "sama", CONFIG, (), "out"))
        with holder.lock("j"), pytest.raises(JobLocked, match=f"^ledger {path}: process"):
            await engine.resume("j", path)
    with pytest.raises(JobError, match=f"^ledger {path}: there is no job 'k'; there are: j"):
        await engine.status("k", path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("No more time. `bulksubmit resume` goes on", "No more time. `bulksubmit resume j --ledger there.db` goes on"),
        (
            "`bulksubmit resume --max-failed LIMIT` goes on",
            "`bulksubmit resume j --max-failed LIMIT --ledger there.db` goes on",
        ),
        ("`bulksubmit resume other` first", "`bulksubmit resume other --ledger there.db` first"),
        ("`bulksubmit resume a --ledger b.db` is whole", "`bulksubmit resume a --ledger b.db` is whole"),
        ("`bulksubmit validate` takes no ledger", "`bulksubmit validate` takes no ledger"),
        ("`bulksubmit ledger copy a.db b.db` names two", "`bulksubmit ledger copy a.db b.db` names two"),
        ("nothing is said of commands", "nothing is said of commands"),
    ],
)
def test_commands_in_messages_are_written_out_with_job_and_ledger(text, told):
    assert spelled(text, Path("there.db"), "resume j") == told
    assert spelled(told, Path("there.db"), "resume j") == told


def test_where_there_is_no_job_the_same_command_goes_on():
    assert spelled("make room, then `bulksubmit resume` goes on", Path("there.db")) == (
        "make room, then the same command goes on"
    )


def test_a_ledger_that_is_found_by_itself_is_not_named(monkeypatch, tmp_path):
    DEFAULT_LEDGER.parent.mkdir()
    DEFAULT_LEDGER.touch()
    assert (
        command("resume j", DEFAULT_LEDGER) == command("resume j", tmp_path / DEFAULT_LEDGER) == "bulksubmit resume j"
    )
    assert command("resume j", Path("her file.db")) == "bulksubmit resume j --ledger 'her file.db'"
    monkeypatch.setenv("BULKSUBMIT_LEDGER", "her file.db")
    assert command("resume j", Path("her file.db")) == "bulksubmit resume j"


async def test_an_error_outside_of_a_run_names_the_ledger_too(tmp_path):
    with pytest.raises(LedgerError, match="Check the disk; the same command goes on where the job stopped"):
        async with open_ledger(tmp_path / "there.db", create=True):
            raise LedgerError
    with pytest.raises(JobError, match=r"`bulksubmit cancel j --ledger .*there\.db` first"):
        async with open_ledger(tmp_path / "there.db"):
            raise JobError("`bulksubmit cancel j` first")


def test_events_tell_commands_as_they_are_typed():
    told = []
    tell = spelling(told.append, Path("/a/l.db"), "work j")
    for event in (Stopping("`bulksubmit resume` goes on"), Noticed("see `bulksubmit status j`"), JobEnded("j", "open")):
        tell(event)
    assert told == [
        Stopping("`bulksubmit work j --ledger /a/l.db` goes on"),
        Noticed("see `bulksubmit status j --ledger /a/l.db`"),
        JobEnded("j", "open"),
    ]
