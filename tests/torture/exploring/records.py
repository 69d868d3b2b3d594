"""A service that takes one call for a batch, as values: what it holds of each record, and what calls are still to come.

It creates by one call, which it may carry out at once, later (within the settle time), in part or never. It keeps its
word of `again`: with SAFE a record is there once however often it is sent, with EXISTS a second one with the same key
is refused, with KEY a call with the same key does nothing more for as long as the key is known, and is answered as
before. And it is of one mind: what it refuses for its content it refuses each time. These are the assumptions that
docs/guarantees.md names.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.model.doubt import REPEATABLE, Again

from .worlds import SETTLE

RECORDS = (0, 1)
"""Positions of the records of the batch. The second one is bad where one is, the first one foreign where one is."""


@dataclass(frozen=True)
class Habits:
    """How a service is."""

    again: Again
    told: str = "each"
    """What it says of a batch: "each" record for itself, or the "whole" batch: all of it or nothing."""
    content: str = "good"
    """ "one bad": it refuses the second record."""
    foreign: bool = False
    """The key of the first record is somebody else's already."""
    key_life: int = 3 * SETTLE
    """Quarters from the first call on for which a key is known."""
    lag: int = 0
    """A search shows what was true so long ago."""
    proven: bool = True
    """A search has been seen to find what is there."""

    @property
    def delays(self):
        """When a call may be carried out, so that its effect shows within the settle time."""
        return sorted({0, SETTLE - self.lag})


@dataclass
class Holdings:
    """What is true at the service."""

    habits: Habits
    now: int = 0
    created: tuple[tuple[int, int], ...] = ()
    """(when, position): each time that a record of ours came into being."""
    pending: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...] = ()
    """(when, positions of the call, those of them that it gets to) are still to be carried out."""
    keys: tuple[tuple[tuple[int, ...], int, object], ...] = ()
    """(key, since when it is known, what was answered): a key is the positions that the call brings."""
    log: list[str] = field(default_factory=list)

    def key(self):
        """Return what decides over all that can still happen, whatever the time is."""
        life = self.habits.key_life
        return (
            tuple((min(self.now - at, 2 * SETTLE), position) for at, position in self.created),
            tuple((at - self.now, *call) for at, *call in self.pending),
            tuple((key, self.now - at, answer) for key, at, answer in self.keys if self.now - at < life),
        )

    def pass_time(self, quarters):
        end = self.now + quarters
        for at, positions, reached in sorted(self.pending):
            if at <= end:
                self.now = at
                self.carry_out(positions, reached)
        self.pending = tuple(one for one in self.pending if one[0] > end)
        self.now = end

    def take(self, positions, reached, delay):
        """Take a call in that is carried out after a delay, and get to these records of it."""
        self.pending += ((self.now + delay, positions, reached),)
        self.pass_time(0)

    def is_at_work(self, positions):
        """Return whether a call with the same key is still to be carried out."""
        return self.habits.again is Again.KEY and any(one[1] == positions for one in self.pending)

    def carry_out(self, positions, reached=None):
        """Carry a call out now; return what it says of each record, or "refused" of the whole."""
        if self.habits.again is Again.KEY:
            for key, at, answer in self.keys:
                if key == positions and self.now - at < self.habits.key_life:
                    self.log.append(f"{self.now}: the service knows the key of {positions}")
                    return answer
        answer = self._answer(positions, positions if reached is None else reached)
        if self.habits.again is Again.KEY:
            self.keys = (*(one for one in self.keys if one[0] != positions), (positions, self.now, answer))
        self.log.append(f"{self.now}: the service says of {positions}: {answer}")
        return answer

    def _answer(self, positions, reached):
        said = tuple(self._said_of(position) for position in positions)
        if self.habits.told == "whole" and set(said) & {"bad", "exists"}:
            return said if len(positions) == 1 else "refused"
        for position, word in zip(positions, said, strict=True):
            if word == "created" and position in reached:
                self._create(position)
        return said

    def _said_of(self, position):
        if self.habits.content == "one bad" and position == 1:
            return "bad"
        there = any(position == one for _, one in self.created) or (self.habits.foreign and position == 0)
        return "exists" if there and self.habits.again is Again.EXISTS else "created"

    def _create(self, position):
        if self.habits.again is Again.SAFE and self.count(position):
            return  # an upsert: it is there, and stays there once
        self.created += ((self.now, position),)
        self.log.append(f"{self.now}: THE SERVICE CREATES RECORD {position} ({self.count(position)}.)")

    def count(self, position):
        return sum(one == position for _, one in self.created)

    def search(self, positions):
        """Return the positions that a search by mark shows."""
        return tuple(
            position
            for position in positions
            if any(one == position and at <= self.now - self.habits.lag for at, one in self.created)
        )


def every_habit():
    """Yield each way in which such a service may be."""
    for told, content in (("each", "good"), ("each", "one bad"), ("whole", "good"), ("whole", "one bad")):
        for again in sorted(REPEATABLE):
            yield Habits(again, told, content)
        yield Habits(Again.EXISTS, told, content, foreign=True)
        yield Habits(Again.KEY, told, content, key_life=SETTLE)
    for lag in (0, SETTLE // 2, SETTLE):
        for proven in (True, False):
            yield Habits(Again.SEARCH, lag=lag, proven=proven)
    yield Habits(Again.NEVER)
