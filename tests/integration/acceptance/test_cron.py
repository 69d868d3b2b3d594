"""The crontab's own line, run as cron runs it: by `sh -c`, with next to nothing in the environment."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CRON = ROOT / "deploy" / "cron"


@pytest.fixture
def home(tmp_path):
    for name in ("home", "bin", "srv/export", "etc"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def install(home, command):
    """Put a program in the place of `bulksubmit`."""
    program = home / "bin" / "bulksubmit"
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o755)


def crontab(home):
    """Return the variables and the command of the crontab, with the folders of this machine below `home`."""
    lines = [line for line in (CRON / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    *variables, entry = lines
    command = entry.split(maxsplit=5)[5]
    command = re.sub("/usr/local/bin/", f"{CRON}/", command)
    command = re.sub("(/srv|/etc)/", rf"{home}\1/", command)
    return dict(line.split("=", 1) for line in variables), command


def night(home, **more):
    """Do as cron does."""
    variables, command = crontab(home)
    cron = {"HOME": str(home / "home"), "LOGNAME": "loader", **variables}
    cron["PATH"] = f"{home / 'bin'}:{variables['PATH']}"
    more = {"BULKSUBMIT_ENVIRONMENT": f"{home}/etc/bulksubmit/environment", "BULKSUBMIT_PAUSE_SECONDS": "0", **more}
    return subprocess.run(
        ["env", "-i", *(f"{name}={value}" for name, value in {**cron, **more}.items()), "/bin/sh", "-c", command],
        cwd=cron["HOME"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_line_of_the_crontab_sends_what_is_new_once_and_is_silent(home, workplace):
    install(home, f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m engine "$@"')
    settings = home / "etc" / "bulksubmit"
    settings.mkdir()
    workplace.configure().rename(settings / "nightly.toml")
    (settings / "environment").write_text("SAMA_ACCESS_KEY=sandbox-key\n")
    for records in (30, 30, 35):  # the second is what a person would do who is not sure; then the export has grown
        workplace.write_tasks(records).rename(home / "srv" / "export" / "tonight.ndjson")
        done = night(home)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert Counter(workplace.sandbox.markers.values()) == {1: records}
    assert (home / "home" / ".local" / "share" / "bulksubmit" / "ledger.db").exists()


@pytest.mark.parametrize(
    ("codes", "code", "calls"),
    [([0], 0, 1), ([5, 6, 0], 0, 3), ([5, 3], 3, 2), ([5] * 9, 5, 6), *(([code], code, 1) for code in (1, 2, 4, 7, 9))],
)
def test_it_tries_again_while_that_helps_and_prints_only_what_a_person_must_read(home, codes, code, calls):
    log = home / "calls"
    counted = f'echo call >> "{log}"; set -- {" ".join(map(str, codes))}; shift $(($(wc -l < "{log}") - 1))'
    install(home, f'{counted}; echo "what came of it"; exit "$1"')
    done = night(home)
    assert done.returncode == code
    assert log.read_text().count("call") == calls
    assert done.stdout == (f"what came of it\nexit code {code}\n" if code else "")


def test_the_script_can_be_started(home):
    assert os.access(CRON / "bulksubmit-nightly", os.X_OK)
