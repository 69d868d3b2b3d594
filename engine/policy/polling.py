"""What the polls of a batch have shown -> when to ask again, with the reason. Pure.

A poll costs the service a query, and one that learns nothing helps nobody. So we ask when there should be something to
see: when the tasks that are left, at the speed seen so far, ought to be done. While nothing changes the wait doubles.
Knowing how many tasks of other batches stand ahead (services create first come, first served) gives a batch at the end
of the queue a date, too; without it such a batch would have backed off to the cap by the time its turn comes.
"""

from __future__ import annotations

from dataclasses import dataclass

_SMOOTHING = 0.4
"""Weight of the newest speed: Vector's `ewma_alpha`, which follows a change within about three polls."""


@dataclass(frozen=True, slots=True)
class PollRules:
    """How eagerly batches are asked about."""

    first_seconds: float = 0.5
    cap_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class PollAgain:
    """When to ask about a batch again."""

    after_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a poll of one batch showed."""

    waited_seconds: float
    """Time since the poll before, or since the release."""
    gained: int
    """Tasks created in that time."""
    left: int
    """Tasks not created yet."""
    ahead: int = 0
    """Tasks of batches released earlier that are not created yet either."""
    unchanged: int = 1
    """Polls in a row, this one included, that showed nothing new."""


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


def next_poll(rules: PollRules, seen: Seen | None, tasks_per_second: float = 0.0) -> PollAgain:
    """Decide when to ask about a batch again; `seen` is None if it was released just now.

    `tasks_per_second` is the speed over all batches (`CreationSpeed`); 0 if unknown.
    """
    if seen is None:
        return PollAgain(rules.first_seconds, "just released")
    if seen.gained:
        # The batch's own speed. With many batches in work at once it is a share of the service's, and that is right.
        speed = seen.gained / max(seen.waited_seconds, 1e-3)
        return PollAgain(_within(rules, seen.left / speed), f"{seen.left} tasks left at {speed:.0f} tasks/s")
    backed_off = rules.first_seconds * 2**seen.unchanged
    turn = (seen.ahead + seen.left) / tasks_per_second if tasks_per_second > 0 else 0.0
    if turn > backed_off:
        return PollAgain(_within(rules, turn), f"{seen.ahead} tasks of other batches ahead")
    return PollAgain(_within(rules, backed_off), f"nothing new in {seen.unchanged} polls")


def _within(rules: PollRules, seconds: float) -> float:
    return max(min(rules.first_seconds, rules.cap_seconds), min(seconds, rules.cap_seconds))
