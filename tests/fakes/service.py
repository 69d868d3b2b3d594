"""A service made of values: it stages, takes uploads, creates by the clock, and loses or refuses what a script says."""

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson

from engine.model.batch import ClientReference, Limits, batch_name
from engine.model.doubt import Again, RemoteStatus
from engine.model.error_hints import Blame
from engine.model.errors import PossiblyApplied, Refused, Unauthorized, Unavailable
from engine.model.outcome import Settlement
from engine.model.payload import Payload
from engine.services.base import BatchProgress, Located, Released, Staged, no_intent

TEN_RECORDS = Limits(10, 1 << 20)


@dataclass(frozen=True)
class Fault:
    """How one call ends instead of well: with `error`, having done its work or not."""

    error: Exception
    applied: bool = False


def lost(*, applied):
    return Fault(PossiblyApplied("the answer was lost"), applied)


def refused(words="no thanks", status=422, blame=Blame.RECORDS):
    return Fault(Refused(words, status=status, blame=blame))


def unauthorized():
    return Fault(Unauthorized(status=401))


def unavailable():
    return Fault(Unavailable("nobody answers"))


class Killed(Exception):
    """The process dies here."""


def killed(*, applied):
    return Fault(Killed(), applied)


@dataclass
class Remote:
    """A batch at the service."""

    sequence: int
    payload: Payload | None = None
    releases: int = 0
    starts_at: float = 0.0
    canceled: bool = False
    settled: bool = False

    @property
    def tasks(self):
        return orjson.loads(self.payload.array) if self.payload else []


def _hold(batch, payload):
    """Hold a payload against its batch: each task by itself, and the index of each record."""
    tasks, indexes = payload.tasks, list(payload.indexes)
    assert [orjson.loads(task) for task in tasks] == orjson.loads(payload.array)
    assert len(tasks) == len(indexes) == batch.count
    assert len(payload.array) == batch.size_bytes
    assert indexes == sorted(set(indexes))
    assert batch.start.index <= indexes[0] <= indexes[-1] < batch.end.index


