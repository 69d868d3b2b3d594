"""Runs an operation in an event loop, shows it while it lasts, and has a signal end it in order; `app` calls it.

The first SIGINT or SIGTERM asks the run to end: nothing new is begun, calls under way finish. A second one ends the
process where it stands, even if the event loop hangs, because it is taken by a plain signal handler. That is safe:
what the ledger says is durable before anything builds on it. The same signal again within half a second is no second
one: `timeout` signals its child and then the child's group, and a person's finger may bounce.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import FrameType
from typing import TypeAlias, TypeVar

import anyio
import anyio.abc

from engine.cli.options import LogFormat, Voice
from engine.model.errors import BulkSubmitError, Interrupted
from engine.progress.display import Display, choose_display
from engine.progress.events import Listener, Stopping, fan_out
from engine.progress.log import event_log, set_up_logging
from engine.progress.text import redactor
from engine.run.context import Stop

T = TypeVar("T")
Work: TypeAlias = Callable[[Listener, Stop], Awaitable[T]]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TIDY_SECONDS = 0.5
"""Longest delay of a hard end; whoever signals twice expects it within a second."""

REPEAT_SECONDS = 0.5
"""The same signal again within this time is the first one, told twice."""


YOUNG_OBJECTS = 10_000
"""New objects before the cyclic garbage collector looks for garbage among them; Python's own default is 700.

Nearly all of our garbage is freed by its reference counts. Parsed JSON holds no cycles, but a page of it is thousands
of new objects. Cycles come from exceptions and tasks, a few objects a batch: memory stays flat.
"""


_M_ARENA_MAX = -8
"""Of glibc's malloc.h. One heap instead of several: 69 instead of 76 MiB at 100 MB, in the same CPU time."""


class Broken(Interrupted):
    """Interrupted. Nothing was changed; run the command again."""


def ask(question: Callable[[], Awaitable[T]], voice: Voice) -> T:
    """Return the answer to a question that changes nothing and shows nothing before its end."""
    set_up_logging(voice.log_level, as_json=voice.log_format is LogFormat.JSON, redact=redactor(os.environ))
    return _in_loop(question)


def watch(work: Callable[[Listener], Awaitable[T]], voice: Voice) -> T:
    """Do work that shows how far it is and may be broken off anywhere."""
    display, listener = _shown(voice)
    with display:
        return ask(lambda: work(listener), voice)


def perform(work: Work[T], voice: Voice) -> T:
    """Do work that shows how far it is and is ended in order by a signal."""
    display, listener = _shown(voice)
    with display:
        return ask(lambda: _attended(work, listener, display), voice)


def _shown(voice: Voice) -> tuple[Display, Listener]:
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    silent = voice.quiet or (voice.detailed and not terminal)
    display = choose_display(time.monotonic, terminal=terminal, silent=silent)
    # One voice at a time: whoever asks for a log, or for quiet, gets events as log lines instead of the plain ones.
    listener = fan_out(display.listener, event_log()) if voice.detailed or voice.quiet else display.listener
    return display, listener


def _in_loop(work: Callable[[], Awaitable[T]]) -> T:
    _share_one_heap()
    options = {"use_uvloop": find_spec("uvloop") is not None}
    try:
        with collecting():
            return anyio.run(work, backend="asyncio", backend_options=options)
    except* KeyboardInterrupt:  # starred: a task group may have wrapped it
        raise Broken(signal.SIGINT) from None


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


async def _attended(work: Work[T], emit: Listener, display: Display) -> T:
    stop = Stop()
    outcome: T | BulkSubmitError
    async with anyio.create_task_group() as group:
        await group.start(_heed_signals, stop, emit, display)
        try:
            outcome = await work(emit, stop)
        except BulkSubmitError as error:
            outcome = error
        group.cancel_scope.cancel()
    if isinstance(outcome, BulkSubmitError):
        raise outcome
    return outcome


async def _heed_signals(
    stop: Stop, emit: Listener, display: Display, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with anyio.open_signal_receiver(*SIGNALS) as received:
            task_status.started()
            first = await anext(received)
            # Inside of the block: at its end the signals are nobody's for a moment, and the next one may be on its way.
            _end_on(SIGNALS, first, display)
            emit(Stopping(f"{first.name} received; calls under way may finish. The same again ends it at once"))
            stop.request(Interrupted(first))
            await anyio.sleep_forever()
    finally:
        for signal_number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(signal_number, handler)


def _end_on(numbers: tuple[signal.Signals, ...], first: signal.Signals, display: Display) -> None:
    began = time.monotonic()

    def end(number: int, _frame: FrameType | None) -> None:
        if number == first and time.monotonic() - began < REPEAT_SECONDS:
            return
        tidying = threading.Thread(target=display.abandon, daemon=True)  # the terminal may be stopped by Ctrl-S
        tidying.start()
        tidying.join(TIDY_SECONDS)
        os._exit(128 + number)

    for number in numbers:
        signal.signal(number, end)
