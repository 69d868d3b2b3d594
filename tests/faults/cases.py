"""Steps x faults x what the server does x which requests enter, the cases of the fault matrix leave.

Nothing is listed by hand: every combination is a case, unless a rule says why there can be no such thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from . import catalogue
from .proxy import Fault, Strike, Work


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of request in the life of a batch."""

    name: str
    mode: str
    kind: str
    after: str | None
    """The kind that comes before it; see `Strike.after`."""
    asks: bool = False
    """It changes nothing at the server."""
    starts: bool = False
    """It creates tasks."""
    lost_continue: Work | None = None
    """It comes after a `continue` whose answer was lost, of which the server did this."""


STEPS = [
    Step("create", "presigned", "create", None),
    Step("put", "presigned", "put", "create"),
    Step("continue", "presigned", "continue", "put", starts=True),
    Step("standing of a waiting batch", "presigned", "status", "continue", asks=True, lost_continue=Work.NEVER),
    Step("standing of a started batch", "presigned", "status", "continue", asks=True, lost_continue=Work.DONE),
    Step("status", "presigned", "status", "continue", asks=True),
    Step("settlement", "presigned", "settlement", "status", asks=True),
    Step("post", "inline", "post", None, starts=True),
    Step("status", "inline", "status", "post", asks=True),
    Step("settlement", "inline", "settlement", "status", asks=True),
]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which requests of the kind are struck."""

    name: str
    when: Callable[[int], bool]


FIRST = Pattern("first", lambda number: number == 1)
SECOND = Pattern("second", lambda number: number == 2)
EVERY_SECOND = Pattern("every second", lambda number: number % 2 == 0)
EVERY_THIRD = Pattern("every third", lambda number: number % 3 == 0)


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the engine under one fault."""

    step: Step
    fault: Fault
    work: Work
    pattern: Pattern

    def __str__(self) -> str:
        return f"{self.step.mode} {self.step.name}: {self.fault.name}, {self.work}, {self.pattern.name}"

    @property
    def strikes(self) -> list[Strike]:
        strike = Strike(self.step.kind, self.fault, self.work, self.pattern.when, self.step.after)
        if self.step.lost_continue is None:
            return [strike]
        return [Strike("continue", catalogue.RESET, self.step.lost_continue, FIRST.when), strike]

    @property
    def one_at_a_time(self) -> bool:
        """Whether batches go one by one, so that it is certain which request comes next."""
        return self.step.lost_continue is not None or self.fault in catalogue.UNCONNECTED

    @property
    def may_park(self) -> bool:
        """Whether a batch may end as uncertain: its answer was lost, and there is no way to ask."""
        harmless = [*catalogue.UNCONNECTED, *catalogue.DECLINED, *catalogue.ANSWERED]
        return self.step.kind == "post" and self.fault not in harmless


IMPOSSIBLE: dict[str, Callable[[Case], bool]] = {
    "without a connection the server gets no request": lambda case: (
        case.fault in catalogue.UNCONNECTED and case.work is not Work.NEVER
    ),
    "`continue` itself is lost: there is no answer after which to close the port": lambda case: (
        case.fault in catalogue.UNCONNECTED and case.step.lost_continue is not None
    ),
    "nothing comes before it that would say when a later one is due": lambda case: (
        case.fault in catalogue.UNCONNECTED and case.step.after is None and case.pattern is not FIRST
    ),
    "the answer is the server's own": lambda case: case.fault in catalogue.ANSWERED and case.work is not Work.DONE,
    "only what is under way on a broken connection can arrive later": lambda case: (
        case.work is Work.LATE and case.fault is not catalogue.RESET
    ),
    "a question changes nothing at the server, whether it is answered or not": lambda case: (
        case.step.asks and case.work is not (Work.NEVER if case.fault in catalogue.UNCONNECTED else Work.DONE)
    ),
    "429 says that nothing was done (RFC 6585); nobody can guard against a service that lies in it": lambda case: (
        case.step.starts and case.fault in catalogue.DECLINED and case.work is Work.DONE
    ),
    "a store answers a PUT without JSON": lambda case: (
        case.step.kind == "put" and case.fault in catalogue.NONSENSE and case.fault is not catalogue.PAGE
    ),
    "only the first `continue` is lost, so only one batch is asked about": lambda case: (
        case.step.lost_continue is not None and case.pattern is not FIRST
    ),
}
"""Reason -> the cases that cannot exist for it."""


def generate(*patterns: Pattern) -> Iterator[Case]:
    """Yield all cases that can exist."""
    for step, fault, work, pattern in product(STEPS, catalogue.FAULTS, Work, patterns):
        case = Case(step, fault, work, pattern)
        if not any(rule(case) for rule in IMPOSSIBLE.values()):
            yield case
