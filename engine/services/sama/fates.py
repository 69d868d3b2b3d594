"""A batch that may be done enters, the fate of each of its records leaves: pages are fetched, evidence where needed.

What the pages mean is decided in `settling`, by which content in `matching`, by which order in `order`. Content costs:
the payload is read again, and the list of tasks allows one call a second. So it is asked for only where it decides
something: where tasks failed and it matters which ones, and for the proof of the order. The content of one batch is in
memory at a time, however many are polled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import anyio
import anyio.to_thread

from engine.clock import Clock
from engine.model.errors import PossiblyApplied, Refused, SourceError, Unavailable, UnexpectedAnswer
from engine.model.outcome import Settlement
from engine.model.record import Row
from engine.services.base import Asked
from engine.services.sama.answers import Listed, created_of, data_of, listed, state_of, summary_of, task_id_of, tasks_in
from engine.services.sama.matching import Contents, Places
from engine.services.sama.order import TaskOrder
from engine.services.sama.settling import (
    Listing,
    all_created,
    in_told_order,
    matters,
    numbered,
    plainly_created,
    settle,
    settle_known,
)
from engine.services.sama.task_list import TaskList
from engine.services.sama.words import ENDS, Phase, phase_of

PAGE_SIZE = 1000
"""Most tasks on one page of a creation status; the vendor's maximum."""

PROOF_PAUSES = (1.0, 2.0, 4.0)
"""Seconds before the very first proof is tried again: the list of tasks may lag behind. All other batches wait."""

_THREAD_BYTES = 256 * 1024
"""A larger payload is read in a thread: it takes more than a few milliseconds."""

_DISTINCT = 2
"""Different contents that a page must show to prove an order."""


@dataclass(slots=True)
class _Evidence:
    """What is known of one batch's content."""

    listing: Listing
    shown: dict[int, Row]
    """Number in the list → content, where the service shows it."""
    contents: Contents | None = None
    """Of the records."""
    unreadable: SourceError | None = None
    """Why they are not to be had any more."""

    def places(self) -> Places:
        listing = self.listing
        known = self.contents.places(self.shown) if self.contents is not None else {}
        return Places(listing.records, len(listing.tasks), known, listing.loose)


