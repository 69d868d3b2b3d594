"""Words of the command line in, loads to try out, each heavier than the one before it; and where to stop: the knee.

A closed loop keeps so many batches under way and sends the next one when one of them is done. An open loop sends on a
schedule, whether or not the service keeps up: as the records of a day do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

from engine.model.errors import ConfigError
from engine.model.settings import AUTO, MOST_IN_FLIGHT

FIRST_RATE = 100.0
"""Records per second with which `--rate auto` begins."""
LEAST_RISE = 1.1
"""From one step to the next; below it, a gain is told from none by chance."""
LEAST_GAIN = 1.05
MOST_SLOWER = 2.0
MOST_CHOSEN = 1000
"""What `send.max_in_flight` may be at most."""


@dataclass(frozen=True, slots=True)
class Load:
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
        """Return what people call it."""
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
    # in all steps, for larger batches take longer, and that is no matter of the rate.
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


@dataclass(frozen=True, slots=True)
class Point:
    """What a step reached."""

    throughput: float
    """Records per second."""
    latency: float
    """Seconds; the median."""


@dataclass(frozen=True, slots=True)
class Knee:
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
