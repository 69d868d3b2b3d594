"""The client reference: an input that marks each task of a batch as ours, so that the service can find them again.

The chunker and the payload call it: both get the same bytes. A task that has the input already keeps its own, which its
author needs. Texts stay as they are but for the mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from engine.model.batch import ClientReference
from engine.source.json_text import members


def reference_bytes(reference: ClientReference | None) -> int:
    """Return by how much a mark makes a task longer at most."""
    return len(_member(reference)) + 1 if reference else 0


def with_reference(tasks: Sequence[bytes], reference: ClientReference | None) -> Sequence[bytes]:
    """Return the tasks as they go up."""
    if reference is None:
        return tasks
    # The inputs stand first in nearly every task; then nothing needs to be parsed.
    first = re.compile(rb'\s*\{\s*"%b"\s*:\s*\{' % re.escape(reference.under.encode()))
    key, member = reference.key.encode(), _member(reference)
    return [_with_reference(task, reference, member, None if key in task else first.match(task)) for task in tasks]


def _with_reference(task: bytes, reference: ClientReference, member: bytes, found: re.Match[bytes] | None) -> bytes:
    if found is None:
        return _rebuilt(task, reference, member)
    rest = task[found.end() :]
    return task[: found.end()] + member + (b"" if rest.lstrip().startswith(b"}") else b",") + rest


def _rebuilt(task: bytes, reference: ClientReference, member: bytes) -> bytes:
    inputs = orjson.loads(task)[reference.under]
    if reference.key in inputs:
        return task
    texts = members(task)
    texts[reference.under] = b"{" + member + (b"," if inputs else b"") + texts[reference.under].lstrip()[1:]
    return orjson.dumps({key: orjson.Fragment(text) for key, text in texts.items()})


def _member(reference: ClientReference) -> bytes:
    return orjson.dumps({reference.key: reference.value})[1:-1]
