"""A column and positions enter, the column of just those leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def at(positions: Sequence[int], column: Sequence[T]) -> list[T]:
    """Return the values of `column` at `positions`."""
    return [column[position] for position in positions]
