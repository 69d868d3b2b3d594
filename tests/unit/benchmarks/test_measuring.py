import os
import platform
import re
import subprocess
import sys

import pytest

from benchmarks.following import BATCH_RECORDS, follow
from benchmarks.harness import (
    Contender,
    NotMeasured,
    Rounds,
    Row,
    Run,
    Spread,
    Target,
    alternate,
    compile_code,
    interpreter,
    memory_ratios,
    run_once,
    speed_ratios,
)
from benchmarks.launcher import below, share_bytes
from benchmarks.simulation.creating import Creating, Creation, oracle_polls, plan

TWICE = Rounds(2, float("inf"))


def python(code, name="contender", **options):
    return Contender(name, [sys.executable, "-c", code], 100, **options)


def run(seconds, peak_bytes=1, work=100):
    return Run(seconds, 0.0, peak_bytes, work)


def test_a_spread_is_least_median_and_greatest():
    assert Spread.of([5, 1, 2, 9]) == Spread(1, 3.5, 9)


def test_ratios_are_taken_within_a_round():
    runs = {"ours": [run(2.0, 10), run(8.0, 30)], "theirs": [run(4.0, 20), run(4.0, 60)]}
    assert speed_ratios(runs, "ours", "theirs") == [2.0, 0.5]
    assert memory_ratios(runs, "ours", "theirs") == [0.5, 0.5]


@pytest.mark.parametrize(
    ("figures", "target", "met"),
    [
        ([0.1, 0.9, 5.0], Target(0.9), True),
        ([0.1, 0.8, 5.0], Target(0.9), False),
        ([9.0, 2.0, 1.0], Target(2, at_least=False), True),
        ([9.0, 2.1, 1.0], Target(2, at_least=False), False),
        ([1.0], None, None),
    ],
)
def test_a_target_is_held_against_the_median(figures, target, met):
    assert Row("measure", "", figures, target).met is met


def test_a_contender_runs_in_an_empty_folder_and_its_memory_is_its_own(tmp_path):
    code = "import os; assert not os.listdir(); open('litter', 'w').close(); x = bytearray(64 * 2**20)"
    held = bytearray(256 * 2**20)
    taken = run_once(python(code), tmp_path)
    assert 64 * 2**20 < taken.peak_bytes < len(held)
    assert list(tmp_path.iterdir()) == []


def test_a_contender_may_say_what_its_time_was(tmp_path):
    words = """print('noise'); print('{"seconds": 12.5, "work": 25}')"""
    taken = run_once(python(words), tmp_path)
    assert (taken.seconds, taken.work, taken.speed) == (12.5, 25, 2.0)


def test_a_measured_process_finds_the_code_compiled(tmp_path):
    compile_code()
    loading = "import os, sys, engine.cli.app, engine.commands.submit, benchmarks.contenders.no_ledger"
    cached = "{getattr(one, '__cached__', None) for one in sys.modules.values()} - {None}"
    run_once(python(f"{loading}; sys.exit([path for path in {cached} if not os.path.exists(path)] or None)"), tmp_path)


def test_the_interpreter_and_its_build_are_told():
    assert interpreter().startswith(platform.python_version())
    assert re.search(r"PGO, .*LTO, .*GIL", interpreter())


def test_one_that_fails_is_named_with_what_it_said(tmp_path):
    with pytest.raises(NotMeasured, match="contender ended with status 3: no such luck"):
        run_once(python("print('no such luck'); raise SystemExit(3)"), tmp_path)


def test_contenders_take_turns(tmp_path):
    log = tmp_path / "log"
    contenders = [python(f"open({str(log)!r}, 'a').write({name!r})", name) for name in "AB"]
    runs = alternate(contenders, TWICE, tmp_path)
    assert log.read_text() == "ABAB"
    assert {name: len(taken) for name, taken in runs.items()} == {"A": 2, "B": 2}


def test_a_slow_machine_has_fewer_rounds_but_one_at_least():
    assert list(TWICE.counted()) == [0, 1]
    assert list(Rounds(5, 0.0).counted()) == [0]


def test_one_that_fails_leaves_the_others_their_figures(tmp_path):
    failures = {}
    contenders = [python("pass", "good"), python("raise SystemExit(1)", "bad")]
    runs = alternate(contenders, TWICE, tmp_path, failures=failures)
    assert list(runs) == ["good"]
    assert len(runs["good"]) == 2
    assert list(failures) == ["bad"]


def test_processes_below_a_contender_count():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in list(below(os.getpid()))
        assert share_bytes(child.pid) > 0
        child.communicate(b"\n")
    assert share_bytes(child.pid) == 0


def created(*times):
    return [Creation(100, 0.0, start, end) for start, end in times]


def test_the_oracle_asks_once_for_batches_that_end_within_the_tolerance():
    together = created((0.0, 10.0), (0.5, 10.5), (1.0, 11.0))
    assert oracle_polls(together, 100) == 1
    assert oracle_polls(together, 2) == 2
    assert oracle_polls(together, 1) == 3
    assert oracle_polls(created((0.0, 10.0), (1.5, 11.5)), 100) == 2


@pytest.mark.parametrize(("lanes", "times"), [(1, [(0, 10), (10, 20), (20, 30)]), (2, [(0, 10), (1, 11), (10, 20)])])
def test_batches_are_created_in_line_or_side_by_side(lanes, times):
    creations = plan(Creating(100, lanes, batches=3, release_seconds=1.0))
    assert [(one.start, one.end) for one in creations] == times


def test_made_up_time_follows_every_batch_to_its_end():
    scenario = Creating(BATCH_RECORDS, 1, batches=10, release_seconds=0.25)
    followed = follow(scenario)
    assert followed == follow(scenario)
    assert len(followed.delays) == 10
    assert min(followed.delays) > 0
    assert followed.polls >= followed.oracle_polls == 10
