"""Run the measurements: `python -m benchmarks [--quick] [--only NAME]`. Rows go to standard output, all to a folder.

A whole run writes `benchmarks/results/`: results.json, README.md (the page) and the plots that the page shows. A quick
one writes below `.bench/`, so that it never stands in for the other.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    adapting,
    described,
    end_to_end,
    following,
    known,
    memory,
    page,
    peers,
    per_record,
    presigned,
    readers,
    results,
    resume,
    scaling,
    searching,
    start,
    workers,
)
from benchmarks.harness import ROOT, WORKPLACE, NotMeasured, Section, Session, commit, compile_code, machine, peer

MEASURES: Mapping[str, Callable[[Session], Section]] = {
    "start": start.measure,
    "readers": readers.measure,
    "end_to_end": end_to_end.measure,
    "peers": peers.measure,
    "presigned": presigned.measure,
    "per_record": per_record.measure,
    "request": per_record.measure_request,
    "described": described.measure,
    "memory": memory.measure,
    "resume": resume.measure,
    "known": known.measure,
    "searching": searching.measure,
    "following": following.measure,
    "workers": workers.measure,
    "together": workers.measure_together,
    "adapting": adapting.chosen_on,
    "held_out": adapting.held_out,
    "scaling": scaling.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write down."""
    options = _options().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started ends, too
    compile_code()
    folder = options.results or (WORKPLACE / "quick" if options.quick else ROOT / "benchmarks" / "results")
    document = results.load(folder)
    for name in options.only or MEASURES:
        document["sections"][name] = _measured(name, document["sections"], quick=options.quick)
        results.save(folder, document)  # after each: a run that is broken off has not been for nothing
    document["sections"] = {name: document["sections"][name] for name in MEASURES if name in document["sections"]}
    results.save(folder, document)
    _draw(folder)
    print(page.write(folder))


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the measurements.")
    options.add_argument("--quick", action="store_true", help="small inputs and few repetitions: 3 minutes, not 20")
    options.add_argument("--only", action="append", choices=list(MEASURES), help="one measure; may be repeated")
    options.add_argument("--results", type=Path, help="folder of the results; other measures in it are kept")
    return options


def _measured(name: str, sections: results.Document, *, quick: bool) -> results.Document:
    """Measure one thing in an empty folder on the disk of the checkout: a ledger in memory would be no ledger."""
    where = {"commit": commit(), "machine": machine(), "when": time.strftime("%Y-%m-%d %H:%M"), "quick": quick}
    print(name, file=sys.stderr)
    started = time.monotonic()
    WORKPLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORKPLACE, prefix="session-") as folder:
        try:
            section = MEASURES[name](Session(Path(folder), quick, sections))
        except NotMeasured as missing:
            section = _nothing(name, str(missing))
        except Exception as failure:  # noqa: BLE001 - one measure that breaks does not cost the others
            traceback.print_exc()
            section = _nothing(name, f"it broke: {failure!r}")
    seconds = time.monotonic() - started
    document = results.as_json(section, {**where, "seconds": round(seconds, 1)})
    print(f"{section.title} ({seconds:.0f} s)")
    print(
        "\n".join(filter(None, [page.table(document["rows"]), *(f"  not measured: {m}" for m in section.not_measured)]))
    )
    return document


def _nothing(name: str, why: str) -> Section:
    return Section(name, name.replace("_", " "), "", not_measured=[why])


def _draw(folder: Path) -> None:
    try:
        subprocess.run(peer("benchmarks.plots", folder), cwd=ROOT, check=True)
    except (NotMeasured, subprocess.CalledProcessError) as failure:
        print(f"no plots: {failure}", file=sys.stderr)


if __name__ == "__main__":
    main()
