"""Tasks of a batch enter and leave with its mark: an input by which the service can find them again.

A task that has the input already keeps its own, which whoever wrote it needs. Texts stay as they are but for the mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from engine.model.batches import Mark
from engine.reading.scanning import members


def mark_bytes(mark: Mark | None) -> int:
    """Return by how much a mark makes a task longer at most."""
    return len(_member(mark)) + 1 if mark else 0


def marked(tasks: Sequence[bytes], mark: Mark | None) -> Sequence[bytes]:
    """Return the tasks as they go up."""
    if mark is None:
        return tasks
    # The inputs stand first in nearly every task; then nothing needs to be parsed.
    first = re.compile(rb'\s*\{\s*"%b"\s*:\s*\{' % re.escape(mark.under.encode()))
    key, member = mark.key.encode(), _member(mark)
    return [_marked(task, mark, member, None if key in task else first.match(task)) for task in tasks]


def _marked(task: bytes, mark: Mark, member: bytes, found: re.Match[bytes] | None) -> bytes:
    if found is None:
        return _rebuilt(task, mark, member)
    rest = task[found.end() :]
    return task[: found.end()] + member + (b"" if rest.lstrip().startswith(b"}") else b",") + rest


def _rebuilt(task: bytes, mark: Mark, member: bytes) -> bytes:
    inputs = orjson.loads(task)[mark.under]
    if mark.key in inputs:
        return task
    texts = members(task)
    texts[mark.under] = b"{" + member + (b"," if inputs else b"") + texts[mark.under].lstrip()[1:]
    return orjson.dumps({key: orjson.Fragment(text) for key, text in texts.items()})


def _member(mark: Mark) -> bytes:
    return orjson.dumps({mark.key: mark.value})[1:-1]
