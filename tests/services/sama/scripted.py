"""A Sama without a network: what it is answered is laid ready, and what it calls is kept."""

import orjson
from fakes.clock import FakeClock
from pydantic import SecretStr

from engine.model.batches import Batch
from engine.model.jobs import Job
from engine.model.records import Position
from engine.model.settings import BatchSettings
from engine.model.submissions import State, Submission
from engine.ports import Answer
from engine.services import sama
from engine.services.sama.settings import SamaSettings

API = "https://api.sama.com/v2/projects/42"
PUT_URL = "https://bucket.s3.amazonaws.com/7?X-Amz-Signature=abc"


class Caller:
    """Answers calls with what a test lays ready, in order, and keeps the calls."""

    def __init__(self, *answers, headers=None):
        self.answers = list(answers)
        self.headers = headers or {}
        self.calls = []

    async def call(self, call):
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Answer(200, self.headers, answer if isinstance(answer, bytes) else orjson.dumps(answer))


JOB = Job("nightly", "sama", "", (), "")


def service(caller=None, *, batch=None, clock=None, **keys):
    values = {"kind": "sama", "project_id": 42, "access_key": SecretStr("the-key"), **keys}
    return sama.build(SamaSettings(**values), batch or BatchSettings(), JOB, caller, clock or FakeClock())


def a_batch(count=2):
    return Batch(0, Position(), Position(count * 10, count), count, 2, b"", b"")


def follows(remote_id="7"):
    return [Submission(3, State.RELEASED, remote_id)]


def created(*ids):
    return [{"id": task_id, "state": "created"} for task_id in ids]
