"""What a description says, done: batches in, the fates of their records out.

Which abilities the service has follows from the tables that the description has: `stage` makes it stage, `status` makes
it pollable, `cancel` cancelable, `search` searchable. `again` says what makes a repeat safe after a lost answer; what
follows from that stands in `model.next_step`.

Three things happen within one release, so that one bad or busy record costs no other one its turn: records that the
service was too busy for are sent again, after a pause; records that it names as the cause of a refusal fail, and the
others are sent again; and a body that is too long is not sent at all, but halved by the engine.

The module is a long one, since it has each step that a description may have.
"""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

import anyio
import anyio.to_thread
import msgspec
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.clock import Clock
from engine.model.batch import Batch, ClientReference
from engine.model.doubt import REPEATABLE, Again, RemoteStatus
from engine.model.error_hints import Blame, Carries
from engine.model.errors import (
    ConfigError,
    Refused,
    UnexpectedAnswer,
)
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.payload import NO_TASKS, Payload
from engine.model.record import Row
from engine.model.settings import BatchSettings
from engine.progress.events import Listener, unheard
from engine.services.base import (
    Answer,
    Asked,
    BatchProgress,
    Call,
    Caller,
    Intent,
    Located,
    Released,
    Staged,
    no_intent,
)
from engine.services.decoding import decode, is_page, words
from engine.services.described.body import Framing
from engine.services.described.consistency import finds_records, has_source_keys, rules_on_conflict
from engine.services.described.items import fetch_table
from engine.services.described.paths import MISSING, compiled, text_of_value, words_at
from engine.services.described.results import ListReader, RecordFates
from engine.services.described.search import Search
from engine.services.described.sending import Sending
from engine.services.described.settings import DescribedSettings, StepTable
from engine.services.described.steps import PageWalk, Step, joined, without_case
from engine.services.described.texts import BATCH_NAMES, Text, batch_names

if TYPE_CHECKING:
    from engine.services.checks import Checking

