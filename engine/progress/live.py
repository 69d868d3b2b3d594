"""The live view: a table on the terminal, drawn four times a second, gone at the end. `display` loads it if it is used.

It is a module of its own because rich takes longer to import than a small job takes. Rich's own thread draws. It only
reads, and only what `Progress.view` returns, so the event loop is never waited for and never waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine.model.submission import State
from engine.progress.display import Display
from engine.progress.events import Event
from engine.progress.snapshot import WINDOW_SECONDS, Counts, Progress, Snapshot
from engine.progress.text import clock_time, count, duration, printable, rate, share, size

FRAMES_PER_SECOND = 4
_BAR_WIDTH = 30
_LEAST_BAR_WIDTH = 6
_SHARE_WIDTH = 5
_LABEL_WIDTH = 9
"""Of the longest name of a row, and the gap behind it."""
_MOST_WAITS = 4
_MOST_LINES = 3
"""Of a failure or a note."""
_MORE = "… (whole in log.ndjson)"
_LEAST_HEIGHT = 20
"""Lines of a terminal that has room for the meaning of words."""
_UNCERTAIN = "sent, and nobody knows what became of it"
_STATES = {
    State.FROZEN: "cut, not sent yet",
    State.STAGING: "going up",
    State.STAGED: "up, not begun yet",
    State.RELEASING: "being begun",
    State.RELEASED: "at the service, which is asked about it",
    State.UNCERTAIN: _UNCERTAIN,
    State.SPLIT: "sent as two halves",
}
"""What the state of a batch means; `settled` is explained with the records."""
_STYLES = {"created": "green", "failed": "red", "rejected": "yellow", "uncertain": "magenta", "skipped": "cyan"}


class LiveDisplay(Display):
    """A table that follows a run while the block lasts."""

    def __init__(self, clock: Callable[[], float], console: Console | None = None) -> None:
        """Prepare; the table goes to standard error where `console` is left out."""
        self._progress = Progress(clock)
        self._console = console or Console(stderr=True)
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,  # a JSON object on standard output is nothing for the terminal's table
        )

    def _draw(self) -> RenderableType:
        width, height = self._console.size
        return draw(self._progress.view(), width, at=time.time(), explained=height >= _LEAST_HEIGHT)

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


def draw(now: Snapshot, width: int = 80, *, at: float, explained: bool = True) -> RenderableType:
    """Return the picture of a snapshot.

    Args:
        now: what is drawn.
        width: columns.
        at: Unix seconds; by these the end of a wait is told.
        explained: its words stand below it.
    """
    counts = now.counts
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    if counts.size_bytes:  # a job that is being canceled reads nothing more
        for name, done, total, words in _bars(now):
            rows.add_row(name, _bar(done, total, words, width - _LABEL_WIDTH))
    rows.add_row("records", _fates(counts))
    if counts.job or not counts.size_bytes:
        rows.add_row("batches", _states(counts))
        rows.add_row("speed", _speed(now))
    if counts.job and counts.size_bytes:
        rows.add_row("left", _eta(now))
    for wait in now.waits[:_MOST_WAITS]:
        until = time.strftime("%H:%M:%S", time.localtime(at + wait.seconds))
        rows.add_row("waits", Text(f"until {until} ({duration(wait.seconds)}): {printable(wait.reason)}", "yellow"))
    note = "" if now.waits and not counts.stopping else now.note
    failure = counts.first_failure and f"first: {counts.first_failure}"
    for name, text, style in (("failure", failure, "red"), ("note", note, "yellow")):
        if text:
            rows.add_row(name, Text(_cut(printable(text), _MOST_LINES * (width - _LABEL_WIDTH)), style))
    began = counts.job or ("reading" if counts.size_bytes else "starting")
    title = Text.assemble((began, "bold"), "  ", (clock_time(now.elapsed_seconds), "dim"))
    return Group(title, rows, Text(_legend(now), "dim")) if explained else Group(title, rows)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - len(_MORE)]}{_MORE}"


def _bars(now: Snapshot) -> Iterator[tuple[str, int, int, str]]:
    counts = now.counts
    read = f"{size(counts.read_bytes)} of {size(counts.size_bytes)}, {count(counts.records, 'record')}"
    yield "read", counts.read_bytes, counts.size_bytes, read
    if counts.job:
        about = "" if counts.read_complete else "about "
        settled = f"{count(counts.settled)} of {about}{count(now.expected_records, 'record')}"
        yield "settled", counts.settled, now.expected_records, settled


def _bar(done: int, total: int, words: str, width: int) -> RenderableType:
    """Return a bar with its share and its words; the bar is as long as these leave room."""
    line = Table.grid(padding=(0, 1))
    room = width - _SHARE_WIDTH - len(words) - 2
    line.add_column(width=max(min(room, _BAR_WIDTH), _LEAST_BAR_WIDTH))
    line.add_column(min_width=_SHARE_WIDTH, justify="right")
    line.add_column(overflow="fold")
    bar = ProgressBar(max(total, 1), min(done, total), complete_style="cyan", finished_style="green")
    line.add_row(bar, share(done, max(total, 1)), words)
    return line


def _legend(now: Snapshot) -> str:
    """Return what the words mean that are shown just now."""
    counts = now.counts
    if not counts.job:
        return ""
    words = {"settled": "what became of it is known"} if counts.size_bytes else {}
    words |= {state.value: meaning for state, meaning in _STATES.items() if counts.states[state]}
    words |= {"uncertain": _UNCERTAIN} if counts.uncertain else {}
    words |= {"skipped": "an earlier job has it"} if counts.skipped else {}
    words |= {"in flight": "calls without an answer yet", "/s": f"mean of the last {WINDOW_SECONDS:.0f} s"}
    return "; ".join(f"{word}: {meaning}" for word, meaning in words.items())


def _fates(counts: Counts) -> Text:
    if not counts.job and counts.size_bytes:  # they are only checked
        return _joined([(f"{count(counts.rejected)} rejected", _STYLES["rejected"] if counts.rejected else "dim")])
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
            (f"{count(now.counts.in_flight)} in flight", ""),
            (count(now.counts.retries, "retry"), "yellow" if now.counts.retries else "dim"),
        ]
    )


def _eta(now: Snapshot) -> Text:
    if now.eta.seconds is None:
        return Text(f"unknown: {now.eta.basis}", "dim")
    return Text.assemble(duration(now.eta.seconds), (f"  ({now.eta.basis})", "dim"))


def _joined(parts: list[tuple[str, str]]) -> Text:
    return Text(" · ").join(Text(words, style) for words, style in parts)
