from dataclasses import dataclass, field

import orjson
import pytest
from multidict import CIMultiDict
from yarl import URL

from engine.sandbox.behaviour import Behaviour, JournalSettings
from engine.sandbox.journal import Journal, read_journal
from engine.sandbox.messages import SandboxRequest

KEY = "sandbox-key"


@dataclass
class Vendor:
    """A stand-in in made-up time, asked without a socket."""

    service: object
    clock: object
    path: object
    headers: dict = field(default_factory=dict)
    """That every call carries."""

    async def call(self, method, path, body=b"", **headers):
        """Return status, body (of JSON, its value) and headers of an answer; None where there is none."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        given = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}

        async def read(_):
            return data

        self.service.advance()
        request = SandboxRequest(method, URL(f"http://sandbox{path}"), CIMultiDict(given))
        answer = await self.service.answer(request, read, self.clock.sleep)
        if answer.sent != "whole":
            return None
        is_json = answer.headers.get("Content-Type", "") == "application/json"
        return answer.status, orjson.loads(answer.body) if is_json else answer.body, answer.headers

    def written(self, kind="task"):
        """Return the markers of the journal."""
        return [entry.marker for entry in read_journal(self.path) if entry.kind == kind]


@pytest.fixture
def vendor(tmp_path, clock):
    """Make a stand-in that behaves as told."""
    journals = []

    def making(stand_in, *switches, marker="id", headers=None, **behaviour):
        path = tmp_path / "journal.ndjson"
        settings = JournalSettings(path, marker)
        journals.append(Journal(settings))
        service = stand_in(Behaviour(**behaviour), journals[-1], clock.now, *switches)
        return Vendor(service, clock, path, headers if headers is not None else {"Authorization": f"Bearer {KEY}"})

    yield making
    for journal in journals:
        journal.close()
