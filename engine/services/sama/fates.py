"""Settles Sama's batches: fetches the pages of a creation status, and evidence where it decides something.

What the pages mean is decided in `settling`. Evidence is the content of tasks. It costs much: the payload is read
again, and the list of tasks allows one call a second. So it is asked for only where tasks failed and it matters which
ones, and for the proof of the order. The content of one batch is in memory at a time, however many are polled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from itertools import count
from typing import TypeVar

import anyio
import anyio.to_thread

from engine.clock import Clock
from engine.model.errors import PossiblyApplied, Refused, SourceError, Unavailable, UnexpectedAnswer
from engine.model.outcome import Settlement
from engine.model.record import Row
from engine.progress.events import Listener, Spaced, ToldWaits, unheard
from engine.services.base import Asked, Call, Caller
from engine.services.decoding import decode
from engine.services.sama.answers import (
    ENDS,
    CreationStatus,
    Listed,
    MadeTask,
    Phase,
    TaskPage,
    id_of,
    listed,
    phase_of,
)
from engine.services.sama.settling import (
    Contents,
    Listing,
    Places,
    TaskOrder,
    all_created,
    in_told_order,
    matters,
    plainly_created,
    settle,
    settle_known,
)

A = TypeVar("A")
T = TypeVar("T")

PAGE_SIZE = 1000
"""Most tasks on one page of a creation status; the vendor's maximum."""

TASKS_PAGE_SIZE = 100
"""Most tasks on one page of the task list; the vendor's maximum."""

TASKS_SECONDS = 1.05
"""Between two calls: the vendor allows one a second, and a call may take a little less time than the one before it."""

PROOF_PAUSES = (1.0, 2.0, 4.0)
"""Seconds before the very first proof is tried again: the list of tasks may lag behind. All other batches wait."""

NOT_LISTED = "the service does not list the tasks of a batch yet, by which their order is proven"

_THREAD_BYTES = 256 * 1024
"""In a larger payload contents are looked for in a thread: it may take more than a few milliseconds."""


class TaskList:
    """The created tasks of one project, page after page: the one call that shows their data."""

    def __init__(self, project: str, caller: Caller) -> None:
        """Take the project's address."""
        self._url = f"{project}/tasks.json"
        self._caller = caller

    async def page(self, wanted: Mapping[str, str], number: int = 1, *, mend: bool = True) -> Sequence[MadeTask]:
        """Return the tasks of one page, from 1.

        Raises:
            UnexpectedAnswer: it has no list of tasks: nothing found must not be believed of anybody but the service.
        """
        query = {**wanted, "omit_answers": "true", "page": str(number), "page_size": str(TASKS_PAGE_SIZE)}
        # The vendor's page on multi-task status: one call a second, and this call alone.
        call = Call("tasks", "GET", self._url, query=query, lane="tasks", lane_seconds=TASKS_SECONDS)
        return decode(await self._caller.call(call), TaskPage, call="tasks", mend=mend).tasks

    async def all(self, wanted: Mapping[str, str], *, least: int = 1, mend: bool = True) -> AsyncIterator[MadeTask]:
        """Yield the tasks of all pages; one of fewer than `least` is the last: only an empty one proves it.

        `mend`: as of `decode`.

        Raises:
            UnexpectedAnswer: a page is the one before it again, so the list would have no end.
        """
        first = ""
        for number in count(1):
            tasks = await self.page(wanted, number, mend=mend)
            before, first = first, id_of(tasks[0]) if tasks else ""
            if first and first == before:
                raise UnexpectedAnswer("tasks: the list does not go on from page to page", call="tasks")
            for task in tasks:
                yield task
            if len(tasks) < least:
                return


