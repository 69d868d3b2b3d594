import contextlib

import aiohttp
import pytest

from engine.sandbox.server import running_sandbox

from .api import Api, ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def start():
    """Start a sandbox that lasts as long as the test; return a client of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def starting(behaviour=None, **options):
            sandbox = await stack.enter_async_context(running_sandbox(behaviour, **options))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Api(sandbox, session)

        yield starting
