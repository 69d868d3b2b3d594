"""What a person gets who presses Tab, in the shells that are there."""

import os
import shutil
import subprocess
import sys

import pytest

from engine.cli.options import ServedService
from engine.clock import SystemClock
from engine.ledger.sqlite import SqliteLedger
from engine.model.job import Job

from .test_face import HEAVY, ROOT, imported_by

DRIVE = {
    "bash": """
source ./script
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_bulksubmit bulksubmit
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "fish": 'source ./script; complete -C "{words}" | string split -f1 \\t',
    "zsh": "autoload -Uz compinit; compinit -u -D; source ./script",
}
"""How a shell is made to complete the last of some words; zsh does so only for a person: there the script is read."""


@pytest.fixture
async def folder(tmp_path, monkeypatch):
    """A working folder with a ledger of three jobs, two of them alike, a configuration, and the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BULKSUBMIT_LEDGER")
    command = tmp_path / "bin" / "bulksubmit"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m engine "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for ledger, names in ((".bulksubmit/ledger.db", ["images-1", "images-2", "other"]), ("far.db", ["far-away"])):
        async with SqliteLedger.open(tmp_path / "work" / ledger, SystemClock()) as opened:
            for name in names:
                await opened.create_job(Job(name, "sama", "", (), name))
    (tmp_path / "work" / "sama.toml").write_text('ledger = "far.db"\n')
    return tmp_path / "work"


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


OFFERED = [
    (["re"], {"resume", "report", "retry", "refresh"}),
    (["resume", "im"], {"images-1", "images-2"}),
    (["resume", "--ledger", "far.db", ""], {"far-away"}),
    (["resume", "-c", "sama.toml", ""], {"far-away"}),
    (["submit", "s"], {"script", "sama.toml"}),
    (["submit", "x.csv", "--config", "sa"], {"sama.toml"}),
    (["submit", "--log-level", "w"], {"warning"}),
    (["sandbox", "--service", ""], {service.value for service in ServedService}),
    (["status", "--sta"], {"--state"}),
    (["completion", ""], {"bash", "fish", "zsh"}),
    (["examples", "sev"], {"sevenbridges"}),
    (["init", "sa"], {"sama", "salesforce-bulk2"}),
    (["init", "sama", "--project-"], {"--project-id"}),
]
CUT_BY_BASH = [
    (["submit", "x.csv", "--config", "=", "sa"], {"sama.toml"}),
    (["resume", "--ledger", "=", "far.db", ""], {"far-away"}),
]
"""It makes three words of an option with its value."""


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_a_shell_offers_what_fits(folder, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    (folder / "script").write_text(run(sys.executable, "-m", "engine", "completion", shell).stdout)
    for words, offered in [*OFFERED, *(CUT_BY_BASH if shell == "bash" else [])]:
        line = " ".join(["bulksubmit", *words] if shell == "fish" else [f"'{word}'" for word in ["bulksubmit", *words]])
        said = run(shell, "-c", DRIVE[shell].format(words=line))
        assert said.stderr == ""
        assert shell == "zsh" or set(said.stdout.split()) == offered, words


def test_every_command_and_every_option_stands_in_every_script():
    for shell in ("bash", "zsh", "fish"):
        script = run(sys.executable, "-m", "engine", "completion", shell).stdout
        for name, command in ROOT.commands.items():
            assert name in script
            for option in (option for one in command.params for option in one.opts if option.startswith("--")):
                assert (f"-l {option[2:]} " if shell == "fish" else option) in script


def test_to_tell_the_names_of_jobs_makes_nothing_loads_little_and_is_never_an_error(folder, monkeypatch):
    before = sorted(folder.rglob("*"))
    names = [sys.executable, "-m", "engine", "completion", "--jobs"]
    assert run(*names, "im", "resume").stdout == "images-2\nimages-1\n"
    (folder / "broken.db").write_bytes(b"no ledger" * 1000)
    database = "postgresql://loader@192.0.2.1/jobs"  # nobody answers at that address, and nobody is asked
    for words in (
        ["", "--ledger", "nowhere/ledger.db"],
        ["", "--ledger", database],
        ["", "--ledger", "broken.db"],
        ["x", "-c", "no.toml"],
        [],
    ):
        said = run(*names, *words)
        assert (said.returncode, said.stderr) == (0, "")
    (folder / "broken.db").unlink()
    assert sorted(folder.rglob("*")) == before
    loaded = imported_by("completion", "--jobs", "im")
    assert "apsw" in loaded
    slow = {*HEAVY, "typer", "msgspec", "dataclasses", "tomllib", "psycopg"} - {"apsw"}
    assert not {one for one in loaded if one.startswith(tuple(slow))}
    assert "psycopg" not in imported_by("completion", "--jobs", "im", "resume", "--ledger", database)
