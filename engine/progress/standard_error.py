"""Lines on standard error, for the displays, the log and the screens.

It may be closed, full, or a pipe that nobody empties any more (`2>&1 | head -1`). A run does not end by that, and does
not wait for it: a line that finds no room is left out, and how many were is said with the next one that finds some.
"""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

PATIENCE_SECONDS = 0.2
"""For whoever reads slowly; once for each time that nobody reads any more."""

_left_out = 0
"""Lines since there was no room. The process's own, as its standard error is."""


def write_line(line: str) -> None:
    """Write a line, or leave it out."""
    global _left_out  # noqa: PLW0603 - see there
    missing = f"({_left_out} lines are left out here: nobody read them)\n" if _left_out else ""
    if _written(f"{missing}{line}\n"):
        _left_out = 0
    else:
        _left_out += 1


def _written(text: str) -> bool:
    stream = sys.stderr
    with suppress(OSError, ValueError):  # closed, or full
        stream.flush()
        if (descriptor := _descriptor(stream)) is not None:
            return _fits(descriptor, text.encode(stream.encoding, "backslashreplace"))
        stream.write(text)
        stream.flush()
    return True


def _descriptor(stream: TextIO) -> int | None:
    """Return where a stream leads; None if something stands in between: the live view, to print above itself."""
    if isinstance(stream, io.TextIOWrapper):
        with suppress(io.UnsupportedOperation):
            return stream.fileno()
    return None


def _fits(descriptor: int, content: bytes) -> bool:
    """Write what there is room for; return whether that was all."""
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    for begin in range(0, len(content), select.PIPE_BUF):  # a pipe that has room at all has room for so much
        if not room.poll(0 if _left_out else PATIENCE_SECONDS * 1000):
            return False
        os.write(descriptor, content[begin : begin + select.PIPE_BUF])
    return True
