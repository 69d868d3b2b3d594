"""A service and a format in a package are known to every command; docs/extending.md shows their very code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.toy import KEY, PACKAGE, ToyServer, install, serving

ROOT = Path(__file__).parents[3]

CONFIG = """
[service]
kind = "toy"
base_url = "{url}"
api_key = "${{env:TOY_KEY}}"

[batch]
max_records = 2

[source]
processes = {processes}
"""


class Desk:
    """A folder in which the command is called, with the package installed or without."""

    def __init__(self, folder, paths, url="http://127.0.0.1:1", processes=0):
        self.folder = folder
        self.config = folder / "toy.toml"
        self.config.write_text(CONFIG.format(url=url, processes=processes))
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *paths]), "TOY_KEY": KEY}

    def records(self, *titles):
        path = self.folder / "records.ndjson"
        path.write_text("".join(json.dumps({"title": title}) + "\n" for title in titles))
        return str(path)

    def call(self, *words):
        command = [sys.executable, "-m", "engine", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.mark.parametrize("processes", [0, 1])
def test_submit_status_and_audit_know_the_service_of_a_package(tmp_path, processes):
    server = ToyServer()
    with serving(server) as url:
        desk = Desk(tmp_path, install(tmp_path), url, processes)
        source = desk.records("a", "b", 3, "taken", "c")
        checked = desk.call("validate", source, "--config", str(desk.config), "--json")
        assert (checked.returncode, server.items) == (3, [])
        sent = desk.call("submit", source, "--config", str(desk.config), "--job", "j", "--json")
        assert sent.returncode == 3, sent.stderr
        assert sorted(server.items) == ["a", "b", "c"]
        status = desk.call("status", "--json", "--tasks")
        assert status.returncode == 0, status.stderr
        assert "toy does not say how its tasks stand" in " ".join(status.stderr.split())
        audited = desk.call("audit", "j", "--json")
        assert audited.returncode == 0, audited.stdout + audited.stderr
    lines = (tmp_path / ".bulksubmit" / "j" / "outcomes.ndjson").read_text().splitlines()
    outcomes = [json.loads(line) for line in lines]
    assert [one["state"] for one in outcomes] == ["created", "created", "rejected", "failed", "created"]
    assert outcomes[2]["error"] == "title: must be a text"
    assert outcomes[3]["error"] == "taken is taken"
    assert len({one["task_id"] for one in outcomes if one["task_id"]}) == 3


def test_after_a_lost_answer_nobody_is_sent_to_ask_a_service_that_cannot_be_asked(tmp_path):
    with serving(ToyServer()) as url:
        desk = Desk(tmp_path, install(tmp_path), url)
        sent = desk.call("submit", desk.records("lost"), "--config", str(desk.config), "--job", "j")
        assert sent.returncode == 4, sent.stderr
        again = desk.call("resume", "j")
    told = (sent, again, desk.call("status", "j"))
    for said in told:
        assert "bulksubmit retry j --uncertain" in said.stdout
        assert "bulksubmit resume j" not in said.stdout
        assert "--tasks" not in said.stdout


def test_a_job_that_was_finished_before_is_told_without_a_speed(tmp_path):
    with serving(ToyServer()) as url:
        desk = Desk(tmp_path, install(tmp_path), url)
        sent = desk.call("submit", desk.records("a"), "--config", str(desk.config), "--job", "j")
        assert "\n  time " in sent.stdout
        assert not re.search(r"^  time |a second", desk.call("resume", "j").stdout, re.MULTILINE)


@pytest.mark.parametrize(("name", "more"), [("titles.lines", ""), ("titles.txt", 'format = "lines"')])
def test_the_format_of_a_package_is_told_by_its_extension_or_named(tmp_path, name, more):
    server = ToyServer()
    with serving(server) as url:
        desk = Desk(tmp_path, install(tmp_path), url)
        desk.config.write_text(desk.config.read_text() + more)
        (tmp_path / name).write_text("a\ntaken\r\nb")
        sent = desk.call("submit", name, "--config", str(desk.config), "--job", "j", "--json")
        assert sent.returncode == 3, sent.stderr
        assert desk.call("audit", "j", "--json").returncode == 0
    assert sorted(server.items) == ["a", "b"]


def test_the_option_takes_the_format_of_a_package_and_names_it_where_one_is_needed(tmp_path):
    desk = Desk(tmp_path, install(tmp_path))
    (tmp_path / "titles.txt").write_text("a\nb\n")
    words = ["validate", "titles.txt", "--config", str(desk.config), "--json"]
    checked = desk.call(*words, "--format", "lines")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["records"] == 2
    said = json.loads(desk.call(*words).stdout)["error"]
    assert said.endswith("name its --format (ndjson, json, csv, parquet or lines)")
    said = json.loads(desk.call(*words, "--format", "xml").stdout)["error"]
    assert said == "Invalid value for '--format': 'xml' is not one of 'ndjson', 'json', 'csv', 'parquet', 'lines'."


def break_a_package(folder, code=None):
    """Install one more format, `broken`, whose module is missing or holds this code."""
    info = folder / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bulksubmit.formats]\nbroken = broken_format\n")
    if code is not None:
        (folder / "broken_format.py").write_text(code)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (None, "which cannot be loaded: ModuleNotFoundError: No module named 'broken_format'"),
        ("raise OSError('gone')\n", "which cannot be loaded: OSError: gone"),
        ("EXTENSIONS = ()\n", "which lacks open_splitter"),
    ],
)
def test_a_broken_format_stops_only_files_that_may_have_it(tmp_path, code, complaint):
    desk = Desk(tmp_path, install(tmp_path))
    break_a_package(tmp_path, code)
    words = ["--config", str(desk.config), "--json"]
    (tmp_path / "y.dat").write_text('{"title": "a"}\n')
    (tmp_path / "titles.lines").write_text("b\n")
    checked = desk.call("validate", "y.dat", "titles.lines", *words)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["records"] == 2
    (tmp_path / "odd.txt").write_text("nothing\n")
    (tmp_path / "table.txt").write_text("title,more\nc,1\n")
    for name, advice in (("odd.txt", "name its --format (ndjson"), ("table.txt", "may be csv")):
        said = json.loads(desk.call("validate", name, *words).stdout)["error"]
        assert advice in said
        assert f"the format 'broken' is broken_format, {complaint}" in said
    assert desk.call("validate", "table.txt", "--format", "csv", *words).returncode == 0


def test_a_job_whose_format_is_not_installed_any_more_says_so(tmp_path):
    with serving(ToyServer()) as url:
        desk = Desk(tmp_path, install(tmp_path), url)
        (tmp_path / "titles.lines").write_text("a\n")
        assert desk.call("submit", "titles.lines", "--config", str(desk.config), "--job", "j").returncode == 0
    points = next(tmp_path.glob("*.dist-info")) / "entry_points.txt"
    points.write_text("[bulksubmit.services]\ntoy = bulksubmit_toy\n")
    assert desk.call("status").returncode == 0
    audited = desk.call("audit", "j")
    assert audited.returncode != 0
    assert "has the format 'lines': install the package" in " ".join((audited.stdout + audited.stderr).split())


def test_a_format_that_nobody_brings_is_refused_with_those_that_are_known(tmp_path):
    desk = Desk(tmp_path, install(tmp_path))
    desk.config.write_text(desk.config.read_text() + 'format = "xml"')
    refused = desk.call("validate", desk.records("a"), "--config", str(desk.config))
    assert refused.returncode == 2
    assert "source.format: must be 'ndjson', 'json', 'csv', 'parquet' or 'lines'" in " ".join(refused.stderr.split())


def test_a_kind_that_is_not_installed_is_refused_with_those_that_are(tmp_path):
    desk = Desk(tmp_path, [])
    refused = desk.call("validate", desk.records("a"), "--config", str(desk.config))
    assert refused.returncode == 2
    assert "service.kind: 'toy' is not a service; known: sama, sevenbridges" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("code", "complaint"),
    [("import nothing_like_it\n", "cannot be loaded: No module named"), ("", "which lacks SETTINGS or build")],
)
def test_a_package_that_cannot_be_used_is_named(tmp_path, code, complaint):
    paths = [str(tmp_path / "broken"), *install(tmp_path)[:1]]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bulksubmit_toy.py").write_text(code)
    desk = Desk(tmp_path, paths)
    refused = desk.call("validate", desk.records("a"), "--config", str(desk.config))
    assert refused.returncode == 2
    said = " ".join(refused.stderr.split())
    assert "service.kind: 'toy' is bulksubmit_toy" in said
    assert complaint in said


def test_the_documentation_shows_the_packages_own_code():
    page = (ROOT / "docs" / "extending.md").read_text()
    for name in ("bulksubmit_toy.py", "bulksubmit_lines.py", "pyproject.toml"):
        assert (PACKAGE / name).read_text().strip() in page, f"docs/extending.md shows another {name}"
