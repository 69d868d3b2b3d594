"""Released batches in, settled ones out: polls, well timed, until the fate of every record is known.

When which batch is asked about is foretold by `adaptive.poll_schedule` from what earlier polls have shown. Here is
the asking itself, and what follows from the answers: a batch is settled, asked about again, or given up.

A batch that was accepted is never released again from here, however long it says *waiting*: the service may only be
slow to begin. An event says that it waits; and when nothing moves any more, the run ends and names such batches.

The module is a long one: each answer, and what a person is told of it, stands beside the question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.adaptive.batch_size import OpenBatches
from engine.adaptive.poll_schedule import PollSchedule
from engine.adaptive.rate import Pacer
from engine.model.batch import Batch, batch_name
from engine.model.doubt import Doubt, RemoteStatus
from engine.model.errors import (
    RESUME,
    CallFailed,
    Refused,
    SourceChanged,
    SourceError,
    StillWaiting,
    Unavailable,
    UnexpectedAnswer,
)
from engine.model.next_step import Action, next_step
from engine.model.outcome import Settlement
from engine.model.payload import Payload
from engine.model.settings import AUTO, SendSettings
from engine.model.submission import State, Submission
from engine.progress.events import BatchesWaiting, BatchProgressed, Noticed
from engine.progress.text import count, duration
from engine.run.context import Run, doubt_after_call
from engine.run.queues import Signal
from engine.run.uploader import Payloads
from engine.services.base import Asked, BatchProgress

_LOOK_SECONDS = 1.0
"""Between two looks over all open batches for those that still wait: there may be a hundred thousand."""
_NAMES_SHOWN = 5  # waiting batches that an error names
_LATE_POLLS = 3  # polls of a batch that may say "not there" before we say so: some show it a moment after its release
_COMPLAIN_SECONDS = 30.0  # between two lines about polls that fail: there may be as many as batches
_MOST_DOUBLINGS = 60  # of the wait after polls that fail; more would overflow a float
_MOST_EARLY = 1000  # names of batches of which callbacks told before we knew them
_NEVER_OPEN = 2**31
"""Bounds nothing: what a service answers at once is never open, however many requests are under way."""
_NEWEST = 0.1  # weight of the newest wait, or way to the service and back, in their mean


class _OpenBatch(Struct):
    """A batch that the service works on."""

    batch: Batch  # without its spans: thousands of batches may be open
    submission: Submission
    released_at: float  # monotonic seconds, as all times here
    asked_at: float
    moved_at: float  # when something new was seen of it, or this run began to follow it
    shown: BatchProgress  # by the newest poll
    question: Asked | None = None  # of the newest poll
    settlement: Settlement | None = None  # handed to the ledger
    doubt: Doubt | None = None  # while polls fail: since when, and how
    failures: int = 0  # polls in a row
    failing_noted: bool = False  # that they fail is told, or waits to be

    @property
    def is_stuck(self) -> bool:
        """Whether it was not begun, or is called something that nobody knows."""
        return self.shown.waiting or not self.shown.understood


class Poller:
    """Follows the released batches of one run."""

    def __init__(self, run: Run, settings: SendSettings, payloads: Payloads | None = None) -> None:
        """Join the parts; `payloads` for a service that tells tasks by their content."""
        self._run = run
        self._payloads = payloads
        self._unknown_words: set[str] = set()
        self._settings = settings
        self._moved_at = run.clock.monotonic()
        self._said_at = self._looked_at = self._complained_at = float("-inf")
        self._still_after = 0.0
        """After so many idle seconds the next line says that nothing moves; 0: the settle time."""
        self._untold: set[int] = set()
        """Batches whose polls began to fail since the last line about such a one."""
        polling = run.service.polling
        together = polling.polls_together if polling else 1
        self._schedule = PollSchedule(settings.poll_seconds, settings.max_poll_seconds, together)
        self._pacer = Pacer(settings.polls_per_second)
        most_open = polling.open_batches if polling else _NEVER_OPEN
        self._open_limit = OpenBatches(settings.max_open_batches or most_open, self._moved_at)
        # Where one poll covers many batches the service works on all of them at once: each one open adds to its speed.
        self._adapts = together == 1 and settings.max_open_batches is None and settings.max_in_flight == AUTO
        self._mean_wait = settings.poll_seconds
        self._round_trip = 0.0
        self._open: dict[int, _OpenBatch] = {}
        self._open_records = 0
        self._named: dict[str, int] = {}
        """The open batches, by their names at the service."""
        self._told_early: dict[str, int] = {}
        self._changed = Signal()
        self._complete = False

    @property
    def open_batches(self) -> int:
        """Batches released and not yet settled."""
        return len(self._open)

    def has_room(self, uploads: int) -> bool:
        """Return whether one more batch may be sent, beside those that are being uploaded now.

        The limit that keeps the service busy counts open batches alone; uploads count for the configured one, too.
        """
        return len(self._open) < self._open_limit.limit and len(self._open) + uploads < self._open_limit.most

    def follows(self, sequence: int) -> bool:
        """Return whether a batch is followed already."""
        return sequence in self._open

    def add(self, batch: Batch, submission: Submission) -> None:
        """Follow a batch that was just released, or that an earlier run left open."""
        now = self._run.clock.monotonic()
        passed = max(0.0, self._run.clock.now() - submission.changed_at)
        nothing = BatchProgress(batch.sequence, 0, finished=False)
        self._open[batch.sequence] = _OpenBatch(replace(batch, spans=b""), submission, now - passed, now, now, nothing)
        self._open_records += batch.count
        self._moved_at = now
        self._schedule.release(batch.sequence, batch.count, now)
        if submission.remote_id is not None:
            self._named[submission.remote_id] = batch.sequence
            self.hear(submission.remote_id, self._told_early.pop(submission.remote_id, 0))
        self.wake()

    def hear(self, remote_id: str, tasks: int) -> None:
        """Take in that a callback tells of tasks of a batch, or of some batch if it names none: the oldest, probably.

        It is no fate: all that comes of it is that the batch is asked about now, or later than it would be.
        """
        sequence = self._named.get(remote_id) if remote_id else next(iter(self._open), None)
        if sequence is None:  # perhaps one whose release is not answered yet
            if remote_id and (remote_id in self._told_early or len(self._told_early) < _MOST_EARLY):
                self._told_early[remote_id] = self._told_early.get(remote_id, 0) + tasks
        elif tasks and self._schedule.hear(sequence, tasks, self._run.clock.monotonic()):
            self.wake()

    def finish(self) -> None:
        """Nothing more will be added."""
        self._complete = True
        self.wake()

    async def wait_for_change(self) -> None:
        """Return after the next batch was added or settled, or was queued to be asked about."""
        await self._changed.wait()

    def wake(self) -> None:
        """Have whoever waits for a change look again."""
        self._changed.give()

    async def next_group(self) -> Sequence[int]:
        """Wait until batches are due and take up to `polls_together` out of the queue; none once all are settled."""
        while not (group := self._schedule.take(self._arrival)):
            if self._complete and not self._open:
                return []
            await self._sleep_until(self._schedule.next_due())
        return group

    @property
    def _arrival(self) -> float:
        """When a poll that is sent now gets to the service."""
        return self._run.clock.monotonic() + self._round_trip / 2

    async def _sleep_until(self, due_at: float) -> None:
        """Sleep until a poll must be sent to arrive in time, or until one is due earlier, or none any more."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._wake_after, due_at - self._arrival, group.cancel_scope)
            while not group.cancel_scope.cancel_called:
                await self.wait_for_change()  # here and not in the other task, which begins a turn of the loop later
                if self._schedule.next_due() < due_at or (self._complete and not self._open):
                    group.cancel_scope.cancel()

    async def _wake_after(self, seconds: float, sleep: anyio.CancelScope) -> None:
        if seconds < float("inf"):
            await self._run.clock.sleep(seconds)
            sleep.cancel()

    async def poll(self, group: Sequence[int], answered: Callable[[], None] = lambda: None) -> None:
        """Ask about a group once; settle what has finished and queue the rest again.

        `answered` is called once the service has nothing more to say: others may ask while the fates are written.
        """
        open_batches = [self._open[sequence] for sequence in group]
        try:
            await self._ask(open_batches)
        finally:
            answered()
            await self._close_settled(open_batches)

    async def _ask(self, open_batches: Sequence[_OpenBatch]) -> None:
        wait = self._pacer.book(self._run.clock.monotonic())
        self._run.tell_wait(f"polls_per_second is {self._settings.polls_per_second:g}", wait)
        await self._run.clock.sleep(wait)
        sent_at = self._run.clock.monotonic()
        try:
            answers = await self._run.polling.progress(
                [self._asked(open_batch, sent_at) for open_batch in open_batches]
            )
        except (Refused, UnexpectedAnswer, Unavailable) as failure:
            await self._run.check_reach(failure)
            for open_batch in open_batches:
                await self._excuse(open_batch, failure)
            return
        answered_at = self._run.clock.monotonic()
        self._round_trip += (answered_at - sent_at - self._round_trip) * (_NEWEST if self._round_trip else 1)
        seen_at = (sent_at + answered_at) / 2  # the service looked halfway between question and answer
        said = {progress.sequence: progress for progress in answers}
        for open_batch in open_batches:
            if open_batch.batch.sequence in said:
                await self._learn(open_batch, said[open_batch.batch.sequence], seen_at)
            else:
                words = f"nothing was said of batch {open_batch.submission.remote_id}"
                await self._excuse(open_batch, UnexpectedAnswer(words))
        self._look_for_movement(seen_at)  # only now: what the answers show has moved

    def _asked(self, open_batch: _OpenBatch, now: float) -> Asked:
        unmoved = now - open_batch.moved_at >= self._run.settle_time.seconds
        payload = partial(self._payload, open_batch.batch.sequence)
        open_batch.question = Asked(
            open_batch.batch.sequence,
            open_batch.submission.remote_id,
            open_batch.batch.count,
            unmoved=unmoved,
            payload=payload,
        )
        return open_batch.question

    async def _payload(self, sequence: int) -> Payload:
        """Read the payload of a batch again; its spans are in the ledger."""
        found = await self._run.ledger.batch(self._run.job.name, sequence)
        if self._payloads is None or found is None:
            raise SourceChanged(f"the records of batch {batch_name(sequence)} cannot be read here")
        return await self._payloads.read(found[0])

    async def _learn(self, open_batch: _OpenBatch, progress: BatchProgress, seen_at: float) -> None:
        """Take in what a poll said of one batch of its group; an error here concerns this batch alone."""
        try:
            await self._apply_answer(open_batch, progress, seen_at)
        except SourceError as error:  # with the file in its place again, a later run asks once more
            await self._park(open_batch, f"which of its records were created cannot be told: {error}")
        except (Refused, UnexpectedAnswer, Unavailable) as failure:
            await self._run.check_reach(failure)
            await self._excuse(open_batch, failure)

    async def _apply_answer(self, open_batch: _OpenBatch, progress: BatchProgress, seen_at: float) -> None:
        before, open_batch.shown = open_batch.shown, progress
        gained = progress.created - before.created
        if gained:
            self._run.emit(BatchProgressed(progress.sequence, progress.created, before.created))
        if gained or progress.said != before.said or progress.waiting != before.waiting:
            self._moved_at = open_batch.moved_at = seen_at
        seconds = seen_at - open_batch.released_at
        if before.waiting and not progress.waiting and self._run.settle_time.saw_start(seconds):
            await self._run.ledger.note_slowest_start(self._run.job.name, seconds)
        self._mean_wait += (seen_at - open_batch.asked_at - self._mean_wait) * _NEWEST
        open_batch.asked_at = seen_at
        if not progress.understood and progress.said not in self._unknown_words:
            self._unknown_words.add(progress.said)
            text = f"the service calls a batch {progress.said!r}, a word not known here: the states of its tasks count"
            self._run.emit(Noticed(text))
        settlement = await self._settlement_of(open_batch, progress, seen_at)
        self._adapt(gained)
        if settlement is not None:
            open_batch.settlement = settlement
            await self._run.settle(open_batch.batch, open_batch.submission, settlement, wait=False)
            return
        open_batch.doubt, open_batch.failures, open_batch.failing_noted = None, 0, False
        self.wake()

    async def _settlement_of(
        self, open_batch: _OpenBatch, progress: BatchProgress, seen_at: float
    ) -> Settlement | None:
        """Return the fate of each record of a batch; None if it is not finished, by its poll or by a closer look."""
        settlement, finished = progress.settlement, progress.finished
        try:
            question = open_batch.question
            if finished and settlement is None and question is not None:
                settlement = await self._run.polling.settlement(question)
                finished = settlement is not None
        finally:
            self._schedule.saw(progress.sequence, seen_at, progress.created, finished=finished)
        return settlement

    def _look_for_movement(self, now: float) -> None:
        """Say that accepted batches still wait; end the run once nothing has moved for too long."""
        settle_seconds = self._run.settle_time.seconds
        idle_seconds = now - self._moved_at
        if idle_seconds < settle_seconds:
            self._still_after = 0.0
            return
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        waiting = [
            open_batch
            for open_batch in self._open.values()
            if open_batch.is_stuck and now - open_batch.released_at >= settle_seconds
        ]
        if not waiting:
            self._tell_stillness(idle_seconds)
            return
        names = ", ".join(batch_name(open_batch.batch.sequence) for open_batch in waiting[:_NAMES_SHOWN])
        names += ", …" if len(waiting) > _NAMES_SHOWN else ""
        if now - self._said_at >= settle_seconds:
            self._said_at = now
            self._run.emit(
                BatchesWaiting(len(waiting), now - min(open_batch.released_at for open_batch in waiting), names)
            )
        limit = max(settle_seconds, self._settings.give_up_seconds)
        if idle_seconds >= limit and not any(self._may_move(open_batch, limit) for open_batch in self._open.values()):
            words = ", ".join(sorted({open_batch.shown.said or "waiting" for open_batch in waiting}))
            job = self._run.job.name
            error = StillWaiting(
                f"nothing has moved for {idle_seconds:.0f} s, and the service still says {words} of "
                f"{count(len(waiting), 'batch')} that it has accepted: {names}. No record is lost: {RESUME} "
                f"follows them on. `bulksubmit retry {job} --uncertain` has them released again, after it has "
                f"said what could come twice"
            )
            self._run.end(error)

    def _tell_stillness(self, idle_seconds: float) -> None:
        """Say that nothing moves although the service works, it says: after the settle time, then ever more rarely."""
        if idle_seconds < self._still_after or not self._open:
            return
        seconds, every = self._run.settle_time.seconds, self._open.values()
        if any(one.settlement is not None or self._may_move(one, seconds) for one in every):  # it has, or could have
            return
        self._still_after = 2 * idle_seconds
        oldest = next(iter(self._open.values()))
        name = batch_name(oldest.batch.sequence)
        said = (
            "its polls fail" if oldest.failures else f"the service says {oldest.shown.said or 'not finished'!r} of it"
        )
        self._run.emit(
            Noticed(
                f"nothing has moved for {duration(idle_seconds)}, and {count(len(self._open), 'batch')} open. "
                f"The oldest is batch {name}: {said}. It is followed on"
            )
        )

    def _may_move(self, open_batch: _OpenBatch, seconds: float) -> bool:
        """Return whether a batch may have moved without a poll that showed it."""
        if (
            open_batch.shown.understood and open_batch.shown.created >= open_batch.batch.count
        ):  # its tasks are all there: it is at work, whether that shows or not
            return True
        return (
            open_batch.asked_at - self._moved_at < seconds
        )  # it was not asked about, since its end is foretold for later

    def _adapt(self, gained: int) -> None:
        """Let as many batches be open as keep the service busy until a poll has told of the end of one."""
        if not self._adapts:
            return
        now, records = self._run.clock.monotonic(), self._open_records / len(self._open)
        change = self._open_limit.observe(gained, now, batch_records=records, lag_seconds=self._mean_wait)
        if change is not None:
            self._run.emit(change)
            self.wake()

    async def _excuse(self, open_batch: _OpenBatch, failure: CallFailed) -> None:
        """Ask again later after a poll that failed; park the batch where the table of steps says so."""
        now = self._run.clock.monotonic()
        doubt = open_batch.doubt or doubt_after_call(self._run, open_batch.submission)
        gone = isinstance(failure, Refused) and failure.status == HTTPStatus.NOT_FOUND
        self._tell_failure(open_batch, failure, now, gone=gone)
        if (
            gone and doubt.remote_status is not RemoteStatus.NOT_THERE
        ):  # its time counts from the first 404, not from other failures
            doubt = replace(doubt, since=now)
        open_batch.doubt = doubt.with_answer(RemoteStatus.NOT_THERE if gone else RemoteStatus.SILENT, now)
        step = next_step(open_batch.doubt, self._run.settle_time.seconds)
        # A page may be that of a proxy that does not find its way for a while, even if the service itself is there.
        patient = failure.by_proxy and now - doubt.since < self._settings.give_up_seconds
        if step.action is Action.PARK and not patient:
            await self._park(open_batch, f"{step.reason}: {failure}")
            return
        open_batch.failures += 1
        wait = self._settings.poll_seconds * 2.0 ** min(open_batch.failures, _MOST_DOUBLINGS)
        wait = min(wait, self._settings.max_poll_seconds)
        self._schedule.ask_again(open_batch.batch.sequence, now + wait, now)
        self.wake()

    def _tell_failure(self, open_batch: _OpenBatch, failure: CallFailed, now: float, *, gone: bool) -> None:
        """Say that the polls of a batch begin to fail; of many such batches only now and then, with their number."""
        sequence = open_batch.batch.sequence
        if not open_batch.failing_noted and open_batch.failures >= (_LATE_POLLS if gone else 0):
            open_batch.failing_noted = True
            self._untold.add(sequence)
        if not self._untold or now - self._complained_at < _COMPLAIN_SECONDS:
            return
        others = self._untold - {sequence}
        self._complained_at, self._untold = now, set()
        words = f" and {count(len(others), 'other batch')}" if others else ""
        said = f"polls of batch {batch_name(sequence)}{words} fail, and are made again: {failure}"
        self._run.emit(Noticed(said))

    async def _park(self, open_batch: _OpenBatch, why: str) -> None:
        await self._run.move(open_batch.batch, open_batch.submission, State.UNCERTAIN, note=why)
        self._close(open_batch)

    async def _close_settled(self, group: Sequence[_OpenBatch]) -> None:
        """Wait once until the fates of a group are on disk, then follow these batches no longer."""
        settled = [(open_batch, fates) for open_batch in group if (fates := open_batch.settlement) is not None]
        for open_batch, _ in settled:  # a later poll may be about some of the group as well: only one closes each
            open_batch.settlement = None
        if settled:
            await self._run.ledger.written()
        for open_batch, fates in settled:
            self._run.tell_settled(open_batch.batch, open_batch.submission.state, fates)
            self._close(open_batch)

    def _close(self, open_batch: _OpenBatch) -> None:
        del self._open[open_batch.batch.sequence]
        self._named.pop(open_batch.submission.remote_id or "", None)
        self._open_records -= open_batch.batch.count
        self._moved_at = self._run.clock.monotonic()
        self._schedule.forget(open_batch.batch.sequence, self._moved_at)
        self.wake()
