"""Screens and errors in, words on the standard streams out: text for people, one JSON object for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from engine.cli.options import Voice
from engine.cli.output.screen import Screen, text_of
from engine.model.errors import BulkSubmitError, Exit
from engine.progress.text import printable, redactor

_logger = logging.getLogger(__name__)


def show(screen: Screen, voice: Voice) -> int:
    """Write a last screen to standard output; return the exit code."""
    if voice.as_json:
        _write_json(screen.data)
    else:
        _write(text_of(screen, colours=_coloured()))
    return screen.exit_code


def _write_json(data: Mapping[str, Any]) -> None:
    _write(json.dumps(data) + "\n")  # not orjson: its text is not ASCII, and it refuses the names of odd files


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def tell_error(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong and return the exit code; the traceback is for the log, at its level DEBUG."""
    cause = _cause(error)
    message, code = _words(cause)
    message = redactor(os.environ)(message)
    _logger.debug("the command failed", exc_info=error)
    if as_json:
        _write_json({"error": message, "exit_code": code})
    sys.stderr.write("bulksubmit: " + "\n".join(printable(line) for line in message.splitlines()) + "\n")
    return code


def _words(cause: BaseException) -> tuple[str, int]:
    if isinstance(cause, BulkSubmitError):
        return str(cause), cause.exit_status
    return f"unexpected error: {type(cause).__name__}: {cause}. --log-level debug shows where", Exit.ERROR


def _cause(error: BaseException) -> BaseException:
    """Return the error that matters: task groups wrap what they meet, and an error of ours says what to do."""
    found = list(_leaves(error))
    return next((leaf for leaf in found if isinstance(leaf, BulkSubmitError)), found[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _coloured() -> bool:
    # https://no-color.org: present and not empty
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
