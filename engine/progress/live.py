"""The live view: a table on the terminal, drawn four times a second, gone at the end. `display` loads it if it is used.

It is a module of its own because rich takes longer to import than a small job takes. Rich's own thread draws. It only
reads, and only what `Progress.view` returns, so the event loop is never waited for and never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine.progress.display import Display
from engine.progress.events import Event
from engine.progress.snapshot import Counts, Progress, Snapshot
from engine.progress.text import clock_time, count, duration, printable, rate, share, size

FRAMES_PER_SECOND = 4
_BAR_WIDTH = 30
_STYLES = {"created": "green", "failed": "red", "rejected": "yellow", "uncertain": "magenta", "skipped": "cyan"}


class LiveDisplay(Display):
    """A table that follows a run while the block lasts."""

    def __init__(self, clock: Callable[[], float], console: Console | None = None) -> None:
        """Prepare; the table goes to standard error where `console` is left out."""
        self._progress = Progress(clock)
        self._console = console or Console(stderr=True)
        self._live = Live(
            console=self._console,
            get_renderable=lambda: draw(self._progress.view()),
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,  # a JSON object on standard output is nothing for the terminal's table
        )

    def listener(self, event: Event) -> None:
        """Fold an event."""
        self._progress.fold(event)

    def abandon(self) -> None:
        """Show the cursor again, which the live view hides."""
        self._console.show_cursor()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the terminal is gone: SIGHUP
            self._live.stop()


def draw(now: Snapshot) -> RenderableType:
    """Return the picture of a snapshot."""
    counts = now.counts
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()
    if counts.size_bytes:  # a job that is being canceled reads nothing more
        read = f"{size(counts.read_bytes)} of {size(counts.size_bytes)}, {count(counts.records, 'record')}"
        about = "" if counts.read_complete else "about "
        settled = f"{count(counts.settled)} of {about}{count(now.expected_records, 'record')}"
        rows.add_row("read", _bar(counts.read_bytes, counts.size_bytes, read))
        rows.add_row("settled", _bar(counts.settled, now.expected_records, settled))
    rows.add_row("records", _fates(counts))
    rows.add_row("batches", _states(counts))
    rows.add_row("speed", _speed(now))
    if counts.size_bytes:
        rows.add_row("ETA", _eta(now))
    for name, text, style in (("failure", counts.first_failure, "red"), ("note", now.note, "yellow")):
        if text:
            rows.add_row(name, Text(printable(text), style, overflow="ellipsis", no_wrap=True))
    title = Text.assemble((counts.job or "starting", "bold"), "  ", (clock_time(now.elapsed_seconds), "dim"))
    return Group(title, rows)


def _bar(done: int, total: int, words: str) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_column(max_width=_BAR_WIDTH)
    line.add_column(min_width=5, justify="right")
    line.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(max(total, 1), min(done, total), complete_style="cyan", finished_style="green")
    line.add_row(bar, share(done, max(total, 1)), words)
    return line


def _fates(counts: Counts) -> Text:
    numbers = {fate: getattr(counts, fate) for fate in _STYLES}
    return _joined(
        [
            (f"{count(number)} {fate}", _STYLES[fate] if number else "dim")
            for fate, number in numbers.items()
            if number or fate != "skipped"  # most jobs know nothing of earlier ones
        ]
    )


def _states(counts: Counts) -> Text:
    present = [(f"{count(number)} {state}", "") for state, number in counts.states.items() if number]
    return _joined(present or [("none yet", "dim")])


def _speed(now: Snapshot) -> Text:
    return _joined(
        [
            (f"{rate(now.tasks_per_second)} tasks/s", ""),
            (f"{size(now.bytes_per_second)}/s", ""),
            (f"{now.counts.in_flight} in flight", ""),
            (count(now.counts.retries, "retry"), "yellow" if now.counts.retries else "dim"),
        ]
    )


def _eta(now: Snapshot) -> Text:
    if now.eta.seconds is None:
        return Text(f"unknown: {now.eta.basis}", "dim")
    return Text.assemble(duration(now.eta.seconds), (f"  ({now.eta.basis})", "dim"))


def _joined(parts: list[tuple[str, str]]) -> Text:
    return Text(" · ").join(Text(words, style) for words, style in parts)
