"""Snapshots of a run in, a table on the terminal out: drawn four times a second, gone at the end.

Drawing is done by rich's own thread. It only reads, and only what `Progress.view` returns, so the event loop is never
waited for and never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine.model.submission import State
from engine.progress.events import Event
from engine.progress.figures import clock_time, count, duration, printable, rate, share, size
from engine.progress.snapshot import Progress, Snapshot

FRAMES_PER_SECOND = 4
_BAR_WIDTH = 30
_STYLES = {"created": "green", "failed": "red", "rejected": "yellow", "uncertain": "magenta"}


class LiveDisplay:
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def draw(now: Snapshot) -> RenderableType:
    """Return the picture of a snapshot."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()
    if now.size_bytes:  # a job that is being canceled reads nothing more
        rows.add_row("read", _bar(now.read_bytes, now.size_bytes, _read_words(now)))
        rows.add_row("settled", _bar(now.settled, now.expected_records, _settled_words(now)))
    rows.add_row("records", _fates(now))
    rows.add_row("batches", _states(now))
    rows.add_row("speed", _speed(now))
    if now.size_bytes:
        rows.add_row("ETA", _eta(now))
    if now.first_failure:
        rows.add_row("failure", Text(printable(now.first_failure), "red", overflow="ellipsis", no_wrap=True))
    if now.note:
        rows.add_row("note", Text(printable(now.note), "yellow", overflow="ellipsis", no_wrap=True))
    title = Text.assemble((now.job or "starting", "bold"), "  ", (clock_time(now.elapsed_seconds), "dim"))
    return Group(title, rows)


def _bar(done: int, total: int, words: str) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_column(max_width=_BAR_WIDTH)
    line.add_column(min_width=5, justify="right")
    line.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(max(total, 1), min(done, total), complete_style="cyan", finished_style="green")
    line.add_row(bar, share(done, max(total, 1)), words)
    return line


def _read_words(now: Snapshot) -> str:
    return f"{size(now.read_bytes)} of {size(now.size_bytes)}, {count(now.records, 'record')}"


def _settled_words(now: Snapshot) -> str:
    about = "" if now.read_complete else "about "
    return f"{count(now.settled)} of {about}{count(now.expected_records, 'record')}"


def _fates(now: Snapshot) -> Text:
    numbers = {
        "created": now.created,
        "failed": now.failed,
        "rejected": now.rejected,
        "uncertain": now.uncertain,
    }
    return _joined(
        [(f"{count(number)} {fate}", _STYLES[fate] if number else "dim") for fate, number in numbers.items()]
    )


def _states(now: Snapshot) -> Text:
    present = [(state, now.states.get(state, 0)) for state in State]
    return _joined([(f"{count(number)} {state}", "") for state, number in present if number] or [("none yet", "dim")])


def _speed(now: Snapshot) -> Text:
    return _joined(
        [
            (f"{rate(now.tasks_per_second)} tasks/s", ""),
            (f"{size(now.bytes_per_second)}/s", ""),
            (f"{now.in_flight} in flight", ""),
            (count(now.retries, "retry"), "yellow" if now.retries else "dim"),
        ]
    )


def _eta(now: Snapshot) -> Text:
    if now.eta.seconds is None:
        return Text(f"unknown: {now.eta.basis}", "dim")
    return Text.assemble(duration(now.eta.seconds), (f"  ({now.eta.basis})", "dim"))


def _joined(parts: list[tuple[str, str]]) -> Text:
    return Text(" · ").join(Text(words, style) for words, style in parts)
