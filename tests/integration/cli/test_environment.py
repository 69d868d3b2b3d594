"""Variables that other programs need and that are no matter of this command: it works as if they were not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.served import served

ROOT = Path(__file__).parents[3]
CONFIG = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"
mode = "inline"

[send]
poll_seconds = 0.01
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tmp_path_factory.mktemp("sandbox"), "") as (url, _):
        yield url


@pytest.fixture
def run(tmp_path, url):
    (tmp_path / "c.toml").write_text(CONFIG.format(url=url))
    (tmp_path / "in.ndjson").write_text('{"data": {"n": 1}}\n')

    def run(*arguments, **variables):
        return subprocess.run(
            [sys.executable, "-m", "engine", *arguments, "in.ndjson", "--config", "c.toml"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SAMA_ACCESS_KEY": "sandbox-key", **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize("command", ["validate", "submit"])
def test_a_socks_proxy_is_no_matter_where_this_machine_is_called(run, command):
    done = run(command, ALL_PROXY="socks5://127.0.0.1:9", all_proxy="socks5://127.0.0.1:9")
    assert done.returncode == 0, done.stderr


def test_a_file_for_keys_of_tls_that_cannot_be_written_is_no_matter(run, tmp_path):
    done = run("submit", SSLKEYLOGFILE=str(tmp_path / "none" / "keys"))
    assert done.returncode == 0, done.stderr


def test_a_pipe_for_keys_of_tls_that_nobody_reads_holds_nothing_up(run, tmp_path):
    os.mkfifo(tmp_path / "keys")
    done = run("submit", SSLKEYLOGFILE=str(tmp_path / "keys"))
    assert done.returncode == 0, done.stderr
