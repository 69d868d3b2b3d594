"""The checks that every service must pass, over descriptions: one for each way to create, before a small server."""

import tomllib

import pytest
from fakes.clock import FakeClock

from engine.http.caller import HttpCaller
from engine.model.settings import SendSettings
from engine.services.described import service
from engine.testing import CHECKS, SkippingClock, Subject

from .served import ASKED_FOR, Wire, read
from .test_service import BULK, FILES, JOBS, Files, Index, Jobs

GOOD = [{"a": 1, "text": "one"}, {"a": 2, "text": "two"}, {"a": 3, "text": "three"}]
ROWS = [{"K": f"k{at}", "Name": f"n{at}"} for at in range(3)]


class Following(Jobs):
    """One whose words do not end."""

    def __init__(self):
        super().__init__()
        self.words = self

    def pop(self, _at):
        return "JobComplete"


def created_jobs(server):
    released = [job["rows"] for job in server.jobs.values() if job["state"] == "UploadComplete"]
    return sum(row["Name"] != "bad" for rows in released for row in rows)


def created_files(server):
    return sum(b'"status_code":200' in line for name in server.batches for line in server.files[f"out-{name}"])


KINDS = {
    "bulk": (BULK, Index, lambda server: len(server.documents), GOOD, {}, [{"bad": True}]),
    "jobs": (JOBS, Following, created_jobs, ROWS, {"K": {"Name": "x"}}, [{"K": "b", "Name": "bad"}]),
    "files": (FILES, Files, created_files, GOOD, {}, [{"bad": 1}]),
}


def subject_of(kind):
    text, made, created, good, bad, refused = KINDS[kind]
    server, settings = made(), read(text)
    caller = HttpCaller(Wire(server), settings, SendSettings(give_up_seconds=0), clock=FakeClock(), draw=lambda: 0.5)
    keys = {**ASKED_FOR, **tomllib.loads(text)}
    return Subject(service, keys, caller, good, bad, lambda: created(server), refused, SkippingClock())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check, kind):
    await check(subject_of(kind))