_INLINE_BYTES = 64 * 1024
"""A longer file of results is read by a thread: a megabyte takes some 10 ms."""
_SEARCH_WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the searches of a probe, which has half a minute."""
_ONLY_RELEASE_TELLS = (
    "the answer to its release was lost, and only that tells of each record: the service calls the batch {!r}"
)


class DescribedService:
    """The service that a description makes; see the module's head.

    Raises:
        ConfigError: the description cannot be followed.
    """

    drafting = counting = refreshing = undoing = None
    stage_again = Again.SAFE
    """A description promises that what is staged does nothing."""
    polls_together = 1

    def __init__(
        self,
        settings: DescribedSettings,
        batch: BatchSettings,
        job: Job,
        caller: Caller,
        clock: Clock,
        emit: Listener = unheard,
    ) -> None:
        self.kind: str = settings.kind
        self.settings = settings
        self._job = job
        self._token = job.learnt
        self._caller = caller
        self._clock = clock
        self._emit = emit
        self._framing = Framing(settings)
        self.limits = self._framing.limits(batch, job)
        self.open_batches = settings.limit.open
        self._declared = Again(settings.release.again)
        self._rules_on_conflict = rules_on_conflict(settings)
        self.key_seconds = settings.release.key_seconds if self._declared is Again.KEY else float("inf")
        self.settle_seconds = settings.release.settle_seconds or SETTLE_SECONDS
        step = partial(_step, settings)
        self._stage, self._upload = step("stage", settings.stage), step("upload", settings.upload)
        self._release = Step("release", settings.release, settings)
        self._status, self._cancel = step("status", settings.status), step("cancel", settings.cancel)
        self._look = step("look", settings.look)
        self._search = _search(settings)
        self._results = ListReader(settings.results)
        self._fetches = [
            (ListReader(fetch_table(settings.results, one)), Step("results", one, settings))
            for one in settings.results.fetch
        ]
        tables = [self._results.table, *(reader.table for reader, _ in self._fetches)]
        by_key = any(table.match == "key" for table in tables) or bool(
            settings.results.failures and settings.results.failures.key
        )
        self._needs_keys = by_key or any(not table.id or table.format == "count" for table in tables)
        self._needs_keys |= settings.results.missing == "created"
        self.answers_by_key = by_key and settings.results.of == "release"
        if by_key and settings.results.of == "release" and not self._release.payload:
            raise ConfigError(
                "service.results.match: the call that releases carries no records, so its answer is matched "
                "by order or index only; take the results from the status, or fetch them"
            )
        self._words = _StatusWords(settings)
        self._page = Text(joined(settings.base_url, settings.task_page or "/${id}"), "task_page")
        self._taken: dict[str, dict[str, str]] = {}
        """By the name of a staged batch: what its upload needs, until that is done."""
        self._staged_as: dict[int, str] = {}
        """By batch: how it was staged, while its release is not answered."""
        self._ended: dict[str, tuple[str, Any, dict[str, str]]] = {}
        """By the name of a batch that a poll has called ended: its word, that answer, and what was taken from it."""
        self._named: dict[int, str] = {}
        """By batch: its name, where only results tell whose a batch is."""
        self._first_keys: dict[str, str] = {}
        """By the name of a batch that has ended: the first key in its results."""
        self._reading_keys = anyio.Lock()
        self._sent_earlier: dict[str, bool] = {}
        """By the name of a batch that this process has released: whether an earlier attempt may have arrived."""
        self.plain_task: type[msgspec.Struct] | None = self._framing.plain_task
        self.staging = self if self._stage is not None else None
        self.polling = self if self._status is not None else None
        self.canceling = self if self._cancel is not None else None
        self.referencing = self if self._search is not None or settings.needs_token else None

    @property
    def again(self) -> Again:
        """As the description declares it; a search needs the token that is learnt before anything is frozen."""
        if self._declared is Again.SEARCH and not self._token:
            return Again.NEVER
        return self._declared

    @property
    def checking(self) -> Checking:
        """Says what promise the description gives, and tries its cheap call; loaded where it is wanted."""
        from engine.services.described.checks import DescribedChecks  # noqa: PLC0415 - no load needs it

        status = self.remote_status if self._status is not None else None
        search = self._first_batch if self._search is not None and not self._search.by_results else None
        return DescribedChecks(self.settings, self.look, self._framing.flaw, status, search)

    def check(self, task: Row) -> str | None:
        """Return why a record of this task cannot be sent, naming the field."""
        return self._framing.flaw(task)

    def task_url(self, task_id: str) -> str:
        """Return the page of a task."""
        return self._page.fill({**self.settings.values, "id": task_id}, _quoted)

    async def learn(self) -> str:
        """Make the token that the job's marks and keys have in common; nobody is asked."""
        self._token = secrets.token_hex(8)
        return self._token

    def reference(self, sequence: int) -> ClientReference | None:
        """Return None: what marks a record is put in when it is sent."""
        del sequence
        return None

    async def look(self) -> str:
        """Make the call of `[service.look]`; without one, get `base_url`, whose answer may be anything."""
        if self._look is not None:
            await self._caller.call(self._look.call(self.settings.values))
            return "the service answers the call of [service.look]"
        try:
            await self._caller.call(Call("look", "GET", self.settings.base_url))
        except Refused as refusal:
            return f"something answers at {self.settings.base_url} ({refusal})"
        return f"something answers at {self.settings.base_url}"

    # --- sending ------------------------------------------------------------------------------------------------------

    async def stage(
        self, batch: Batch, payload: Payload, *, earlier_id: str | None = None, intent: Intent = no_intent
    ) -> Staged:
        """Make the first step. What an earlier one made does nothing, so it is left alone."""
        del earlier_id, intent
        assert self._stage is not None  # noqa: S101 - else there is no `staging`
        values = self._values(batch)
        taken = self._stage.taken(await self._caller.call(self._bringing(self._stage, payload, values)))
        self._taken[taken["id"]] = {**values, **taken}
        return Staged(taken["id"], taken.get("upload_url"))

    async def upload(self, staged: Staged, payload: Payload, *, few_tries: bool = False) -> None:
        """Make the step that brings the records to what was staged, where there is one."""
        if self._upload is None:
            return
        values = self._taken.get(staged.remote_id, {"id": staged.remote_id})
        call = self._bringing(self._upload, payload, values)
        if not call.authenticated and self._upload.payload:
            call = replace(call, carries=Carries.BYTES)
        try:
            answer = await self._caller.call(replace(call, few_tries=few_tries))
        except ConfigError as error:  # one answer may be spoilt; the next URL may lead to where payloads may go
            raise Refused(str(error), call="upload", blame=Blame.URL) from error
        except Refused as refusal:
            if refusal.earlier_lost:  # the first one may have come, and be why: what is staged anew takes it again
                refusal.blame = Blame.URL
            raise
        if not call.authenticated:
            _no_page(answer, "upload")
        self._taken[staged.remote_id] = {**values, **self._upload.taken(answer)}

    async def release(
        self,
        batch: Batch,
        remote_id: str | None,
        payload: Payload | None,
        intent: Intent = no_intent,
        *,
        sent_before: bool = False,
    ) -> Released:
        """Have the records of a batch created, by what was staged of them or by one call that carries them."""
        values = self._values(batch)
        if remote_id is not None:
            values["id"] = self._staged_as[batch.sequence] = remote_id
        self._taken.pop(remote_id or "", None)
        sending = Sending(self, batch.count, payload, values, intent, earlier=sent_before)
        await sending.run()
        name = sending.taken.get("id", remote_id)
        if name is not None and self._search is not None and self._search.by_results:
            self._named[batch.sequence] = name
        self._staged_as.pop(batch.sequence, None)
        if sending.settlement is None:
            if name is None:
                raise UnexpectedAnswer("the answer does not name the batch", call="release")
            self._sent_earlier[name] = sending.earlier
        return Released(name, sending.settlement)

    def _values(self, batch: Batch) -> dict[str, str]:
        """Return what texts may name of a batch before it is sent."""
        return {**self.settings.values, **batch_names(self._job, self._token, batch.sequence)}

    def _bringing(self, step: Step, payload: Payload, values: Mapping[str, str]) -> Call:
        """Return the call of a step, with the records of a batch if it carries them."""
        if not step.payload:
            return step.call(values)
        values = self._record_values(payload, values, step.kind)
        return self._with_records(step.call(values), payload, values)

    def _record_values(self, payload: Payload, values: Mapping[str, str], call: str) -> Mapping[str, str]:
        """Return the names that a call may name which carries the records: of a single one, those of it, too.

        Raises:
            Refused: its task lacks one.
        """
        try:
            return self._framing.with_record(payload, values)
        except ValueError as error:
            raise Refused(str(error), call=call, blame=Blame.PAYLOAD) from error

    def _with_records(self, call: Call, payload: Payload, values: Mapping[str, str]) -> Call:
        """Return a call with the records of a batch as its body.

        Raises:
            Refused: the body is longer than the service takes, so the batch is halved, and a record alone fails; or no
                body can be made.
        """
        try:
            body = self._framing.body(payload, values) if payload.lengths else ()
        except ValueError as error:
            raise Refused(str(error), call=call.kind, blame=Blame.PAYLOAD) from error
        length, most = sum(map(len, body)), self.settings.limit.bytes
        if most is not None and length > most:
            said = f"its body would have {length:,} bytes, and service.limit.bytes is {most:,}"
            raise Refused(said, call=call.kind, blame=Blame.PAYLOAD, too_large=True)
        headers = without_case({"Content-Type": self._framing.content_type(payload), **call.headers})
        return replace(call, headers=headers, body=body, carries=Carries.RECORDS)

    async def send(self, payload: Payload | None, values: Mapping[str, str], intent: Intent) -> Answer:
        """Make the call that releases, once; `Sending` calls it.

        Raises:
            as `Caller.call` says.
        """
        records = payload or NO_TASKS
        if self._release.payload:
            values = self._record_values(records, values, "release")
        try:
            call = self._release.call(values)
        except UnexpectedAnswer as error:
            if not self._release.payload:  # what was taken of the staged one is at fault
                raise
            raise Refused(f"{error}: it was not sent", call="release", blame=Blame.PAYLOAD) from error
        if (header := self.settings.release.key_header) and self._declared is Again.KEY:
            call = replace(call, headers={header: values["mark"], **call.headers})
        if self._release.payload:
            call = self._with_records(call, records, values)
        else:
            call = replace(call, carries=Carries.RELEASE)
        call = replace(
            call, repeatable=self._declared in REPEATABLE, reconcilable=self._declared is Again.ASK, intent=intent
        )
        try:
            return _no_page(await self._caller.call(call), "release")
        except Refused as refusal:
            if call.carries is Carries.RELEASE and refusal.status == HTTPStatus.NOT_FOUND:
                refusal.batch_not_found = True
            if self._declared is Again.KEY and refusal.status == HTTPStatus.CONFLICT and not self._rules_on_conflict:
                refusal.released_before = True  # so most say that the first call with a key is still at work
            raise

    @property
    def is_repeatable(self) -> bool:
        """Whether a release may be made twice."""
        return self._declared in REPEATABLE

    @property
    def settles_at_once(self) -> bool:
        """Whether the answer to the release says what became of each record."""
        return self.settings.results.of == "release"

    def read_answer(
        self, answer: Answer, count: int, keys: Callable[[], Sequence[str]], *, earlier: bool
    ) -> tuple[Settlement, Sequence[int]]:
        """Return what the answer to a release says of each record, and the positions that may be sent again.

        Raises:
            UnexpectedAnswer: it does not say it.
        """
        fates = self._fates(count, keys)
        self._results.add(answer, fates, call="release")
        settlement = fates.settlement(self._results.table.missing, earlier=earlier, call="release")
        return settlement, fates.busy

    @property
    def keys_are_ids(self) -> bool:
        """Whether the service calls a record by its key."""
        tables = [reader.table for reader, _ in self._fetches] or [self._results.table]
        return all(not table.id or table.key in table.id for table in tables)

    def keys(self, payload: Payload, values: Mapping[str, str]) -> Sequence[str]:
        """Return the key of each record; () where they have none."""
        return self._framing.keys(payload, values)

    def release_takes(self, answer: Answer) -> dict[str, str]:
        """Return what the release takes out of its answer."""
        return self._release.taken(answer)

    async def pause(self, seconds: float) -> None:
        """Wait before busy records are sent again."""
        await self._clock.sleep(seconds)

    def round_values(self, values: Mapping[str, str], number: int) -> Mapping[str, str]:
        """Return the values of a further call of one release: an idempotency key stands for one content only."""
        if not number or self._declared is not Again.KEY:
            return values
        return {**values, "mark": f"{values['mark']}-{number}"}

    def _fates(self, count: int, keys: Callable[[], Sequence[str]]) -> RecordFates:
        is_upsert = self._declared is Again.SAFE
        return RecordFates(
            count,
            keys,
            unique_ids=not is_upsert,
            first_index=self.settings.results.first_index,
            keys_are_ids=self.keys_are_ids,
        )

    # --- after a lost answer ------------------------------------------------------------------------------------------

    async def locate(self, batch: Batch, payload: Payload, since: float) -> Located:
        """Search for a batch by its mark."""
        if self._search is None:
            return Located()
        values = self._values(batch)
        if (staged := self._staged_as.get(batch.sequence)) is not None:
            values["id"] = staged
        found = await self._search.found(self._caller, values, since, self._clock.now)
        keys = partial(self._framing.keys, payload, values)
        if self._search.by_results:
            return Located(await self._with_our_keys(batch.sequence, self._search.names(found), keys))
        if not self._search.finds_records:
            return Located(self._search.names(found))
        return self._search.located(found, batch.count, keys)

    async def _first_batch(self, remote_ids: Sequence[str], task_ids: Sequence[str]) -> tuple[bool, str]:
        """Search for the first batch of the job; return whether all of it is found, and what is. A list may be late."""
        search = self._search
        assert search is not None  # noqa: S101 - nobody else calls it
        values = {**self.settings.values, **batch_names(self._job, self._token, 0)}
        wanted = min(len(task_ids), self.limits.records) if search.finds_records else 1
        there = 0
        for seconds in (*_SEARCH_WAITS, 0.0):
            items = await search.found(self._caller, values, self._clock.now(), self._clock.now)
            if search.finds_records:
                there = search.records_among(items, task_ids)
            else:
                there = len(set(search.names(items)) & set(remote_ids[:1]))
            if there == wanted:
                break
            await self._clock.sleep(seconds)
        what = f"{wanted} records, by place and id" if search.finds_records else f"{wanted} batch"
        return there == wanted, f"it finds {there} of {what}"

    async def _with_our_keys(
        self, sequence: int, names: Sequence[str], keys: Callable[[], Sequence[str]]
    ) -> Sequence[str]:
        """Return those of some batches whose results name a key of ours; each one's are read once.

        Raises:
            UnexpectedAnswer: none does, and some have not ended, so they may be ours.
        """
        async with self._reading_keys:
            return await self._sorted_out(sequence, names, keys)

    async def _sorted_out(
        self, sequence: int, names: Sequence[str], keys: Callable[[], Sequence[str]]
    ) -> Sequence[str]:
        others = {name for one, name in self._named.items() if one != sequence}
        ours, wanted, unended = [], frozenset(keys()), 0
        for name in names:
            if name in others:
                continue
            if name not in self._first_keys:
                key = await self._first_key(name)
                if key is None:
                    unended += 1
                    continue
                self._first_keys[name] = key
            if self._first_keys[name] in wanted:
                ours.append(name)
        if unended and not ours:
            raise UnexpectedAnswer(f"{unended} batch(es) that may be it have not ended: their results will tell")
        return ours

    async def _first_key(self, remote_id: str) -> str | None:
        """Return the first key in the results of a batch, "" if there is none; None if it has not ended."""
        word, _, taken = await self._asked(remote_id)
        if word not in self._words.ended:
            return None
        values = {**self._values_of(remote_id), **taken}
        for reader, step in self._fetches:
            if step.needs <= values.keys():
                with tempfile.SpooledTemporaryFile(max_size=_INLINE_BYTES) as spooled:
                    file = cast("BinaryIO", spooled)
                    await self._caller.call(replace(step.call(values), yielding=True, into=file))
                    if key := reader.first_place(file):
                        return key
        return ""

    async def remote_status(self, remote_id: str) -> RemoteStatus:
        """Ask whether a batch was released, by its word."""
        try:
            word, value, _ = await self._asked(remote_id)
        except Refused as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND or refusal.batch_not_found:
                return RemoteStatus.NOT_THERE
            raise
        if word in self._words.waiting:
            return RemoteStatus.WAITING
        if word in self._words.failed and self._words.created(value) == 0:
            return RemoteStatus.ENDED
        return RemoteStatus.STARTED

    async def cancel(self, remote_id: str) -> None:
        """Make the call that has the service create nothing more of a batch."""
        assert self._cancel is not None  # noqa: S101 - else there is no `canceling`
        _no_page(await self._caller.call(self._cancel.call(self._values_of(remote_id))), "cancel")

    # --- following ----------------------------------------------------------------------------------------------------

    async def progress(self, followed: Sequence[Asked]) -> Sequence[BatchProgress]:
        """Ask how far a batch is, by its word and its count."""
        (asked,) = followed
        remote_id = str(asked.remote_id)
        word, value, taken = await self._asked(remote_id)
        finished = word in self._words.ended
        if finished:
            self._ended[remote_id] = word, value, taken
        created = min(self._words.created(value) or 0, asked.count)
        return [
            BatchProgress(
                asked.sequence,
                created,
                finished,
                waiting=word in self._words.waiting,
                said=words(word),
                understood=word in self._words.known or not self._words.tells_all,
            )
        ]

    async def settlement(self, asked: Asked) -> Settlement | None:
        """Read the results of a batch that has ended."""
        remote_id = str(asked.remote_id)
        ended = self._ended.pop(remote_id) if remote_id in self._ended else await self._asked(remote_id)
        word, value, taken = ended
        if word not in self._words.ended:
            return None
        # Of a batch that another process has released it is not known any more, where there may have been one.
        may_be_ours = self.is_repeatable or self._job.parent is not None
        earlier = self._sent_earlier.get(remote_id, None if may_be_ours else False)
        values = {**self._values_of(remote_id, asked.sequence), **taken}
        keys: Callable[[], Sequence[str]] = tuple
        if self._needs_keys or earlier is not False:
            payload = await asked.payload()
            keys = partial(self._framing.keys, payload, values)
        fates = self._fates(asked.count, keys)
        has_failed = word in self._words.failed
        if self.settles_at_once and not has_failed:  # it comes here only if that answer was lost
            said = _ONLY_RELEASE_TELLS.format(words(word))
            return Settlement([None] * asked.count, uncertain=dict.fromkeys(range(asked.count), said))
        if self.settings.results.of == "status" and not (has_failed and self._results.counts_none(value)):
            self._results.add_value(value, fates, needed=not has_failed)
        are_there = [
            await self._fetch(reader, step, values, fates)
            for reader, step in self._fetches
            if step.needs <= values.keys()  # else it needs what the status did not show
        ]
        if are_there and not any(are_there) and not has_failed:
            raise UnexpectedAnswer("the batch has ended, and none of its results is there", call="results")
        missing = self._results.table.missing
        if has_failed:
            created = self._words.created(value) or 0
            said = words(self._words.error(value)) or f"the batch ended as {word!r}"
            if created and not fates.any_named:
                said = f"{said}; the service counts {created} created, and does not say which"
                return Settlement([None] * asked.count, uncertain=dict.fromkeys(range(asked.count), said))
            missing = missing if created else said
        settlement = fates.settlement(missing, earlier=earlier, call="results")
        self._sent_earlier.pop(remote_id, None)
        return settlement

    async def _asked(self, remote_id: str) -> tuple[str, Any, dict[str, str]]:
        """Ask for the status of a batch; return its word, the answer's value, and what was taken from it.

        Raises:
            UnexpectedAnswer: the answer has no word.
        """
        assert self._status is not None  # noqa: S101 - else there is no `polling`
        call = self._status.call(self._values_of(remote_id))
        answer = await self._caller.call(replace(call, yielding=True))
        value = decode(answer, Any, call="status")
        return self._words.state(value), value, self._status.taken(answer)

    async def _fetch(self, reader: ListReader, step: Step, values: Mapping[str, str], fates: RecordFates) -> bool:
        """Make a call that brings results, page by page; lines and rows go through a file, and memory stays flat.

        Return whether there was a page.
        """
        walk = PageWalk(reader.table.pages, step.call(values), self.settings.base_url)
        page: Call | None = walk.first
        while page is not None:
            try:
                if reader.table.format in {"ndjson", "csv"}:
                    answer, number = await self._streamed(reader, page, fates)
                    value: Any = MISSING
                else:
                    answer = await self._caller.call(replace(page, yielding=True))
                    value, number = reader.add(answer, fates, call="results")
            except Refused as refusal:
                if refusal.status in walk.stop_status:
                    return page is not walk.first
                raise
            page = walk.next_call(answer, value, number)
        return True

    async def _streamed(self, reader: ListReader, page: Call, fates: RecordFates) -> tuple[Answer, int]:
        with tempfile.SpooledTemporaryFile(max_size=_INLINE_BYTES) as spooled:
            file = cast("BinaryIO", spooled)
            answer = await self._caller.call(replace(page, yielding=True, into=file))
            if file.seek(0, 2) <= _INLINE_BYTES:
                return answer, reader.add_file(file, fates)
            return answer, await anyio.to_thread.run_sync(reader.add_file, file, fates)

    def _values_of(self, remote_id: str, sequence: int | None = None) -> dict[str, str]:
        """Return what texts may name of a batch that is called so."""
        values = {**self.settings.values, "job": self._job.name, "token": self._token, "id": remote_id}
        if sequence is not None:
            values |= batch_names(self._job, self._token, sequence)
        return values


