"""Starts an operation beside the program that asks for it: a handle on the run gives its events and its result.

`engine.start` is all of it. The operation itself knows nothing of the handle: it is told of by a listener, and ended by
a `Stop`, as the command line does both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from inspect import signature
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

import anyio

from engine.model.errors import Stopped
from engine.progress.events import Event, EventsDropped, Listener, fan_out
from engine.run.context import Stop

P = ParamSpec("P")
T = TypeVar("T")

MOST_EVENTS = 10_000
"""So many events wait for whoever iterates; they take some MB."""


def start(operation: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **options: P.kwargs) -> RunHandle[T]:
    """Return a handle on an operation; to enter it (`async with`) begins the work.

    Args:
        operation: one of `engine` that is told by `emit` what happens, `engine.submit` for one.
        args: its arguments, as they would be given to itself.
        options: likewise.

    Raises:
        TypeError: the operation does not take these arguments.
    """
    takes = signature(operation)
    bound = takes.bind(*args, **options)
    given: Listener | None = bound.arguments.get("emit")
    stop = bound.arguments.get("stop") or Stop()

    def work(emit: Listener) -> Coroutine[Any, Any, T]:
        ours = {"emit": fan_out(given, emit) if given else emit, "stop": stop}
        bound.arguments.update({name: value for name, value in ours.items() if name in takes.parameters})
        return operation(*bound.args, **bound.kwargs)

    return RunHandle(work, stop)


class RunHandle(Generic[T]):
    """A run under way, from the beginning of an `async with` block to its end: iterate over it for its events.

    The run never waits for whoever iterates. The newest `MOST_EVENTS` are kept; where older ones were dropped, an
    `EventsDropped` stands in their place. The end of the block waits for the run. If the block is left by an error, the
    run is stopped in order first; if it is canceled, so is the run, at once: `resume` goes on after both.
    """

    def __init__(self, work: Callable[[Listener], Coroutine[Any, Any, T]], stop: Stop) -> None:
        """Prepare; `start` calls it."""
        self._work = work
        self._stop = stop
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._dropped = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[T] | None = None
        self._asked = False

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a handle is for one run: call start again for another one")
        self._task = asyncio.get_running_loop().create_task(self._work(self._hear))
        self._task.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = self._begun()
        if isinstance(error, Exception):
            self.stop()
        elif error is not None:
            task.cancel()
        canceled = False
        with anyio.CancelScope(shield=True):  # or a scope that was canceled would end each wait at once
            while not task.done():
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError:
                    if canceled:  # the work is being canceled; once more would break off its tidying up
                        continue
                    canceled = True
                    task.cancel()
        if canceled:
            raise asyncio.CancelledError
        if not task.cancelled() and task.exception() is not None and error is None and not self._asked:
            task.result()  # nobody has heard of its error yet

    async def result(self) -> T:
        """Wait for the end of the run, and return what the operation returns, or raise what it raises."""
        self._asked = True
        return await asyncio.shield(self._begun())

    def result_of_ended(self) -> T | None:
        """Return the result of a run that has ended, or raise its error; None: it has not."""
        task = self._begun()
        if not task.done():
            return None
        self._asked = True
        return task.result()

    def stop(self) -> None:
        """End the run in order: nothing new is begun, what is under way may finish. Call it in the event loop."""
        self._stop.request(Stopped())

    async def __aiter__(self) -> AsyncIterator[Event | EventsDropped]:
        """Yield what happens, from the beginning of the run to its end; each event goes to one reader."""
        while events := await self.next_events():
            for event in events:
                yield event

    async def next_events(self) -> Sequence[Event | EventsDropped]:
        """Wait for events, and return all that are there; none: the run is over."""
        while not self._events:
            if self._begun().done():
                return ()
            self._news.clear()
            await self._news.wait()
        events: list[Event | EventsDropped] = [EventsDropped(self._dropped)] if self._dropped else []
        events += self._events
        self._events.clear()
        self._dropped = 0
        return events

    def _hear(self, event: Event) -> None:
        self._dropped += len(self._events) == MOST_EVENTS
        self._events.append(event)
        self._news.set()

    def _begun(self) -> asyncio.Task[T]:
        if self._task is None:
            raise RuntimeError("the run has not begun: enter the handle by `async with`")
        return self._task
