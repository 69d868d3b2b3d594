"""What polls show of a service's speed -> how long a batch should take, and how much later to aim the poll. Pure.

A poll that finds a batch done does not tell for how long it has been. So the aim creeps earlier with every such poll
until one comes too early: that one shows exactly how far the batch is, and costs one poll more. About every fourth
batch pays it, and the median batch is known soon after its end although nobody ever told how fast the service is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.adaptive.poll_batch import PolledBatch

_SMOOTHING = 0.4
"""Weight of the newest speed: Vector's `ewma_alpha`, which follows a change within about three polls."""

MARGIN = 0.05
"""Share of a batch's creation time by which a poll comes later than the end foretold. Half of what is tolerable."""
_MARGIN_TOGETHER = 0.08
"""Likewise where a poll covers many batches: waiting lets more of them finish, and those that have not cost nothing."""
_CREEP = 0.005
"""The aim moves earlier by this share of the creation time, doubled with each poll in a row that found a batch done."""
_MOST_CREEP = 0.32
_MISSED = 0.07
"""And later by this after one that came too early: what three polls before had won, so one of four misses."""
_MOST_HITS = 5
"""After more polls in a row that found a batch done, we may also err about the lanes."""
_AIMS = (0.3, 2.0)
"""An aim beyond is none any more: then it is the speed that is wrong."""
_SURPRISE = 0.35
"""A speed that differs by more is a change of the service, or we err about when the batch was begun."""
PACE_STEP = 0.02
"""A pace, or an aim, that differs by less is the same."""
LEAST_SECONDS = 0.002
"""Between two polls of a batch; a service that creates a task in no time must not be asked in no time."""


@dataclass(slots=True)
class CreationSpeed:
    """How fast a service creates tasks, over all batches."""

    tasks_per_second: float = 0.0

    def observe(self, created: int, seconds: float) -> None:
        """Take in that `created` tasks appeared within `seconds`; no time, no news."""
        if seconds <= 0:
            return
        speed = created / seconds
        known = self.tasks_per_second
        self.tasks_per_second = known + _SMOOTHING * (speed - known) if known else speed


@dataclass(frozen=True, slots=True)
class Sighting:
    """How fast one batch seems to be created, and how well that is known."""

    speed: float
    """Tasks/s."""
    rough: bool
    """From a few tasks only: counts are whole."""
    pair: bool
    """Two looks saw the batch under way, so that its begin is no matter of it."""
    surprise: bool
    """It is not what other batches have shown."""


@dataclass(slots=True)
class Pace:
    """How fast a service creates a batch, and the aim of the polls that should find one done."""

    together: int
    """Batches that one poll covers."""
    speed: float = 0.0
    """Tasks/s of one batch that is being worked on; 0 while unknown."""
    start_seconds: float = 0.0
    """From release to the first task, where nothing stands ahead."""
    sure: bool = False
    """A poll has come too early before: until then, the speed is only known not to be lower."""
    aim: float = field(init=False)
    """When to look, as a share of the creation time."""
    _streak: int = 0
    """Polls in a row that found a batch done."""

    def __post_init__(self) -> None:
        self.aim = 1 + self.margin

    @property
    def margin(self) -> float:
        """By which share of its creation time a batch is looked at later than it should be done."""
        return MARGIN if self.together == 1 else _MARGIN_TOGETHER

    def surprises(self, speed: float) -> bool:
        """Tell whether a speed is not the one that is known."""
        return self.speed > 0 and abs(speed / self.speed - 1) > _SURPRISE

    def take_first(self, one: PolledBatch, now: float) -> None:
        """Take in the first batch that was found done: it ended between the look before and this one."""
        seconds = max(now - one.earliest, LEAST_SECONDS)
        known = one.looked_at - one.earliest
        # In the geometric middle; what the truth is, the aim finds out.
        self.speed = one.count / ((seconds * known) ** 0.5 if known > 0 else seconds)
        self.sure = known > 0

    def take(self, seen: Sighting) -> None:
        """Take in how fast a batch is that was seen under way."""
        if not self.speed or (not seen.rough and (not self.sure or (seen.pair and seen.surprise))):
            self.speed, self.aim, self._streak = seen.speed, 1 + self.margin, 1
        elif not seen.rough and not seen.surprise:
            self.speed += _SMOOTHING * (seen.speed - self.speed)
        self.sure = self.sure or seen.pair

    def take_start(self, late: float, *, far: bool) -> None:
        """Take in by how many seconds a batch began later than it should have; at once if that is far off."""
        self.start_seconds = max(0.0, self.start_seconds + late * (1 if far else _SMOOTHING))

    def hit(self, one: PolledBatch, *, lanes_known: bool) -> bool:
        """Aim earlier after a batch was found done; return whether it is rather the lanes that we err about."""
        if self.together > 1 or one.aim > self.aim + PACE_STEP or one.planned_speed * (1 + MARGIN) < self.speed:
            # What rides along shows how far it is: no need to come too early. And many looks may be under way at once,
            # planned when the aim was another.
            return False
        if not self.sure:
            self.speed *= 2
            return False
        self._streak += 1
        if self._streak > _MOST_HITS and lanes_known:
            self.speed /= self.aim
            self._streak, self.aim = 0, 1 + self.margin
            return True
        self._set_aim(self.aim - min(_MOST_CREEP, _CREEP * 2**self._streak) * min(1.0, self.aim))
        return False

    def missed(self, one: PolledBatch) -> None:
        """Aim later after a look that came too early."""
        if self.together == 1 and one.aim >= self.aim - PACE_STEP:
            self._set_aim(self.aim + _MISSED)
        self._streak = 0

    def is_slower(self, one: PolledBatch, now: float) -> None:
        """Take in that a batch which should have been done is not, and nobody can tell how far it is."""
        self.speed = min(self.speed, one.count / max(now - one.begun_at, LEAST_SECONDS))
        self.sure = True
        self.missed(one)

    def _set_aim(self, aim: float) -> None:
        self.aim = aim
        if not _AIMS[0] <= aim <= _AIMS[1]:
            self.speed /= aim
            self.aim = 1.0