def _no_page(answer: Answer, call: str) -> Answer:
    """Return an answer that is not read further, unless it is a page: something in between gives those, with a 200.

    Raises:
        UnexpectedAnswer: it is one.
    """
    if is_page(answer.body):
        raise UnexpectedAnswer(f"{call}: a page is no answer of the service", call=call, status=answer.status)
    return answer


class _StatusWords:
    """What the answers of `[service.status]` say."""

    def __init__(self, settings: DescribedSettings) -> None:
        status = settings.status
        self._state = compiled(status.state) if status else compiled("")
        self._created = compiled(status.created) if status and status.created else None
        self.error = words_at(status.error if status else ())
        self.waiting, self.failed, finished, running = (
            frozenset(map(text_of_value, getattr(status, name) if status else ()))
            for name in ("waiting", "failed", "finished", "running")
        )
        self.ended = finished | self.failed
        self.known = self.ended | self.waiting | running
        self.tells_all = bool(running)
        """Words that are under way are listed, too, so any other one is worth saying."""

    def state(self, value: Any) -> str:
        """Return the word for where a batch stands.

        Raises:
            UnexpectedAnswer: there is none.
        """
        found = self._state(value)
        if found in (MISSING, None, "") or not isinstance(found, str | int | float):
            raise UnexpectedAnswer("status: the answer names no state", call="status")
        return text_of_value(found)

    def created(self, value: Any) -> int | None:
        """Return how many were created so far; None if the service does not say it."""
        found = self._created(value) if self._created else None
        if isinstance(found, str) and found.isdecimal() and len(found) < 10:  # noqa: PLR2004 - a billion
            found = int(found)
        return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def _step(settings: DescribedSettings, kind: str, table: StepTable | None) -> Step | None:
    return None if table is None else Step(kind, table, settings)


