"""Sources that are copied first, at full size: `python -m benchmarks.sources [--megabytes 1000] [--only FORM]`.

Each form is submitted and killed (SIGKILL) while it is copied, submitted again by the same command, killed while its
tasks are created, resumed to the end and audited. Printed is a JSON object for each form: seconds and peak memory of
each of the four commands (of the larger of its processes, in MiB), and what the sandbox's own journal says: how many
tasks there are, and whether each is there once.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path

from aiohttp import web

from benchmarks.ours import KEYS
from benchmarks.workload import MEGABYTE, SIZES, batch_records
from engine.sandbox.journal import count_markers
from engine.sandbox.seaweed import seaweed_uploads

CONFIG = """[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[batch]
max_records = 100

[send]
poll_seconds = 0.1
max_poll_seconds = 1
polls_per_second = 1000
"""
BEHAVIOUR = "[creation]\ntasks_per_second = 1000000.0\n"
_BLOCK_BYTES = 1 << 20
_LOOK_SECONDS = 0.01
_MOST_SECONDS = 1800.0
FORMS = ("ndjson", "gzip", "zstd", "http", "s3", "parquet", "utf-16")

Run = Callable[..., dict[str, float]]


def main() -> None:
    """Measure each form."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--megabytes", type=int, default=1000)
    options.add_argument("--only", choices=FORMS)
    said = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulksubmit-sources-") as name:
        plain = Path(name) / "tasks.ndjson"
        count = _write(plain, said.megabytes * MEGABYTE)
        for form in [said.only] if said.only else FORMS:
            print(json.dumps({"form": form} | asyncio.run(_measured(form, plain, count))), flush=True)


def _write(path: Path, size_bytes: int) -> int:
    """Write large records with an id each, by which the journal knows them; return their number."""
    rests = [line[line.index(b",") :] for line in batch_records("large")]
    count = size_bytes // SIZES["large"]
    with path.open("wb") as file:
        for number in range(count):
            file.write(b'{"data":{"id":"%d"' % number + rests[number % len(rests)] + b"\n")
    return count


async def _measured(form: str, plain: Path, count: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=plain.parent) as name, _sandbox(Path(name)) as (url, journal):
        folder = Path(name)
        config = folder / "sources.toml"
        config.write_text(CONFIG.format(url=url))
        async with _source(form, plain, folder) as (source, environment):
            run = partial(_run, folder=folder, environment={**os.environ, **KEYS, **environment})
            return await asyncio.to_thread(_work, run, source, plain, journal, count)


