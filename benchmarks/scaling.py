"""Costs that the same run has measured, and those that were set or assumed -> how long a billion records would take."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks import end_to_end, following, readers
from benchmarks.harness import Section, Session
from benchmarks.ours import NAME
from benchmarks.simulation import scale
from benchmarks.simulation.scale import Cost
from benchmarks.workload import SIZES

KIND = "typical"
CALLS_BESIDE_POLLS = 3
"""Create, put and continue; the fate of each record comes with the poll."""

METHOD = """A model says what 10⁹ records would take, and what gives way first. What the measures of the same run tell \
it takes from them, and the rest from `benchmarks/simulation/measured.json`:"""


def measure(session: Session) -> Section:
    """Reckon what many machines would do."""
    known = {**scale.read_costs(), **measured(session.sections)}
    costs = scale.costs_of(known)
    tables = [
        ("Against a service with global limits", costs),
        ("Against a service that takes whatever comes", scale.unlimited(costs)),
    ]
    parts = [METHOD, _table(known)]
    for title, assumed in tables:
        outlooks = [scale.outlook(assumed, machines) for machines in scale.MACHINES]
        parts += [f"{title}:", f"```\n{scale.table(outlooks)}\n```"]
    return Section("scaling", "A billion records", "\n\n".join(parts))


def _table(known: Mapping[str, Cost]) -> str:
    lines = ["| figure | value | known | from |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name.replace('_', ' ')} | {cost.value:,.12g} | {cost.known} | {cost.source} |"
        for name, cost in known.items()
    ]
    return "\n".join(lines)


def measured(sections: Mapping[str, Any]) -> dict[str, Cost]:
    """Return the costs that sections of results tell, as far as they are there."""
    polls = [following.follow(one).polls / one.batches for one in following.SCENARIOS.values()]
    found = {"calls_per_batch": (CALLS_BESIDE_POLLS + median(polls), "following: polls, and three calls besides")}
    if "resume" in sections:
        settings = sections["resume"]["settings"]
        found["ledger_bytes_per_record"] = settings["bytes"] / settings["records"], "resume: the ledger's size"
    if f"{readers.NDJSON}, {KIND}" in sections.get("readers", {}).get("runs", ()) and "end_to_end" in sections:
        found |= _microseconds(sections["readers"]["runs"], sections["end_to_end"]["runs"])
        found["record_bytes"] = SIZES[KIND], "end_to_end: the records that were sent"
    return {name: Cost(round(value, 2), "measured", source) for name, (value, source) in found.items()}


def _microseconds(reading: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Return CPU a record: of reading, of ledger and reports, and of all that is left."""
    read = _median(reading[f"{readers.NDJSON}, {KIND}"], "seconds")
    forgetful = _median(whole[f"{end_to_end.NO_LEDGER}, {KIND}"], "cpu_seconds")
    report = max(0.0, _median(whole[f"{NAME}, {KIND}"], "cpu_seconds") - forgetful)
    return {
        "read_microseconds_per_record": (read, "readers: one process, without its imports"),
        "send_microseconds_per_record": (
            max(0.0, forgetful - read),
            "end_to_end: what is left, starts of processes too",
        ),
        "report_microseconds_per_record": (report, "end_to_end: what is saved without ledger and reports"),
    }


def _median(runs: list[Any], key: str) -> float:
    return 1e6 * float(median(run[key] / run["work"] for run in runs))
