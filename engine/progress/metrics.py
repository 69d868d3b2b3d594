"""Metrics of a load for the textfile collector of Prometheus' node_exporter. `commands.runs` writes them.

https://github.com/prometheus/node_exporter#textfile-collector: a file is put in place whole, and its samples have no
timestamps. Times are told, and no ages: who collects them counts how long ago they were. One file tells of one load.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from engine.model.runs import Standing

STAGES = ("read", "send", "settle", "all")
"""Of a run; they overlap, since records flow."""
_MODE = 0o644
"""The collector is another user. What stands in the file is no secret: names and numbers."""


class LoadMetrics(Struct, frozen=True):
    """What is told of a load that comes back."""

    load: str
    """Name of the family, or of the job where it is of none."""
    version: str
    standing: Standing
    records: Mapping[str, int]
    """Fate → records of the newest job of which anything was counted; nothing if there is none."""
    seconds: Mapping[str, float]
    """Stage → seconds of that job's newest run; nothing likewise."""


def metrics_text(metrics: LoadMetrics) -> bytes:
    """Return the lines of the file."""
    from prometheus_client import CollectorRegistry, Gauge, Info, generate_latest  # noqa: PLC0415 - only where asked for

    registry = CollectorRegistry()

    def gauge(name: str, help_: str, values: Mapping[str, float], label: str = "") -> None:
        labels = ["job_name", label] if label else ["job_name"]
        made = Gauge(f"bulksubmit_job_{name}", help_, labels, registry=registry)
        for key, value in values.items():
            made.labels(metrics.load, *([key] if label else [])).set(value)

    standing = metrics.standing
    success = {} if standing.last_success is None else {"": standing.last_success}
    gauge("last_success_timestamp_seconds", "When a run ended with exit code 0.", success)
    gauge("last_completion_timestamp_seconds", "When a run ended, however.", {"": standing.last_completion})
    # No sample before a first run has ended: 0 would look good.
    codes = {} if standing.exit_code is None else {"": float(standing.exit_code)}
    gauge("exit_code", "How the run that ended last ended.", codes)
    stages = {stage: metrics.seconds.get(stage, 0.0) for stage in STAGES if metrics.seconds}
    gauge("duration_seconds", "How long each stage of the newest run took; stages overlap.", stages, "stage")
    gauge("records", "Records of the newest job that has read any, by their state.", metrics.records, "state")
    Info("bulksubmit_build", "Which bulksubmit it was.", registry=registry).info({"version": metrics.version})
    return generate_latest(registry)


def write_textfile(path: Path, content: bytes) -> None:
    """Put a file in its place whole, readable for everybody.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    growing = path.with_name(f".{path.name}.{os.getpid()}")  # does not end with .prom, so nobody collects it
    with suppress(FileNotFoundError):
        growing.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(growing, flags, _MODE), "wb") as file:
            os.fchmod(file.fileno(), _MODE)  # whatever the umask
            file.write(content)
        growing.replace(path)
    except OSError:
        with suppress(OSError):
            growing.unlink()
        raise
