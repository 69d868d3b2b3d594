import contextlib

import aiohttp
import pytest

from engine.sandbox.server import running_sandbox

from .api import SbApi, behaviour


@pytest.fixture
async def start():
    """Start a sandbox of Seven Bridges that lasts as long as the test; return a client of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def starting(told=None, **options):
            sandbox = await stack.enter_async_context(running_sandbox(told or behaviour(), **options))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return SbApi(sandbox, session)

        yield starting
