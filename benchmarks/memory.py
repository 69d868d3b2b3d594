"""Peak memory of `submit` for a small file and a large one, as NDJSON and as one JSON array: it must not grow.

The sandbox is a process of its own and forgets the tasks it creates; what is measured is the command alone, by the
operating system (`ru_maxrss` of the child).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workload import write_array, write_ndjson

MEGABYTE = 10**6
COMMAND = [sys.executable, "-m", "engine"]
WRITERS = {"ndjson": write_ndjson, "json": write_array}


@dataclass(frozen=True)
class Peak:
    """What one `submit` took."""

    format: str
    size_bytes: int
    records: int
    created: int
    peak_mebibytes: float


def measure(folder: Path, sizes: tuple[int, int]) -> list[Peak]:
    """Submit a file of each format and size (bytes) to a sandbox in `folder`."""
    with _sandbox(folder) as url:
        return [_peak(folder, url, kind, size) for kind in WRITERS for size in sizes]


def _peak(folder: Path, url: str, kind: str, size: int) -> Peak:
    source = folder / f"tasks.{kind}"
    records = WRITERS[kind](source, size)
    config = folder / "sama.toml"
    config.write_text(
        f'[service]\nkind = "sama"\nbase_url = "{url}"\nproject_id = 1\naccess_key = "${{env:SAMA_ACCESS_KEY}}"\n'
    )
    job = f"{kind}-{size}"
    command = [*COMMAND, "submit", str(source), "--config", str(config), "--job", job, "--json", "--quiet"]
    environment = os.environ | {"SAMA_ACCESS_KEY": "sandbox-key"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        out = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    source.unlink()
    return Peak(kind, size, records, json.loads(out)["created"], usage.ru_maxrss / 1024)


@contextmanager
def _sandbox(folder: Path) -> Iterator[str]:
    behaviour = folder / "behaviour.toml"
    behaviour.write_text("keep_task_data = false\n")
    command = [*COMMAND, "sandbox", "--port", "0", "--json", "--behaviour", str(behaviour)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline() if process.stdout else "")["url"]
        finally:
            process.terminate()


def table(peaks: list[Peak]) -> str:
    """Render the figures, each large file as a ratio to the small one of its format."""
    lines = ["format      bytes       records   created   peak MiB  ratio"]
    for peak in peaks:
        small = next(other for other in peaks if other.format == peak.format)
        ratio = peak.peak_mebibytes / small.peak_mebibytes
        lines.append(
            f"{peak.format:<8} {peak.size_bytes:>13,} {peak.records:>10,} {peak.created:>10,} "
            f"{peak.peak_mebibytes:>8.1f}  {ratio:.2f}"
        )
    return "\n".join(lines)
