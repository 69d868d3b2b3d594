"""Log lines on standard error, as text or JSON, of events and of log records. `cli.signals` sets it up.

Nothing leaves unredacted. The formatters redact, not a `logging.Filter`: a filter sees the message, but not the
traceback that is made of an exception afterwards.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from engine.adaptive.concurrency import LimitChanged
from engine.model.batch import batch_name
from engine.model.submission import State
from engine.progress import events
from engine.progress.events import Event, Listener
from engine.progress.standard_error import write_line
from engine.progress.text import count, duration, printable, share, size, unsteered_json, waiting_line

Redact: TypeAlias = Callable[[str], str]

LOGGER = "engine"
ECS_VERSION = "8.11.0"
"""Of https://www.elastic.co/guide/en/ecs/current; only additions have come since."""


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00Z WARNING engine.events: what happened`."""

    converter = staticmethod(time.gmtime)

    def __init__(self, redact: Redact) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and below it the traceback if there is one."""
        return "\n".join(map(printable, self._redact(super().format(record)).split("\n")))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and for an event its name and its fields.

    Time and level stand there a second time, by the names of the Elastic Common Schema, which shippers of logs know.
    Its `event.name` does not: `event` is a text here, and one document cannot have both.
    """

    converter = staticmethod(time.gmtime)

    def __init__(self, redact: Redact) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the object on one line."""
        moment, level = f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03}Z", record.levelname.lower()
        line: dict[str, Any] = {
            "time": moment,
            "level": level,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
            "@timestamp": moment,
            "log.level": level,
            "ecs.version": ECS_VERSION,
            "service.name": "bulksubmit",
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
            line["error.type"] = getattr(record.exc_info[0], "__name__", "")
        # Before it becomes JSON: there a quote in a secret is written differently, and would not be found.
        hidden = {key: self._redact(value) if isinstance(value, str) else value for key, value in line.items()}
        return unsteered_json(json.dumps(hidden, ensure_ascii=False))


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_line(self.format(record))
        except Exception:  # noqa: BLE001 - a line that cannot be worded must not end the run
            self.handleError(record)


def set_up_logging(level: str, *, as_json: bool, redact: Redact) -> None:
    """Send log records of `level` and above to standard error; a second call takes the place of the first."""
    root, ours = logging.getLogger(), logging.getLogger(LOGGER)
    for earlier in [handler for handler in root.handlers if isinstance(handler, _StandardError)]:
        root.removeHandler(earlier)
    handler = _StandardError()
    handler.setFormatter(JsonLines(redact) if as_json else TextLines(redact))
    root.addHandler(handler)
    ours.setLevel(level.upper())  # libraries stay at the root's WARNING: their DEBUG shows headers and bodies


def event_log(logger: logging.Logger | None = None) -> Listener:
    """Return a listener that logs events: stops and pauses as warnings, batches as INFO, each step as DEBUG."""
    logger = logger or logging.getLogger(f"{LOGGER}.events")

    def log(event: Event) -> None:
        level = level_of(event)
        if logger.isEnabledFor(level):
            facts = {"event": type(event).__name__, **msgspec.to_builtins(event)}
            logger.log(level, "%s", printable(sentence_of(event)), extra={"facts": facts})

    return log


_LEVELS: Mapping[type[Event], int] = {
    **dict.fromkeys((events.BatchesWaiting, events.Noticed, events.Stopping), logging.WARNING),
    **dict.fromkeys((events.JobStarted, events.JobEnded, events.CallRetried, events.Spaced), logging.INFO),
    **dict.fromkeys((events.BatchProgressed, events.CallStarted, events.CallEnded, LimitChanged), logging.DEBUG),
}
"""Of events that are all alike; `_level` looks at the others."""


def level_of(event: Event) -> int:
    """Return how important the line of an event is."""
    return _LEVELS.get(type(event)) or _level(event)


def _level(event: Event) -> int:
    match event:
        case events.BatchMoved():
            return logging.WARNING if event.after is State.UNCERTAIN else logging.DEBUG
        case events.BatchSettled():
            return logging.WARNING if event.uncertain else logging.INFO
        case events.Paused():
            return logging.DEBUG if event.brief else logging.WARNING
        case events.BatchesFrozen(last=True):
            return logging.INFO
        case events.SourceCopied() if event.is_news:
            return logging.INFO
        case _:
            return logging.DEBUG


def sentence_of(event: Event) -> str:  # noqa: C901, PLR0911, PLR0912 - one line for each kind of event
    """Return what an event says, in words; not fit for a terminal before `printable`."""
    match event:
        case events.JobStarted():
            if not event.job:
                return f"{size(event.size_bytes)} of sources are checked"
            return f"job {event.job} started: {share(event.read_bytes, event.size_bytes)} of its sources read before"
        case events.BatchesFrozen():
            end = "; the sources end here" if event.last else ""
            skipped = f", {count(event.skipped)} skipped" if event.skipped else ""
            return f"{count(event.batches, 'batch')} frozen, {count(event.rejected, 'record')} rejected{skipped}{end}"
        case events.JobTallied():
            return f"{count(event.tally.created)} of {count(event.tally.records, 'record')} created by all workers"
        case events.BatchMoved():
            reason = f": {event.reason}" if event.reason else ""
            return f"batch {batch_name(event.sequence)} went from {event.before} to {event.after}{reason}"
        case events.BatchProgressed():
            return f"batch {batch_name(event.sequence)}: {event.created} tasks created so far"
        case events.BatchSettled():
            return f"batch {batch_name(event.sequence)} settled: {_fates(event)}"
        case events.BatchesWaiting():
            return waiting_line(event.batches, event.seconds, event.names)
        case events.CallStarted():
            return f"call {event.kind} started"
        case events.CallEnded():
            answer = "no answer" if event.status is None else f"HTTP {event.status}"
            return f"call {event.kind} ended after {duration(event.seconds)}: {answer}"
        case events.CallRetried():
            again = duration(event.wait_seconds)
            return f"call {event.kind}, attempt {event.attempt}: {event.failure or event.reason}; again in {again}"
        case events.Paused() | events.Spaced():
            return f"calls wait for {duration(event.wait_seconds)}: {event.reason}"
        case LimitChanged():
            return f"{event.name} goes from {event.before} to {event.after}: {event.reason}"
        case events.Stopping():
            return f"stopping: {event.reason}"
        case events.Noticed():
            return event.text
        case events.SourceCopied():
            return event.words
        case events.JobEnded():
            return f"job {event.job} ended: {event.state}"


def _fates(event: events.BatchSettled) -> str:
    uncertain = f", {event.uncertain} uncertain" if event.uncertain else ""
    reason = f"; first {'error' if event.failed else 'reason'}: {event.first_error}" if event.first_error else ""
    return f"{event.created} created, {event.failed} failed{uncertain}{reason}"
