"""The records of a batch and what the service shows of its tasks enter, which task is whose leaves. Pure.

That tasks are listed in the order in which they were sent is a guess. What is no guess is their content: a task is that
of a record whose inputs it shows. It may show more (outputs of its own), and inputs that are null may be left out.
Records of equal content are interchangeable: each gets one of their tasks, and nobody can tell which is which, or needs
to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

import orjson

from engine.model.record import Row

_Shape: TypeAlias = frozenset[str]
_Content: TypeAlias = tuple[_Shape, bytes]


class Contents:
    """What stands at each position of a batch, as digests: the payload itself need not be kept."""

    def __init__(self, payload: bytes) -> None:
        self._at: list[_Content] = [_content(task["data"]) for task in orjson.loads(payload)]
        # The largest first: what shows more inputs is rather the record that has more than one with outputs.
        self._shapes = sorted({shape for shape, _ in self._at}, key=len, reverse=True)

    def places(self, shown: Mapping[int, Row]) -> Mapping[int, int]:
        """Return number in a list → position of the tasks that are shown, each position once; those found nowhere not.

        Where several positions hold the same, a task gets the one that has its number, if that is one of them.
        """
        free: dict[_Content, list[int]] = {}
        for position, content in enumerate(self._at):
            free.setdefault(content, []).append(position)
        found = {number: self._take(free, data, number) for number, data in sorted(shown.items())}
        return {number: position for number, position in found.items() if position is not None}

    def _take(self, free: Mapping[_Content, list[int]], data: Row, likely: int) -> int | None:
        shown = {key: value for key, value in data.items() if value is not None}
        for shape in self._shapes:
            if shape <= shown.keys() and (positions := free.get(_content(shown, shape))):
                position = likely if likely in positions else positions[0]
                positions.remove(position)
                return position
        return None

    def kinds(self, positions: Collection[int]) -> int:
        """Count the different contents at some positions."""
        return len({self._at[position] for position in positions})


def _content(data: Row, shape: _Shape | None = None) -> _Content:
    held = {key: value for key, value in data.items() if value is not None and (shape is None or key in shape)}
    digest = blake2b(orjson.dumps(held, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
    return frozenset(held), digest


@dataclass(frozen=True, slots=True)
class Places:
    """At which positions of a batch the listed tasks stand, as far as their content tells."""

    records: int
    tasks: int
    """Listed."""
    known: Mapping[int, int] = field(default_factory=dict)
    """Number in the list → position."""
    loose: frozenset[int] = frozenset()
    """Numbers that say nothing of an order."""

    @property
    def in_order(self) -> bool:
        """Whether each task that is known stands at its number in the list, and no other one in the place of a task."""
        fits = all(number == position for number, position in self.known.items() if number not in self.loose)
        return fits and not set(self.open_tasks).difference(self.loose).intersection(self.known.values())

    @property
    def open_tasks(self) -> Sequence[int]:
        """Numbers in the list of the tasks whose content is not known."""
        return [number for number in range(self.tasks) if number not in self.known]

    @property
    def open_positions(self) -> Sequence[int]:
        """Positions that no known task has."""
        taken = set(self.known.values())
        return [position for position in range(self.records) if position not in taken]

    def guessed(self) -> Mapping[int, int]:
        """Return number → position of the tasks that are not known: each in its place if that may be, else in line."""
        numbers = self.open_tasks
        in_order = self.in_order
        own = {number: number for number in numbers if in_order and number not in self.loose}
        others = [number for number in numbers if number not in own]
        positions = [position for position in self.open_positions if position not in own]
        return {**own, **dict(zip(others, positions, strict=False))}
