"""Batches of one task spec in; drafts, running tasks and parents with their children out.

Staging creates a DRAFT whose description ends with a client reference. If the answer is lost, the draft is looked for
by the reference, and created again only once it is certain not to come: people see drafts. Releasing runs it, which the
service does once only. Without `run` the draft is all there is to do.

A task that was created stays created, however it ends: sending its record again would make a second one. How it ended
stands in the outcome's details.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.clock import Clock
from engine.model.batch import Batch, Limits
from engine.model.doubt import Again, RemoteStatus
from engine.model.error_hints import Blame
from engine.model.errors import ConfigError, NotApplied, PossiblyApplied, Refused, UnexpectedAnswer
from engine.model.job import Job
from engine.model.outcome import Later, Settlement
from engine.model.payload import Payload
from engine.model.record import Row
from engine.model.settings import BatchSettings
from engine.progress.events import Listener, Noticed, unheard
from engine.services.base import (
    Asked,
    BatchLookup,
    BatchProgress,
    Caller,
    Intent,
    Released,
    Staged,
    no_intent,
)
from engine.services.created import CreatedTasks, TaskState
from engine.services.sevenbridges.calls import (
    DRAFT,
    KNOWN,
    PAGE_ITEMS,
    STOPPABLE,
    Calls,
    Task,
    child_details,
    details_of,
    state_of,
)
from engine.services.sevenbridges.drafts import DraftSearch, draft_reference, sequence_in
from engine.services.sevenbridges.files import FileIds
from engine.services.sevenbridges.settings import APP_CODES, PROJECT_CODES, SevenBridgesSettings
from engine.services.sevenbridges.specs import body_of, exact, merged, part_flaw, spec_flaw

if TYPE_CHECKING:
    from engine.services.checks import Checking

OUR_CLOCK_SECONDS = 900.0
"""By how much our clock may be ahead of the service's; AWS, too, takes no request from one that is further off."""

GONE = 404
NO_DRAFT = frozenset({"7007", "7010"})
"""The vendor's codes for a task that is no draft."""
UNTIL = ("created", "finished")


