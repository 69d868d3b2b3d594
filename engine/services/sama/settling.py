"""The tasks of a creation status and what is known of their places enter, the fate of each record leaves. Pure.

A batch is done when each of its records has a task in a final state, whatever the batch is called. Which record a task
is of matters only where tasks have unlike fates. Then a place counts as known by content, or by an order that was
proven; nothing is called failed by a guess, for `retry` would make a second task of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from engine.model.outcome import Settlement
from engine.model.record import Row
from engine.services.sama.answers import Listed
from engine.services.sama.matching import Places
from engine.services.sama.words import Creation

UNPROVEN: Mapping[str, Any] = {"id_proven": False}
"""Said of a record whose task exists, and whose id may be that of another record of its batch."""

NO_ID = "the service says that its task was created, and gives it no id"
SAME_ID = "the service gives the same id to its task and to another one"
_UNKNOWN_WHICH = "the service does not say which records of its batch became tasks: {created} of {records} did"


class _Kind(Enum):
    CREATED = auto()
    NOT = auto()
    MISSING = auto()
    """Not listed, or listed in a state that is not final."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A batch as its creation status lists it, page after page."""

    records: int
    tasks: Sequence[Listed]
    word: str
    """The service's own, for the batch."""
    summary: str
    """Why a task that is missing was not created, if it was not."""
    missing_failed: bool = False
    """The service said that the batch failed, or confirmed that it canceled it: what is missing was not created."""
    loose: frozenset[int] = frozenset()
    """Numbers of tasks that say nothing of the order of the others."""
    _doubtful: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        made = [(number, task.task_id) for number, task in enumerate(self.tasks) if task.creation is Creation.CREATED]
        times = Counter(task_id for _, task_id in made)
        self._doubtful.update({number: NO_ID for number, task_id in made if not task_id})
        self._doubtful.update({number: SAME_ID for number, task_id in made if task_id and times[task_id] > 1})

    @property
    def whole(self) -> bool:
        """Whether each record has a task in a final state."""
        return len(self.tasks) == self.records and all(task.creation is not Creation.OPEN for task in self.tasks)

    @property
    def doubtful(self) -> Mapping[int, str]:
        """Number of a created task whose id is none → what is wrong with it."""
        return self._doubtful

    @property
    def created(self) -> int:
        """Tasks that exist."""
        return sum(task.creation is Creation.CREATED for task in self.tasks)

    def kind(self, number: int) -> _Kind:
        """Return what became of the record of one task."""
        creation = self.tasks[number].creation
        if creation is Creation.CREATED:
            return _Kind.CREATED
        return self.missing_kind if creation is Creation.OPEN else _Kind.NOT

    @property
    def missing_kind(self) -> _Kind:
        """What became of a record that has no task in a final state."""
        return _Kind.NOT if self.missing_failed else _Kind.MISSING

    def shown(self) -> Mapping[int, Row]:
        """Return number → inputs of the tasks that were not created and show them."""
        return {number: task.data for number, task in enumerate(self.tasks) if task.data is not None}

    @property
    def alike(self) -> bool:
        """Whether all records have the same fate for the same reason, so that only their ids need a place."""
        kinds = {self.kind(number) for number in range(len(self.tasks))}
        if len(self.tasks) < self.records:
            kinds.add(self.missing_kind)
        return len(kinds) == 1 and len({task.error for task in self.tasks}) <= 1


def plainly_created(tasks: Sequence[Row], records: int) -> Sequence[str] | None:
    """Return the ids if the list is nothing but one created task a record: nearly all are, so it must be quick."""
    ids = [task.get("id") for task in tasks if task.get("state") == "created"]
    plain = len(ids) == len(tasks) == records == len(set(ids)) and set(map(type, ids)) <= {str} and "" not in ids
    return [str(task_id) for task_id in ids] if plain else None


def all_created(ids: Sequence[str], *, proven: bool) -> Settlement:
    """Return the settlement of a batch of which each record was created; `proven`: each has its own id."""
    return Settlement(ids, details={} if proven else dict.fromkeys(range(len(ids)), UNPROVEN))


def settle(listing: Listing, places: Places, *, order_holds: bool, interchangeable: bool = False) -> Settlement | None:
    """Return the fate of each record; None where it is open which record some task is of, and that matters.

    `order_holds`: it was proven that tasks are listed in the order sent. `interchangeable`: the records whose place is
    open are all alike.
    """
    ordered = order_holds and places.in_order and places.tasks == places.records
    if matters(listing, places) and not ordered:
        return None
    proven = ordered or interchangeable or listing.records == 1
    return _settlement(listing, {**places.known, **places.guessed()}, places, ordered=ordered, proven=proven)


