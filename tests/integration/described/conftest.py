import contextlib

import pytest
from msgspec.structs import replace

from engine.sandbox.behaviour import Behaviour, JournalSettings
from engine.sandbox.vendors.standin import serving_vendor

from .desk import VendorDesk

KEY = "sandbox-key"


@pytest.fixture
async def desk(tmp_path, monkeypatch):
    """Serve a vendor's stand-in as long as the test lasts; return a desk before it."""
    monkeypatch.setenv("VENDOR_KEY", KEY)
    async with contextlib.AsyncExitStack() as stack:

        async def starting(kind, stand_in, filled_in, *, marker, switches=None, records=20, **behaviour):
            journal = JournalSettings(tmp_path / "journal.ndjson", marker)
            told = replace(Behaviour(**behaviour), journal=journal)

            def make(behaviour, journal, clock):
                return stand_in(behaviour, journal, clock, *([switches] if switches else []))

            url, service = await stack.enter_async_context(serving_vendor(make, told))
            return VendorDesk(tmp_path, url, service, kind, filled_in, records)

        yield starting
