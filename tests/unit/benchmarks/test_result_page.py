import fnmatch
import json
import re
import subprocess
import sys

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import page, results
from benchmarks.harness import ROOT, Contender, Row, Run, Section, Target

WRITTEN = ROOT / "benchmarks" / "results"
MACHINE = {"cpu": "Z80", "cores": 1, "memory_gib": 0.1, "system": "CP/M", "python": "3.11.7"}
SECTION = Section(
    "race",
    "The race",
    "Two run, one after the other.",
    [
        Row("speed", "them", [2.0, 4.0, 3.0], Target(2, wish=3)),
        Row("memory", "", [150.0], Target(120, at_least=False), "MiB"),
        Row("price", "nothing", [7.0], Target(5, at_least=False, wish=1), "%"),
        Row("colour", "them", [1234.0]),
    ],
    [Contender("us", [], 10, remark="careful"), Contender("absent", [], 10)],
    {"us": [Run(2.0, 1.0, 3 * 2**20, 10), Run(4.0, 2.0, 5 * 2**20, 10)]},
    {"records": 1000000},
    ["absent: it has no shoes"],
)


CAUSES = {"mem*": "It never\nforgets.", "speed against them": "It is fast."}


def document(*, quick=False, **more):
    where = {"commit": "abc", "machine": MACHINE, "when": "2026-01-01", "quick": quick, "seconds": 60}
    return {"sections": {"race": results.as_json(SECTION, where), **more}}


@pytest.fixture
def text():
    return page.page(document(), CAUSES)


def test_every_row_stands_with_its_figure_its_target_and_whether_it_is_met(text):
    assert "| speed | them | 3 (2 – 4) × | ≥ 2 × | met | ≥ 3 ×, met |" in text  # noqa: RUF001 - as printed
    assert "| memory |  | 150 MiB | ≤ 120 MiB | **missed** |  |" in text
    assert "| price | nothing | 7 % | ≤ 5 % | **missed** | ≤ 1 % |" in text
    assert "| colour | them | 1,234 × |  |  |  |" in text  # noqa: RUF001 - as printed


def test_what_is_missed_is_named_with_its_cause(text):
    missed = text.partition("## What is missed")[2]
    assert "- memory: 150 MiB, wanted ≤ 120 MiB. It never forgets." in missed
    assert "speed" not in missed
    assert "It is fast." not in missed
    assert "colour" not in missed


def test_a_row_without_a_cause_says_so():
    assert "- price against nothing: 7 %, wanted ≤ 5 %. The cause is not known yet." in page.page(document(), {})


def test_every_cause_is_of_a_row():
    names = [page._name(row) for one in results.load(WRITTEN)["sections"].values() for row in one["rows"]]
    assert [pattern for pattern in page.CAUSES if not fnmatch.filter(names, pattern)] == []


def test_contenders_stand_side_by_side_and_the_absent_are_named(text):
    assert "| us | 3.75 (2.5 – 5) records/s | 1.5 (1 – 2) | 4 (3 – 5) | careful |" in text  # noqa: RUF001 - as printed
    assert "| absent |" not in text
    assert "- The race: absent: it has no shoes" in text


def test_the_method_the_machine_and_the_commit_are_told(text):
    assert "Two run, one after the other." in text
    assert "commit `abc`, Z80, 1 cores, 0.1 GiB, CP/M, Python 3.11.7, 2026-01-01, 1.0 minutes" in text
    assert "records: 1,000,000" in text


def test_a_quick_run_says_so(text):
    assert "quick run" not in text
    assert "quick run" in page.page(document(quick=True))


def test_results_are_read_as_they_were_written(tmp_path):
    written = document()
    results.save(tmp_path, written)
    assert results.load(tmp_path) == json.loads(json.dumps(written))
    assert results.load(tmp_path / "empty") == {"sections": {}}


def test_simulated_servers_are_drawn_on_one_plot():
    drawn = document()
    drawn["sections"]["race"]["series"] = [{"server": "a"}, {"server": "b"}]
    assert page.page(drawn).count("](race.svg)") == page.page(document()).count("](race.svg)") + 1


def test_the_results_in_the_repository_are_one_page_one_json_and_the_plots_that_the_page_shows():
    text = (WRITTEN / page.FILE).read_text()
    assert page.page(results.load(WRITTEN)) == text
    shown = re.findall(r"!\[.*\]\((.*)\)", text)
    assert {path.name for path in WRITTEN.iterdir()} == {page.FILE, results.FILE, *shown}
    assert sum(path.stat().st_size for path in WRITTEN.iterdir()) <= 2**20


def test_a_measure_that_breaks_is_named_and_does_not_end_the_run(monkeypatch):
    monkeypatch.setitem(benchmarks.MEASURES, "start", lambda session: session.nothing)
    measured = benchmarks._measured("start", {}, quick=True)
    assert measured["not_measured"][0].startswith("it broke: AttributeError")


@pytest.mark.slow
def test_one_measure_runs_by_itself_and_keeps_the_others(tmp_path):
    results.save(tmp_path, document(following=document()["sections"]["race"]))
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "start", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bulksubmit --version" in done.stdout
    sections = results.load(tmp_path)["sections"]
    assert list(sections) == ["start", "following"]
    assert len(sections["start"]["rows"][0]["figures"]) == len(sections["start"]["runs"]["python -c pass"])
    assert "## Start" in (tmp_path / "README.md").read_text()
