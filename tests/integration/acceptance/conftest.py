"""The installed command against a sandbox that is a process of its own: nothing here shares memory with the engine."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes.served import served

from engine.sandbox.journal import count_markers

COMMAND = [sys.executable, "-m", "engine"]
SECONDS = 60
"""Longest a command may take; none takes ten."""


@dataclass
class Sandbox:
    url: str
    journal: Path

    @property
    def markers(self) -> Counter:
        return count_markers(self.journal) if self.journal.exists() else Counter()


@dataclass
class Finished:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out.splitlines()[-1])


class Workplace:
    """A folder with a configuration, as somebody who uses the command has it."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.environment = os.environ | {"SAMA_ACCESS_KEY": "sandbox-key"}

    def configure(self, *, mode="presigned", more="", settle_seconds=0.5) -> Path:
        config = self.folder / "sama.toml"
        config.write_text(
            f'[service]\nkind = "sama"\nbase_url = "{self.sandbox.url}"\nproject_id = 42\n'
            f'access_key = "${{env:SAMA_ACCESS_KEY}}"\nmode = "{mode}"\n{more}\n[send]\n'
            f"poll_seconds = 0.02\nsettle_seconds = {settle_seconds}\n"
        )
        return config

    def write_tasks(self, count: int, name="tasks.ndjson", **data: str) -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps({"data": {"id": f"task-{n}", **data}}) + "\n" for n in range(count)))
        return path

    def run(self, *arguments, stdin=None, **variables) -> Finished:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def lines(self, job: str, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / ".bulksubmit" / job / name).read_text().splitlines()]


@pytest.fixture
def behaviour() -> str:
    """TOML of how the sandbox behaves; a test that wants another one says so by parametrizing it."""
    return ""


@pytest.fixture
def sandbox(tmp_path, behaviour):
    with served(tmp_path, behaviour + '\n[journal]\nmarker = "data.id"\n') as (url, journal):
        yield Sandbox(url, journal)


@pytest.fixture
def workplace(tmp_path, sandbox) -> Workplace:
    folder = tmp_path / "work"
    folder.mkdir()
    return Workplace(folder, sandbox)
