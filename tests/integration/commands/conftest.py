import contextlib

import pytest
from msgspec.structs import replace

from engine.sandbox.behaviour import Behaviour, JournalSettings
from engine.sandbox.server import running_sandbox

from .desk import Desk


@pytest.fixture
async def desk(tmp_path, monkeypatch):
    """Start a sandbox that behaves as told and lasts as long as the test; return a desk before it."""
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    async with contextlib.AsyncExitStack() as stack:

        async def starting(**behaviour):
            journal = JournalSettings(tmp_path / "journal.ndjson")
            sandbox = running_sandbox(replace(Behaviour(**behaviour), journal=journal))
            return Desk(tmp_path, await stack.enter_async_context(sandbox))

        yield starting
