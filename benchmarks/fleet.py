"""Workers in, how many requests they had sent by when: processes of the engine that send one job to the sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, RUN_SECONDS, NotMeasured

ENGINE = (sys.executable, "-m", "engine")
JOB = "bench"
LOOK_SECONDS = 0.1
STOP_SECONDS = 30.0
SECRETS = {"BULK_KEY": "sandbox-key"}

UPSERTS = """[service]
kind = "http"
base_url = "{url}/safe"
auth = {{ kind = "bearer", secret = "${{env:BULK_KEY}}" }}
limit = {{ records = {batch_records} }}
record = {{ key = "${{job}}-${{token}}-${{index}}", template = {{ id = "${{key}}", properties = "${{task}}" }} }}
body = {{ under = "inputs" }}
release = {{ call = "POST /records/batch/upsert", payload = true, again = "safe" }}
results = {{ of = "release", items = "results", match = "key", key = "key", id = ["id"] }}
"""
"""The upsert of the sandbox's made-up services: one call a batch, whose answer tells of each record."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the service had seen by a time."""

    at: float
    """Monotonic seconds."""
    requests: int
    refused: int
    """Of them with 429."""


@contextmanager
def sandbox(folder: Path, behaviour: str) -> Iterator[str]:
    """Serve upserts on a free port of the loopback until the block ends; yield `http://host:port`.

    Raises:
        NotMeasured: it does not start.
    """
    path = folder / "behaviour.toml"
    path.write_text(f'service = "bulk"\n{behaviour}')
    command = [*ENGINE, "sandbox", "--behaviour", str(path), "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline() if process.stdout else ""
            if not said:
                raise NotMeasured("the sandbox did not start")
            yield str(json.loads(said)["url"]).rstrip("/")
        finally:
            process.terminate()


def look(url: str) -> Look:
    """Ask the sandbox what it has seen."""
    with urllib.request.urlopen(f"{url}/sandbox/stats") as answer:  # noqa: S310 - our own server
        told = json.load(answer)
    return Look(time.monotonic(), sum(told["requests"].values()), told["rate_limited"])


def send(  # noqa: PLR0913, PLR0917 - what differs between fleets
    folder: Path, workers: int, source: Path, config: Path, ledger: str, url: str, environment: Mapping[str, str]
) -> Sequence[Look]:
    """Have one process submit the job and so many less one take part; return looks from its start to its end.

    Raises:
        NotMeasured: one of them failed, or the job does not end.
    """
    submit = ["submit", str(source), "--config", str(config), "--job", JOB, "--output", str(folder / "reports")]
    commands = [submit, *[["work", JOB, "--stay"]] * (workers - 1)]
    environment = {**os.environ, **SECRETS, **environment, "PYTHONPATH": str(ROOT), "BULKSUBMIT_LEDGER": ledger}
    with ExitStack() as stack:
        logs = [stack.enter_context((folder / f"{number}.log").open("wb")) for number in range(workers)]
        processes = [
            subprocess.Popen([*ENGINE, *command, "--json"], cwd=folder, env=environment, stdout=log, stderr=log)
            for command, log in zip(commands, logs, strict=True)
        ]
        try:
            return _until_sent(processes[0], folder / "0.log", url)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
                process.kill()


def _until_sent(process: subprocess.Popen[bytes], log: Path, url: str) -> Sequence[Look]:
    looks = [look(url)]
    while process.poll() is None:
        if looks[-1].at - looks[0].at > RUN_SECONDS:
            raise NotMeasured("the job does not end")
        time.sleep(LOOK_SECONDS)
        looks.append(look(url))
    if process.returncode:
        raise NotMeasured(f"submit ended with {process.returncode}: {log.read_text(errors='replace')[-400:]}")
    return looks
