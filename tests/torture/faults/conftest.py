"""What these tests share: sandboxes, processes that die, and a table of what was done and what came of it."""

import contextlib

import pytest
import pytest_asyncio

from .judge import Sandboxes
from .lives import mortal_lives
from .tally import TABLE
from .ways import SECRETS


@pytest.fixture
def tally(request):
    """The figures of the suite to which the test belongs."""
    return TABLE.of(request.module.__name__.rpartition(".test_")[2].replace("_", " "))


@pytest.fixture(scope="session")
def sandboxes(tmp_path_factory):
    """Port and judge of the sandbox of each behaviour."""
    with contextlib.ExitStack() as stack:
        yield Sandboxes(stack, tmp_path_factory.mktemp)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lives(tmp_path_factory, sandboxes):
    async with mortal_lives(tmp_path_factory.mktemp("lives"), sandboxes) as lives:
        yield lives


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
