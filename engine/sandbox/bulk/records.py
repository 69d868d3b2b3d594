"""The core that all six faces share: items of a call in, the fate of each and the records that exist out.

A face keeps its records by a key of the caller's, or it does not. Each record that comes to be is a line of the journal
(`kind` "task"), and each that is written over with something else is one, too ("update"). `batch_id` of a line is the
call that did it: `safe-3` is the third call to the face `safe`.

What becomes of an item is decided when its call arrives; the work of the call may be done later (`faults.Agenda`), and
whether a key is taken counts again then.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Literal

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.faults import Agenda
from engine.sandbox.journal import EntryKind, Journal, canonical_sha256
from engine.sandbox.settings import BulkUnwritten
from engine.sandbox.traffic import Stats

FateWord = Literal["created", "updated", "exists", "busy", "failed"]
KeyUse = Literal["none", "unique", "upsert"]
"""What a key is to a face: a word that many may have; a record's id, taken once and for all; the name of one that may
be written over."""

WHOLE, INDEX, BUSY = "batch", "index", "busy"
"""What the field `bad` of a record may say; any other word fails this record alone, and is its reason."""
BUSY_TIMES = 2
"""So often a record with `bad` = "busy" is not done."""
STRANGER = "nobody-sent-this"


class FaceParts(Struct, frozen=True):
    """What every face is made of."""

    behaviour: Behaviour
    journal: Journal
    stats: Stats
    agenda: Agenda
    clock: Callable[[], float]


class SentItem(Struct, frozen=True):
    """One item of a call: the record's own `content`, its key ("" without one), and the item as it was sent."""

    content: Any
    key: str = ""
    sent: Any = None


class SentFate(Struct, frozen=True):
    """What became of an item; `id` is of its record, None where there is none, or where the answer conceals it."""

    word: FateWord
    id: str | int | None = None
    reason: str = ""


class ToldItem(Struct, frozen=True):
    """What a result tells of the item at a position of the call; -1: nobody sent it."""

    position: int
    item: SentItem
    fate: SentFate


class BulkRecord(Struct, frozen=True):
    """A record that exists since `at` (epoch seconds)."""

    id: str | int
    at: float
    item: SentItem


