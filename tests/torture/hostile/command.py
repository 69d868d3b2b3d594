"""A folder in which the real command is run, and what it left behind: words, exit code, files, most memory."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CONFIG = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"
{service}

[batch]
max_records = 10

[send]
poll_seconds = 0.01
max_poll_seconds = 0.05
polls_per_second = 1000
connect_seconds = 2
answer_seconds = 5
retry_base_seconds = 0.01
retry_cap_seconds = 0.02
give_up_seconds = {give_up}

{more}
"""
SECONDS = 60
"""Longest a command may take; none takes five."""
PROGRAM = ("-m", "torture.hostile.betrayed")
SEARCHED = os.pathsep.join(map(str, Path(__file__).parents[2:4]))
"""Where the command finds itself and its accidents."""


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    out: str
    err: str
    peak_mib: float

    @property
    def json(self) -> dict:
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True, slots=True)
class Place:
    """A working folder; `environment` is added to this process's own."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def configure(self, url: str, *, service: str = "", give_up: float = 0.5, more: str = "") -> Path:
        path = self.folder / "engine.toml"
        path.write_text(CONFIG.format(url=url, service=service, give_up=give_up, more=more))
        return path

    def write_tasks(self, count: int) -> Path:
        path = self.folder / "tasks.ndjson"
        path.write_text("".join(json.dumps({"data": {"id": str(number)}}) + "\n" for number in range(count)))
        return path

    async def run(
        self, *arguments: object, stdin: Path | None = None, umask: int = -1, accident: str = "none", **variables: str
    ) -> Finished:
        """Run `bulksubmit …` to its end, or to the `accident` that `betrayed.py` brings it."""
        peak = self.folder / "peak"
        with (stdin or Path(os.devnull)).open("rb") as standard_input:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *PROGRAM, str(peak), accident, *map(str, arguments)),
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": SEARCHED, **self.environment, **variables},
                stdin=standard_input,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                umask=umask,
            )
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        mib = int(peak.read_text()) / 1024 if peak.exists() else 0.0  # it may have been killed
        peak.unlink(missing_ok=True)
        return Finished(process.returncode, out.decode(), err.decode(), mib)


def port_of(url: str) -> int:
    return int(url.split(":")[2].partition("/")[0])


def files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, links not followed."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() or path.is_symlink():
            yield path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)
