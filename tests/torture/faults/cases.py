"""Steps x faults x what the server does x which requests enter, the cases of the fault matrix leave.

Nothing is listed by hand: every combination is a case, unless a rule says why there can be no such thing. `make
torture` runs them all, `make test` so many of them that every pair of step, fault, work and pattern meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from . import catalogue
from .proxy import Fault, Strike, Work
from .ways import ASK, BRIDGES, EXISTS, INLINE, KEYED, MARKED, NEVER, PRESIGNED, SAFE, SEARCH, Way


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of request in the life of a batch."""

    name: str
    way: Way
    kind: str
    after: str | None
    """The kind that comes before it; see `Strike.after`."""
    asks: bool = False
    """It changes nothing at the server."""
    creates: bool = False
    """What it makes is there to stay: tasks, or a draft that people see."""
    lost: tuple[str, Work] | None = None
    """It comes after a request of this kind whose answer was lost, and of which the server did this."""


STEPS = [
    Step("create", PRESIGNED, "create", None),
    Step("put", PRESIGNED, "put", "create"),
    Step("continue", PRESIGNED, "continue", "put", creates=True),
    Step("remote_status of a waiting batch", PRESIGNED, "status", "continue", asks=True, lost=("continue", Work.NEVER)),
    Step("remote_status of a started batch", PRESIGNED, "status", "continue", asks=True, lost=("continue", Work.DONE)),
    Step("status", PRESIGNED, "status", "continue", asks=True),
    Step("settlement", PRESIGNED, "settlement", "status", asks=True),
    Step("post", INLINE, "post", None, creates=True),
    Step("status", INLINE, "status", "post", asks=True),
    Step("settlement", INLINE, "settlement", "status", asks=True),
    Step("schema", MARKED, "schema", None, asks=True),
    Step("post", MARKED, "post", None, creates=True),
    Step("search for a batch that is not there", MARKED, "search", "post", asks=True, lost=("post", Work.NEVER)),
    Step("search for a batch that is there", MARKED, "search", "post", asks=True, lost=("post", Work.DONE)),
    Step("search for a batch on its way", MARKED, "search", "post", asks=True, lost=("post", Work.LATE)),
    Step("create", BRIDGES, "create", None, creates=True),
    Step("search for a draft that is not there", BRIDGES, "find", "create", asks=True, lost=("create", Work.NEVER)),
    Step("search for a draft that is there", BRIDGES, "find", "create", asks=True, lost=("create", Work.DONE)),
    Step("search for a draft on its way", BRIDGES, "find", "create", asks=True, lost=("create", Work.LATE)),
    Step("run", BRIDGES, "run", "create", creates=True),
    # A run that was not done is simply repeated: the service runs a draft once only, so nobody asks about it.
    Step("remote_status of a task that runs", BRIDGES, "get", "run", asks=True, lost=("run", Work.DONE)),
    Step("bulk", BRIDGES, "bulk", "run", asks=True),
    Step("get", BRIDGES, "get", "bulk", asks=True),
    Step("children", BRIDGES, "children", "get", asks=True),
    Step("upsert", SAFE, "upsert", None, creates=True),
    Step("create", KEYED, "create", None, creates=True),
    Step("bulk", EXISTS, "bulk", None, creates=True),
    Step("token", ASK, "token", None, asks=True),
    Step("open", ASK, "open", "token"),
    Step("put", ASK, "put", "open"),
    Step("start", ASK, "start", "put", creates=True),
    Step("remote_status of a waiting job", ASK, "status", "start", asks=True, lost=("start", Work.NEVER)),
    Step("remote_status of a started job", ASK, "status", "start", asks=True, lost=("start", Work.DONE)),
    Step("status", ASK, "status", "start", asks=True),
    Step("results", ASK, "results", "status", asks=True),
    Step("post", SEARCH, "post", None, creates=True),
    Step("search for records that are not there", SEARCH, "list", "post", asks=True, lost=("post", Work.NEVER)),
    Step("search for records that are there", SEARCH, "list", "post", asks=True, lost=("post", Work.DONE)),
    Step("search for records on their way", SEARCH, "list", "post", asks=True, lost=("post", Work.LATE)),
    Step("send", NEVER, "send", None, creates=True),
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
        return f"{self.step.way}, {self.step.name}: {self.fault.name}, {self.work}, {self.pattern.name}"

    @property
    def factors(self) -> tuple[Step, Fault, Work, Pattern]:
        return self.step, self.fault, self.work, self.pattern

    @property
    def strikes(self) -> list[Strike]:
        strike = Strike(self.step.kind, self.fault, self.work, self.pattern.when, self.step.after)
        if self.step.lost is None:
            return [strike]
        kind, work = self.step.lost
        return [Strike(kind, catalogue.RESET, work, FIRST.when), strike]

    @property
    def one_at_a_time(self) -> bool:
        """Whether batches go one by one, so that it is certain which request comes next.

        A bulk call would cover all of them, and on a busy machine there might be no third one. And three pages in a
        row in place of one batch's upload rightly stop the job: side by side, one batch may get them all.
        """
        return (
            self.step.lost is not None
            or self.fault in catalogue.UNCONNECTED
            or self.step.kind == "bulk"
            or (self.step.kind == "put" and self.fault is catalogue.PAGE)
        )

    @property
    def may_park(self) -> bool:
        """Whether a batch may end as uncertain: its answer was lost, and there is no way to ask."""
        harmless = [*catalogue.UNCONNECTED, *catalogue.DECLINED, *catalogue.ANSWERED]
        # Whoever is not told by the project itself that its tasks can be found again does not mark them.
        return self.step.way.parks and self.step.creates and self.fault not in harmless


IMPOSSIBLE: dict[str, Callable[[Case], bool]] = {
    "without a connection the server gets no request": lambda case: (
        case.fault in catalogue.UNCONNECTED and case.work is not Work.NEVER
    ),
    "the request before it is lost: there is no answer after which to close the port": lambda case: (
        case.fault in catalogue.UNCONNECTED and case.step.lost is not None
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
        case.step.creates and case.fault in catalogue.DECLINED and case.work is Work.DONE
    ),
    "a store answers a PUT without JSON": lambda case: (
        case.step.kind == "put" and case.fault in catalogue.NONSENSE and case.fault is not catalogue.PAGE
    ),
    "a project is asked only once what it has, and a token lasts for the whole run": lambda case: (
        case.step.kind in {"schema", "token"} and case.pattern is not FIRST
    ),
    "four pages of results are read anew if one is nonsense: so they would never be read": lambda case: (
        case.step.kind == "results" and case.fault in catalogue.NONSENSE and case.pattern in {EVERY_SECOND, EVERY_THIRD}
    ),
    "only the first such request is lost, so only one batch is asked about": lambda case: (
        case.step.lost is not None and case.pattern is not FIRST
    ),
}
"""Reason -> the cases that cannot exist for it."""


def generate(*patterns: Pattern) -> Iterator[Case]:
    """Yield all cases that can exist."""
    for step, fault, work, pattern in product(STEPS, catalogue.FAULTS, Work, patterns):
        case = Case(step, fault, work, pattern)
        if not any(rule(case) for rule in IMPOSSIBLE.values()):
            yield case
