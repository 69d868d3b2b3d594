"""Measured costs of one machine and a service's global limits -> how long 10^9 records take, and what saturates first.

A discrete-event model: every batch passes the core and the uplink of its machine, then the service's calls and
the service's creation, each station one after the other; a machine has so many batches on their way and no more. A
sample of batches is simulated until the pace is steady, and the rest is extrapolated: the pace of a line of queues does
not change once its slowest station is busy all the time.

What the model leaves out, it would only make worse: machines that do not know of each other learn of a global limit by
push-back alone, and a single writer is behind every ledger. It assumes that the sources are split beforehand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from heapq import heapify, heappop, heappush
from pathlib import Path

MEASURED = Path(__file__).with_name("measured.json")
RECORDS = 10**9
MACHINES = (1, 10, 100, 1000)
_SAMPLE_BATCHES = 20_000
"""Batches that are measured, after as many as fit on the way at once have filled the line."""
_SATURATED = 0.9
"""Share of the time from which a station is what holds the others up."""
_STATIONS = ("CPU", "uplink", "service's calls", "service's creation")


@dataclass(frozen=True, slots=True)
class Cost:
    """A figure, and how it is known."""

    value: float
    known: str
    """measured: by the same run; measured before; set: a setting or a ceiling of the engine; assumed."""
    source: str


@dataclass(frozen=True, slots=True)
class Costs:
    """What a record and a batch cost, and what there is; `measured.json` names the source of each."""

    read_microseconds_per_record: float
    send_microseconds_per_record: float
    report_microseconds_per_record: float
    ledger_bytes_per_record: float
    outcome_bytes_per_record: float
    record_bytes: float
    batch_records: float
    calls_per_batch: float
    call_seconds: float
    batches_in_flight: float
    uplink_bytes_per_second: float
    disk_bytes: float
    service_calls_per_second: float
    service_tasks_per_second: float

    @property
    def cpu_microseconds_per_record(self) -> float:
        """CPU of the busier of a machine's two processes: one reads, the other sends and reports."""
        return max(
            self.read_microseconds_per_record, self.send_microseconds_per_record + self.report_microseconds_per_record
        )

    def station_seconds(self) -> tuple[float, ...]:
        """Seconds that a batch keeps each of the stations busy."""
        return (
            self.cpu_microseconds_per_record * 1e-6 * self.batch_records,
            self.record_bytes * self.batch_records / self.uplink_bytes_per_second,
            self.calls_per_batch / self.service_calls_per_second,
            self.batch_records / self.service_tasks_per_second,
        )


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a load would take."""

    machines: int
    records_per_second: float
    seconds: float
    busy: Mapping[str, float]
    """Share of the time that a station works; of those that every machine has, the mean."""
    disk_bytes_per_machine: float
    """Ledger and outcomes."""
    breaks_first: str


def read_costs(path: Path = MEASURED) -> Mapping[str, Cost]:
    """Read the costs that hold where nothing was measured; each is an object with the fields of `Cost`."""
    read = json.loads(path.read_text(encoding="utf-8"))
    return {field.name: Cost(**read[field.name]) for field in fields(Costs)}


def costs_of(known: Mapping[str, Cost]) -> Costs:
    """Return the figures alone."""
    return Costs(**{name: cost.value for name, cost in known.items()})


def outlook(costs: Costs, machines: int, records: int = RECORDS) -> Outlook:
    """Simulate a sample of the load on so many machines and extrapolate."""
    pace, busy = _simulate(costs, machines)
    per_second = pace * costs.batch_records
    disk = (costs.ledger_bytes_per_record + costs.outcome_bytes_per_record) * records / machines
    slowest = max(busy, key=lambda name: busy[name])
    first = f"{slowest} ({busy[slowest]:.0%} busy)"
    if disk > costs.disk_bytes:
        first = f"disk: {disk / 1e9:.0f} GB of ledger and outcomes"
    elif busy[slowest] < _SATURATED:
        first = f"nothing is saturated: {costs.batches_in_flight:.0f} batches in flight are too few"
    return Outlook(machines, per_second, records / per_second, busy, disk, first)


def _simulate(costs: Costs, machines: int) -> tuple[float, Mapping[str, float]]:
    """Return batches a second, and the share of the time that each station works at this pace."""
    filling = machines * int(costs.batches_in_flight)
    seconds = costs.station_seconds()
    waits = (0.0, 0.0, costs.calls_per_batch * costs.call_seconds, 0.0)
    own = [[0.0] * machines, [0.0] * machines]
    shared = [0.0, 0.0]
    queue = [(0.0, 0, machine) for _ in range(int(costs.batches_in_flight)) for machine in range(machines)]
    heapify(queue)
    ended: list[float] = []
    while len(ended) < filling + _SAMPLE_BATCHES:
        now, station, machine = heappop(queue)
        if station == len(_STATIONS):
            ended.append(now)
            heappush(queue, (now, 0, machine))
            continue
        lines, place = (own[station], machine) if station < len(own) else (shared, station - len(own))
        lines[place] = max(now, lines[place]) + seconds[station]
        heappush(queue, (lines[place] + waits[station], station + 1, machine))
    pace = _SAMPLE_BATCHES / (ended[-1] - ended[filling - 1])
    shares = [pace * each / (machines if number < len(own) else 1) for number, each in enumerate(seconds)]
    return pace, dict(zip(_STATIONS, shares, strict=True))


def unlimited(costs: Costs) -> Costs:
    """Return the same machines before a service that takes whatever comes: what is left is our own limit."""
    return replace(costs, service_calls_per_second=math.inf, service_tasks_per_second=math.inf)


def table(outlooks: Sequence[Outlook]) -> str:
    """Render the outlooks."""
    lines = ["machines      records/s       hours    disk GB/machine  breaks first"]
    lines += [
        f"{one.machines:>8,} {one.records_per_second:>14,.0f} {one.seconds / 3600:>11.2f} "
        f"{one.disk_bytes_per_machine / 1e9:>18.2f}  {one.breaks_first}"
        for one in outlooks
    ]
    return "\n".join(lines)
