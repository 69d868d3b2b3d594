"""The presigned way: records in a file in, objects in a SeaweedFS out, against `curl -T` of files that are ready."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from benchmarks.harness import (
    Contender,
    NotMeasured,
    Row,
    Runs,
    Section,
    Session,
    Target,
    needs,
    python,
    run_once,
    speed_ratios,
)
from benchmarks.ours import IN_FLIGHT, NAME, sama_config, submitting
from benchmarks.workload import BLOCK_RECORDS, MEGABYTE, count_for, records, write_ndjson

CURL = "curl -T"

METHOD = f"""For each batch of 1,000 typical records bulksubmit creates an empty batch, PUTs the array to its \
presigned URL, continues it and follows it to its creation. The store is SeaweedFS, which verifies each signature; \
before it stands a small service that hands out the URLs and never reads what was uploaded. Against it, `curl -T` \
uploads the same arrays from ready files to URLs that are ready, {IN_FLIGHT} processes at once, each keeping its \
connection for 16 files: no parsing, no service, no ledger, no following. bulksubmit finds out by itself how many it \
sends at once."""


def measure(session: Session) -> Section:
    """Measure both in turn."""
    needs("curl", "xargs")
    count = count_for("typical", session.size(120, 30) * MEGABYTE)
    source = session.made(f"typical-{count}.ndjson", lambda path: write_ndjson(path, "typical", count))
    parts = _parts(session.folder / "parts", count)
    with _store() as url:
        config = sama_config(session.folder / "presigned.toml", url, mode="presigned")
        ours = submitting(source, config, count)
        curl = Contender(CURL, [], count, remark="ready files, ready URLs")
        runs: Runs = {NAME: [], CURL: []}
        for _ in session.rounds(5, 70).counted():
            runs[NAME].append(run_once(ours, session.folder))
            fresh = _list_of_uploads(session.folder / "uploads", url, parts)
            runs[CURL].append(run_once(_uploading(curl, fresh), session.folder))
    ratios = speed_ratios(runs, NAME, CURL)
    row = Row("presigned, typical records", "curl -T of ready files", ratios, Target(0.55, wish=1))
    settings = {"records": count, "requests at once": IN_FLIGHT}
    return Section("presigned", "The presigned way, to SeaweedFS", METHOD, [row], [ours, curl], runs, settings)


def _parts(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    stream = islice(records("typical"), count)
    paths: list[Path] = []
    while block := list(islice(stream, BLOCK_RECORDS)):
        paths.append(folder / f"{len(paths):06}.json")
        paths[-1].write_bytes(b"[%b]" % b",".join(block))
    return paths


def _list_of_uploads(path: Path, url: str, parts: list[Path]) -> Path:
    """Write a fresh URL for each part: a store may take longer to replace an object."""
    with urllib.request.urlopen(f"{url}/urls?count={len(parts)}") as answer:  # noqa: S310 - our own, on the loopback
        urls = answer.read().decode().split("\n")
    path.write_text("".join(f"{one}\n{part}\n" for one, part in zip(urls, parts, strict=True)))
    return path


def _uploading(curl: Contender, uploads: Path) -> Contender:
    script = Path(__file__).parent / "contenders" / "curl_put.sh"
    return Contender(CURL, ["sh", str(script), str(uploads), str(IN_FLIGHT)], curl.work, remark=curl.remark)


@contextmanager
def _store() -> Iterator[str]:
    command = python("benchmarks.store")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                said = process.stderr.read() if process.stderr else ""
                raise NotMeasured(f"SeaweedFS did not start: {said.strip().splitlines()[-1:]}")
            yield json.loads(line)["url"]
        finally:
            process.terminate()