class SevenBridges:
    """The service `sevenbridges`; see the module's head."""

    kind = "sevenbridges"
    plain_task = None
    """Files and batches stand anywhere in a spec."""
    referencing = None
    """A draft has a name of its own before it is run."""
    again = Again.REFUSED
    """The vendor's codes 7007 and 7010: what is no draft any more is not run."""
    key_seconds = float("inf")
    stage_again = Again.SEARCH
    """People see drafts: one that was made is looked for before another is."""
    polls_together = PAGE_ITEMS
    undone_together = 1
    by_people = False
    open_batches = 100_000
    """Tasks followed at once: a thousand bulk calls, one window of the vendor's rate limit, ask about all of them."""

    def __init__(
        self,
        settings: SevenBridgesSettings,
        batch: BatchSettings,
        job: Job,
        caller: Caller,
        clock: Clock,
        emit: Listener = unheard,
    ) -> None:
        self.staging = self.drafting = self.polling = self.canceling = self.counting = self
        self.refreshing = self.undoing = self
        self.limits = Limits(1, batch.max_bytes)
        self._settings = settings
        self._until = _until(settings, job)
        self._defaults = _defaults(settings)
        self._job = job
        self._clock = clock
        self._caller = caller
        self._calls = Calls(caller, settings.base_url)
        self._emit = emit
        self._noticed: set[str] = set()
        self.settle_seconds = SETTLE_SECONDS
        self._files = FileIds(self._calls.files)
        self._searches: dict[str, DraftSearch] = {}
        self._adopted: dict[str, Task] = {}
        """By id: drafts that a search found, until they are staged."""
        self._service_time: float | None = None
        """Of the newest draft that we know of: the service's clock has reached it."""
        self._sent_after: dict[int, float] = {}
        """Sequence of a batch → the service's time before its draft was sent, while the answer is out."""

    @property
    def checking(self) -> Checking:
        """Asks about project and app; loaded where it is wanted."""
        from engine.services.sevenbridges.checks import SevenBridgesChecks  # noqa: PLC0415 - no resume needs it

        return SevenBridgesChecks(self._settings, self._calls, self._caller, OUR_CLOCK_SECONDS)

    def check(self, task: Row) -> str | None:
        """Return why the service would not take this spec with its defaults, naming the field."""
        return spec_flaw(merged(task, self._defaults))

    def task_url(self, task_id: str) -> str:
        """Return the page of a task of the configured project; outcomes of other projects carry their own."""
        return self._settings.task_url(self._settings.project, task_id)

    async def find(self, batch: Batch, payload: Payload) -> str | None:
        """Look for a draft by its reference."""
        spec = merged(exact(payload.array), self._defaults)
        task = await self._found(batch, spec, draft_reference(self._job, batch))
        if task is None:
            return None
        self._adopted[task.id] = task
        return task.id

    async def find_extras(self, lookup: BatchLookup) -> Sequence[str]:
        """Return the ids of tasks that carry the reference of a batch and are not the task that is known of it.

        Only in the configured project: where records name their own, nobody knows which ones there are.
        """
        project = self._settings.project
        if project is None:
            return ()
        found = []
        async for reference, task in self._search_of(project).referenced(self._job.created_at - OUR_CLOCK_SECONDS):
            sequence = sequence_in(reference, self._job)
            batch, submission = (await lookup(sequence) if sequence is not None else None) or (None, None)
            ours = batch is not None and draft_reference(self._job, batch) == reference
            if ours and submission is not None and submission.remote_id != task.id:
                found.append(task.id)
        return found

    async def stage(
        self, batch: Batch, payload: Payload, *, earlier_id: str | None = None, intent: Intent = no_intent
    ) -> Staged:
        """Create a draft with a reference, or go on with the one that is known."""
        spec = merged(exact(payload.array), self._defaults)
        if earlier_id is not None:
            task = self._adopted.pop(earlier_id, None) or await self._kept(earlier_id)
        else:
            task = await self._created(batch, spec, draft_reference(self._job, batch), intent)
        self._sent_after.pop(batch.sequence, None)
        self._notice_status(task)
        if not self._settings.run:
            return Staged(task.id, settlement=self._settlement(task))
        if task.errors and task.status == DRAFT:  # it could not be run (7012, 7024), and here it is known why
            await self.cancel(task.id)
            raise Refused(f"its draft cannot be run: {task.complaint}", call="create")
        return Staged(task.id)

    async def upload(self, staged: Staged, payload: Payload, *, few_tries: bool = False) -> None:
        """Do nothing: the draft holds it."""

    async def look(self) -> str:
        """Ask about the request window, which shows only that the platform answers: its codes say the rest."""
        await self._calls.rate_limit()
        return "the platform itself answers"

    async def release(
        self,
        batch: Batch,
        remote_id: str | None,
        payload: Payload | None,
        intent: Intent = no_intent,
        *,
        sent_before: bool = False,
    ) -> Released:
        """Run the draft; a second run of one that is running is refused."""
        del batch, payload, intent, sent_before
        try:
            task = await self._calls.run(str(remote_id))
        except Refused as refusal:
            refusal.batch_not_found = refusal.status == GONE
            refusal.released_before = refusal.code in NO_DRAFT
            raise
        self._notice_status(task)
        if self._until == "created" and not task.batch:
            return Released(task.id, settlement=self._settlement(task))
        return Released(task.id)

    async def remote_status(self, remote_id: str) -> RemoteStatus:
        """Ask whether the task is still a draft."""
        try:
            task = await self._calls.get(remote_id)
        except Refused as refusal:
            if refusal.status == GONE:
                return RemoteStatus.NOT_THERE
            raise
        self._notice_status(task)
        return RemoteStatus.WAITING if task.status == DRAFT else RemoteStatus.STARTED

    async def progress(self, followed: Sequence[Asked]) -> Sequence[BatchProgress]:
        """Ask about up to PAGE_ITEMS tasks in one call; nothing is said of one that is not there any more."""
        sequences = {str(one.remote_id): one.sequence for one in followed}
        tasks = await self._calls.bulk(list(sequences))
        return [self._progress(sequences[task.id], task) for task in tasks if task.id in sequences]

    async def settlement(self, asked: Asked) -> Settlement:
        """Fetch a parent with all its children."""
        remote_id = str(asked.remote_id)
        parent = await self._calls.get(remote_id)
        if not parent.batch:
            return self._settlement(parent)
        children = [child async for page in self._calls.children(remote_id) for child in page.items]
        counted = sum(parent.children.values())
        if len(children) < counted:
            raise UnexpectedAnswer(f"task {remote_id} has {counted} children, but only {len(children)} are listed")
        return self._settlement(parent, children)

    async def cancel(self, remote_id: str) -> None:
        """Delete a draft, stop what is under way, and leave alone what has ended or is gone."""
        try:
            task = await self._calls.get(remote_id)
            if task.status == DRAFT:
                await self._calls.delete(remote_id)
        except Refused as refusal:
            if refusal.status == GONE:
                return
            raise
        if task.status in STOPPABLE:
            await self._calls.abort(remote_id)

    async def count_work(self, remote_ids: Sequence[str]) -> Mapping[str, int]:
        """Count tasks by status, and of parents their children."""
        tasks = await self._calls.bulk(remote_ids)
        counts = Counter({"not found": len(remote_ids) - len(tasks)})
        for task in tasks:
            counts.update(task.children if task.batch and task.exists else [task.status.lower()])
        return +counts  # without those that are 0

    async def task_states(self, batches: Sequence[CreatedTasks]) -> Mapping[str, TaskState]:
        """Ask about up to PAGE_ITEMS tasks in one call: each batch is one."""
        tasks = await self._calls.bulk([task_id for batch in batches for task_id in batch.task_ids])
        return {task.id: state_of(task) for task in tasks}

    async def undo(self, task_ids: Sequence[str]) -> None:
        """Delete a draft; the vendor documents that it deletes nothing else."""
        for task_id in task_ids:
            try:
                await self._calls.delete(task_id)
            except Refused as refusal:
                if refusal.status != GONE:
                    raise

    def counting_seconds(self, tasks: Sequence[int]) -> float:
        """Return that nobody waits for it: one call counts PAGE_ITEMS tasks."""
        del tasks
        return 0.0

    async def _kept(self, task_id: str) -> Task:
        """Return a draft that an earlier run made.

        Raises:
            PossiblyApplied: the service does not show it: it was deleted, or reads lag behind.
        """
        try:
            return await self._calls.get(task_id)
        except Refused as refusal:
            if refusal.status == GONE:
                raise PossiblyApplied(f"draft {task_id} is not to be seen", call="get") from refusal
            raise

    async def _found(self, batch: Batch, spec: Row, reference: str) -> Task | None:
        since = self._sent_after.get(batch.sequence, self._job.created_at - OUR_CLOCK_SECONDS)
        return await self._search_of(str(spec["project"])).find(reference, since, self.settle_seconds)

    def _search_of(self, project: str) -> DraftSearch:
        if project not in self._searches:
            self._searches[project] = DraftSearch(partial(self._calls.created_since, project), self._clock)
        return self._searches[project]

    async def _created(self, batch: Batch, spec: Row, reference: str, intent: Intent) -> Task:
        try:
            whole = spec
            if "inputs" in spec:
                whole = {**spec, "inputs": await self._files.filled(spec["project"], spec["inputs"])}
            self._sent_after.setdefault(batch.sequence, self._earliest())
            unbatched = spec.get("batch") is False
            task = await self._calls.create(body_of(whole, reference), disable_batch=unbatched, intent=intent)
        except NotApplied as refusal:
            # `create` is not repeatable, so nothing of it was made; the calls before it make nothing. And without an
            # entry a search only begins earlier, when the job did.
            self._sent_after.pop(batch.sequence, None)
            if isinstance(refusal, Refused) and self._brings_its_own(spec, refusal.code):
                refusal.blame = Blame.RECORDS
            raise
        self._notice_description(task, reference)
        self._service_time = max(self._service_time or 0.0, task.created_at or 0.0) or None
        return task

    def _brings_its_own(self, spec: Row, code: str) -> bool:
        """Return whether a refusal that names project or app is about one that the record names, not the settings."""
        key = "project" if code in PROJECT_CODES else "app" if code in APP_CODES else None
        return key is not None and spec[key] != self._defaults.get(key)

    def _earliest(self) -> float:
        """Return a time, by the service's clock, before which a call that goes out now cannot create anything."""
        if self._service_time is None:
            return self._job.created_at - OUR_CLOCK_SECONDS
        return self._service_time - self.settle_seconds

    def _progress(self, sequence: int, task: Task) -> BatchProgress:
        self._notice_status(task)
        finished = task.exists if self._until == "created" else task.ended
        settlement = self._settlement(task) if finished and not task.batch else None
        return BatchProgress(sequence, int(task.exists), finished, settlement, waiting=task.status == DRAFT)

    def _settlement(self, task: Task, children: Sequence[Task] | None = None) -> Settlement:
        details = details_of(task)
        if children is not None:
            details["children"] = [child_details(child) for child in children]
        if task.project not in (None, self._settings.project):
            details["url"] = self._settings.task_url(task.project, task.id)
        if (state := state_of(task)).later is Later.FAILED:  # it has ended before its record was settled
            details |= {"later": state.later.value, "later_reason": state.reason}
        return Settlement([task.id], details={0: details})

    def _notice_status(self, task: Task) -> None:
        """Warn of a status that nobody here has heard of."""
        if task.status not in KNOWN:
            self._notice(
                f"status {task.status}",
                f"task {task.id} has the status {task.status}, which is not among those that Seven Bridges documents; "
                "it is taken for started, and for ended once it has an end_time",
            )

    def _notice_description(self, task: Task, reference: str) -> None:
        """Warn of a draft whose description came back without the reference that it was sent with."""
        if reference not in (task.description or ""):
            self._notice(
                "description",
                f"the description of task {task.id} has lost the client reference at its end ({reference}): the "
                "service may cut long ones. If the creation of such a draft is not answered, it is not found again and "
                "is made twice; "
                "shorten the descriptions",
            )

    def _notice(self, about: str, text: str) -> None:
        """Say something once a run."""
        if about not in self._noticed:
            self._noticed.add(about)
            self._emit(Noticed(text))


def _until(settings: SevenBridgesSettings, job: Job) -> str:
    until = job.until or settings.until
    if until not in UNTIL:
        raise ConfigError(f"--until {until}: a Seven Bridges task is done when it is {' or '.join(UNTIL)}")
    if until == "finished" and not settings.run:
        raise ConfigError("until finished: a draft never finishes by itself; set service.run = true, or leave it out")
    return until


def _defaults(settings: SevenBridgesSettings) -> Row:
    defaults = settings.defaults()
    if flaw := part_flaw(defaults):
        raise ConfigError(f"service.{flaw}")
    return defaults


build = SevenBridges
"""The one thing that `wiring` calls."""
