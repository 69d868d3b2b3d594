"""Things put down many at once enter; each leaves once, in order, for a task that has nothing else to do.

anyio has both, as memory streams and task groups. But a stream takes a turn of the event loop for each thing that goes
in and out, and a task of its own for each batch takes 25 µs: where each record is a batch, both together were a tenth
of a run. For one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Self, TypeVar, TypeVarTuple

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Signal:
    """Wakes all who wait for it at the moment; free while nobody does."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    async def wait(self) -> None:
        """Return once it is given."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()

    def give(self) -> None:
        """Wake those who wait."""
        if self._event is not None:
            self._event.set()
            self._event = None


class Queue(Generic[T]):
    """Things that wait to be taken: `most` of them, and what the last `put` brought beyond."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: deque[T] = deque()
        self._ended = False
        self._longer = Signal()
        self._shorter = Signal()

    @property
    def most(self) -> int:
        """How many may wait before `put` waits."""
        return self._most

    @most.setter
    def most(self, most: int) -> None:
        longer, self._most = most > self._most, most
        if longer:
            self._shorter.give()

    async def put(self, things: Iterable[T]) -> None:
        """Wait until the queue is short enough, then put all of them at its end."""
        while len(self._things) >= self._most:
            await self._shorter.wait()
        self._things.extend(things)
        self._longer.give()

    def end(self) -> None:
        """Nothing more will be put down."""
        self._ended = True
        self._longer.give()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._things:
            if self._ended:
                raise StopAsyncIteration
            await self._longer.wait()
        self._shorter.give()
        return self._things.popleft()


class WorkerPool(Generic[*Ts]):
    """Tasks of a group that do one piece of work after another; one is started where all are busy."""

    def __init__(self, tasks: TaskGroup, work: Callable[[*Ts], Awaitable[None]]) -> None:
        self._tasks = tasks
        self._work = work
        self._idle: list[asyncio.Future[tuple[*Ts] | None]] = []
        self._dismissed = False

    def give(self, *work: *Ts) -> None:
        """Have a task do this, at once."""
        while self._idle:
            order = self._idle.pop()
            if not order.done():  # else it was canceled in this moment
                order.set_result(work)
                return
        self._tasks.start_soon(self._serve, work)

    def dismiss(self) -> None:
        """Let every task end that has nothing to do, or will have nothing to do."""
        self._dismissed = True
        for order in self._idle:
            if not order.done():
                order.set_result(None)

    async def _serve(self, first: tuple[*Ts]) -> None:
        work: tuple[*Ts] | None = first
        while work is not None:
            await self._work(*work)
            if self._dismissed:
                return
            order: asyncio.Future[tuple[*Ts] | None] = asyncio.get_running_loop().create_future()
            self._idle.append(order)
            work = await order
