"""A service before a caller that answers what a test lays ready; tasks as the API shows them."""

import orjson
from fakes.clock import FakeClock

from engine.model.batch import Batch
from engine.model.job import Job
from engine.model.payload import Payload
from engine.model.record import Position
from engine.model.settings import BatchSettings, SecretStr
from engine.model.submission import State, Submission
from engine.progress.events import unheard
from engine.services import sevenbridges
from engine.services.base import Answer
from engine.services.sevenbridges.settings import SevenBridgesSettings

API = "https://api.sbgenomics.com/v2"
PROJECT = "owner/project"
APP = "owner/project/align"
TASK_ID = "48f79ccf-12b3-45b6-789c-b1e8d88dabcd"
NOW = 1_800_000_000.0
CREATED = "2027-01-15T08:00:00Z"
JOB = Job("cohort", "sevenbridges", "", (), "", created_at=NOW)
SPEC = {"project": PROJECT, "app": APP}


class Caller:
    """Answers calls with what a test lays ready, in order, and keeps the calls."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    async def call(self, call):
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Answer):
            return answer
        return Answer(200, {}, answer if isinstance(answer, bytes) else orjson.dumps(answer))

    @property
    def kinds(self):
        return [call.kind for call in self.calls]


def settings(**keys):
    values = {"kind": "sevenbridges", "auth_token": SecretStr("the-token"), **keys}
    return SevenBridgesSettings(**values)


def service(caller=None, *, job=JOB, batch=None, clock=None, emit=unheard, **keys):
    parts = batch or BatchSettings(), job, caller or Caller(), clock or FakeClock(), emit
    return sevenbridges.build(settings(**keys), *parts)


def a_batch(sequence=7, sha256=b"\x00" * 32):
    return Batch(sequence, Position(), Position(10, 1), 1, 10, sha256, b"")


def payload(**spec):
    return Payload.of([orjson.dumps({**SPEC, **spec})])


def task(status="DRAFT", **fields):
    body = {"id": TASK_ID, "status": status, "batch": False, "errors": [], "project": PROJECT}
    return {**body, "created_time": CREATED, "execution_status": {}, **fields}


def parent(status="RUNNING", **counts):
    counted = dict.fromkeys(("queued", "running", "completed", "failed", "aborted"), 0) | counts
    return task(status, batch=True, execution_status={"message": status.capitalize(), **counted})


def listed(items, total=None):
    headers = {"X-Total-Matching-Query": str(len(items) if total is None else total)}
    return Answer(200, headers, orjson.dumps({"items": items}))


def bulk(*tasks):
    items = [{"resource": one} if "id" in one else {"error": one} for one in tasks]
    return {"items": items}


def follows(*ids):
    return [Submission(sequence, State.RELEASED, task_id) for sequence, task_id in enumerate(ids or (TASK_ID,))]
