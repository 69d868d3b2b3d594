"""A process that only plans: a recipe and segments enter by standard input, plans leave by standard output, pickled.

The parent starts it, and nobody else talks to it. It never outlives the parent: with the parent both pipes are gone, so
its next read or write ends it. It hears no signal of the terminal, since it has a process group of its own.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import IO, Any, TypeAlias

from engine.batch.plan import Plan
from engine.model.errors import BulkSubmitError
from engine.model.record import Position


@dataclass(frozen=True, slots=True)
class Segment:
    """What is to be planned: from `start`, with batches numbered from `sequence` on, to the joined offset `stop`."""

    start: Position
    sequence: int
    stop: int


Planner: TypeAlias = Callable[[Segment], Iterator[Plan]]
Recipe: TypeAlias = Callable[[], Planner]
"""Makes the planner in the process that uses it. Pickled, so it holds values and no secrets."""


@dataclass(frozen=True, slots=True)
class ChildFailure:
    """The last thing a child says, if it cannot go on."""

    error: BulkSubmitError | None
    """None: a mistake in the engine, told by `words`."""
    words: str = ""


def main() -> None:
    """Plan segment by segment until there is no more; the arguments name modules that will be needed."""
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a stray print must not get between the plans
    try:
        _work(orders, answers, sys.argv[1:])
    except (EOFError, BrokenPipeError):  # nobody wants more
        os._exit(0)  # not by the usual way, which would flush into a broken pipe


def _work(orders: IO[bytes], answers: IO[bytes], modules: Sequence[str]) -> None:
    try:
        for module in modules:
            import_module(module)
        recipe: Recipe = _take(orders)
        planner = recipe()
        while True:
            for plan in planner(_take(orders)):
                _give(answers, plan)
    except (EOFError, BrokenPipeError):
        raise
    except BulkSubmitError as error:
        _give(answers, ChildFailure(error))
    except Exception:  # noqa: BLE001 - whatever it is, the parent has to tell it
        _give(answers, ChildFailure(None, traceback.format_exc()))


def _take(orders: IO[bytes]) -> Any:
    return pickle.load(orders)  # noqa: S301 - written by the parent


def _give(answers: IO[bytes], answer: Plan | ChildFailure) -> None:
    pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
    answers.flush()
