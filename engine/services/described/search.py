"""A search in, what it found of a batch out: names of batches, or the fates of its records.

It is asked after a release whose answer was lost. What it lists may be anybody's: what counts carries our mark, or what
`where` says, whether the service has filtered by it or not. That it found nothing is no proof; the engine decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from engine.model.errors import Refused, UnexpectedAnswer
from engine.services.base import Answer, Call, Caller, Located
from engine.services.decoding import decode
from engine.services.described.items import ResultReader, is_id, words_of
from engine.services.described.paths import MISSING, compiled, fitting
from engine.services.described.results import RecordFates
from engine.services.described.settings import DescribedSettings, ResultsTable, SearchTable
from engine.services.described.steps import PageWalk, Step
from engine.services.described.texts import JsonText

SKEW_SECONDS = 900.0
"""What was made so long before a release is none of it: the longest call, and clocks that differ."""

NOT_FOUND = "a search by its mark has not found it"
_THOUSAND = 1000.0
_MILLISECONDS_FROM = 1e11


class Search:
    """`[service.search]`, compiled."""

    def __init__(self, table: SearchTable, settings: DescribedSettings, *, finds_records: bool) -> None:
        self.finds_records = finds_records
        self._base_url = settings.base_url
        self._table = table
        self._first_index = settings.results.first_index
        self.step = Step("search", table, settings)
        self._where = JsonText(table.where, "search.where")
        self._mark = compiled(table.mark) if table.mark else None
        self._is_marked = bool(table.mark or table.where)
        """What is ours is known by something of the batch; else by its records' keys alone."""
        self._made_at = compiled(table.stop_before) if table.stop_before else None
        self.by_results = table.by_results
        key, index = table.key or settings.results.key, table.index or settings.results.index
        match: Literal["key", "index"] = "key" if table.key or (key and not table.index) else "index"
        # A record that the results call by its key has no other name here, or the two would not be one.
        by_keys = finds_records and not settings.results.id and table.id == SearchTable(call="").id
        id_ = () if by_keys else table.id
        self._reader = ResultReader(
            ResultsTable(items=table.items, match=match, key=key, index=index, id=id_, error=())
        )

    async def found(
        self, caller: Caller, values: Mapping[str, str], since: float, now: Callable[[], float]
    ) -> Sequence[Any]:
        """Return the items that are ours; `values` are those of the batch, `since` and `now` Unix seconds by our clock.

        Raises:
            UnexpectedAnswer: the answer has no list.
        """
        call = self.step.call(values)
        walk = PageWalk(self._table.pages, call, self._base_url)
        is_ours, next_call = self._filter(values), walk.first
        found: list[Any] = []
        page: Call | None = next_call
        while page is not None:
            try:
                answer = await caller.call(page)
            except Refused as refusal:
                if refusal.status in walk.stop_status:
                    break
                raise
            if page is walk.first:  # what was made when is by the service's clock
                since += _ahead_seconds(answer, now())
            body, items = self._items(answer)
            found += filter(is_ours, items if not self.by_results else self._made_since(items, since))
            if self._made_at is not None and any(_is_older(self._made_at(item), since) for item in items):
                break
            page = walk.next_call(answer, body, len(items))
        return found

    def _made_since(self, items: Sequence[Any], since: float) -> Sequence[Any]:
        made_at = self._made_at
        return items if made_at is None else [item for item in items if not _is_older(made_at(item), since)]

    def names(self, items: Sequence[Any]) -> Sequence[str]:
        """Return the names of the batches that were found, each once.

        Raises:
            UnexpectedAnswer: one has no name.
        """
        names = self._reader.judged(items).ids
        if not all(name is not None and is_id(name) for name in names):
            raise UnexpectedAnswer("what the search found has no name", call="search")
        return list(dict.fromkeys(name for name in names if name is not None))

    def records_among(self, items: Sequence[Any], task_ids: Collection[str]) -> int:
        """Return how many items have a place, and an id among those of tasks that are there if they have any."""
        ids = self._reader.judged(items).ids
        found = zip(self._reader.places(items), ids, strict=True)
        return len(
            {words_of(place) for place, id_ in found if place is not MISSING and (id_ is None or id_ in task_ids)}
        )

    def located(self, items: Sequence[Any], count: int, keys: Callable[[], Sequence[str]]) -> Located:
        """Return the fates of the records of a batch by those that were found; none if none is of the batch.

        Raises:
            UnexpectedAnswer: some carry what marks this batch, and no record of it is known among them.
        """
        fates = RecordFates(count, keys, first_index=self._first_index)
        fates.add(self._reader.match, self._reader.judged(items), self._reader.places(items))
        if not self._is_marked:
            fates.forget_strays()
        if not fates.any_named and not fates.has_strays:
            return Located()
        found = fates.settlement("error", earlier=True, call="search", unnamed=NOT_FOUND)
        unclear = frozenset(position for position, why in found.uncertain.items() if why != NOT_FOUND)
        return Located(settlement=found, unclear=unclear)

    def items_in(self, answer: Answer) -> Sequence[Any]:
        """Return all items that an answer lists, whosever they are. Raises: UnexpectedAnswer."""
        return self._items(answer)[1]

    def _items(self, answer: Answer) -> tuple[Any, Sequence[Any]]:
        body = decode(answer, Any, call="search", mend=False)
        items, _ = self._reader.items(body)
        return body, items

    def _filter(self, values: Mapping[str, str]) -> Callable[[Any], bool]:
        """Return whether an item is ours. One that does not show our mark is none."""
        try:
            wanted = fitting(self._where.fill(values))
        except KeyError as error:
            words = f"search.where needs ${{{error.args[0]}}}, which is not known of a batch whose answer was lost"
            raise UnexpectedAnswer(words, call="search") from None
        mark, ours = self._mark, values["mark"]

        def is_ours(item: Any) -> bool:
            return (mark is None or mark(item) == ours) and wanted(item)

        return is_ours


def _ahead_seconds(answer: Answer, now: float) -> float:
    """Return by how much the service's clock is ahead of ours, by the `Date` of an answer; 0 if it has none."""
    try:
        date = parsedate_to_datetime(answer.headers.get("Date", ""))
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0


def _is_older(made_at: Any, since: float) -> bool:
    """Return whether something was made before a time, and certainly; what is no time is not."""
    seconds = _seconds(made_at)
    return seconds is not None and seconds < since - SKEW_SECONDS


def _seconds(found: Any) -> float | None:
    """Return Unix seconds by a number of seconds or milliseconds, or by a date (ISO 8601; without a zone it is UTC)."""
    if found is MISSING or isinstance(found, bool):
        return None
    if isinstance(found, int | float):
        seconds = found / _THOUSAND if found >= _MILLISECONDS_FROM else float(found)
        return seconds if math.isfinite(seconds) else None
    try:
        at = datetime.fromisoformat(found)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
