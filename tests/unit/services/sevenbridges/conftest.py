import contextlib

import pytest

from engine.sandbox.server import running_sandbox

from .bench import Bench, behaviour


@pytest.fixture
async def bench(tmp_path, monkeypatch):
    """Start a sandbox that behaves as told and lasts as long as the test; return a bench before it."""
    monkeypatch.setenv("SB_AUTH_TOKEN", "sandbox-key")
    async with contextlib.AsyncExitStack() as stack:

        async def starting(*, run=True, **settings):
            sandbox = await stack.enter_async_context(running_sandbox(behaviour(tmp_path, **settings)))
            return Bench(tmp_path, sandbox, run)

        yield starting
