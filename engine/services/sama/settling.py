"""Decides the fate of each record of a batch from the tasks that Sama lists. Pure; `fates` fetches what it needs.

A batch is done when each of its records has a task in a final state, whatever the batch is called. Which record a task
is of matters only where tasks have unlike fates. Then its place counts as known by its content, or by an order that was
proven; nothing is called failed by a guess, for `retry` would make a second task of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
import orjson

from engine.model.outcome import Settlement
from engine.model.record import Row, loads
from engine.services.decoding import words
from engine.services.sama.answers import CreatedPage, Creation, CreationStatus, Listed

UNPROVEN: Mapping[str, Any] = {"id_proven": False}
"""Said of a record whose task exists, and whose id may be that of another record of its batch."""

NO_ID = "the service says that its task was created, and gives it no id"
SAME_ID = "the service gives the same id to its task and to another one"
_UNKNOWN_WHICH = "the service does not say which records of its batch became tasks: {created} of {records} did"

PROOF_BATCHES = 100
"""Settled from one proof of the order to the next: a call in four hundred."""


class Listing:
    """A batch as its creation status lists it, page after page."""

    def __init__(
        self,
        records: int,
        tasks: Sequence[Listed],
        word: str,
        summary: str,
        *,
        missing_failed: bool = False,
        loose: frozenset[int] = frozenset(),
    ) -> None:
        """Take the tasks, the batch's own word, and why a missing task was not created, if it was not.

        `missing_failed`: the service said that the batch failed, or confirmed our cancel, so what is missing was not
        created. `loose`: numbers of tasks that say nothing of the order of the others.
        """
        self.records, self.tasks, self.word, self.summary = records, tasks, word, summary
        self.missing_failed, self.loose = missing_failed, loose
        self.missing = Creation.FAILED if missing_failed else Creation.OPEN
        """What became of a record that has no task in a final state; CANCELED counts as FAILED here."""
        kinds = {kind: kind for kind in Creation} | {Creation.CANCELED: Creation.FAILED, Creation.OPEN: self.missing}
        self.kinds = [kinds[task.creation] for task in tasks]
        """What became of the record of each task: CREATED, FAILED or OPEN."""
        self.whole = len(tasks) == records and Creation.OPEN not in {task.creation for task in tasks}
        """Each record has a task in a final state."""
        ids = {number: task.task_id for number, task in enumerate(tasks) if task.creation is Creation.CREATED}
        fates = {*self.kinds, self.missing} if len(tasks) < records else set(self.kinds)
        self.alike = len(fates) == 1 and len({task.error for task in tasks}) <= 1
        """All records have the same fate for the same reason, so that only their ids need a place."""
        self.created = len(ids)
        times = Counter(ids.values())
        self.numbers: dict[str, int] = {}
        """Id → number of the created tasks whose id is theirs alone."""
        self.doubtful: dict[int, str] = {}
        """Number of a created task whose id is none → what is wrong with it."""
        for number, task_id in ids.items():
            if task_id and times[task_id] == 1:
                self.numbers[task_id] = number
            else:
                self.doubtful[number] = SAME_ID if task_id else NO_ID

    def shown(self) -> dict[int, Row]:
        """Return number → inputs of the tasks that were not created and show them."""
        return {number: data for number, task in enumerate(self.tasks) if (data := task.data) is not None}


class Contents:
    """What stands at each position of a batch.

    A task is that of a record whose inputs it shows. It may show more (outputs of its own), and inputs that are null
    may be left out. Records of equal content are interchangeable: each gets one of their tasks.
    """

    def __init__(self, tasks: Sequence[bytes]) -> None:
        """Take the texts of the tasks, as they went up."""
        self._tasks = tasks

    def places(self, shown: Mapping[int, Row]) -> dict[int, int]:
        """Return number in a list → position of the tasks that are shown, each position once; those found nowhere not.

        Where several positions hold the same, a task gets the one that has its number, if that is one of them.
        """
        if all(self._stands_at(number, task) for number, task in shown.items()):  # mostly; no other record is read then
            return {number: number for number in sorted(shown)}
        held = [*map(self._held_at, range(len(self._tasks)))]
        # The largest first: what shows more inputs is rather the record that has more than one with outputs.
        shapes = sorted(dict.fromkeys(map(frozenset, held)), key=len, reverse=True)
        free: dict[bytes, list[int]] = {}
        for position, content in enumerate(map(_digest, held)):
            free.setdefault(content, []).append(position)
        found = {}
        for number, task in sorted(shown.items()):
            data = _held(task)
            for shape in shapes:
                if not shape <= data.keys():
                    continue
                part = data if len(shape) == len(data) else {key: data[key] for key in shape}
                if positions := free.get(_digest(part)):
                    found[number] = number if number in positions else positions[0]
                    positions.remove(found[number])
                    break
        return found

    def differ(self, positions: Collection[int]) -> bool:
        """Return whether different contents stand at some positions; nothing is read behind the first difference."""
        found = (_digest(self._held_at(position)) for position in positions)
        first = next(found, None)
        return any(content != first for content in found)

    def _stands_at(self, position: int, task: Row) -> bool:
        """Return whether a task shows the inputs of the record at a position, and nothing else."""
        if position >= len(self._tasks):
            return False
        held, data = self._held_at(position), _held(task)
        return held.keys() == data.keys() and _digest(held) == _digest(data)

    def _held_at(self, position: int) -> Row:
        return _held(loads(self._tasks[position])["data"])


def _held(data: Row) -> Row:
    """Return inputs without those that are null."""
    return {key: value for key, value in data.items() if value is not None} if None in data.values() else data


def _digest(held: Row) -> bytes:
    return blake2b(orjson.dumps(held, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


class Places:
    """At which positions of a batch the listed tasks stand, as far as their content tells."""

    def __init__(self, listing: Listing, known: Mapping[int, int]) -> None:
        """Take number in the list → position of the tasks whose content is known."""
        tasks = range(len(listing.tasks))
        self.known, self._loose = known, listing.loose
        self.complete = len(tasks) == listing.records
        self.open_tasks = sorted(set(tasks) - known.keys())
        """Numbers in the list of the tasks whose content is not known."""
        self.open_positions = sorted(set(range(listing.records)).difference(known.values()))
        """Positions that no known task has."""
        fits = all(number == position or number in self._loose for number, position in known.items())
        self.in_order = fits and (set(self.open_tasks) - self._loose).isdisjoint(known.values())
        """Each task that is known stands at its number in the list, and no other one in the place of a task."""

    def all(self) -> dict[int, int]:
        """Return number → position of all tasks: of those not known each in its place if that may be, else in line."""
        own = set(self.open_tasks) - self._loose if self.in_order else set()
        others, positions = sorted(set(self.open_tasks) - own), sorted(set(self.open_positions) - own)
        return {**self.known, **dict(zip(own, own, strict=True)), **dict(zip(others, positions, strict=False))}


class TaskOrder(msgspec.Struct):
    """Whether one kind of list stands in the order in which tasks were sent: a guess until it was proven.

    The proof is one page of the project's tasks, which shows their content. It is due for the first batch and for every
    hundredth after it, for a service may change. Where it is not to be had, it is tried again ever more seldom, and
    what follows the order is said to be unproven. Once the order was seen broken, nothing follows it any more.
    """

    holds: bool = False
    """It was proven, and never seen broken."""
    tried: int = 0
    """Proofs in a row that were not to be had."""
    _broken: bool = False
    _batches: int = 0
    _due_at: int = 0

    @property
    def due(self) -> bool:
        """Whether the batch that is settled next is to prove it."""
        return not self._broken and self._batches >= self._due_at

    def settled(self) -> None:
        """Count a batch."""
        self._batches += 1

    def proven(self) -> None:
        """Note that one page fits."""
        self.holds = not self._broken
        self.tried, self._due_at = 0, self._batches + PROOF_BATCHES

    def not_proven(self) -> None:
        """Note that nothing could be compared."""
        self.tried += 1
        self._due_at = self._batches + min(2**self.tried - 1, PROOF_BATCHES)

    def broken(self) -> None:
        """Note that a task stands elsewhere than its record."""
        self.holds, self._broken = False, True


def plainly_created(pages: Sequence[CreationStatus], records: int) -> Sequence[str] | None:
    """Return the ids if the list is nothing but one created task a record: nearly all are, so it must be quick."""
    ids: list[str] = []
    for page in pages:
        if isinstance(page, CreatedPage):
            ids += [task.id for task in page.tasks]
        elif page.tasks:
            return None
    return ids if len(set(ids)) == len(ids) == records else None


def all_created(ids: Sequence[str], *, proven: bool) -> Settlement:
    """Return the settlement of a batch of which each record was created; `proven`: each has its own id."""
    return Settlement(ids, details={} if proven else dict.fromkeys(range(len(ids)), UNPROVEN))


def settle(listing: Listing, places: Places, *, order_holds: bool, interchangeable: bool = False) -> Settlement | None:
    """Return the fate of each record; None where it is open which record some task is of, and that matters.

    `order_holds`: it was proven that tasks are listed in the order sent. `interchangeable`: the records whose place is
    open are all alike.
    """
    ordered = order_holds and places.in_order and places.complete
    if matters(listing, places) and not ordered:
        return None
    proven = ordered or interchangeable or listing.records == 1
    return _settlement(listing, places.all(), places, ordered=ordered, proven=proven)


def settle_known(listing: Listing, places: Places) -> Settlement:
    """Return the fate of the records whose tasks are known; of the others nobody knows."""
    why = _UNKNOWN_WHICH.format(created=listing.created, records=listing.records)
    known = _settlement(listing, places.known, places, ordered=False, proven=False)
    uncertain = {**known.uncertain, **dict.fromkeys(places.open_positions, why)}
    errors = {position: error for position, error in known.errors.items() if position not in uncertain}
    return Settlement(known.task_ids, errors, details=known.details, uncertain=uncertain)


def matters(listing: Listing, places: Places) -> bool:
    """Return whether the records whose place is open have unlike fates, so that it matters which task is whose."""
    missing = set() if places.complete else {listing.missing}
    return len(missing.union(map(listing.kinds.__getitem__, places.open_tasks))) > 1


def _settlement(listing: Listing, at: Mapping[int, int], places: Places, *, ordered: bool, proven: bool) -> Settlement:
    """Return the fates of the tasks at some positions (number → position), and of the records that have no task."""
    ids: list[str | None] = [None] * listing.records
    errors: dict[int, str] = {}
    uncertain: dict[int, str] = {}
    details: dict[int, Mapping[str, Any]] = {}
    missing = dict.fromkeys(range(listing.records))
    one_of = "" if ordered else _different_reasons(listing, at, places)
    for number, position in at.items():
        task = listing.tasks[number]
        if task.creation is Creation.OPEN:
            continue
        missing.pop(position, None)
        if task.creation is not Creation.CREATED:
            errors[position] = task.error if number in places.known else one_of or task.error
        elif number in listing.doubtful:
            uncertain[position] = listing.doubtful[number]
        else:
            ids[position] = task.task_id
            if not (proven or number in places.known):
                details[position] = UNPROVEN
    if listing.missing_failed:
        errors.update(dict.fromkeys(missing, listing.summary))
    else:
        said = f"the service calls its batch {listing.word!r}, and does not say what became of it"
        uncertain.update(dict.fromkeys(missing, said))
    return Settlement(ids, errors, details=details, uncertain=uncertain)


def _different_reasons(listing: Listing, at: Mapping[int, int], places: Places) -> str:
    """Return the reasons of all tasks whose places are guessed, if they differ; "" where each has its own."""
    if places.known and places.in_order and places.complete:  # all that is known fits, so the others do
        return ""
    reasons = dict.fromkeys(listing.tasks[number].error for number in at if number not in places.known)
    reasons.pop("", None)
    return words("one of: " + " | ".join(reasons)) if len(reasons) > 1 else ""


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
    rest = iter(others)
    arranged = [placed[at] if at in placed else next(rest) for at in range(records)]
    return arranged, frozenset(range(records)) - placed.keys()
