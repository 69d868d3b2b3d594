"""A worker among others in one event loop, that can stand still, as by SIGSTOP, or die, as by SIGKILL."""

import asyncio
import inspect

from fakes.service import Killed


class Process:
    """What a worker does to the outside passes here: not while it stands still, and never again once it was killed."""

    def __init__(self):
        self._runs = asyncio.Event()
        self._runs.set()
        self.killed = False
        self.stood_still = asyncio.Event()

    def stop(self):
        self._runs.clear()
        self.stood_still.set()

    def go_on(self):
        self._runs.set()

    def kill(self):
        self.killed = True
        self._runs.set()

    async def passed(self):
        """Return once the process runs. Raises: Killed."""
        await self._runs.wait()
        if self.killed:
            raise Killed

    def seizes(self, bench):
        """Have all that a bench does to ledger, service and time pass here; return the bench."""
        bench.ledger, bench.clock, bench.service = (
            _Passing(one, self) for one in (bench.ledger, bench.clock, bench.service)
        )
        return bench


class _Passing:
    """A port, unchanged, but each call of it, and each answer, passes a process."""

    def __init__(self, port, process):
        self._port, self._process = port, process

    def __getattr__(self, name):
        value = getattr(self._port, name)
        if value is self._port:  # an ability of a service is often the service itself
            return self
        if inspect.isasyncgenfunction(value):
            return self._passing_each(value)
        return self._passing(value) if inspect.iscoroutinefunction(value) else value

    def _passing(self, method):
        async def call(*args, **options):
            bound = inspect.signature(method).bind(*args, **options)
            if "intent" in bound.arguments:
                bound.arguments["intent"] = self._passing(bound.arguments["intent"])
            await self._process.passed()
            result = await method(*bound.args, **bound.kwargs)
            await self._process.passed()
            return result

        return call

    def _passing_each(self, method):
        async def each(*args, **options):
            async for one in method(*args, **options):
                await self._process.passed()
                yield one

        return each
