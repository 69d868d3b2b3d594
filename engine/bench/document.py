"""A bench in, its numbers out as one JSON object: what `bench.json` holds and `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from engine.bench.histogram import Percentiles
from engine.bench.orders import Bench, BenchStep

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def document(bench: Bench) -> dict[str, Any]:
    """Return everything that was measured; times in seconds, throughput in records per second."""
    plan = bench.plan
    return {
        "service": {"kind": plan.kind, "host": plan.host, "project": plan.project},
        "loop": "open" if any(load.rate is not None for load in plan.loads) else "closed",
        "seconds_per_step": bench.seconds,
        "seed": bench.seed,
        "settings": bench.settings,
        "steps": [_step(step) for step in bench.steps],
        "knee": _knee(bench),
        "best": bench.best.load.label if bench.best else None,
        "ended": bench.ended,
        "hints": bench.hints,
        "created": bench.tally.created,
        "failed": bench.tally.failed,
        "rejected": bench.tally.rejected,
        "uncertain": bench.tally.uncertain,
        "unresolved": bench.tally.unresolved,
        "exit_code": int(bench.exit_code),
        "files": {
            "outcomes": str(bench.outcomes),
            "json": str(bench.folder / "bench.json"),
            "html": str(bench.folder / "bench.html"),
            "ledger": str(bench.ledger),
        },
    }


def _knee(bench: Bench) -> Mapping[str, Any] | None:
    if bench.knee is None:
        return None
    return {"step": bench.steps[bench.knee.place].load.label, "reason": bench.knee.reason}


def _step(step: BenchStep) -> dict[str, Any]:
    load, measure = step.load, step.measure
    return {
        "load": load.label,
        "in_flight": load.in_flight,
        "rate": load.rate,
        "most_records": load.records,
        "batch_records": load.batch_records,
        "job": step.job,
        "started_seconds": round(step.started, 3),
        "seconds": round(measure.seconds, 3),
        "records": measure.due,
        "batches": measure.batches,
        "created": measure.created,
        "failed": measure.failed,
        "unfinished": measure.unfinished,
        "throughput": round(measure.throughput, 2),
        "time_to_created": _percentiles(measure.corrected),
        "time_to_created_uncorrected": _percentiles(measure.uncorrected),
        "calls": measure.calls,
        "answers_429": measure.pushed_back,
        "errors": measure.errors,
        "retries": measure.retries,
        "pauses": measure.pauses,
        "longest_pause_seconds": round(measure.longest_pause, 3),
        "pause_reason": measure.pause_reason,
        "first_error": measure.first_error,
        "timeline": [asdict(second) for second in measure.timeline],
    }


def _percentiles(times: Percentiles) -> dict[str, Any]:
    values = {"p50": times.p50, "p90": times.p90, "p99": times.p99, "p99.9": times.p999, "max": times.longest}
    return {
        "count": times.count,
        **{name: round(seconds, 6) for name, seconds in values.items()},
        "records_beyond": {name: times.beyond(share) for name, share in SHARES.items()},
    }