class BatchRefused(Exception):
    """All items of a call are refused, and nothing is done; `records` says which ones are at fault, if it is told."""

    def __init__(self, message: str, records: Mapping[int, str] | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.records, self.status = message, records or {}, status


class BulkRecords:
    """The records of one face."""

    def __init__(self, face: str, keys: KeyUse, parts: FaceParts) -> None:
        self._face, self._keys, self._behaviour, self._bulk = face, keys, parts.behaviour, parts.behaviour.bulk
        self._journal, self._stats, self._agenda = parts.journal, parts.stats, parts.agenda
        # A later server's records must not be taken for an earlier one's: ids start with the time.
        self._started = int(parts.clock())
        self._records: list[BulkRecord] = []
        self._by_key: dict[str, int] = {}
        self._numbers = self._calls = self._items = 0
        self._busy: Counter[bytes] = Counter()

    def __iter__(self) -> Iterator[BulkRecord]:
        return iter(self._records)

    def take(self, items: Sequence[SentItem], agenda_key: object = None) -> list[SentFate]:
        """Decide over the items of one call and have its work done. Raise BatchRefused."""
        fates = self.judge(items)
        self._agenda.do(agenda_key or self._call, partial(self.keep, self._call, items, fates))
        return fates

    def judge(self, items: Sequence[SentItem]) -> list[SentFate]:
        """Say what becomes of each item; nothing is done yet. Raise BatchRefused."""
        self.new_call()
        self._refuse(items)
        taken: dict[str, str | int] = {}
        return [self._fate(item, taken) for item in items]

    def keep(self, call: str, items: Sequence[SentItem], fates: Sequence[SentFate], at: float) -> None:
        """Do the work of a call as of a time: what has come to be meanwhile under a key stays, or is written over."""
        for position, (item, fate) in enumerate(zip(items, fates, strict=True)):
            self.keep_one(call, position, item, fate, at)

    def keep_one(self, call: str, position: int, item: SentItem, fate: SentFate, at: float) -> None:
        """Do the work for one item."""
        if fate.word not in {"created", "updated"} or fate.id is None:
            self._stats.tasks_failed += fate.word == "failed"
            return
        known = self._by_key.get(item.key) if item.key and self._keys != "none" else None
        if known is None:
            self._by_key[item.key] = len(self._records)
            shown = item.key if self._keys == "none" and item.key else fate.id
            self._write("task", call, position, item, shown, at)
            self._records.append(BulkRecord(fate.id, at, item))
            self._stats.tasks_created += 1
        elif self._keys == "upsert" and self._records[known].item.content != item.content:
            record = self._records[known]
            self._write("update", call, position, item, record.id, at)
            self._records[known] = replace(record, item=item)

    def new_call(self) -> str:
        """Count a call and return its name."""
        self._calls += 1
        self._stats.batches += 1
        return self._call

    @property
    def _call(self) -> str:
        return f"{self._face}-{self._calls}"

    def by_key(self, key: str, at: float) -> BulkRecord | None:
        """Return the record with a key, if it existed at a time."""
        number = self._by_key.get(key)
        return self._records[number] if number is not None and self._records[number].at <= at else None

    @staticmethod
    def fates_of(found: Sequence[BulkRecord]) -> list[SentFate]:
        """Return what a list tells of records that exist."""
        return [SentFate("created", record.id) for record in found]

    def bad(self, content: object) -> str:
        """Return the word by which a record says how it is to be refused; "" if it does not."""
        return str(content.get(self._bulk.bad) or "") if isinstance(content, dict) else ""

    def _refuse(self, items: Sequence[SentItem]) -> None:
        if len(items) > self._bulk.most_records:
            raise BatchRefused(f"A call may bring {self._bulk.most_records} records at most, not {len(items)}.")
        bads = [self.bad(item.content) for item in items]
        if WHOLE in bads:
            raise BatchRefused("Something in this batch is not wanted.")
        for rule in self._behaviour.refusals:
            if any(rule.hits(item.content) for item in items):
                raise BatchRefused(rule.message, status=rule.status)
        if records := {at: "This record is not wanted." for at, bad in enumerate(bads) if bad == INDEX}:
            raise BatchRefused("Some records are not wanted; nothing was done.", records)

    def _fate(self, item: SentItem, taken: dict[str, str | int]) -> SentFate:
        self._items += 1
        bad = self.bad(item.content)
        if reason := self._failure(item.content, bad):
            return SentFate("failed", reason=reason)
        if self._is_busy(item.content, bad):
            return SentFate("busy", reason="Too much is under way, try again later.")
        if item.key and self._keys != "none":
            number = self._by_key.get(item.key)
            known = taken.get(item.key) if number is None else self._records[number].id
            if known is not None:
                return SentFate("updated" if self._keys == "upsert" else "exists", known)
        if self._keys == "unique" and _strikes(self._bulk.unwritten.exists_every, self._items - 1):
            return SentFate("exists")
        self._numbers += 1
        new = item.key if self._keys == "unique" else self._new_id(self._numbers)
        taken[item.key] = new
        return SentFate("created", new)

    def _new_id(self, number: int) -> str | int:
        """Make the id of the so many-th record."""
        if self._bulk.unwritten.ids == "numbers":
            return self._started % 1_000_000 * 1_000_000 + number
        return f"{self._face}-{self._started & 0xFFFFFF:06x}-{number}"

    def _failure(self, content: object, bad: str) -> str:
        if not isinstance(content, dict):
            return "A record must be an object."
        if bad and bad != BUSY:
            return f"The record is bad: {bad}."
        return next((rule.message for rule in self._behaviour.failures if rule.hits(content)), "")

    def _is_busy(self, content: object, bad: str) -> bool:
        if bad == BUSY:
            text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
            self._busy[text] += 1
            return self._busy[text] <= BUSY_TIMES
        return self._keys == "unique" and _strikes(self._bulk.busy_every, self._items - 1)

    def _write(self, kind: EntryKind, call: str, position: int, item: SentItem, task_id: str | int, at: float) -> None:
        entry = self._journal.entry(
            item.content, at=at, batch_id=call, task_id=str(task_id), position=position, kind=kind
        )
        self._journal.append([entry])


def told(
    items: Sequence[SentItem], fates: Sequence[SentFate], unwritten: BulkUnwritten, seed: int = 0
) -> list[ToldItem]:
    """Return what results tell, in their order: the truth, unless `unwritten` says otherwise."""
    shown = [
        ToldItem(at, item, _with_shown_id(at, fates, unwritten))
        for at, (item, fate) in enumerate(zip(items, fates, strict=True))
        if not _strikes(unwritten.omits_every, at)
    ]
    if unwritten.order == "reversed":
        shown.reverse()
    elif unwritten.order == "shuffled":
        Random(seed).shuffle(shown)
    if unwritten.strangers:
        shown.append(ToldItem(-1, SentItem({}, STRANGER), SentFate("created", STRANGER)))
    return shown


def _with_shown_id(at: int, fates: Sequence[SentFate], unwritten: BulkUnwritten) -> SentFate:
    fate = fates[at]
    if fate.word not in {"created", "updated"}:
        return fate
    if _strikes(unwritten.no_id_every, at):
        return replace(fate, id=None)
    if _strikes(unwritten.same_id_every, at) and at > 0:
        return replace(fate, id=fates[at - 1].id)
    return fate


def fingerprint(body: bytes) -> str:
    """Return what tells one payload from another, whatever its whitespace."""
    try:
        return canonical_sha256(orjson.loads(body))
    except orjson.JSONDecodeError:
        return canonical_sha256(body.decode(errors="replace"))


def _strikes(every: int, number: int) -> bool:
    return every > 0 and number % every == every - 1
