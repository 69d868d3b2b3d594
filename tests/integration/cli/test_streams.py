"""Standard input, output and error that are closed, full or read by nobody: the work is done all the same."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr

import pytest
from fakes.served import served

from engine.progress import standard_error
from engine.progress.standard_error import write_line

RECORDS = 40
CONFIG = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"
mode = "inline"

[batch]
max_records = 2

[send]
poll_seconds = 0.01
"""
BULKSUBMIT = f"{sys.executable} -m engine"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tmp_path_factory.mktemp("sandbox"), "") as (url, _):
        yield url


@pytest.fixture
def shell(tmp_path, url):
    """Run a line of the shell in a folder with tasks; return its exit code and what it wrote."""
    (tmp_path / "c.toml").write_text(CONFIG.format(url=url))
    (tmp_path / "in.ndjson").write_text("".join(f'{{"data": {{"n": {number}}}}}\n' for number in range(RECORDS)))

    def run(line):
        environment = {**os.environ, "SAMA_ACCESS_KEY": "sandbox-key"}
        command = ["bash", "-c", f"set -o pipefail; {line}"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def created(shell):
    return json.loads(shell(f"{BULKSUBMIT} status j --json").stdout)["created"]


SUBMIT = f"{BULKSUBMIT} submit in.ndjson --config c.toml --job j"


@pytest.mark.parametrize(
    "line",
    [
        f"{SUBMIT} --log-level debug 2>&1 | head -1",
        f"{SUBMIT} --log-level debug --log-format json 2>/dev/full",
        f"{SUBMIT} 2>&-",
        f"{SUBMIT} >&-",
        f"{SUBMIT} <&-",
        f"{SUBMIT} --json <&- >&- 2>&-",
        f"{SUBMIT} | true",
    ],
)
def test_a_stream_that_is_closed_or_full_ends_no_run(shell, line):
    ended = shell(line)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert created(shell) == RECORDS


def test_a_full_standard_output_is_an_error_for_whoever_wanted_to_read_it(shell):
    ended = shell(f"{SUBMIT} --json -q >/dev/full")
    assert (ended.returncode, ended.stderr) == (
        1,
        "bulksubmit: standard output cannot be written (No space left on device)\n",
    )
    assert created(shell) == RECORDS


@pytest.mark.parametrize("line", ["submit --help | true", "--version | true", "submit 2>/dev/full", "status x 2>&-"])
def test_help_and_errors_that_nobody_reads_are_no_traceback(shell, line):
    assert "Traceback" not in shell(f"{BULKSUBMIT} {line}").stderr


@contextmanager
def pipe_for_errors():
    """Have a pipe in the place of standard error; the end that is read."""
    reading, writing = os.pipe()
    end = os.fdopen(reading, "rb", buffering=0)
    with end, os.fdopen(writing, "w", encoding="utf-8") as stream, redirect_stderr(stream):
        yield end


def test_a_pipe_that_nobody_reads_holds_up_nobody_and_what_was_left_out_is_said(monkeypatch):
    monkeypatch.setattr(standard_error, "PATIENCE_SECONDS", 0.01)
    with pipe_for_errors() as pipe:
        for number in range(1_000):
            write_line(f"line {number} {'x' * 1_000}")
        said = pipe.read(1 << 20)
        write_line("one more")
        left_out = 1_000 - said.count(b"line")
        assert pipe.read(1 << 20) == f"({left_out} lines are left out here: nobody read them)\none more\n".encode()


def test_a_line_longer_than_a_pipe_arrives_whole_where_somebody_reads(monkeypatch):
    monkeypatch.setattr(standard_error, "PATIENCE_SECONDS", 10)
    with pipe_for_errors() as pipe, ThreadPoolExecutor(1) as elsewhere:
        read = elsewhere.submit(lambda: b"".join(pipe.read(1) for _ in range(100_001)))
        write_line("x" * 100_000)
        assert read.result(10) == b"x" * 100_000 + b"\n"
