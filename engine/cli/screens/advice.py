"""A command of ours and the ledger in, the line to type out: what a screen proposes must work as it stands."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from engine.cli.options import DEFAULT_LEDGER, LEDGER_VARIABLE


def command(words: str, ledger: Path) -> str:
    """Return `bulksubmit WORDS`, with the ledger unless it would be found without being named."""
    if ledger == Path(os.environ.get(LEDGER_VARIABLE) or DEFAULT_LEDGER):
        return f"bulksubmit {words}"
    return f"bulksubmit {words} --ledger {shlex.quote(str(ledger))}"
