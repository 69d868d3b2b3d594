"""The log file of a job: what happened in its runs, as JSON lines, kept to some megabytes. `commands.runs` opens it.

It never holds up or fails a run: the lines are worded, redacted and written by a thread, and one that finds no room, in
that thread's queue or on the disk, is left out. That many were is said with the next one. Batches that go well have no
line: a job may have millions of them, and the ledger has each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any, Self

from engine.files import has_disk_room, private
from engine.progress.events import BatchSettled, Event
from engine.progress.log import LOGGER, JsonLines, Redact, event_log, level_of

LOG_FILE = "log.ndjson"
"""In the job's output folder; older parts are LOG_FILE.1, which is the newest of them, and so on."""
_PART_BYTES, _OLDER_PARTS = 5_000_000, 3
MOST_OF_A_KIND, _WINDOW_SECONDS = 100, 10.0
"""Lines of one kind of event in ten seconds: what is told a thousand times is told no better."""
_MOST_QUEUED = 5_000
_CLOSE_SECONDS = 2.0
"""For the last lines; a disk that hangs must not hold the end of the run."""


class JobLog(AbstractContextManager["JobLog"]):
    """Writes the log file of a job while the block lasts."""

    def __init__(self, folder: Path, clock: Callable[[], float], redact: Redact) -> None:
        """Prepare; `clock` returns seconds that never jump."""
        self.warnings = 0
        """Lines that warn, whether they were written or not."""
        self._clock = clock
        self._queue: Queue[logging.LogRecord | None] = Queue(_MOST_QUEUED)
        self._left_out = 0
        self._window = (0.0, dict[type[Event], int]())
        """When it ends, and how many lines of each kind it has."""
        self._file = _PartedFile(folder / LOG_FILE, redact)
        self._logger = logging.Logger(f"{LOGGER}.events", logging.INFO)  # noqa: LOG001 - of this run; a named one would stay for ever
        self._logger.addHandler(_Handing(self._put))
        self._log_event = event_log(self._logger)
        self._thread = Thread(target=self._write, name="log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def hear(self, event: Event) -> None:
        """Log an event, if it is worth a line."""
        level = level_of(event)
        if level < logging.INFO or (isinstance(event, BatchSettled) and not (event.failed or event.uncertain)):
            return
        self.warnings += level >= logging.WARNING
        if self._allowed(type(event)):
            self._log_event(event)

    def say(self, level: int, message: str, **facts: Any) -> None:
        """Log what is no event."""
        self.warnings += level >= logging.WARNING
        self._logger.log(level, "%s", message, extra={"facts": facts})

    def _allowed(self, kind: type[Event]) -> bool:
        ends, lines = self._window
        if self._clock() >= ends:
            ends, lines = self._window = (self._clock() + _WINDOW_SECONDS, {})
        lines[kind] = lines.get(kind, 0) + 1
        self._left_out += lines[kind] > MOST_OF_A_KIND
        return lines[kind] <= MOST_OF_A_KIND

    def _put(self, record: logging.LogRecord) -> None:
        if self._left_out:
            vars(record)["facts"] = {**getattr(record, "facts", {}), "lines_left_out_before": self._left_out}
        try:
            self._queue.put_nowait(record)
        except Full:
            self._left_out += 1
        else:
            self._left_out = 0

    def _write(self) -> None:
        while (record := self._queue.get()) is not None:
            self._file.handle(record)
        self._file.close()

    def __exit__(self, *_: object) -> None:
        try:
            self._queue.put(None, timeout=_CLOSE_SECONDS)
        except Full:
            return
        self._thread.join(_CLOSE_SECONDS)


class _Handing(logging.Handler):
    """Hands records on."""

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record)


class _PartedFile(RotatingFileHandler):
    """A file of ours alone, which is begun anew when it is long; what cannot be written is left out."""

    def __init__(self, path: Path, redact: Redact) -> None:
        super().__init__(path, maxBytes=_PART_BYTES, backupCount=_OLDER_PARTS, encoding="utf-8", delay=True)
        self.setFormatter(JsonLines(redact))
        self._folder = path.parent

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=private)

    def emit(self, record: logging.LogRecord) -> None:
        if has_disk_room(self._folder):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Leave the line out; the next one may find the disk as it should be."""
