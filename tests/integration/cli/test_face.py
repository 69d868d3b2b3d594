"""The face as the contract has it: names, options, help, usage errors, and what is not imported for them."""

import json
import subprocess
import sys
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from engine import __version__
from engine.cli.app import parser_of, root

ROOT = root()
PARAMETERS = {
    f"{name} {parameter.name}": parameter for name, command in ROOT.commands.items() for parameter in command.params
}
HEAVY = ("aiohttp", "pydantic", "rich", "apsw", "anyio", "asyncio", "orjson", "msgspec", "logging", "html")
HEAVY += ("engine.commands", "engine.sandbox", "engine.model", "engine.cli.output")
NOT_FOR_A_LOAD = ("pydantic", "rich", "tomlkit", "jsonschema_rs", "zoneinfo", "importlib.metadata", "aiofiles", "html")
NOT_FOR_A_LOAD += (
    "prometheus_client",
    "distributed",
    "psycopg",
    "pyarrow",
    "obstore",
    "aiohttp.web",
    "multiprocessing",
)
NOT_FOR_A_LOAD += (
    "engine.batch.dask",
    "engine.bench",
    "engine.commands.work",
    "engine.dashboard",
    "engine.http.web_file",
    "engine.progress.live",
    "engine.reports.audit",
    "engine.reports.page",
    "engine.run.sharing",
    "engine.sandbox",
    "engine.services.described.service",
    "engine.services.sevenbridges",
    "engine.source.csv_rows",
    "engine.source.json_array",
    "engine.source.parquet",
)
"""Of a file of lines to Sama: what only other loads, or other commands, need."""

CONFIG = """
[service]
kind = "sama"
project_id = 42
access_key = "${env:SAMA_ACCESS_KEY}"
"""


def bulksubmit(*arguments, flags=()):
    command = [sys.executable, *flags, "-m", "engine", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def imported_by(*arguments):
    """Return the modules that a command imports."""
    said = bulksubmit(*arguments, flags=["-X", "importtime"]).stderr.splitlines()
    return {line.rpartition("|")[2].strip() for line in said if line.startswith("import time:")}


def test_the_commands_are_those_of_the_contract():
    names = (
        "submit resume work nightly status report audit backup ledger retry cancel undo refresh prune check validate "
        "preview bench sandbox dashboard demo init examples completion"
    )
    assert set(ROOT.commands) == set(names.split())


def test_every_command_has_a_short_sentence_that_the_overview_shows_whole():
    for command in ROOT.commands.values():
        first = command.help.splitlines()[0]
        assert first.endswith(".")
        assert command.get_short_help_str() == first.removesuffix(".") or command.get_short_help_str() == first


def test_every_option_has_a_sentence():
    for name, parameter in PARAMETERS.items():
        assert parameter.help, name
        assert parameter.help.endswith("."), name
        assert parameter.help[0].isupper(), name


def test_every_command_takes_json():
    for name, command in ROOT.commands.items():
        assert any("--json" in parameter.opts for parameter in command.params), name


def test_what_is_to_be_put_in_is_named_in_capitals_and_choices_stand_in_the_sentence():
    for name, parameter in PARAMETERS.items():
        assert (parameter.metavar or "").upper() == (parameter.metavar or ""), name
        for choice in parameter.type_descriptor.choices or ():
            assert choice.value in parameter.help, name


@pytest.mark.parametrize("command", ROOT.commands)
def test_help_breaks_no_word_at_80_columns(say, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    shown = say(command, "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    flowing = " ".join(shown.split())
    for parameter in ROOT.commands[command].params:
        assert " ".join(parameter.help.split()) in flowing


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("submit", "bulksubmit submit [OPTIONS] SOURCE..."),
        ("bench", "bulksubmit bench [OPTIONS] [SOURCE...]"),
        ("status", "bulksubmit status [OPTIONS] [JOB]"),
        ("resume", "bulksubmit resume [OPTIONS] JOB"),
        ("sandbox", "bulksubmit sandbox [OPTIONS]"),
    ],
)
def test_a_usage_line_is_what_is_typed(say, command, usage):
    assert say(command, "--help").out.splitlines()[0] == f"Usage: {usage}"


@pytest.mark.parametrize("command", ["", *ROOT.commands])
def test_every_command_takes_both_ways_to_ask_for_help(say, command):
    arguments = [command] if command else []
    said = say(*arguments, "-h")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: {' '.join(['bulksubmit', *arguments])}")
    assert said.out == say(*arguments, "--help").out


def test_a_wrong_choice_is_named_without_ado(say):
    said = say("validate", "in", "--config", "c", "--format", "yaml", "--json")
    listed = "'ndjson', 'json', 'csv', 'parquet'"
    assert said.json["error"] == f"Invalid value for '--format': 'yaml' is not one of {listed}."
    assert said.json["error"] in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "in.ndjson"],
        ["submit", "in.ndjson", "--config"],
        ["status", "--nonsense"],
        ["nonsense"],
        ["resume"],
        ["sandbox", "--port", "many"],
        ["validate", "in", "--config", "c", "--format", "xml"],
    ],
)
def test_a_usage_error_exits_with_2_and_is_an_object_for_programs(say, arguments):
    said = say(*arguments)
    assert (said.code, said.out) == (2, "")
    assert "Error: " in said.err
    said = say(arguments[0], "--json", *arguments[1:])
    assert said.code == 2
    assert said.json["exit_code"] == 2
    assert said.json["error"]


