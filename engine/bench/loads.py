"""What a bench asks of a service, step by step: the loads, where to stop, when each batch is due, and made-up records.

A closed loop keeps so many batches under way and sends the next one when one of them is done. An open loop sends on a
schedule, whether or not the service keeps up: as the records of a day do. `commands.bench` runs the steps.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, pairwise, takewhile
from typing import Any, TypeAlias

import orjson
from msgspec import Struct

from engine.batch.chunker import Plan
from engine.model.batch import Batch
from engine.model.errors import ConfigError
from engine.model.record import Row
from engine.model.settings import AUTO, MOST_IN_FLIGHT, MappingSettings
from engine.services.base import SampleTask, ServiceModule

FIRST_RATE = 100.0
"""Records per second with which `--rate auto` begins."""
LEAST_RISE = 1.1
"""From one step to the next; below it, a gain is told from none by chance."""
LEAST_GAIN = 1.05
MOST_SLOWER = 2.0
MOST_CHOSEN = 1000
"""The most that `send.max_in_flight` may be."""


class Load(Struct, frozen=True):
    """What one step asks of the service."""

    records: int
    """It has at most."""
    batch_records: int
    in_flight: int | None = None
    """Batches at once, each until its fate is known. None in a closed loop: the engine finds out."""
    rate: float | None = None
    """Records per second on a schedule; None: a closed loop."""

    @property
    def level(self) -> float | None:
        """How heavy it is, to compare it with others; None if that is found out."""
        return self.rate if self.rate is not None else self.in_flight

    @property
    def label(self) -> str:
        """Return its name for people."""
        return AUTO if self.level is None else f"{self.level:g}"


def closed_loads(steps: str | None, records: int, batch_records: int) -> Sequence[Load]:
    """Return the loads of `1,2,4,auto`; left out, they double while a step has a batch for each place.

    Raises:
        ConfigError: that is no list of numbers, or they do not rise.
    """
    if steps is None:
        most = min(MOST_IN_FLIGHT, max(1, records // batch_records))
        return [Load(records, batch_records, int(n)) for n in takewhile(lambda n: n <= most, _doubled(1))]
    words = [word.strip() for word in steps.split(",")]
    numbers = [_number(word, "--steps") for word in words if word != AUTO]
    if any(number != int(number) or number > MOST_CHOSEN for number in numbers):
        raise ConfigError(f"--steps {steps}: batches at once are whole numbers up to {MOST_CHOSEN}")
    _check_rising(numbers, "--steps")
    loads = [Load(records, batch_records, int(number)) for number in numbers]
    return loads + [Load(records, batch_records)] * (AUTO in words)


def open_loads(rates: Sequence[str], records: int, batch_records: int, seconds: float) -> Sequence[Load]:
    """Return the loads of some rates in records per second, or of `auto`: doubled as long as the records last 1 s.

    Raises:
        ConfigError: they are no numbers, or do not rise.
    """
    if AUTO in rates:
        if len(rates) > 1:
            raise ConfigError("--rate auto stands alone: it doubles from 100 records per second on")
        chosen = list(takewhile(lambda rate: rate <= max(records, FIRST_RATE), _doubled(FIRST_RATE)))
    else:
        chosen = [_number(rate, "--rate") for rate in rates]
        _check_rising(chosen, "--rate")
    # A batch is what arrives in a second at the lowest rate: with more, little would be measured there. It is the same
    # in all steps: larger batches take longer, and steps shall differ by their rate alone.
    together = max(1, min(batch_records, int(chosen[0])))
    return [Load(max(1, min(records, round(rate * seconds))), together, rate=rate) for rate in chosen]


def _doubled(first: float) -> Iterator[float]:
    value = first
    while True:
        yield value
        value *= 2


def _number(word: str, option: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{option} {word}: must be a number above 0, or {AUTO}")
    return value


def _check_rising(numbers: Sequence[float], option: str) -> None:
    for before, after in pairwise(numbers):
        if after < before * LEAST_RISE:
            raise ConfigError(f"{option}: {after:g} after {before:g}; each must be above the one before by a tenth")


class Point(Struct, frozen=True):
    """What a step reached."""

    throughput: float
    """Records per second."""
    latency: float
    """Seconds; the median."""


class Knee(Struct, frozen=True):
    """The last step that paid."""

    place: int
    reason: str


def find_knee(points: Sequence[Point]) -> Knee | None:
    """Return the knee of steps of rising load: beyond it throughput hardly gains, or half of the tasks take twice."""
    for place, (before, after) in enumerate(pairwise(points)):
        if after.throughput < before.throughput * LEAST_GAIN:
            gain = after.throughput / before.throughput - 1 if before.throughput else 0.0
            return Knee(place, f"the next step changed throughput by {gain:+.0%}")
        if before.latency > 0 and after.latency >= before.latency * MOST_SLOWER:
            return Knee(place, f"in the next step the median took {after.latency / before.latency:.1f} times as long")
    return None


# When each batch is due

Due: TypeAlias = Callable[[Batch, float], None]
"""Is told of each batch, and of the monotonic second at which it was due."""


class Timing(Struct, frozen=True):
    """The time, and how to wait."""

    monotonic: Callable[[], float]
    wait: Callable[[float], bool]
    """Wait for some seconds; True, at once, if the step ends early."""


def paced(plans: Iterator[Plan], load: Load, seconds: float, timing: Timing, due: Due) -> Iterator[Plan]:
    """Yield the batches of `plans` when they are due, a closed loop for `seconds` at most; the last plan says so.

    The pipeline asks for the next plan when it has room, in a worker thread, so waiting here holds up nothing else. In
    an open loop a batch that is asked for late was due all the same: its time is that of the schedule.
    """
    started = timing.monotonic()
    for plan in _singly(plans):
        at = timing.monotonic()
        if load.rate is not None and plan.batches:
            # A batch is complete once its last record has arrived.
            at = started + plan.batches[0].end.index / load.rate
        over = load.rate is None and at - started >= seconds
        if over or timing.wait(max(0.0, at - timing.monotonic())):
            yield Plan((), (), plan.reached, last=True)
            return
        for batch in plan.batches:
            due(batch, at)
        yield plan


def _singly(plans: Iterator[Plan]) -> Iterator[Plan]:
    """Yield each batch as a plan of its own, with the rejects within its boundaries."""
    for plan in plans:
        if not plan.batches:
            yield plan
        for batch in plan.batches:
            within = range(batch.start.index, batch.end.index)
            rejects = [reject for reject in plan.rejects if reject.index in within]
            yield Plan((batch,), rejects, plan.reached, last=plan.last and batch is plan.batches[-1])


# Made-up records, for a bench without files

_COLUMN = re.compile(r"\$\{row\.([^}]+)\}")


def generated(service: ServiceModule, kind: str, mapping: MappingSettings, seed: int) -> Iterator[bytes]:
    """Yield records without end, as the mapping of the configuration takes them: for a template, its columns.

    Raises:
        ConfigError: the service does not say what a task of its own looks like.
    """
    if mapping.template:
        columns = sorted(set(_columns(mapping.template)))
        return (_dumps({column: f"{column}-{seed}-{number}" for column in columns}) for number in count())
    sample: SampleTask | None = getattr(service, "sample", None)
    if sample is None:
        raise ConfigError(
            f"service.kind {kind!r}: its tasks cannot be made up: name a SOURCE with tasks, or write a "
            "[mapping.template] that makes them of generated columns"
        )
    draw = random.Random(seed)
    tasks = (sample(draw, f"bench-{seed}-{number}") for number in count())
    return (_dumps(task.get(mapping.wrap or "", task)) for task in tasks)


def _dumps(row: Row) -> bytes:
    return orjson.dumps(row)


def _columns(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _COLUMN.findall(value)
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _columns(one)
