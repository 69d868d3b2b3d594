import contextlib

import aiohttp
import pytest
from fakes.clock import FakeClock
from msgspec.structs import replace

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.server import running_sandbox

from .api import Api


@pytest.fixture
def clock():
    return FakeClock(1_750_000_000.0)


@pytest.fixture
async def start():
    """Start a sandbox that lasts as long as the test; return a client of it. `limited`: to a list of tasks a second."""
    async with contextlib.AsyncExitStack() as stack:

        async def starting(behaviour=None, *, limited=False, **options):
            behaviour = behaviour or Behaviour()
            if not limited:
                behaviour = replace(behaviour, sama=replace(behaviour.sama, task_lists_per_second=0))
            sandbox = await stack.enter_async_context(running_sandbox(behaviour, **options))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Api(sandbox, session)

        yield starting
