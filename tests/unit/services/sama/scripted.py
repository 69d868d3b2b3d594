"""A Sama without a network: what it is answered is laid ready, and what it calls is kept."""

import orjson
from fakes.clock import FakeClock

from engine.model.batch import Batch
from engine.model.errors import Refused
from engine.model.job import Job
from engine.model.payload import Payload
from engine.model.record import Position
from engine.model.settings import BatchSettings, SecretStr
from engine.progress.events import unheard
from engine.services import sama
from engine.services.base import Answer, Asked
from engine.services.sama.settings import SamaSettings

API = "https://api.sama.com/v2/projects/42"
PUT_URL = "https://bucket.s3.amazonaws.com/7?X-Amz-Signature=abc"


class Caller:
    """Answers calls with what a test lays ready, in order, and keeps the calls; `tasks` answers all of that kind."""

    def __init__(self, *answers, headers=None, tasks=None):
        self.answers = list(answers)
        self.headers = headers or {}
        self.tasks = tasks
        self.calls = []

    async def call(self, call):
        self.calls.append(call)
        answer = self.tasks if call.kind == "tasks" and self.tasks is not None else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Answer(200, self.headers, answer if isinstance(answer, bytes) else orjson.dumps(answer))

    def kinds(self):
        return [call.kind for call in self.calls]


class Remote:
    """One batch at the service, and its tasks: in whatever order, with whatever ids, with or without their data."""

    def __init__(self, records, *, failed=(), order=None, state="completed", **ways):
        self.records = [{"data": data} for data in records]
        self.order = list(range(len(records))) if order is None else order
        """Records in the order of the list."""
        self.failed = dict.fromkeys(failed, "no") if not isinstance(failed, dict) else failed
        self.state = state
        self.ways = {"data": True, "tasks": True, "listed": len(records), "outputs": {}, "ids": {}, "word": "created"}
        self.ways |= ways
        self.calls = []

    async def call(self, call):
        self.calls.append(call)
        size, page = int(call.query["page_size"]), int(call.query.get("page", 1))
        low = size * (page - 1)
        if call.kind == "status":
            made = len(self.records) - len(self.failed)
            body = {"batch_id": 7, "state": self.state, "created": made, "tasks": self._status()[low : low + size]}
        elif not self.ways["tasks"]:
            raise Refused("there is none", status=404)
        else:
            body = {"tasks": self._made()[low : low + size]}
        return Answer(200, {}, orjson.dumps(body))

    def calls_of(self, kind):
        return sum(call.kind == kind for call in self.calls)

    def id_of(self, record):
        return self.ways["ids"].get(record, f"t{record}")

    def _status(self):
        tasks = [self._task(record) for record in self.order]
        return tasks[: self.ways["listed"]]

    def _task(self, record):
        if record not in self.failed:
            return {"id": self.id_of(record), "state": self.ways["word"]}
        task = {"state": "failed", "errors": [{"type": "Bad", "message": self.failed[record]}]}
        return task | ({"data": self.records[record]["data"] | self.ways["outputs"]} if self.ways["data"] else {})

    def _made(self):
        return [
            {"id": self.id_of(record), "batch_id": 7, "data": one["data"] | self.ways["outputs"]}
            for record, one in enumerate(self.records)
            if record not in self.failed
        ]

    async def payload(self):
        return Payload.of([orjson.dumps(record) for record in self.records])


JOB = Job("nightly", "sama", "", (), "")


def service(caller=None, *, batch=None, clock=None, emit=unheard, **keys):
    values = {"kind": "sama", "project_id": 42, "access_key": SecretStr("the-key"), **keys}
    return sama.build(SamaSettings(**values), batch or BatchSettings(), JOB, caller, clock or FakeClock(), emit)


def a_batch(count=2):
    return Batch(0, Position(), Position(count * 10, count), count, 2, b"", b"")


def follows(remote_id="7", count=10, **more):
    return [Asked(3, remote_id, count, **more)]


def created(*ids):
    return [{"id": task_id, "state": "created"} for task_id in ids]


async def settled_by(sama, remote, *, unmoved=False):
    """Poll and settle a batch as the poller does; None where it is not done."""
    asked = Asked(0, "7", len(remote.records), unmoved=unmoved, payload=remote.payload)
    (progress,) = await sama.progress([asked])
    return await sama.settlement(asked) if progress.finished else None


async def settled(remote, **asked):
    """Likewise, by a service of its own."""
    return await settled_by(service(remote), remote, **asked)
