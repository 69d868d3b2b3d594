"""The screen of `preview`: row → task → request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.cli.output.screen import Mood, Screen, Table
from engine.commands.preview import Preview, PreviewedBatch, PreviewedRecord, PreviewedRequest
from engine.model.errors import Exit
from engine.progress.redaction import Redact, redactor
from engine.progress.text import count, place_words, size

_SHOWN = 2000
"""Characters of a row, a task or a body on the screen; `--json` has them whole, a body as far as the preview has it."""


def preview_screen(preview: Preview) -> Screen:
    """Return the records, the tasks that they become, and the requests that would carry those."""
    redact = redactor(os.environ, looks=False)
    bad = sum(record.task is None for record in preview.records)
    exit_code = Exit.SOME_FAILED if bad else Exit.ALL_CREATED
    where = f"{preview.kind} at {preview.url}{f', {place_words(preview.place)}' if preview.place else ''}"
    batches = count(preview.all_batches) if preview.exact else f"about {count(preview.all_batches)}, by what was read"
    return Screen(
        f"{_verdict(preview, bad)} Nothing was sent, and nobody was called.",
        {**_redacted(msgspec.to_builtins(preview), redact), "exit_code": int(exit_code)},
        mood=Mood.MIXED if bad or preview.warnings else Mood.GOOD,
        tables=[
            Table([["to", where], ["sources", size(preview.size_bytes)], ["batches", batches]]),
            *(_record(record, redact) for record in preview.records),
            *(_batch(batch, redact, whole=not at) for at, batch in enumerate(preview.batches)),
            Table([[redact(warning)] for warning in preview.warnings], "Look at this"),
        ],
        exit_code=exit_code,
    )


def _verdict(preview: Preview, bad: int) -> str:
    shown = len(preview.records)
    if not shown:
        return "The sources hold no record."
    if shown == 1:
        return f"Record {preview.records[0].index:,} {'cannot be sent' if bad else 'as it would be sent'}."
    return f"The first {count(shown, 'record')} as they would be sent{f'; {count(bad)} cannot be' if bad else ''}."


def _record(record: PreviewedRecord, redact: Redact) -> Table:
    fate = ["no task", record.reason] if record.task is None else ["task", _cut(record.task)]
    rows = [[what, redact(text)] for what, text in (["row", _cut(record.row)], fate)]
    return Table(rows, f"Record {record.index:,}, {record.place}", whole=frozenset({1}))


def _batch(batch: PreviewedBatch, redact: Redact, *, whole: bool) -> Table:
    records = f"records {batch.first:,} to {batch.last:,}" if batch.last > batch.first else f"record {batch.first:,}"
    title = f"Batch {batch.number}: {records}, {count(batch.tasks, 'task')}, {size(batch.size_bytes)}"
    rows = [row for number, one in enumerate(batch.requests, 1) for row in _request(number, one, whole=whole)]
    if batch.unanswered:
        rows.append(("…", f"what follows depends on the answer to {batch.unanswered!r}"))
    return Table([[what, redact(text)] for what, text in rows], title, whole=frozenset({1}))


def _request(number: int, request: PreviewedRequest, *, whole: bool) -> list[tuple[str, str]]:
    """Return the rows of one request; of all but the first batch only what it is."""
    rows = [(f"{number}. {request.kind}", f"{request.method} {request.url}")]
    if whole:
        rows += [("", f"{name}: {value}") for name, value in request.headers.items()]
        rows += [("", f"sha256 of the body: {request.sha256}")] if request.sha256 else []
        rows += [("", _cut(request.body, request.size_bytes))] if request.body else []
    return rows


def _cut(text: str, size_bytes: int = 0) -> str:
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}… ({size(size_bytes or len(text.encode()))} in all; --json shows more)"


def _redacted(value: Any, redact: Redact) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _redacted(one, redact) for key, one in value.items()}
    return [_redacted(one, redact) for one in value] if isinstance(value, list) else value