@pytest.mark.parametrize("name", ROOT.commands)
def test_a_command_that_is_made_alone_takes_what_it_takes_among_the_others(name):
    alone, among = parser_of(name), ROOT.commands[name]
    assert [one.opts for one in alone.params] == [one.opts for one in among.params]
    assert (alone.name, alone.help) == (among.name, among.help)


@pytest.mark.parametrize("arguments", [["--help"], ["submit", "--help"], ["--version"], ["status", "--nonsense"]])
def test_help_version_and_usage_errors_import_nothing_heavy(arguments):
    imported = imported_by(*arguments)
    assert "engine" in imported
    assert not [name for name in imported if name.startswith(HEAVY)]


def test_a_load_imports_no_client_before_it_sends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    Path("engine.toml").write_text(CONFIG)
    imported = imported_by("submit", "nowhere.ndjson", "--config", "engine.toml")
    assert "engine.commands.wiring" in imported
    assert not [name for name in imported if name.startswith(("aiohttp", *NOT_FOR_A_LOAD))]


def test_a_whole_load_imports_nothing_that_only_others_need_and_makes_no_dataclasses(serving):
    config = serving()
    Path("in.ndjson").write_text('{"data": {"n": 1}}\n')
    imported = imported_by("submit", "in.ndjson", "--config", str(config), "--job", "one")
    assert json.loads(Path(".bulksubmit/one/outcomes.ndjson").read_text())["state"] == "created"
    assert {"aiohttp", "engine.reports.outcomes"} <= imported
    assert not [name for name in imported if name.startswith(NOT_FOR_A_LOAD)]
    ours = [sys.modules.get(name) or import_module(name) for name in imported if name.startswith("engine.")]
    found = {
        f"{one.__module__}.{one.__name__}" for module in ours for one in vars(module).values() if is_dataclass(one)
    }
    assert found == {f"engine.cli.options.{name}Options" for name in ("Load", "Limit", "Output")}  # `--help` needs them


def test_the_version_is_told_without_a_parser():
    ended = bulksubmit("--version", flags=["-X", "importtime"])
    assert ended.stdout == f"bulksubmit {__version__}\n"
    assert "typer" not in ended.stderr


AT_EXIT = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > 10_000))
sys.argv = ["bulksubmit", "--help"]
from engine.__main__ import main
main()
"""


CORES = """
import atexit, resource, sys
atexit.register(lambda: print(resource.getrlimit(resource.RLIMIT_CORE)[0]))
sys.argv = ["bulksubmit", "--help"]
from engine.__main__ import main
main()
"""


def test_a_process_that_crashes_leaves_no_memory_on_the_disk():
    ended = subprocess.run([sys.executable, "-c", CORES], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout.endswith("\n0\n")


def test_a_process_that_ends_looks_for_no_garbage_among_its_modules():
    ended = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout.endswith("True\n")


def test_the_process_ends_with_the_exit_code():
    ended = bulksubmit("status", "--nonsense", "--json")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["exit_code"] == 2


def test_the_sandbox_that_cannot_start_says_why(say):
    said = say("sandbox", "--host", "192.0.2.1", "--json")
    assert said.code == 2
    assert "--allow-remote" in said.json["error"]