def settle_known(listing: Listing, places: Places) -> Settlement:
    """Return the fate of the records whose tasks are known; of the others nobody knows."""
    why = _UNKNOWN_WHICH.format(created=listing.created, records=listing.records)
    known = _settlement(listing, places.known, places, ordered=False, proven=False)
    uncertain = {**known.uncertain, **dict.fromkeys(places.open_positions, why)}
    errors = {position: error for position, error in known.errors.items() if position not in uncertain}
    return Settlement(known.task_ids, errors, details=known.details, uncertain=uncertain)


def matters(listing: Listing, places: Places) -> bool:
    """Tell whether the records whose place is open have unlike fates, so that it matters which task is whose."""
    kinds = {listing.kind(number) for number in places.open_tasks}
    if places.tasks < places.records:
        kinds.add(listing.missing_kind)
    return len(kinds) > 1


def _settlement(listing: Listing, at: Mapping[int, int], places: Places, *, ordered: bool, proven: bool) -> Settlement:
    ids: list[str | None] = [None] * listing.records
    errors: dict[int, str] = {}
    uncertain: dict[int, str] = {}
    details: dict[int, Mapping[str, Any]] = {}
    why = {number: listing.tasks[number].error for number in at} if ordered else _reasons(listing, at, places)
    missing = dict.fromkeys(range(listing.records))
    for number, position in at.items():
        kind = listing.kind(number)
        if listing.tasks[number].creation is Creation.OPEN:
            continue
        missing.pop(position, None)
        if kind is _Kind.NOT:
            errors[position] = why[number]
        elif number in listing.doubtful:
            uncertain[position] = listing.doubtful[number]
        else:
            ids[position] = listing.tasks[number].task_id
            if not (proven or number in places.known):
                details[position] = UNPROVEN
    _add_missing(listing, missing, errors, uncertain)
    return Settlement(ids, errors, details=details, uncertain=uncertain)


def _add_missing(
    listing: Listing, positions: Mapping[int, None], errors: dict[int, str], uncertain: dict[int, str]
) -> None:
    if listing.missing_failed:
        errors.update(dict.fromkeys(positions, listing.summary))
        return
    said = f"the service calls its batch {listing.word!r}, and does not say what became of it"
    uncertain.update(dict.fromkeys(positions, said))


def _reasons(listing: Listing, at: Mapping[int, int], places: Places) -> Mapping[int, str]:
    """Return number → why it was not created; where places are guessed, reasons that differ are all named."""
    reasons = {number: listing.tasks[number].error for number in at}
    guessed = [number for number in at if number not in places.known and listing.tasks[number].error]
    different = list(dict.fromkeys(reasons[number] for number in guessed))
    if len(different) > 1 and not _fits(places):
        reasons.update(dict.fromkeys(guessed, "one of: " + " | ".join(different)))
    return reasons


def _fits(places: Places) -> bool:
    """Tell whether all that is known, and something is, stands in the order of the list."""
    return bool(places.known) and places.in_order and places.tasks == places.records


def numbered(tasks: Sequence[Listed]) -> Mapping[str, int]:
    """Return id → number in the list of the created tasks, those whose id is theirs alone."""
    times = Counter(task.task_id for task in tasks if task.creation is Creation.CREATED)
    return {
        task.task_id: number
        for number, task in enumerate(tasks)
        if task.creation is Creation.CREATED and task.task_id and times[task.task_id] == 1
    }


def in_told_order(
    tasks: Sequence[Listed], told: Sequence[str], records: int
) -> tuple[Sequence[Listed], frozenset[int]] | None:
    """Return the tasks in the order in which the answer to the batch named them; None if the two do not fit.

    And the numbers of those that show no such id: they fill the gaps as they come.
    """
    number = {task_id: at for at, task_id in enumerate(told)}
    if len(told) != records or len(tasks) != records:
        return None
    placed: dict[int, Listed] = {}
    others: list[Listed] = []
    for task in tasks:
        at = number.get(task.task_id) if task.task_id else None
        if at is None and task.creation is Creation.CREATED:
            return None
        if at is None or at in placed:
            others.append(task)
        else:
            placed[at] = task
    rest: Iterator[Listed] = iter(others)
    arranged = [placed[at] if at in placed else next(rest) for at in range(records)]
    return arranged, frozenset(range(records)) - placed.keys()
