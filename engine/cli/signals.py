"""Runs an operation in an event loop, shows it while it lasts, and has a signal end it in order; `app` calls it.

The first SIGINT, SIGTERM or SIGHUP asks the run to end: nothing new is begun, calls under way finish. A second one ends
the process where it stands, and so does time: ten seconds after the first one it is gone, whatever hangs. That is safe:
what the ledger says is durable before anything builds on it. The same signal again within half a second is no second
one: `timeout` signals its child and then the child's group, and a person's finger may bounce. A signal that whoever
started us has ignored (`nohup`) stays ignored.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Self, TypeAlias, TypeVar

import anyio

from engine.cli.options import LogFormat, OutputOptions
from engine.model.errors import ConfigError, Interrupted
from engine.progress.display import Display, choose_display
from engine.progress.events import Listener, Stopping, fan_out
from engine.progress.log import event_log, set_up_logging
from engine.progress.redaction import redactor
from engine.progress.standard_error import write_line
from engine.progress.text import printable
from engine.run.context import DRAIN_SECONDS, Stop

T = TypeVar("T")
Work: TypeAlias = Callable[[Listener, Stop], Awaitable[T]]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END_SECONDS = DRAIN_SECONDS + 1.2
"""From the first signal to the end of the process at the latest; service managers and containers kill after ten."""

HARD_END_SECONDS = 0.5
"""Longest delay of a hard end; whoever signals twice expects it within a second."""

REPEAT_SECONDS = 0.5
"""The same signal again within this time is the first one, told twice."""


LEAST_DESCRIPTORS = 64
"""Files and connections. A command opens up to 22 before its first call, and each call under way one more."""

YOUNG_OBJECTS = 10_000
"""New objects before the cyclic garbage collector looks for garbage among them; Python's own default is 700.

Nearly all of our garbage is freed by its reference counts. Parsed JSON holds no cycles, but a page of it is thousands
of new objects. Cycles come from exceptions and tasks, a few objects a batch: memory stays flat.
"""


_M_ARENA_MAX = -8
"""Of glibc's malloc.h. One heap instead of several: 69 instead of 76 MiB at 100 MB, in the same CPU time."""


class Broken(Interrupted):
    """Interrupted. Nothing was changed; run the command again."""


def ask(question: Callable[[], Awaitable[T]], output_options: OutputOptions) -> T:
    """Return the answer to a question that changes nothing and shows nothing before its end."""
    _set_up_logging(output_options)
    try:
        with breakable():
            return _in_loop(question)
    except* KeyboardInterrupt:  # starred: a task group may have wrapped it
        raise Broken(signal.SIGINT) from None


def watch(work: Callable[[Listener], Awaitable[T]], output_options: OutputOptions) -> T:
    """Do work that shows how far it is and may be broken off anywhere."""
    display, listener = _shown(output_options)
    with display:
        return ask(lambda: work(listener), output_options)


def perform(work: Work[T], output_options: OutputOptions) -> T:
    """Do work that shows how far it is and is ended in order by a signal."""
    display, listener = _shown(output_options)
    _set_up_logging(output_options)
    with display, _Attendant(display) as attendant:
        return _in_loop(lambda: attendant.attend(work, listener))


@contextmanager
def breakable() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt, unless it is ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _set_up_logging(output_options: OutputOptions) -> None:
    set_up_logging(
        output_options.log_level, as_json=output_options.log_format is LogFormat.JSON, redact=redactor(os.environ)
    )


def _shown(output_options: OutputOptions) -> tuple[Display, Listener]:
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    detailed, quiet = output_options.detailed, output_options.quiet
    silent = detailed and (quiet or not terminal)
    display = choose_display(time.monotonic, terminal=terminal, silent=silent, quiet=quiet and not detailed)
    # One voice at a time: whoever asks for a log gets events as log lines instead of the plain ones.
    return display, fan_out(display.listener, event_log()) if detailed else display.listener


def _in_loop(work: Callable[[], Awaitable[T]]) -> T:
    _share_one_heap()
    allow_descriptors()
    with collecting():
        return anyio.run(work, backend="asyncio", backend_options={"use_uvloop": find_spec("uvloop") is not None})


def allow_descriptors() -> None:
    """Let this process open as many files and connections as the system allows it; a shell often grants it fewer.

    Raises:
        ConfigError: those are too few. Where it runs out of them, any step may fail.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS grants less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft != resource.RLIM_INFINITY and soft < LEAST_DESCRIPTORS:
        raise ConfigError(
            f"this process may open only {soft} files at once and needs {LEAST_DESCRIPTORS}: allow more "
            f"(ulimit -n {LEAST_DESCRIPTORS}), and run the command again"
        )


def _share_one_heap() -> None:
    """Have all threads take memory from one heap; else glibc keeps for each what its largest batches took."""
    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


@contextmanager
def collecting() -> Iterator[None]:
    """Have the cyclic garbage collector at work, but pass over what is there already: all modules take it 40 ms."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()


class _Attendant:
    """Takes the signals that come during a run.

    They are taken by plain handlers, which work while the event loop hangs, and judged by a thread, which works while
    the main thread hangs. A handler does no more than to put them into a queue: it may interrupt anything.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._received: SimpleQueue[int | None] = SimpleQueue()
        self._first: int | None = None
        self._ask_to_end: Callable[[int], object] = lambda _: None
        self._stop = Stop()
        self._thread = threading.Thread(target=self._judge, name="signals", daemon=True)
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():  # as it was; but who was told to end says so by its exit code
            signal.signal(number, handler if self._first is None else _exit_now)  # type: ignore[arg-type]
        self._received.put(None)
        self._thread.join()

    async def attend(self, work: Work[T], emit: Listener) -> T:
        """Do the work; it is asked to end once there was a signal."""
        stop, loop = self._stop, asyncio.get_running_loop()

        def end(number: int) -> None:
            if stop.error is None:
                name = signal.Signals(number).name
                emit(Stopping(f"{name} received; calls under way may finish. The same again ends it at once"))
                stop.request(Interrupted(number))

        self._ask_to_end = lambda number: loop.call_soon_threadsafe(end, number)
        if self._first is not None:  # it was there before the loop
            end(self._first)
        return await work(emit, stop)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._received.put(number)

    def _judge(self) -> None:
        """Ask for the end at the first signal; end the process at the second one, or when it takes too long."""
        first = self._first = self._received.get()
        if first is None:  # the work is done
            return
        began = time.monotonic()
        with suppress(RuntimeError):  # the loop has just ended
            self._ask_to_end(first)
        while (number := self._next(began + END_SECONDS)) is not None:
            if number != first or time.monotonic() - began >= REPEAT_SECONDS:
                self._end(number)

    def _next(self, until: float) -> int | None:
        try:
            return self._received.get(timeout=max(until - time.monotonic(), 0))
        except Empty:
            write_line(
                f"bulksubmit: not all that was under way has finished in time; {printable(self._stop.goes_on)} goes on"
            )
            return self._first

    def _end(self, number: int) -> None:
        tidying = threading.Thread(target=self._display.abandon, daemon=True)  # the terminal may be stopped by Ctrl-S
        tidying.start()
        tidying.join(HARD_END_SECONDS)
        for group in list(self._stop.groups):
            with suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        os._exit(128 + number)


def _exit_now(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