def _work(run: Run, source: str, plain: Path, journal: Path, count: int) -> dict[str, object]:
    size_bytes = plain.stat().st_size
    submit = ["submit", source, "--config", "sources.toml", "--ledger", "state/ledger.db"]
    figures: dict[str, object] = {"records": count, "bytes": size_bytes}

    def copied(folder: Path) -> bool:
        sizes = [path.stat().st_size for path in folder.glob("state/*/spooled-*")]
        return sum(sizes) > 0.2 * size_bytes

    copies = not source.endswith("tasks.ndjson") or "//" in source
    if copies:
        figures["killed while it is copied"] = run(submit, until=copied)
    figures["killed while tasks are created"] = run(submit, until=lambda _: _lines(journal) > count // 10)
    (job,) = _jobs(journal.parent)
    figures["resumed"] = run(["resume", job, "--ledger", "state/ledger.db"])
    figures["audited"] = run(["audit", job, "--ledger", "state/ledger.db"])
    created = count_markers(journal)
    figures |= {"created": len(created), "each once": set(created.values()) == {1}}
    return figures


def _jobs(folder: Path) -> Sequence[str]:
    return [path.name for path in folder.glob("state/*") if path.is_dir()]


def _lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def _run(
    arguments: Sequence[str],
    until: Callable[[Path], bool] | None = None,
    *,
    folder: Path,
    environment: Mapping[str, str],
) -> dict[str, float]:
    """Run a command to its end, or kill it once it has come so far."""
    command = [sys.executable, "-m", "engine", *arguments, "--json"]
    began, peak, killed = time.monotonic(), 0, False
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        peak = max(peak, _peak_kib(process.pid))
        if until is not None and not killed and until(folder):
            process.send_signal(signal.SIGKILL)
            killed = True
        if time.monotonic() - began > _MOST_SECONDS:
            process.kill()
        time.sleep(_LOOK_SECONDS)
    code = os.waitstatus_to_exitcode(ended[1])
    process.returncode = code
    if code != (-signal.SIGKILL if until else 0):
        raise SystemExit(f"{' '.join(arguments)} ended with {code}")
    peak = max(peak, ended[2].ru_maxrss)
    return {"seconds": round(time.monotonic() - began, 1), "peak_mib": round(peak / 1024, 1)}


def _peak_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


@contextmanager
def _sandbox(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve Sama in a process of its own; yield its URL and its journal."""
    behaviour, journal = folder / "behaviour.toml", folder / "journal.ndjson"
    behaviour.write_text(BEHAVIOUR)
    command = [sys.executable, "-m", "engine", "sandbox", "--port", "0", "--json", "--behaviour", str(behaviour)]
    process = subprocess.Popen([*command, "--journal", str(journal)], stdout=subprocess.PIPE)
    assert process.stdout is not None  # noqa: S101 - as it was asked for
    try:
        yield json.loads(process.stdout.readline())["url"], journal
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def _source(form: str, plain: Path, folder: Path) -> AsyncIterator[tuple[str, Mapping[str, str]]]:
    """Yield what names the source in a form, and the variables that it needs."""
    match form:
        case "gzip" | "zstd":
            packed = folder / f"tasks.ndjson.{'gz' if form == 'gzip' else 'zst'}"
            await asyncio.to_thread(_apart, _pack, form, plain, packed)
            yield str(packed), {}
        case "parquet":
            written = folder / "tasks.parquet"
            await asyncio.to_thread(_apart, _to_parquet, plain, written)
            yield str(written), {}
        case "utf-16":
            written = folder / "tasks.16.ndjson"
            await asyncio.to_thread(_apart, _to_utf16, plain, written)
            yield str(written), {}
        case "http":
            async with _serving(plain) as url:
                yield url, {}
        case "s3":
            async with seaweed_uploads() as store:
                client = store._client  # noqa: SLF001 - it signs with keys that nobody else has
                keys = client._request_signer._credentials  # noqa: SLF001 - likewise
                with plain.open("rb") as file:
                    await asyncio.to_thread(client.put_object, Bucket="uploads", Key="tasks.ndjson", Body=file)
                variables = {"AWS_ENDPOINT_URL": client.meta.endpoint_url, "AWS_REGION": "us-east-1"}
                secrets = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
                yield "s3://uploads/tasks.ndjson", variables | secrets
        case _:
            yield str(plain), {}


def _apart(write: Callable[..., None], *arguments: object) -> None:
    """Write a file in a process of its own: what is started by a process counts its peak as its own (`ru_maxrss`)."""
    process = multiprocessing.get_context("spawn").Process(target=write, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"the source was not written: {process.exitcode}")


def _pack(form: str, plain: Path, packed: Path) -> None:
    opened = import_module("backports.zstd").open if form == "zstd" else partial(gzip.open, compresslevel=1)
    with plain.open("rb") as source, opened(packed, "wb") as target:
        while block := source.read(_BLOCK_BYTES):
            target.write(block)


def _to_parquet(plain: Path, target: Path) -> None:
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    writer = None
    with plain.open("rb") as lines:
        while rows := [json.loads(line) for line in islice(lines, 1_000)]:
            table = arrow.Table.from_pylist(rows)
            writer = writer or parquet.ParquetWriter(target, table.schema)
            writer.write_table(table)
    if writer:
        writer.close()


def _to_utf16(plain: Path, target: Path) -> None:
    with plain.open(encoding="utf-8", newline="") as source, target.open("w", encoding="utf-16", newline="") as written:
        while block := source.read(_BLOCK_BYTES):
            written.write(block)


@asynccontextmanager
async def _serving(path: Path) -> AsyncIterator[str]:
    """Serve a file by http, with its parts and an ETag."""

    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        return web.FileResponse(path)

    app = web.Application()
    app.router.add_get("/tasks.ndjson", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/tasks.ndjson"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