class _Evidence:
    """What is known of one batch's content."""

    def __init__(self, asked: Asked, listing: Listing) -> None:
        self._asked = asked
        self.listing = listing
        self._shown = {} if listing.alike else listing.shown()
        """Number in the list → content, where the service shows it."""
        self._places: Places | None = None
        """Of what is shown; None: not compared yet."""
        self.contents: Contents | None = None
        """Of the records."""
        self._large = False
        self.unreadable: SourceError | None = None
        """Why they are not to be had any more."""

    def show(self, content: Mapping[int, Row]) -> None:
        """Add content that the service shows elsewhere, by number in the list."""
        self._shown |= content
        self._places = None

    async def places(self) -> Places:
        """Compare what is shown with what was sent, which is read once; without it, there is the order alone."""
        if self._places is None:
            self._places = await self._compared()
        return self._places

    async def _compared(self) -> Places:
        if self.contents is None and self._shown:
            try:
                payload = await self._asked.payload()
            except SourceError as error:
                self.unreadable = error
                self._shown.clear()
            else:
                self._large = len(payload.array) > _THREAD_BYTES
                self.contents = Contents(payload.tasks)
        known = {} if self.contents is None else await self._find(self.contents.places, self._shown)
        return Places(self.listing, known)

    async def differ(self, positions: Collection[int]) -> bool | None:
        """Return whether the records at some positions differ; None if their contents are not known."""
        return None if self.contents is None else await self._find(self.contents.differ, positions)

    async def _find(self, look: Callable[[A], T], among: A) -> T:
        """Look among the contents: in a thread, where they are so large that it may take long."""
        return await anyio.to_thread.run_sync(look, among) if self._large else look(among)


