"""The table at the end of a run of the tests: what each fault suite did to the engine, and what came of it.

Suites add their figures; `tests/conftest.py` prints the table, and brings it together where several processes test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Tally:
    """The figures of one suite."""

    runs: int = 0
    faults: int = 0
    """Requests, writes or answers that were struck."""
    crashes: int = 0
    power_cuts: int = 0
    sent: int = 0
    """Records handed to the engine."""
    created: int = 0
    """Of which the server has a task, by its journal."""
    lost: int = 0
    """Neither there nor said to be uncertain."""
    duplicated: int = 0
    parked: int = 0
    """Said to be uncertain: the engine does not know, and says so."""
    knowable: int = 0
    """Of which a perfect observer would know: the service can be asked, by a name or by a mark."""

    def add(self, other: Tally) -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass
class Table:
    """The figures of all suites, and lines to be shown below them."""

    suites: dict[str, Tally] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, suite: str) -> Tally:
        return self.suites.setdefault(suite, Tally())

    def add(self, other: dict[str, Any]) -> None:
        """Add the table of another process, as `asdict` makes it."""
        for suite, figures in other["suites"].items():
            self.of(suite).add(Tally(**figures))
        self.notes += other["notes"]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield the rows of the table, their sum last, then the notes."""
        yield from self._rows() if self.suites else ()
        yield from self.notes

    def _rows(self) -> Iterator[str]:
        total = Tally()
        for tally in self.suites.values():
            total.add(tally)
        rows = {**self.suites, "all": total}
        names = [one.name for one in fields(Tally)]
        width = max(map(len, rows))
        yield f"{'':{width}}" + "".join(f"  {name.replace('_', ' '):>10}" for name in names)
        for suite, tally in rows.items():
            yield f"{suite:{width}}" + "".join(f"  {getattr(tally, name):>10,}" for name in names)


TABLE = Table()
"""Of this run of the tests."""
