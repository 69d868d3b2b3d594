"""What a program sees of the engine: names, how they are loaded, and errors as its own."""

import asyncio
import subprocess
import sys

import pytest

import engine

OPERATIONS = ["submit", "resume", "retry", "cancel", "status", "report", "audit", "validate"]
OPERATIONS += ["find_record", "find_uncertain", "tell_story", "prune", "preview"]
HEAVY = ("aiohttp", "pydantic", "apsw", "anyio", "asyncio", "typing", "engine.commands", "engine.model")


def test_every_public_name_is_there():
    assert set(dir(engine)) == {*engine.__all__, "__version__"}
    for name in engine.__all__:
        assert getattr(engine, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="'engine' has no attribute 'nothing'"):
        _ = engine.nothing


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_a_coroutine_function_that_says_what_it_does(name):
    operation = getattr(engine, name)
    assert asyncio.iscoroutinefunction(operation)
    assert operation.__doc__


def test_to_import_it_costs_nothing():
    program = f"import engine, sys; print([name for name in sys.modules if name.startswith({HEAVY!r})])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "[]\n"


def test_whoever_submits_loads_no_auditor():
    program = "import engine, sys; engine.submit; print('engine.reports.audit' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "False\n"


def test_a_program_without_an_event_loop_meets_our_errors(tmp_path):
    config = tmp_path / "sama.toml"
    config.write_text('[service]\nkind = "sama"\n')
    with pytest.raises(engine.errors.ConfigError, match="project_id: missing"):
        asyncio.run(engine.submit("tasks.ndjson", config=config, ledger=tmp_path / "ledger.db"))
    with pytest.raises(engine.errors.JobError, match="there is no ledger"):
        asyncio.run(engine.resume("images-1", tmp_path / "ledger.db"))
