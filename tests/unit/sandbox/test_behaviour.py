import re
from pathlib import Path

import pytest
from msgspec.structs import fields

from engine.model.errors import ConfigError
from engine.sandbox.behaviour import (
    Behaviour,
    BehaviourError,
    FailureRule,
    Fault,
    Latency,
    Project,
    RateLimit,
    Reads,
    load_behaviour,
    parse_behaviour,
)
from engine.sandbox.server import running_sandbox
from engine.sandbox.settings import (
    App,
    AppInput,
    BulkUnwritten,
    FileRule,
    Life,
    Rate,
    SandboxBulk,
    SandboxPlatform,
    SevenBridgesUnwritten,
)

EXAMPLE = Path(__file__).parents[3] / "configs" / "sandbox.toml"


def _uncommented():
    return re.sub(r"^#(?=[\[a-z])", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_the_example_as_it_stands_is_the_default():
    assert load_behaviour(EXAMPLE) == Behaviour()


def test_the_example_without_comment_signs_is_valid():
    behaviour = parse_behaviour(_uncommented())
    assert behaviour.failures[0].matches == "^bad-"
    assert behaviour.faults[0] == Fault("continue", "drop_after", nth=(3, 5))
    assert behaviour.rate_limits == (RateLimit(1, 1.0, call="tasks"),)
    assert behaviour.latency["create"] == Latency(0.2)
    assert behaviour.sevenbridges.apps[0].inputs[0] == AppInput("reads", "File[]", required=True)
    assert behaviour.sevenbridges.files[0].metadata["library_id"] == "hg19"


@pytest.mark.parametrize("path", sorted(EXAMPLE.parent.glob("*sandbox.toml")), ids=lambda path: path.stem)
async def test_every_example_can_be_served(path):
    async with running_sandbox(load_behaviour(path)) as sandbox:
        assert sandbox.url


@pytest.mark.parametrize(
    "cls",
    [
        *(Behaviour, FailureRule, Fault, Latency, Project, RateLimit, Reads),
        *(App, AppInput, FileRule, Life, Rate, SandboxPlatform, SevenBridgesUnwritten),
        *(SandboxBulk, BulkUnwritten),
    ],
)
def test_the_example_names_every_key(cls):
    text = _uncommented()
    missing = [field.name for field in fields(cls) if not re.search(rf"\b{field.name}\b", text)]
    assert missing == []


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "b.toml").write_text('[journal]\npath = "j.ndjson"\n[[projects]]\nid = 1\nschema = "s.json"')
    behaviour = load_behaviour(tmp_path / "b.toml")
    assert behaviour.journal.path == tmp_path / "j.ndjson"
    assert behaviour.projects[0].schema == tmp_path / "s.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("continue_agian = 'noop'", "continue_agian: unknown key; did you mean 'continue_again'?"),
        ("[creation]\ntask_per_second = 1", "creation.task_per_second: unknown key; did you mean 'tasks_per_second'?"),
        ("[[faults]]\ncall = 'create'\nkind = 'refuse'\nnht = [1]", "faults[0].nht: unknown key; did you mean 'nth'?"),
        ("continue_again = 'perhaps'", "continue_again: must be 'duplicate', 'error', 'html' or 'noop'"),
        ("max_inline_tasks = 'ten'", "max_inline_tasks: must be a whole number"),
        ("keep_task_data = 2", "keep_task_data: must be true or false"),
        ("creation = 1", "creation: must be a table, [creation]"),
        ("latency = 1", "latency: must be a table"),
        ("faults = 1", "faults: must be a list"),
        ("[[rate_limits]]\nrequests = 1", "rate_limits[0].seconds: missing"),
        ("[[faults]]\ncall = 'create'\nkind = 'hang'", "faults[0].nth: this fault never strikes"),
        ("[[failures]]\nshare = 2.0", "failures[0].share: must be a number from 0 to 1"),
        ("[[failures]]\npath = 'data.x'", "failures[0].path: goes with either equals or matches"),
        ("[[failures]]\nmessage = 'x'", "failures[0].path: give it, or share, or both"),
        ("seed = ", "the behaviour file is not TOML"),
        ("[sevenbridges.life]\nparalel = 1", "sevenbridges.life.paralel: unknown key; did you mean 'parallel'?"),
        ("sevenbridges.projects = ['x']", "sevenbridges.projects: a project's id is owner/project, not 'x'"),
        ("[[sevenbridges.apps]]\nid = 'a/b'", "sevenbridges.apps[0].id: an app's id is owner/project/app, not 'a/b'"),
        (
            "[[sevenbridges.files]]\nproject = 'a/b'\nname = '{m}'",
            "sevenbridges.files[0].name and metadata: '{m}' may use {n} and {group} only",
        ),
        (
            "[[sevenbridges.files]]\nproject = 'a/b'\nname = 'x'\nid = 'y'\ncount = 2",
            "sevenbridges.files[0].id: goes with one file only",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_name(text, message):
    with pytest.raises(BehaviourError, match=re.escape(message)):
        parse_behaviour(text)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(BehaviourError, match=r"journal\.paht.*'path'.*\n.*journal\.marker"):
        parse_behaviour("[journal]\nmarker = [1]\npaht = 'x'")


def test_the_command_line_treats_it_as_wrong_configuration():
    assert issubclass(BehaviourError, ConfigError)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BehaviourError, match="cannot read the behaviour file"):
        load_behaviour(tmp_path / "none.toml")


def test_one_marker_may_stand_without_brackets():
    assert parse_behaviour("[journal]\nmarker = 'data.sku'").journal.marker == "data.sku"
