"""Answers a shell that asks for the names of jobs, while a person waits behind the Tab key.

`bulksubmit completion --jobs PREFIX WORD…` prints them, one a line; the script that `completion SHELL` prints calls it.
The words are the line so far: it may name a ledger. No parser of options is loaded, and nothing is ever an error. Of a
ledger in a database no names are shown: to load its client and ask it may take longer than a person waits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def answer(arguments: Sequence[str]) -> None:
    """Print the names of jobs that begin with the first argument; the others are the words of the line so far."""
    with suppress(Exception):  # a shell would show it amid the line that is being typed
        prefix, words = (arguments[0] if arguments else ""), arguments[1:]
        from engine.ledger.names import job_names  # noqa: PLC0415 - only if it is wanted: here each millisecond counts

        sys.stdout.write("".join(f"{name}\n" for name in job_names(_ledger(words), prefix)))


def _ledger(words: Sequence[str]) -> Path:
    """Return the file that the line means, as the command would find it; of a URL, one that is not there."""
    from engine.files import find_ledger  # noqa: PLC0415 - see above

    if named := _value(words, "--ledger"):
        return Path(os.path.expanduser(named))  # noqa: PTH111 - Path.expanduser may raise - Path.expanduser raises a RuntimeError
    config = _value(words, "--config") or _value(words, "-c")
    return Path(find_ledger(_configured(Path(os.path.expanduser(config))) if config else None))  # noqa: PTH111 - likewise


def _value(words: Sequence[str], option: str) -> str:
    """Return what an option was given; a shell may have cut `--ledger=PATH` into three words, or one."""
    for at, word in enumerate(words):
        if word == option:
            rest = [one for one in words[at + 1 : at + 3] if one != "="]
            return rest[0] if rest else ""
        if word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return ""


def _configured(config: Path) -> Path | None:
    import tomllib  # noqa: PLC0415 - only where a configuration is named

    with suppress(OSError, ValueError):
        if config.is_file():
            named = tomllib.loads(config.read_text(encoding="utf-8")).get("ledger")
            return config.parent / Path(os.path.expanduser(named)) if isinstance(named, str) else None  # noqa: PTH111
    return None