def _search(settings: DescribedSettings) -> Search | None:
    table = settings.search
    return None if table is None else Search(table, settings, finds_records=finds_records(settings, table))


def _quoted(value: str) -> str:
    return quote(value, safe="")


def answer_preview(call: Call, settings: DescribedSettings) -> Answer | None:
    """Return what the service would answer, if all went well; see `preview`."""
    from engine.services.described import preview  # noqa: PLC0415 - a submit need not load it

    return preview.answer_preview(call, settings)


def source_keys(settings: DescribedSettings) -> Callable[[Payload], Sequence[str]] | None:
    """Return what returns the key of each task; None where there are none, or each has the number of its record."""
    if not has_source_keys(settings):
        return None
    return partial(Framing(settings).keys, names=dict.fromkeys(BATCH_NAMES, ""))


def taken_from(call: Call, answer: Answer, settings: DescribedSettings) -> Sequence[tuple[str, str]]:
    """Return what is taken from an answer, by name; see `trace`."""
    from engine.services.described import trace  # noqa: PLC0415 - as above

    return trace.taken_from(call, answer, settings)


def later_calls(settings: DescribedSettings) -> Sequence[Call]:
    """Return the calls that follow when a batch is up; see `trace`."""
    from engine.services.described import trace  # noqa: PLC0415 - as above

    return trace.later_calls(settings)


def sample(draw: random.Random, name: str) -> Row:
    """Return a made-up task for a bench without files: an id, a few words and numbers, some 300 bytes."""
    return {
        "id": name,
        "title": f"record {draw.getrandbits(64):016x}",
        "note": "x" * draw.randrange(160, 220),
        "size": draw.randrange(1000),
        "tags": [draw.choice(["red", "green", "blue"]) for _ in range(3)],
    }


SETTINGS = DescribedSettings
build = DescribedService
