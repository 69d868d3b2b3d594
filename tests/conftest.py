"""What many tests need: a clock whose time is made up, and aioresponses mended for aiohttp 3.14.

And what a run of the tests needs: the table of the fault suites at its end, and how many processes test.
"""

from __future__ import annotations

import os
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest
from aioresponses import aioresponses as mocked_http
from fakes.clock import FakeClock
from hypothesis import settings
from torture.faults.tally import TABLE

from engine.progress import redaction

settings.register_profile("house", deadline=None)  # a busy machine is no failure
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _a_home_of_its_own(monkeypatch, tmp_path_factory):
    """Let no test see, or make, the ledger of whoever runs the tests: left out, it is that of the working folder."""
    monkeypatch.setenv("BULKSUBMIT_LEDGER", ".bulksubmit/ledger.db")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))


@pytest.fixture(autouse=True)
def _secrets_of_its_own():
    """Have no word hidden that was a secret of another test: what was remembered before it stays, and nothing else."""
    before = frozenset(redaction._remembered)
    yield
    redaction._remembered.intersection_update(before)


@pytest.fixture
def clock():
    return FakeClock()


class MendedResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know of `stream_writer`, without which aiohttp 3.14 builds no response."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture
def http(monkeypatch):
    """An `aioresponses` that takes the place of every request."""
    monkeypatch.setattr(aioresponses.core, "ClientResponse", MendedResponse)
    with mocked_http() as mock:
        yield mock


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Two processes for each core: much of the tests' time is waiting."""
    return 2 * (os.cpu_count() or 1)


def pytest_sessionfinish(session):
    """Hand the table of the faults to the process that started this one, if xdist did."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = TABLE.as_dict()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take in the table of a process that has ended; one that was killed has none."""
    TABLE.add(getattr(node, "workeroutput", {}).get("faults", {"suites": {}, "notes": []}))


def pytest_terminal_summary(terminalreporter):
    if TABLE.suites or TABLE.notes:
        terminalreporter.section("faults")
        for line in TABLE.lines():
            terminalreporter.write_line(line)