@dataclass
class FakeService:
    """`engine.services.base.Service` in memory."""

    clock: object
    stages: bool = True
    release_again: str = "refuse"
    """What a second release of a batch does: "refuse" or "duplicate"."""
    done_by: str = "poll"
    """The call after which all is done, and which brings the settlement: "stage" or "release"; "poll": none does."""
    polls_settle: bool = False
    """The poll that sees a batch finished brings its settlement."""
    tasks_per_second: float = float("inf")
    in_turn: bool = False
    """It creates one batch after the other, in the order of their release."""
    speeds: dict = field(default_factory=dict)
    """Remote id → its own tasks per second."""
    starts: dict = field(default_factory=dict)
    """Remote id → seconds from its release until it is begun; before that it is said to wait."""
    swallows: Counter = field(default_factory=Counter)
    """Remote id → releases that are accepted and come to nothing."""
    call_seconds: float = 0.0
    url_seconds: float = float("inf")
    polls_together: int = 1
    open_batches: int = 500
    kind: str = "fake"
    limits: Limits = TEN_RECORDS
    marks: bool = False
    """Its tasks can be searched for by a mark."""
    poison: frozenset = frozenset()
    """Ids in the data of tasks for which it refuses a whole batch, without a word on which."""
    most_records: int = 10**9
    """A larger upload or post is refused as too large."""
    most_bytes: int = 10**9
    """So is one of more bytes."""
    in_time_bytes: int = 10**9
    """A larger payload does not get here in the time that a call may take."""
    reset_bytes: int = 10**9
    """The connection breaks under a larger one."""
    blocked: frozenset = frozenset()
    """Ids in the data of tasks whose payloads a firewall turns away with a page, on their way up or inline."""
    cut: frozenset = frozenset()
    """Likewise; the connection breaks under an upload that holds one."""
    refused_as_too_large: int = 0
    seen_after: float = 0.0
    """Seconds until a search finds what was created."""
    faults: dict = field(default_factory=dict)
    """Kind of call → faults of the next calls of that kind; None for one that goes well."""
    gates: dict = field(default_factory=dict)
    """Kind of call → event that calls of that kind wait for before they do anything."""
    log: list = field(default_factory=list)
    """Kinds of the calls, in order of their arrival."""
    journal: list = field(default_factory=list)
    """Every task that was created, each time that it was."""
    failing: dict = field(default_factory=dict)
    """Id in a task's data → why its creation fails."""
    remotes: dict = field(default_factory=dict)
    polled: list = field(default_factory=list)
    """(time, sequences) of each poll."""
    peaks: Counter = field(default_factory=Counter)
    """Most calls at once: of all that send, of polls; and most batches open."""
    settle_seconds: float = 120.0
    key_seconds: float = float("inf")
    _under_way: Counter = field(default_factory=Counter)
    _free_at: float = 0.0

    @property
    def again(self):
        return Again.ASK if self.stages else Again.SEARCH if self.marks else Again.NEVER

    @property
    def stage_again(self):
        return Again.SEARCH if self.done_by == "stage" else Again.SAFE

    @property
    def staging(self):
        return self if self.stages else None

    @property
    def drafting(self):
        return self if self.stage_again is Again.SEARCH else None

    @property
    def referencing(self):
        return self if self.marks else None

    @property
    def polling(self):
        return self

    canceling = counting = polling
    refreshing = undoing = checking = None
    plain_task = None

    def check(self, task):
        return "data: missing" if "data" not in task else None

    def task_url(self, task_id):
        return f"https://fake.example/tasks/{task_id}"

    async def learn(self):
        return "marked" if self.marks else "nothing"

    def reference(self, sequence):
        return ClientReference("data", "mark", f"m{batch_name(sequence)}") if self.marks else None

    async def locate(self, batch, payload, since):
        _hold(batch, payload)
        async with self._call("locate", "ask"):
            value = self.reference(batch.sequence).value
            names = [
                remote_id
                for remote_id, remote in self.remotes.items()
                if self.clock.monotonic() - remote.starts_at >= self.seen_after
                and any(task["data"].get("mark") == value for task in remote.tasks)
            ]
            return Located(names)

    async def find(self, batch, payload):
        _hold(batch, payload)
        async with self._call("find", "ask"):
            made = [remote_id for remote_id, remote in self.remotes.items() if remote.sequence == batch.sequence]
            return made[0] if made else None

    async def find_extras(self, lookup):
        return []

    async def stage(self, batch, payload, *, earlier_id=None, intent=no_intent):
        _hold(batch, payload)
        await intent()
        async with self._call("stage", "send"):
            if self.done_by == "stage":
                self._turn_away(payload, Blame.SUSPECT)
                return self._draft(batch, payload, earlier_id)
            remote_id = self._new(batch)
        return Staged(remote_id, f"https://store.example/{remote_id}", self.clock.monotonic() + self.url_seconds)

    async def look(self):
        async with self._call("look", "ask"):
            return "the project is there"

    async def upload(self, staged, payload, *, few_tries=False):
        async with self._call("upload", "send"):
            self._refuse_as_a_whole(payload, "too large")
            await self._keep_waiting(payload, Unavailable("put timed out"))
            self._cut_off(payload, Unavailable("put: the connection was lost"))
            self._turn_away(payload, Blame.URL)
            self.remotes[staged.remote_id].payload = payload

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        if payload is not None:
            _hold(batch, payload)
        await intent()
        async with self._call("release", "send"):
            if remote_id is None:
                self._refuse_as_a_whole(payload, "too large")
                await self._keep_waiting(payload, PossiblyApplied("post timed out"))
                self._cut_off(payload, PossiblyApplied("post: the connection was lost"))
                self._turn_away(payload, Blame.SUSPECT)
                self._refuse_poison(payload)
                remote_id = self._new(batch, payload)
            elif self.remotes[remote_id].payload is not None:
                self._refuse_poison(self.remotes[remote_id].payload)
            self._create(remote_id)
        return Released(remote_id, self._settlement(remote_id) if self.done_by == "release" else None)

    async def remote_status(self, remote_id):
        async with self._call("remote_status", "ask"):
            if remote_id not in self.remotes:
                return RemoteStatus.NOT_THERE
            remote = self.remotes[remote_id]
            if remote.releases and not self._waits(remote_id):
                return RemoteStatus.STARTED
            return RemoteStatus.ENDED if remote.canceled else RemoteStatus.WAITING

    async def progress(self, followed):
        self.polled.append((self.clock.monotonic(), [submission.sequence for submission in followed]))
        async with self._call("progress", "poll"):
            return [self._progress(submission) for submission in followed]

    async def settlement(self, asked):
        async with self._call("settlement", "poll"):
            return self._settlement(asked.remote_id)

    async def cancel(self, remote_id):
        async with self._call("cancel", "ask"):
            if remote_id not in self.remotes:
                raise Refused("no such batch", status=404)
            self.remotes[remote_id].canceled = True

    async def count_work(self, remote_ids):
        return {}

    def counting_seconds(self, tasks):
        return 0.0

    def ids(self):
        """Count how often a task of each id was created."""
        return Counter(task["data"]["id"] for task in self.journal)

    def calls(self, *kinds):
        """Return the calls of some kinds, in order."""
        return [kind for kind in self.log if kind in kinds]

    @property
    def open(self):
        return sum(1 for remote in self.remotes.values() if remote.releases and not remote.settled)

    async def _keep_waiting(self, payload, error):
        if len(payload.array) > self.in_time_bytes:
            await self.clock.sleep(300.0)
            error.timed_out = True
            raise error

    def _cut_off(self, payload, error):
        if len(payload.array) > self.reset_bytes or self._holds(payload, self.cut):
            error.reset = True
            raise error

    def _turn_away(self, payload, blame):
        if self._holds(payload, self.blocked):
            page = Refused("403 Forbidden: Request blocked", call="put", status=403, blame=blame)
            page.by_proxy = True
            raise page

    def _holds(self, payload, ids):
        return any(task["data"].get("id") in ids for task in orjson.loads(payload.array))

    def _refuse_as_a_whole(self, payload, words):
        if len(orjson.loads(payload.array)) > self.most_records or len(payload.array) > self.most_bytes:
            self.refused_as_too_large += 1
            raise Refused(words, status=413, blame=Blame.PAYLOAD, too_large=True)

    def _refuse_poison(self, payload):
        if self._holds(payload, self.poison):
            raise Refused("a task is bad", status=422, blame=Blame.PAYLOAD)

    def _new(self, batch, payload=None):
        remote_id = f"r{len(self.remotes) + 1}"
        self.remotes[remote_id] = Remote(batch.sequence, payload)
        return remote_id

    def _draft(self, batch, payload, earlier_id):
        """Make a batch's tasks, unless an earlier call has made them: `earlier_id`."""
        if earlier_id is None:
            earlier_id = self._new(batch, payload)
            self._create(earlier_id)
        return Staged(earlier_id, settlement=self._settlement(earlier_id))

    def _settlement(self, remote_id):
        remote = self.remotes[remote_id]
        remote.settled = True
        reasons = [self.failing.get(task["data"].get("id")) for task in remote.tasks]
        ids = [None if reason else f"{remote_id}-{at}" for at, reason in enumerate(reasons)]
        return Settlement(ids, {at: reason for at, reason in enumerate(reasons) if reason})

    def _create(self, remote_id):
        remote = self.remotes[remote_id]
        if remote.payload is None:
            raise Refused("nothing was uploaded", status=400)
        if remote.canceled or (remote.releases and self.release_again == "refuse"):
            raise Refused("InvalidBatchState: not waiting", status=400, released_before=True)
        if self.swallows[remote_id]:
            self.swallows[remote_id] -= 1
            return
        remote.releases += 1
        remote.starts_at = self.clock.monotonic() + self.starts.get(remote_id, 0.0)
        if self.in_turn:
            remote.starts_at = max(remote.starts_at, self._free_at)
            self._free_at = remote.starts_at + len(remote.tasks) / self.tasks_per_second
        self.journal += [task for task in remote.tasks if task["data"].get("id") not in self.failing]
        self.peaks["open"] = max(self.peaks["open"], self.open)

    def _progress(self, submission):
        remote = self.remotes[submission.remote_id]
        if self._waits(submission.remote_id):
            return BatchProgress(submission.sequence, 0, finished=False, waiting=True)
        total, passed = len(remote.tasks), max(0.0, self.clock.monotonic() - remote.starts_at)
        speed = self.speeds.get(submission.remote_id, self.tasks_per_second)
        created = total if speed == float("inf") else min(total, int(passed * speed))
        settlement = self._settlement(submission.remote_id) if self.polls_settle and created == total else None
        return BatchProgress(submission.sequence, created, created == total, settlement)

    def _waits(self, remote_id):
        """Tell whether the service says that a batch waits: it was told in vain, or has yet to begin."""
        remote = self.remotes[remote_id]
        return not remote.releases or (remote_id in self.starts and self.clock.monotonic() < remote.starts_at)

    def _strike(self, kind):
        """Return the fault of the call that is made, if it has one."""
        return self.faults[kind].pop(0) if self.faults.get(kind) else None

    @asynccontextmanager
    async def _call(self, kind, sort):
        """Let one call take its time and its fault; the block is what the service does."""
        self.log.append(kind)
        self._under_way[sort] += 1
        self.peaks[sort] = max(self.peaks[sort], self._under_way[sort])
        try:
            if kind in self.gates:
                await self.gates[kind].wait()
            if self.call_seconds:
                await self.clock.sleep(self.call_seconds)
            fault = self._strike(kind)
            if fault is not None and not fault.applied:
                raise fault.error
            yield
            if fault is not None:
                raise fault.error
        finally:
            self._under_way[sort] -= 1
