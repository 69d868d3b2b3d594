"""Made-up time, which waits for work done outside the event loop: the ledger's threads."""

import asyncio
import heapq
from contextlib import asynccontextmanager, contextmanager
from itertools import count

PATIENCE_SECONDS = 30.0
"""Of a test that waits for what should happen at once; a machine may be very busy."""


async def until(happened):
    """Let the others run until something has happened."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not happened():  # noqa: ASYNC110 - whatever it is, it sets no event
            await asyncio.sleep(0)


@asynccontextmanager
async def under_way(work):
    """Let some work run beside the block; what is left of it at the end of the block is canceled."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class FakeClock:
    """Time passes only while everybody sleeps and nobody works outside: then at once to the first who wakes."""

    IDLE_ROUNDS = 30
    """Turns of the event loop after which whoever could run has run."""

    def __init__(self, start=1_800_000_000.0):
        self._started = start
        self._sleepers = []
        self._numbers = count()
        self._outside = 0
        self._idle = 0
        self._watching = False
        self.elapsed = 0.0
        self.slept = []

    def now(self):
        return self._started + self.elapsed

    def monotonic(self):
        return self.elapsed

    def move_to(self, at):
        """Let it be a later time, of `now`, without a word to those who sleep."""
        self.elapsed = at - self._started

    async def sleep(self, seconds):
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.elapsed + seconds, next(self._numbers), woken))
        self._watch()
        await woken

    @contextmanager
    def stopped(self):
        """Let no time pass while a thread works."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1
            self._watch()

    def _watch(self):
        """Count turns of the loop from now on, unless somebody does already."""
        self._idle = 0
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self):
        while self._sleepers and self._sleepers[0][2].done():  # canceled
            heapq.heappop(self._sleepers)
        self._watching = bool(self._sleepers) and not self._outside
        if not self._watching:
            return
        self._idle += 1
        if self._idle > self.IDLE_ROUNDS:
            self.elapsed, _, woken = heapq.heappop(self._sleepers)
            woken.set_result(None)
            self._idle = 0
        asyncio.get_running_loop().call_soon(self._turn)


class Watched:
    """A ledger, unchanged, but time stands still while it works."""

    def __init__(self, ledger, clock):
        self._ledger = ledger
        self._clock = clock

    def __getattr__(self, name):
        method = getattr(self._ledger, name)
        return self._waited_for(method) if asyncio.iscoroutinefunction(method) else method

    def _waited_for(self, method):
        async def call(*args, **options):
            with self._clock.stopped():
                return await method(*args, **options)

        return call

    async def batches(self, *args, **options):
        pages = self._ledger.batches(*args, **options)
        while True:
            with self._clock.stopped():
                pair = await anext(pages, None)
            if pair is None:
                return
            yield pair
