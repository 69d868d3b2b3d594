import dataclasses
import re
from pathlib import Path

import pytest

from engine.sandbox.behaviour import Behaviour, FailureRule, Fault, Latency, Project, RateLimit
from engine.sandbox.errors import BehaviourError
from engine.sandbox.loading import load_behaviour, parse_behaviour

EXAMPLE = Path(__file__).parents[2] / "configs" / "sandbox.toml"


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


@pytest.mark.parametrize("cls", [Behaviour, FailureRule, Fault, Latency, Project, RateLimit])
def test_the_example_names_every_key(cls):
    text = _uncommented()
    missing = [field.name for field in dataclasses.fields(cls) if not re.search(rf"\b{field.name}\b", text)]
    assert missing == []


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "b.toml").write_text('[journal]\npath = "j.ndjson"\n[[projects]]\nid = 1\nschema = "s.json"')
    behaviour = load_behaviour(tmp_path / "b.toml")
    assert behaviour.journal.path == tmp_path / "j.ndjson"
    assert behaviour.projects[0].schema == tmp_path / "s.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("continue_agian = 'noop'", "unknown key 'continue_agian': did you mean 'continue_again'?"),
        ("[creation]\ntask_per_second = 1", "did you mean 'creation.tasks_per_second'?"),
        ("[[faults]]\ncall = 'create'\nkind = 'refuse'\nnht = [1]", "did you mean 'faults[0].nth'?"),
        ("continue_again = 'perhaps'", "continue_again: 'perhaps' is not one of error, noop, duplicate"),
        ("max_inline_tasks = '10'", "max_inline_tasks: expected int, got '10'"),
        ("keep_task_data = 1", "keep_task_data: expected bool, got 1"),
        ("creation = 1", "creation: expected a table"),
        ("latency = 1", "latency: expected a table of tables"),
        ("[[rate_limits]]\nrequests = 1", "rate_limits[0]: missing seconds"),
        ("[[faults]]\ncall = 'create'\nkind = 'hang'", "faults[0]: this fault never strikes"),
        ("[[failures]]\nshare = 2.0", "failures[0]: share must be from 0 to 1"),
        ("[[failures]]\npath = 'data.x'", "failures[0]: path goes with either equals or matches"),
        ("[[failures]]\nmessage = 'x'", "failures[0]: give path, or share, or both"),
        ("seed = ", "the behaviour file is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(text, message):
    with pytest.raises(BehaviourError, match=re.escape(message)):
        parse_behaviour(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BehaviourError, match="cannot read the behaviour file"):
        load_behaviour(tmp_path / "none.toml")


def test_one_marker_may_stand_without_brackets():
    assert parse_behaviour("[journal]\nmarker = 'data.sku'").journal.marker == ("data.sku",)