class Fates:
    """Settles the batches of one run."""

    def __init__(self, status: Callable[[str, int], Awaitable[Row]], tasks: TaskList, clock: Clock) -> None:
        """Take what fetches a page of a creation status, by batch and number."""
        self._status = status
        self._tasks = tasks
        self._clock = clock
        self._listed_order, self._told_order = TaskOrder(), TaskOrder()
        self._one_at_a_time = anyio.Lock()
        self._told: dict[str, str] = {}
        """By batch: the ids that the answer to it named, joined by line breaks to be small."""
        self._canceled: set[str] = set()

    def were_told(self, remote_id: str, ids: Sequence[str]) -> None:
        """Keep the ids that the answer to a batch named, until it is settled."""
        if ids:
            self._told[remote_id] = "\n".join(ids)

    def was_canceled(self, remote_id: str) -> None:
        """Note that the service confirmed our cancel of a batch."""
        self._canceled.add(remote_id)

    async def settle(self, asked: Asked, first_page: Row | None) -> Settlement | None:
        """Return the fate of each record of a batch; None while some have none, or it is not clear which is whose.

        Raises:
            UnexpectedAnswer: the pages cannot be understood.
            SourceError: it matters which record a task is of, and the records are not to be had any more.
        """
        remote_id = str(asked.remote_id)
        rows, status = await self._rows(asked, first_page)
        settlement = self._plain(asked, rows) or await self._judged(asked, rows, status)
        if settlement is not None:
            self._told.pop(remote_id, None)
            self._canceled.discard(remote_id)
        return settlement

    async def _rows(self, asked: Asked, first_page: Row | None) -> tuple[Sequence[Row], Row]:
        """Fetch the whole list; it may be shorter than the batch, if it has not ended, or ended early."""
        rows: list[Row] = []
        number, whole = 0, False
        status: Row = {}
        while not whole:
            number += 1
            status = first_page if first_page is not None and number == 1 else await self._page(asked, number)
            page = tasks_in(status)
            rows += page
            # A page may be shorter than we asked for; unless a total says so, only an empty one shows that this is all.
            last = len(page) < PAGE_SIZE or status.get("total") == asked.count
            whole = not page or len(rows) > asked.count or (len(rows) == asked.count and last)
        if len(rows) > asked.count:
            raise UnexpectedAnswer(f"the service lists {len(rows)} tasks for {asked.count} records")
        return rows, status

    async def _page(self, asked: Asked, number: int) -> Row:
        status = await self._status(str(asked.remote_id), number)
        if not state_of(status) and created_of(status) is None:
            raise UnexpectedAnswer("status: this is no page of a batch", call="status")
        return status

    def _plain(self, asked: Asked, rows: Sequence[Row]) -> Settlement | None:
        """Settle a batch that needs no evidence: all its tasks were created, and the order is known or past knowing."""
        ids = plainly_created(rows, asked.count)
        if ids is None or str(asked.remote_id) in self._told:
            return None
        order = self._listed_order
        if asked.count > 1 and order.due:
            return None
        order.settled()
        return all_created(ids, proven=asked.count == 1 or order.holds)

    async def _judged(self, asked: Asked, rows: Sequence[Row], status: Row) -> Settlement | None:
        tasks, loose, order = self._arranged(asked, [listed(row) for row in rows])
        word, summary = state_of(status), summary_of(status)
        listing = Listing(asked.count, tasks, word, summary, self._failed_without_a_task(asked, word), loose)
        if not listing.whole and not (asked.still and phase_of(listing.word) in ENDS):
            return None
        if listing.doubtful and not asked.still:
            return None
        async with self._one_at_a_time:
            settlement = await self._weighed(asked, listing, order)
        if settlement is not None:
            order.settled()
        return settlement

    def _arranged(self, asked: Asked, tasks: Sequence[Listed]) -> tuple[Sequence[Listed], frozenset[int], TaskOrder]:
        """Return the tasks in the order in which their ids were told, if they were, and what is known of that order."""
        told = self._told.get(str(asked.remote_id))
        arranged = in_told_order(tasks, told.split("\n"), asked.count) if told else None
        if arranged is None:
            return tasks, frozenset(), self._listed_order
        return *arranged, self._told_order

    def _failed_without_a_task(self, asked: Asked, word: str) -> bool:
        """Tell whether what a batch of this word does not list was not created: it failed, or we canceled it."""
        phase = phase_of(word)
        return phase is Phase.FAILED or (phase is Phase.CANCELED and str(asked.remote_id) in self._canceled)

    async def _weighed(self, asked: Asked, listing: Listing, order: TaskOrder) -> Settlement | None:
        """Settle a batch by content, as far as that decides something, and by order."""
        evidence = _Evidence(listing, {} if listing.alike else dict(listing.shown()))
        if asked.count > 1 and order.due and listing.created:
            await self._prove(asked, evidence, order)
        await self._read_records(asked, evidence)
        if matters(listing, evidence.places()) and evidence.unreadable is None:  # content tells more than any order
            evidence.shown |= await self._created_tasks(asked, listing)
        settlement = await self._decided(asked, evidence, order)
        if settlement is None and evidence.unreadable is not None:
            raise evidence.unreadable
        if settlement is None and asked.still:
            settlement = settle_known(listing, evidence.places())
        return settlement

    async def _decided(self, asked: Asked, evidence: _Evidence, order: TaskOrder) -> Settlement | None:
        await self._read_records(asked, evidence)
        places, contents = evidence.places(), evidence.contents
        if not places.in_order and places.tasks == places.records:
            order.broken()
        alike = contents is not None and contents.kinds(places.open_positions) <= 1
        return settle(evidence.listing, places, order_holds=order.holds, interchangeable=alike)

    async def _read_records(self, asked: Asked, evidence: _Evidence) -> None:
        """Read what was sent, once there is something to compare it with; without it, there is the order alone."""
        if evidence.contents is not None or not evidence.shown:
            return
        try:
            payload = await asked.payload()
        except SourceError as error:
            evidence.unreadable = error
            evidence.shown.clear()
            return
        in_thread = len(payload) > _THREAD_BYTES
        evidence.contents = await anyio.to_thread.run_sync(Contents, payload) if in_thread else Contents(payload)

    async def _prove(self, asked: Asked, evidence: _Evidence, order: TaskOrder) -> None:
        """Compare one page of created tasks with the records in their places."""
        page = await self._first_tasks(asked, evidence.listing, patient=not (order.tried or order.holds))
        evidence.shown |= page
        await self._read_records(asked, evidence)
        places, contents = evidence.places(), evidence.contents
        compared = [places.known[number] for number in page if number in places.known]
        if not places.in_order:
            order.not_proven()  # what that means for a list that is whole is said where it is used
        elif contents is not None and contents.kinds(compared) >= _DISTINCT:
            order.proven()
        else:
            order.not_proven()

    async def _first_tasks(self, asked: Asked, listing: Listing, *, patient: bool) -> Mapping[int, Row]:
        """Return number in the list → content of the tasks on one page; none where it is not to be had."""
        for pause in (*(PROOF_PAUSES if patient else ()), None):
            try:
                page = await self._tasks.page({"batch_id": str(asked.remote_id)})
            except (Refused, Unavailable, PossiblyApplied):
                return {}
            if page or pause is None:
                return _content_of(page, listing)
            await self._clock.sleep(pause)
        return {}

    async def _created_tasks(self, asked: Asked, listing: Listing) -> Mapping[int, Row]:
        """Return number in the list → content of all tasks that were created, as far as it is to be had."""
        tasks: list[Row] = []
        try:
            async for task in self._tasks.all({"batch_id": str(asked.remote_id)}):
                tasks.append(task)
                if len(tasks) > asked.count:  # the service does not filter by batch
                    return {}
        except (Refused, Unavailable, PossiblyApplied):
            return {}
        return _content_of(tasks, listing)


def _content_of(tasks: Sequence[Row], listing: Listing) -> Mapping[int, Row]:
    numbers = numbered(listing.tasks)
    known = [(numbers.get(task_id_of(task)), task) for task in tasks if isinstance(task.get("data"), dict)]
    return {number: data_of(task) for number, task in known if number is not None}
