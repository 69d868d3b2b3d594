"""A recipe and the sources enter, plans leave, made by other processes: on other cores, beside the sending.

One child plans what this process would have planned. Several take turns: the sources are cut into segments, each child
plans every n-th, and the plans are joined in the order of the sources. What a child cannot know of its segment is
counted on from the segment before: indexes, lines and sequence numbers. A segment's end closes a batch early.

Memory is bounded by the pipes: a child that is far ahead of its turn waits until somebody reads what it wrote.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from itertools import cycle, islice
from typing import Protocol

from engine.batch.child import ChildFailure, Recipe, Segment
from engine.batch.plan import Plan
from engine.model.batch import Batch
from engine.model.errors import ReaderLost
from engine.model.record import Position, Reject, Source, source_at
from engine.source.reader import segment_stops

SEGMENT_BYTES = 1 << 25
"""Its last batch is not full: one of sixty, with records of 570 bytes. Its plans fit into a pipe of a mebibyte."""

_PIPE_BYTES = 1 << 20
"""The most that Linux grants without asking."""

_AHEAD = 2
"""Segments that a child knows of: it begins the next one while the plans of this one wait for their turn."""

_PROGRAM = "from engine.batch.child import main; main()"
"""Not by `-m`: what the module pickles would then belong to `__main__`, which is another module here."""

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "LC_CTYPE")
"""Variables that a child gets: what the interpreter needs and how paths are written. The rest may be secrets."""


class Worker(Protocol):
    """Who plans segments in the order in which it is asked for them."""

    def ask(self, segment: Segment) -> None:
        """Let it plan a segment, after those that it was asked for before."""
        ...

    def plans(self) -> Iterator[Plan]:
        """Yield the plans of the next segment."""
        ...


class Standby(AbstractContextManager["Standby"]):
    """Children that start up before anybody knows what they shall plan; at its end, those that were not taken end.

    They import `modules`, where the recipe will be from. Without any, a child is started when it is taken.
    """

    def __init__(self, children: int = 0, modules: Sequence[str] = ()) -> None:
        self._modules = modules
        self._idle: list[_Child] = []
        with ExitStack() as stack:
            self._idle += [stack.enter_context(_Child(modules)) for _ in range(children)]
            stack.pop_all()

    def take(self) -> _Child:
        """Return a child, one that has started up if there is any; whoever takes it has to end it."""
        return self._idle.pop() if self._idle else _Child(self._modules)

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
    standby: Standby,
    segment_bytes: int = SEGMENT_BYTES,
) -> Iterator[Plan]:
    """Yield the plans for all of `whole`, which ends with the sources; close it to end the children at once.

    Raises:
        SourceError: a source cannot be read, or changed while it was.
        ReaderLost: a child was killed.
    """
    stops = segment_stops(sources, whole.start.offset, segment_bytes if children > 1 else whole.stop + 1)
    with ExitStack() as stack:
        crew = [stack.enter_context(standby.take()) for _ in range(children)]
        standby.dismiss()
        for child in crew:
            child.begin(recipe)
        yield from joined(crew, sources, replace(whole, stop=next(stops)), stops)


def joined(crew: Sequence[Worker], sources: Sequence[Source], first: Segment, stops: Iterator[int]) -> Iterator[Plan]:
    """Yield the plans of `first`, whose place is known, and of the segments behind it, which end at `stops`."""
    reached, sequence, end = first.start, first.sequence, sources[-1].end
    asked: deque[tuple[Worker, Segment]] = deque()
    turns = zip(cycle(crew), _segments(first, stops), strict=False)
    _ask(asked, islice(turns, len(crew) * _AHEAD))
    while asked:
        child, segment = asked.popleft()
        shift = _Shift(sources, segment, reached, sequence)
        for plan in map(shift.moved, child.plans()):
            reached, sequence = plan.reached, sequence + len(plan.batches)
            yield replace(plan, last=plan.last and segment.stop == end)
        _ask(asked, islice(turns, 1))


def _segments(first: Segment, stops: Iterator[int]) -> Iterator[Segment]:
    """Yield `first`, and those after it, which count from 0."""
    yield first
    at = first.stop
    for stop in stops:
        yield Segment(Position(at), 0, stop)
        at = stop


def _ask(asked: deque[tuple[Worker, Segment]], turns: Iterator[tuple[Worker, Segment]]) -> None:
    for child, segment in turns:
        child.ask(segment)
        asked.append((child, segment))


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
        return replace(batch, sequence=batch.sequence + self._batches, start=start, end=end)

    def _reject(self, reject: Reject) -> Reject:
        return replace(reject, index=reject.index + self._indexes, line=self._line(reject.offset, reject.line))

    def _position(self, at: Position) -> Position:
        return Position(at.offset, at.index + self._indexes, self._line(at.offset, at.line))

    def _line(self, offset: int, line: int) -> int:
        return line + self._lines if offset < self._lines_end else line


class _Child(AbstractContextManager["_Child"]):
    """One process that plans; killed when it is left, for it holds nothing that matters."""

    def __init__(self, modules: Sequence[str]) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", _PROGRAM, *modules],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101 - both are pipes
        self._orders, self._answers = self._process.stdin, self._process.stdout
        with suppress(OSError):  # less if the system grants no more
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def begin(self, recipe: Recipe) -> None:
        """Tell it how to plan."""
        self._tell(recipe)

    def ask(self, segment: Segment) -> None:
        self._tell(segment)

    def plans(self) -> Iterator[Plan]:
        last = False
        while not last:
            plan = self._next()
            last = plan.last
            yield plan

    def _tell(self, order: Recipe | Segment) -> None:
        with suppress(BrokenPipeError):  # it is gone; why, its answers tell
            pickle.dump(order, self._orders, pickle.HIGHEST_PROTOCOL)
            self._orders.flush()

    def _next(self) -> Plan:
        try:
            answer: Plan | ChildFailure = pickle.load(self._answers)  # noqa: S301 - written by our own child
        except (EOFError, pickle.UnpicklingError) as error:
            status = self._process.wait()
            raise ReaderLost(
                f"the process that reads the sources ended before its work (status {status}). Nothing is lost: "
                "`bulksubmit resume` goes on"
            ) from error
        if isinstance(answer, ChildFailure):
            raise answer.error or RuntimeError(f"in the process that reads the sources:\n{answer.words}")
        return answer

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        for pipe in (self._orders, self._answers):
            with suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()
