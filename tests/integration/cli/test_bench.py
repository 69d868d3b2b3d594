import io
from pathlib import Path

import pytest

from engine.bench.results import DEFAULT_RECORDS, DEFAULT_SECONDS, BenchOrder
from engine.cli.options import DEFAULT_BENCH_RECORDS, DEFAULT_BENCH_SECONDS

from .test_commands import Terminal, asked_for


@pytest.mark.parametrize(
    ("arguments", "order"),
    [
        ([], BenchOrder(Path("c.toml"), [], rates=[])),
        (
            ["a.ndjson", "b.csv", "--records", "50", "--steps", "1,2", "--seconds", "2.5", "-o", "out", "--seed", "3"],
            BenchOrder(Path("c.toml"), ["a.ndjson", "b.csv"], 50, "1,2", [], 2.5, Path("out"), 3),
        ),
        (["--rate", "10", "--rate", "20"], BenchOrder(Path("c.toml"), [], rates=["10", "20"])),
    ],
)
def test_the_engine_is_asked_for_what_was_typed(say, engine, arguments, order):
    say("bench", "-c", "c.toml", *arguments)
    assert engine.asked == [("bench_plan", order), ("bench", order)]


def test_the_defaults_that_help_shows_are_those_of_an_order():
    assert (DEFAULT_BENCH_RECORDS, DEFAULT_BENCH_SECONDS) == (DEFAULT_RECORDS, DEFAULT_SECONDS)


def test_a_table_shows_each_step_and_where_the_rest_stands(say):
    said = say("bench", "-c", "c.toml")
    assert said.code == 0
    assert said.out.startswith("Best: 1,950.0 records a second with 4 batches at once.")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith(("knee", "best"))] == ["2", "4"]
    assert "out/b/bench.html" in said.out
    assert "out/b/outcomes.ndjson" in said.out
    assert len({len(line) for line in lines[3:5]}) == 1


def test_a_program_gets_one_json_object(say):
    said = say("bench", "-c", "c.toml", "--json")
    assert said.json["knee"]["step"] == "2"
    assert said.json["files"]["json"] == "out/b/bench.json"


@pytest.mark.parametrize(("typed", "created"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_before_anything_is_created_on_another_machine_it_asks(say, engine, monkeypatch, typed, created):
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    engine.local = False
    said = say("bench", "-c", "c.toml")
    assert "creates real tasks on api.example.com (sama, project 42): 3,000 at most, in 3 steps" in said.err
    assert asked_for(engine) == ["bench_plan", *(["bench"] if created else [])]
    assert said.code == (0 if created else 1)


def test_where_nobody_can_be_asked_it_creates_nothing_without_yes(say, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    engine.local = False
    said = say("bench", "-c", "c.toml", "--json")
    assert (said.code, asked_for(engine)) == (2, ["bench_plan"])
    assert "3,000 at most" in said.json["error"]
    assert "--yes" in said.json["error"]
    assert say("bench", "-c", "c.toml", "--yes").code == 0


def test_on_this_machine_nobody_is_asked(say, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal())
    assert say("bench", "-c", "c.toml").code == 0
    assert asked_for(engine) == ["bench_plan", "bench"]
