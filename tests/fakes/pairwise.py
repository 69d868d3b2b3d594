"""Many cases that differ in a few factors enter, few in which every pair of two factors' values still occurs leave."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import combinations
from typing import TypeVar

Case = TypeVar("Case")


def pairs(factors: tuple[Hashable, ...]) -> set[tuple[tuple[int, Hashable], tuple[int, Hashable]]]:
    """Return each pair of two factors' values."""
    return set(combinations(enumerate(factors), 2))


def pairwise(cases: Iterable[Case], factors_of: Callable[[Case], tuple[Hashable, ...]]) -> list[Case]:
    """Return cases in which every pair occurs that occurs in any: those that bring the most new ones first."""
    left = [(case, pairs(factors_of(case))) for case in cases]
    met, chosen = set(), []
    for new in range(max((len(its) for _, its in left), default=0), 0, -1):
        for case, its in left:
            if len(its - met) == new:
                met |= its
                chosen.append(case)
    return chosen