class Fates:
    """Settles the batches of one run."""

    def __init__(
        self,
        status: Callable[[str, int], Awaitable[CreationStatus]],
        tasks: TaskList,
        clock: Clock,
        emit: Listener = unheard,
    ) -> None:
        """Take what fetches a page of a creation status, by batch and number; `emit` is told of waits."""
        self._status = status
        self._tasks = tasks
        self._clock = clock
        self._emit = emit
        self._told_waits = ToldWaits()
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

    async def settle(self, asked: Asked, first_page: CreationStatus | None) -> Settlement | None:
        """Return the fate of each record of a batch; None while some have none, or it is not clear which is whose.

        Raises:
            UnexpectedAnswer: the pages cannot be understood.
            SourceError: it matters which record a task is of, and the records are not to be had any more.
        """
        remote_id = str(asked.remote_id)
        pages = await self._pages(asked, first_page)
        settlement = self._plain(asked, pages) or await self._judged(asked, pages)
        if settlement is not None:
            self._told.pop(remote_id, None)
            self._canceled.discard(remote_id)
        return settlement

    async def _pages(self, asked: Asked, first_page: CreationStatus | None) -> Sequence[CreationStatus]:
        """Fetch the whole list; it may be shorter than the batch, if it has not ended, or ended early."""
        pages: list[CreationStatus] = []
        rows, page = 0, first_page
        for number in count(1):
            if page is None:
                page = await self._status(str(asked.remote_id), number)
                if not page.word and page.created is None:
                    raise UnexpectedAnswer("status: this is no page of a batch", call="status")
            pages.append(page)
            size = len(page.tasks or ())
            rows += size
            # A page may be shorter than we asked for; unless a total says so, only an empty one shows that this is all.
            last = size < PAGE_SIZE or page.total == asked.count
            if not size or rows > asked.count or (rows == asked.count and last):
                break
            page = None
        if rows > asked.count:
            raise UnexpectedAnswer(f"the service lists {rows} tasks for {asked.count} records")
        return pages

    def _plain(self, asked: Asked, pages: Sequence[CreationStatus]) -> Settlement | None:
        """Settle a batch that needs no evidence: all its tasks were created, and the order is known or past knowing."""
        ids, order = plainly_created(pages, asked.count), self._listed_order
        if ids is None:
            return None
        told = self._told.get(str(asked.remote_id), "").split("\n")
        if len(told) == len(ids) and set(told) == set(ids):
            ids, order = told, self._told_order
        # While it is proven again, in turn with all calls that list tasks, the proof before holds for the others.
        if asked.count > 1 and order.due and not (order.holds and self._one_at_a_time.locked()):
            return None
        order.settled()
        return all_created(ids, proven=asked.count == 1 or order.holds)

    async def _judged(self, asked: Asked, pages: Sequence[CreationStatus]) -> Settlement | None:
        """Settle a batch by its list, in the order in which ids were told, if they were, and by evidence."""
        tasks: Sequence[Listed] = [task for page in pages for task in listed(page)]
        word, order = pages[-1].word, self._listed_order
        phase, loose = phase_of(word), frozenset[int]()
        told = self._told.get(str(asked.remote_id))
        arranged = in_told_order(tasks, told.split("\n"), asked.count) if told else None
        if arranged is not None:
            (tasks, loose), order = arranged, self._told_order
        # What such a batch does not list was not created: it failed, or we canceled it.
        failed = phase is Phase.FAILED or (phase is Phase.CANCELED and str(asked.remote_id) in self._canceled)
        listing = Listing(asked.count, tasks, word, pages[-1].summary, missing_failed=failed, loose=loose)
        if not listing.whole and not (asked.unmoved and phase in ENDS):
            return None
        if listing.doubtful and not asked.unmoved:
            return None
        async with self._one_at_a_time:
            settlement = await self._weighed(asked, listing, order)
        if settlement is not None:
            order.settled()
        return settlement

    async def _weighed(self, asked: Asked, listing: Listing, order: TaskOrder) -> Settlement | None:
        """Settle a batch by content, as far as that decides something, and by order."""
        evidence = _Evidence(asked, listing)
        if asked.count > 1 and order.due and listing.created:
            await self._prove(asked, evidence, order)
        places = await evidence.places()
        if matters(listing, places) and evidence.unreadable is None:  # content tells more than any order
            evidence.show(await self._created_tasks(asked, listing))
            places = await evidence.places()
        if not places.in_order and places.complete:
            order.broken()
        ordered = order.holds and places.in_order and places.complete
        alike = not ordered and await evidence.differ(places.open_positions) is False
        settlement = settle(listing, places, order_holds=order.holds, interchangeable=alike)
        if settlement is None and evidence.unreadable is not None:
            raise evidence.unreadable
        if settlement is None and asked.unmoved:
            settlement = settle_known(listing, places)
        return settlement

    async def _prove(self, asked: Asked, evidence: _Evidence, order: TaskOrder) -> None:
        """Compare one page of created tasks with the records in their places."""
        page = await self._first_tasks(asked, evidence.listing, patient=not (order.tried or order.holds))
        evidence.show(page)
        places = await evidence.places()
        compared = [places.known[number] for number in page if number in places.known]
        # What it means that a list which is whole is in another order is said where it is used.
        if places.in_order and await evidence.differ(compared):
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
            if news := self._told_waits.news(Spaced(NOT_LISTED, pause), self._clock.monotonic()):
                self._emit(news)
            await self._clock.sleep(pause)
        return {}

    async def _created_tasks(self, asked: Asked, listing: Listing) -> Mapping[int, Row]:
        """Return number in the list → content of all tasks that were created, as far as it is to be had."""
        tasks: list[MadeTask] = []
        try:
            async for task in self._tasks.all({"batch_id": str(asked.remote_id)}):
                tasks.append(task)
                if len(tasks) > asked.count:  # the service does not filter by batch
                    return {}
        except (Refused, Unavailable, PossiblyApplied):
            return {}
        return _content_of(tasks, listing)


def _content_of(tasks: Sequence[MadeTask], listing: Listing) -> Mapping[int, Row]:
    numbers = ((listing.numbers.get(id_of(task)), task) for task in tasks)
    return {number: shown for number, task in numbers if number is not None and (shown := task.shown) is not None}
