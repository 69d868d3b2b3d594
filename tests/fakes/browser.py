"""The Chromium of this machine, without a word to anybody but the page under test."""

import os
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("BULKSUBMIT_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launched(playwright):
    """Start it by playwright; whoever started it closes it."""
    if not Path(CHROMIUM).exists():
        pytest.fail(
            f"{CHROMIUM} is not there: `make test-system` as root installs it; BULKSUBMIT_CHROMIUM names another"
        )
    return playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
