"""What holds of the repository as a whole: where its tests are, and what a source distribution carries."""

import subprocess
import sys
import tarfile

from benchmarks.harness import ROOT

BESIDE_THE_ENGINE = {"benchmarks"}
"""Packages with unit tests that are not part of the engine."""


def folders(path):
    return {folder.name for folder in path.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}


def test_the_unit_tests_mirror_the_engine():
    assert folders(ROOT / "tests" / "unit") - BESIDE_THE_ENGINE <= folders(ROOT / "engine")


def test_tests_are_of_five_kinds():
    assert folders(ROOT / "tests") == {"fakes", "unit", "integration", "scenarios", "torture", "system"}


def test_a_source_distribution_is_small_and_carries_no_results(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.tar.gz")
    assert path.stat().st_size < 2_000_000
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"engine/__init__.py", "tests/conftest.py", "benchmarks/page.py", "configs/sama.toml"} <= names
    assert [name for name in names if name.startswith("benchmarks/results/")] == []
