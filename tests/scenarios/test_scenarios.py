"""Every `*.toml` of this folder: the engine against a server that misbehaves as the file says, in made-up time."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from .measures import checked_names, complaints, differences
from .scenario import FOLDER, Scenario, parse_scenario, read_scenario, scenario_files
from .world import World

BEGINNING = """
prose = "Nothing goes wrong: ten records in two batches are created, each of them once, and the job ends with code 0."

[job]
records = 10
batch_records = 5
"""
ACCEPT = """
[accept]
created = 10
duplicated = 0
lost = 0
exit_code = 0
"""


@pytest.mark.parametrize("path", scenario_files(), ids=lambda path: path.stem)
async def test_what_comes_of_the_scenario_is_accepted(path, tmp_path, monkeypatch):
    scenario = read_scenario(path)
    assert list(checked_names(scenario))
    played = await World(scenario, tmp_path, monkeypatch).play()
    assert [*complaints(played), *differences(played)] == []


async def test_three_limits_that_move_are_faster_than_those_that_stay_where_they_began(tmp_path, monkeypatch):
    scenario = read_scenario(FOLDER / "three_limits.toml")
    began = scenario.job.model_copy(update={"send": {"max_in_flight": 1, "max_open_batches": 500}})
    elapsed = []
    for number, job in enumerate([scenario.job, began]):
        (folder := tmp_path / str(number)).mkdir()
        with monkeypatch.context() as patch:
            played = await World(scenario.model_copy(update={"job": job}), folder, patch).play()
        assert list(complaints(played)) == []
        elapsed.append(played.elapsed_seconds)
    assert elapsed[0] < elapsed[1] / 3


def parsed(text: str) -> Scenario:
    return parse_scenario(text, "made up")


def test_there_are_scenarios():
    assert len(scenario_files()) >= 14


def test_a_scenario_that_accepts_nothing_is_none():
    with pytest.raises(ValidationError, match="accept"):
        parsed(BEGINNING)
    with pytest.raises(ValidationError, match="accept"):
        parsed(BEGINNING + "[accept]")


def test_a_scenario_says_what_it_accepts_of_the_records_whatever_else_it_is_about():
    with pytest.raises(ValueError, match="nothing of \\['lost'\\]"):
        list(checked_names(parsed(BEGINNING + ACCEPT.replace("lost = 0", ""))))


@pytest.mark.parametrize(
    "mistake",
    [
        "[server]\nlatency = 1",
        "[[change]]\nat = 3\nlatency = 1",
        "[[change]]\nat = 3\nlost_answers = { contnue = 0.5 }",
        "[[change]]\nat = 'noon'",
        "[[change]]\napi = 'up'",
        "[[resume]]\nkey = 'x'",
    ],
)
def test_a_key_that_nobody_knows_and_a_change_without_a_time_are_errors(mistake):
    assert parsed(BEGINNING + ACCEPT)
    with pytest.raises(ValidationError):
        parsed(BEGINNING + mistake + ACCEPT)


def test_a_measure_that_nobody_knows_is_an_error():
    with pytest.raises(ValueError, match="no such measure: \\['recovery'\\]"):
        list(checked_names(parsed(BEGINNING + ACCEPT + "recovery = 3")))


def test_a_change_keeps_what_it_does_not_name_and_may_happen_more_than_once():
    changes = "[server]\nburst = 3\n[[change]]\nat = [5, 15]\napi = 'silent'\n[[change]]\nat = 10\napi = 'up'\n"
    scenario = parsed(BEGINNING + changes + ACCEPT)
    assert [(at, behaviour.api) for at, behaviour in scenario.changes] == [(5, "silent"), (10, "up"), (15, "silent")]
    assert all(behaviour.burst == 3 for _, behaviour in scenario.changes)


async def test_what_is_not_accepted_is_said(tmp_path, monkeypatch):
    accept = ACCEPT.replace("created = 10", "created = 11") + "elapsed_seconds = [50, 60]\nmessage = 'deadline'"
    played = await World(parsed(BEGINNING + accept), tmp_path, monkeypatch).play()
    assert list(complaints(played)) == []
    said = list(differences(played))
    assert [line.split()[0] for line in said] == ["created", "elapsed_seconds", "message"]
    assert "created is 10, accepted is 11" in said


async def test_the_servers_journal_is_the_judge_and_not_the_engine(tmp_path, monkeypatch):
    played = await World(parsed(BEGINNING + ACCEPT), tmp_path, monkeypatch).play()
    assert [*complaints(played), *differences(played)] == []
    played.server.journal["3"].append("one more")
    del played.server.journal["4"]
    assert [line.split()[1] for line in complaints(played)] == ["3", "4"]
    assert list(differences(played)) == [
        "created is 9, accepted is 10",
        "duplicated is 1, accepted is 0",
        "lost is 1, accepted is 0",
    ]
