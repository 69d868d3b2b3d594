"""The operations of `engine` for a program without an event loop: each returns when it is done.

`engine.sync.submit(…)` takes what `engine.submit` takes, and so does every other one. Each call has a thread and an
event loop of its own, so it works in any thread, and where a loop runs already, as in a notebook. No signal is touched:
a `KeyboardInterrupt` that comes meanwhile cancels the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from functools import partial, wraps
from importlib.util import find_spec
from inspect import iscoroutinefunction
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

import engine

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from engine.commands.start import RunHandle
    from engine.progress.events import Event, EventsDropped

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(operation: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Return the twin of an operation: it takes the same, and returns when that is done."""

    @wraps(operation)
    def call(*args: P.args, **options: P.kwargs) -> T:
        with _portal() as portal:
            done: Future[T] = portal.start_task_soon(partial(operation, *args, **options))
            return done.result()

    return call


def _portal() -> AbstractContextManager[BlockingPortal]:
    """Run an event loop in a thread of its own, as long as the block lasts."""
    from anyio.from_thread import start_blocking_portal  # noqa: PLC0415 - once it is needed

    return start_blocking_portal("asyncio", {"use_uvloop": find_spec("uvloop") is not None}, name="bulksubmit")


def start(operation: Callable[P, T], *args: P.args, **options: P.kwargs) -> SyncRunHandle[T]:
    """Return a handle on an operation of this module; entering it begins the work, as `engine.start` has it.

    Raises:
        TypeError: it is none of this module.
    """
    wrapped = getattr(operation, "__wrapped__", None)
    if wrapped is None or getattr(operation, "__module__", "").partition(".")[0] != engine.__name__:
        raise TypeError(f"{operation!r} is no operation of engine.sync: engine.sync.submit is one")
    twin = operation if iscoroutinefunction(operation) else wrapped
    return SyncRunHandle(lambda: engine.start(twin, *args, **options))


class SyncRunHandle(Generic[T]):
    """A run under way, from the beginning of a `with` block to its end: what `engine.RunHandle` is, without a loop."""

    def __init__(self, make: Callable[[], RunHandle[T]]) -> None:
        """Prepare; `start` calls it."""
        self._make = make
        self._portal: BlockingPortal
        self._handle: RunHandle[T]
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._portal = opened.enter_context(_portal())
            self._handle = self._portal.call(self._make)
            opened.enter_context(self._portal.wrap_async_context_manager(self._handle))
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[Event | EventsDropped]:
        """Yield what happens, from the beginning of the run to its end."""
        while events := self._portal.call(self._handle.next_events):
            yield from events

    def result(self) -> T:
        """Wait for the end of the run, and return what the operation returns, or raise what it raises."""
        if (ended := self._handle.result_of_ended()) is not None:  # the block may have been left
            return ended
        return self._portal.call(self._handle.result)

    def stop(self) -> None:
        """End the run in order: nothing new is begun, what is under way may finish. Any thread may call it."""
        self._portal.call(self._handle.stop)


if TYPE_CHECKING:  # so that editors and type checkers know what each takes; tests see that none is missing
    audit = _blocking(engine.audit)
    backup = _blocking(engine.backup)
    cancel = _blocking(engine.cancel)
    check = _blocking(engine.check)
    copy_ledger = _blocking(engine.copy_ledger)
    find_failed_tasks = _blocking(engine.find_failed_tasks)
    find_record = _blocking(engine.find_record)
    find_uncertain = _blocking(engine.find_uncertain)
    find_undoable = _blocking(engine.find_undoable)
    missing = _blocking(engine.missing)
    nightly = _blocking(engine.nightly)
    overview = _blocking(engine.overview)
    preview = _blocking(engine.preview)
    probe = _blocking(engine.probe)
    prune = _blocking(engine.prune)
    refresh = _blocking(engine.refresh)
    report = _blocking(engine.report)
    resume = _blocking(engine.resume)
    retry = _blocking(engine.retry)
    retry_tasks = _blocking(engine.retry_tasks)
    status = _blocking(engine.status)
    submit = _blocking(engine.submit)
    tell_story = _blocking(engine.tell_story)
    undo = _blocking(engine.undo)
    validate = _blocking(engine.validate)
    work = _blocking(engine.work)
    write_page = _blocking(engine.write_page)
else:

    def __getattr__(name: str) -> Callable[..., Any]:
        operation = getattr(engine, name, None) if name in engine.__all__ else None
        if not iscoroutinefunction(operation):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _blocking(operation)


def __dir__() -> list[str]:
    operations = [name for name in engine.__all__ if iscoroutinefunction(getattr(engine, name))]
    return [*operations, "SyncRunHandle", "start"]
