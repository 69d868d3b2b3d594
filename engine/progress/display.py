"""How a run is shown: plain lines on standard error, the live view on a terminal, or nothing. `cli.signals` chooses.

Every display folds events into a `Progress` and draws from its snapshots at its own pace, so an event costs the same
whether anybody watches or not. Plain lines come every few seconds, from within an event, and at once for what a person
wants to know.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager

from engine.model.batch import batch_name
from engine.model.submission import State
from engine.progress import events
from engine.progress.events import Event
from engine.progress.log import level_of, sentence_of
from engine.progress.snapshot import SHORTEST_SECONDS, Progress, Snapshot
from engine.progress.standard_error import write_line
from engine.progress.text import clock_time, count, duration, printable, rate, share, size, waiting_line

LINE_SECONDS = 5.0
"""Between plain lines: often enough to see life, seldom enough for the log of a nightly run."""


class Display(AbstractContextManager["Display"]):
    """Shows a run while the block lasts; this one shows nothing."""

    def listener(self, event: Event) -> None:
        """Take an event in."""

    def abandon(self) -> None:
        """Leave the terminal usable: the process ends at once."""

    def __exit__(self, *_: object) -> None:
        pass


def choose_display(clock: Callable[[], float], *, terminal: bool, silent: bool, quiet: bool = False) -> Display:
    """Return the live view for a terminal, plain lines for anything else, or what shows nothing.

    `quiet`: what was to be warned of is one line at the end.
    """
    if quiet or silent:
        return QuietDisplay(clock) if quiet else Display()
    if terminal:
        from engine.progress.live import LiveDisplay  # noqa: PLC0415 - rich takes longer to import than to draw

        return LiveDisplay(clock)
    return PlainDisplay(clock)


class QuietDisplay(Display):
    """Says nothing while a run lasts, and sums up at the end what it would have warned of: one line at most."""

    def __init__(self, clock: Callable[[], float], write: Callable[[str], None] | None = None) -> None:
        """Prepare; the line goes to standard error where `write` is left out."""
        self._clock = clock
        self._write = write or write_line
        self._warnings = 0
        self._first = ""
        self._waited_seconds = 0.0
        self._waited_until = 0.0
        self._reason = ""

    def listener(self, event: Event) -> None:
        """Count a warning."""
        if level_of(event) < logging.WARNING or isinstance(event, events.Stopping):  # the last screen says why it ended
            return
        self._warnings += 1
        if isinstance(event, events.Paused):
            self._wait(event)
        else:
            self._first = self._first or sentence_of(event)

    def _wait(self, event: events.Paused) -> None:
        now = self._clock()
        until, counted = now + event.wait_seconds, max(now, self._waited_until)
        self._waited_seconds += max(until - counted, 0.0)
        self._waited_until = max(until, counted)
        self._reason = event.reason

    def __exit__(self, *_: object) -> None:
        if self._warnings:
            waited = f"calls waited {duration(self._waited_seconds)} in all, last because {self._reason}"
            said = [waited] if self._reason else []
            said += [self._first] if self._first else []
            line = f"{count(self._warnings, 'warning')}: {'; '.join(said)}. log.ndjson of the job has each of them"
            self._write(printable(line))


class PlainDisplay(Display):
    """Lines of text: how far it is every few seconds, and what is worth a line of its own."""

    def __init__(self, clock: Callable[[], float], write: Callable[[str], None] | None = None) -> None:
        """Prepare; lines go to standard error where `write` is left out."""
        self._clock = clock
        self._write = write or write_line
        self._progress = Progress(clock)
        self._due = clock() + LINE_SECONDS

    def listener(self, event: Event) -> None:
        """Fold an event and write the lines that are due."""
        news = self._news(event)
        self._progress.fold(event)
        if news:
            self._say(news)
        match event:
            case events.JobStarted() | events.Stopping():
                self._due = self._clock() + LINE_SECONDS
            case events.JobEnded():
                self._due = math.inf
        if self._clock() >= self._due:
            self._say(progress_line(self._progress.view()))
            self._due = self._clock() + LINE_SECONDS

    def _say(self, line: str) -> None:
        self._write(f"[{clock_time(self._progress.elapsed_seconds)}] {printable(line)}")

    def _news(self, event: Event) -> str:  # noqa: C901, PLR0911 - one sentence for each kind of event
        """Return the line to be written at once. Called before the event is folded, so it knows the first of a kind."""
        match event:
            case events.JobStarted():
                return _beginning(event)
            case events.BatchesFrozen(last=True):
                return f"all is read: {count(self._progress.counts.records + event.records, 'record')}"
            case events.BatchSettled() | events.BatchMoved() if not self._progress.counts.first_failure:
                return _first_failure(event)
            case events.CallRetried() if not self._progress.retrying:
                return _first_retry(event)
            case events.Paused() if not (event.brief or self._progress.paused):
                return f"calls wait for {duration(event.wait_seconds)}: {event.reason}"
            case events.BatchesWaiting():
                return waiting_line(event.batches, event.seconds, event.names)
            case events.Stopping():
                return f"stopping: {event.reason}"
            case events.Noticed():
                return event.text
            case events.SourceCopied() if event.is_news:
                return event.words
            case events.JobEnded():
                return f"job {event.job} is {event.state}; {_figures(self._progress.view(), ended=True)}"
            case _:
                return ""


def _beginning(event: events.JobStarted) -> str:
    if not event.job:
        return f"{size(event.size_bytes)} to read"
    if not event.read_bytes:
        return f"job {event.job}: {size(event.size_bytes)} to read"
    read = share(event.read_bytes, event.size_bytes)
    return (
        f"job {event.job} goes on: {read} of {size(event.size_bytes)} read, {count(event.before.records, 'record')}, "
        f"{count(event.before.created)} of them created"
    )


def _first_failure(event: events.BatchSettled | events.BatchMoved) -> str:
    match event:
        case events.BatchSettled(failed=0, uncertain=uncertain) if uncertain:
            return f"{count(uncertain, 'record')} of batch {batch_name(event.sequence)} uncertain: {event.first_error}"
        case events.BatchSettled(first_error=error) if error:
            return f"first failure, in batch {batch_name(event.sequence)}: {error}"
        case events.BatchMoved(after=State.UNCERTAIN):
            return f"batch {batch_name(event.sequence)} is uncertain: {event.reason}"
        case _:
            return ""


def _first_retry(event: events.CallRetried) -> str:
    left = "" if event.left_seconds is None else f" for up to {duration(event.left_seconds)}"
    failure = event.failure or f"{event.kind} did not succeed ({event.reason})"
    return f"{failure}; calls that fail are tried again{left}"


def progress_line(now: Snapshot) -> str:
    """Return how a run stands on one line."""
    if now.counts.copying:
        return now.counts.copying
    eta = f"about {duration(now.eta.seconds)} left" if now.eta.seconds and now.counts.job else ""
    # Why it stops was said when it began to, and stands at the end of the run again.
    return ", ".join(part for part in (_figures(now), eta, "stopping" if now.counts.stopping else now.note) if part)


def _figures(now: Snapshot, *, ended: bool = False) -> str:
    """Return the numbers; those of a run that has `ended` are followed by the mean over all of it."""
    counts = now.counts
    read = f"read {count(counts.records)} ({share(counts.read_bytes, counts.size_bytes)})"
    if not counts.job and counts.size_bytes:  # records are only checked
        return f"{read}, {count(counts.rejected)} rejected"
    others = {
        "skipped": counts.skipped,
        "failed": counts.failed,
        "rejected": counts.rejected,
        "uncertain": counts.uncertain,
    }
    parts = [
        *([read] if counts.size_bytes else []),
        f"created {count(counts.created)}",
        *(f"{count(number)} {fate}" for fate, number in others.items() if number),
        *([] if ended else [f"{rate(now.tasks_per_second)} tasks/s", f"{size(now.bytes_per_second)}/s"]),
        *([] if ended else [f"{counts.in_flight} in flight"]),
        *([count(counts.retries, "retry")] if counts.retries else []),
    ]
    tasks, seconds = counts.answered - now.answered_before, now.elapsed_seconds
    if ended and tasks > 0 and seconds >= SHORTEST_SECONDS:
        parts.append(f"{rate(tasks / seconds)} tasks/s in {duration(seconds)}")
    return ", ".join(parts)
