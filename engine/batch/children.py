"""Plans in other processes, on other cores, beside the sending; `planning.plan_job` decides how many.

One child plans what this process would have planned. Several take turns: the sources are cut into segments, each child
plans every n-th, and the plans are joined in the order of the sources. What a child cannot know of its segment is
counted on from the segment before: indexes, lines and sequence numbers. A segment's end closes a batch early, whoever
plans: the batches are the same ones.

Recipe and segments go to a child's standard input, plans come from its standard output, pickled. The pipes bound the
memory: a child that is far ahead of its turn waits until the parent reads what it wrote. A child never outlives its
parent: with the parent both pipes are gone, so its next read or write ends it. It hears no signal of the terminal,
since it has a process group of its own.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from importlib import import_module
from itertools import cycle, islice
from typing import IO, Any, Protocol, Self, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from engine.batch.chunker import Plan
from engine.model.batch import Batch, decode_lines, decode_spans, encode_lines
from engine.model.errors import BulkSubmitError, ReaderLost
from engine.model.record import Position, Reject, Source, source_at
from engine.source.reader import SEGMENT_BYTES, segment_stops

_PIPE_BYTES = 1 << 20
"""The most that Linux grants without asking."""

_AHEAD = 2
"""Segments that a child knows of: it begins the next one while the plans of this one wait for their turn."""

_PROGRAM = "from engine.batch.children import main; main()"
"""Not by `-m`: what the module pickles would then belong to `__main__`, which is another module in the parent."""

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "LC_CTYPE")
"""Variables that a child gets: what the interpreter needs and how paths are written. The rest may be secrets."""


class Segment(Struct, frozen=True):
    """What is to be planned: from `start`, with batches numbered from `sequence` on, to the joined offset `stop`."""

    start: Position
    sequence: int
    stop: int


Planner: TypeAlias = Callable[[Segment], Iterator[Plan]]
Recipe: TypeAlias = Callable[[], Planner]
"""Makes the planner in the process that uses it. Pickled, so it holds values and no secrets."""


class PlanningWorker(Protocol):
    """One of those who plan in turns. At the end of its block nobody wants its plans any more."""

    def tell(self, order: Recipe | Segment) -> None:
        """Tell it how to plan, and then what: one segment after another."""

    def plans(self) -> Iterator[Plan]:
        """Yield the plans of the next segment that it was told of."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Crew(Protocol):
    """Whoever may plan for a run: children of this process, or the workers of a cluster (`batch.dask`)."""

    @property
    def size(self) -> int:
        """How many plan at once; 0: as many as the sources are worth."""

    def take(self) -> PlanningWorker:
        """Return one of them. The caller has to end it."""

    def dismiss(self) -> None:
        """End those that are not wanted."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Standby(AbstractContextManager["Standby"]):
    """Children that start up before it is known what they will plan. Those that were not taken end with the block.

    They import `modules`, where the recipe will be from. Without any, a child is started when it is taken.
    """

    size = 0

    def __init__(self, children: int = 0, modules: Sequence[str] = ()) -> None:
        self._modules = modules
        self._idle: list[PlanningChild] = []
        with ExitStack() as stack:
            self._idle += [stack.enter_context(PlanningChild(modules)) for _ in range(children)]
            stack.pop_all()

    def take(self) -> PlanningChild:
        """Return a child, one that has started up if there is any. The caller has to end it."""
        return self._idle.pop() if self._idle else PlanningChild(self._modules)

    def dismiss(self) -> None:
        """End those that are not wanted."""
        while self._idle:
            self._idle.pop().end()

    def __exit__(self, *_: object) -> None:
        self.dismiss()


def plan_in_children(
    recipe: Recipe,
    sources: Sequence[Source],
    whole: Segment,
    *,
    children: int,
    standby: Crew,
    segment_bytes: int = SEGMENT_BYTES,
) -> Iterator[Plan]:
    """Yield the plans for all of `whole`, which ends with the sources; close it to end the children at once.

    `children`: how many of the crew that stands by plan at once. One child plans all as one segment.

    Raises:
        SourceError: a source cannot be read, or changed while it was.
        ReaderLost: a child was killed.
    """
    several = segment_stops(sources, whole.start.offset, segment_bytes)
    stops = several if children > 1 else iter((whole.stop,))
    with ExitStack() as stack:
        crew = [stack.enter_context(standby.take()) for _ in range(children)]
        standby.dismiss()
        for child in crew:
            child.tell(recipe)
        yield from joined(crew, sources, replace(whole, stop=next(stops)), stops)


def joined(
    crew: Sequence[PlanningWorker], sources: Sequence[Source], first: Segment, stops: Iterator[int]
) -> Iterator[Plan]:
    """Yield the plans of `first`, whose place is known, and of the segments behind it, which end at `stops`."""
    reached, sequence, end = first.start, first.sequence, sources[-1].end
    asked: deque[tuple[PlanningWorker, Segment]] = deque()
    turns = zip(cycle(crew), _segments(first, stops), strict=False)
    while True:
        for child, segment in islice(turns, len(crew) * _AHEAD - len(asked)):
            child.tell(segment)
            asked.append((child, segment))
        if not asked:
            return
        child, segment = asked.popleft()
        shift = _Shift(sources, segment, reached, sequence)
        for plan in map(shift.moved, child.plans()):
            reached, sequence = plan.reached, sequence + len(plan.batches)
            yield replace(plan, last=plan.last and segment.stop == end)


def _segments(first: Segment, stops: Iterator[int]) -> Iterator[Segment]:
    """Yield `first`, and the segments after it, which count indexes, lines and sequences from their own beginning."""
    yield first
    at = first.stop
    for stop in stops:
        yield Segment(Position(at), 0, stop)
        at = stop


class _Shift:
    """Moves what was counted from the beginning of a segment to where the segment really begins."""

    def __init__(self, sources: Sequence[Source], segment: Segment, start: Position, sequence: int) -> None:
        self._indexes = start.index - segment.start.index
        self._lines = start.line - segment.start.line
        self._batches = sequence - segment.sequence
        self._lines_end = source_at(sources, segment.start.offset).end  # the next source counts its own

    def moved(self, plan: Plan) -> Plan:
        if not (self._indexes or self._lines or self._batches):
            return plan
        return Plan(
            [self._batch(batch) for batch in plan.batches],
            [self._reject(reject) for reject in plan.rejects],
            self._position(plan.reached),
            plan.last,
        )

    def _batch(self, batch: Batch) -> Batch:
        start, end = self._position(batch.start), self._position(batch.end)
        moved = replace(batch, sequence=batch.sequence + self._batches, start=start, end=end)
        if not start.offset < self._lines_end < end.offset:
            return moved
        offsets, _ = decode_spans(start.offset, batch.spans)
        lines = map(self._line, offsets, decode_lines(batch) or ())
        return replace(moved, lines=encode_lines(start.line, list(lines)))

    def _reject(self, reject: Reject) -> Reject:
        return replace(reject, index=reject.index + self._indexes, line=self._line(reject.offset, reject.line))

    def _position(self, at: Position) -> Position:
        return Position(at.offset, at.index + self._indexes, self._line(at.offset, at.line))

    def _line(self, offset: int, line: int) -> int:
        return line + self._lines if offset < self._lines_end else line


class PlanningChild(AbstractContextManager["PlanningChild"]):
    """One process that plans; killed at the end of the block: it holds nothing that would be lost."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", _PROGRAM, *modules],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101 - both are pipes
        self._orders, self._answers = self._process.stdin, self._process.stdout
        with suppress(OSError):  # less if the system grants no more
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def tell(self, order: Recipe | Segment) -> None:
        """Tell it how to plan, and then what: one segment after another."""
        with suppress(BrokenPipeError):  # it is gone; its answers tell why
            pickle.dump(order, self._orders, pickle.HIGHEST_PROTOCOL)
            self._orders.flush()

    def plans(self) -> Iterator[Plan]:
        """Yield the plans of the next segment that it was told of."""
        last = False
        while not last:
            plan = self._next()
            last = plan.last
            yield plan

    def _next(self) -> Plan:
        try:
            answer: Plan | Exception = pickle.load(self._answers)  # noqa: S301 - written by our own child
        except (EOFError, pickle.UnpicklingError) as error:
            status = self._process.wait()
            raise ReaderLost(
                f"the process that reads the sources ended before its work (status {status}). Nothing is lost: "
                "`bulksubmit resume` goes on"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        for pipe in (self._orders, self._answers):
            with suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()


def child_environment() -> dict[str, str]:
    """Return the variables that a child gets: without secrets, and with the way to our modules."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


# What runs in a child


def main() -> None:
    """Be a child: plan segment by segment until there is no more; the arguments name modules that will be needed."""
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a stray print must not get between the plans
    try:
        _work(orders, answers, sys.argv[1:])
    except (EOFError, BrokenPipeError):  # the parent wants no more plans
        os._exit(0)  # not by the usual way, which would flush into a broken pipe


def _work(orders: IO[bytes], answers: IO[bytes], modules: Sequence[str]) -> None:
    for answer in told(_planned(orders, modules)):
        _give(answers, answer)


def _planned(orders: IO[bytes], modules: Sequence[str]) -> Iterator[Plan]:
    for module in modules:
        import_module(module)
    recipe: Recipe = _take(orders)
    planner = recipe()
    while True:
        yield from planner(_take(orders))


def told(plans: Iterator[Plan]) -> Iterator[Plan | Exception]:
    """Yield plans, and in place of an error that ends them that error, as the process that wants them shall raise it.

    Raises:
        EOFError: as raised by `plans`: nobody wants them any more.
    """
    try:
        yield from plans
    except EOFError:
        raise
    except BulkSubmitError as error:
        yield error
    except Exception:  # noqa: BLE001 - whatever it is, it has to be told there
        yield RuntimeError(f"in the process that reads the sources:\n{traceback.format_exc()}")


def _take(orders: IO[bytes]) -> Any:
    return pickle.load(orders)  # noqa: S301 - written by the parent


def _give(answers: IO[bytes], answer: Plan | Exception) -> None:
    pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
    answers.flush()
