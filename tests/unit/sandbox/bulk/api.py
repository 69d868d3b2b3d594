"""A client of the six bulk faces for their tests, without a socket: paths and bodies enter, status and body leave."""

import base64

import orjson
from fakes.clock import FakeClock
from msgspec.structs import replace
from multidict import CIMultiDict
from yarl import URL

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.bulk import BulkService
from engine.sandbox.journal import Journal, count_markers, read_journal
from engine.sandbox.messages import SandboxRequest
from engine.sandbox.settings import BulkUnwritten, SandboxBulk

from ..api import KEY, Answer  # noqa: TID252 - tests of one package

CREDENTIALS = {
    "safe": {"Authorization": f"Bearer {KEY}"},
    "key": {"X-Api-Key": KEY},
    "exists": {"Authorization": f"ApiKey {KEY}"},
    "ask": {"Authorization": f"Bearer {KEY}"},
    "search": {},
    "never": {"Authorization": "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()},
}


def record(marker, **fields):
    return {"number": marker, **fields}


class BulkApi:
    """What is left of a broken connection is None."""

    def __init__(self, folder, unwritten=None, behaviour=None, **bulk):
        told = SandboxBulk(**bulk, unwritten=BulkUnwritten(**(unwritten or {})))
        self.path, self.clock = folder / "journal.ndjson", FakeClock()
        journal = replace((behaviour or Behaviour()).journal, path=self.path, marker="number")
        self.behaviour = replace(behaviour or Behaviour(), service="bulk", bulk=told, journal=journal)
        self._journal = Journal(journal)
        self.service = BulkService(self.behaviour, self._journal, self.clock.now)

    async def call(self, method, path, body=None, *, headers=None, credentials=True, **query):
        face = path.split("/")[1]
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        url = URL(f"http://sandbox{path}").update_query({name: str(value) for name, value in query.items()})
        if face == "search" and credentials:
            url = url.update_query(api_key=KEY)
        sent = CIMultiDict({**(CREDENTIALS[face] if credentials else {}), **(headers or {})})

        async def read(_):
            return raw if len(raw) <= self.behaviour.max_body_bytes else None

        self.catch_up()
        answer = await self.service.answer(SandboxRequest(method, url, sent), read, self.clock.sleep)
        self.catch_up()
        if answer.sent != "whole":
            return None
        is_json = answer.headers.get("Content-Type") == "application/json"
        return Answer(answer.status, orjson.loads(answer.body) if is_json else answer.body, answer.headers)

    def close(self):
        self._journal.close()

    def catch_up(self):
        while self.service.advance():
            pass

    @property
    def created(self):
        self.catch_up()
        return dict(count_markers(self.path))

    @property
    def entries(self):
        return list(read_journal(self.path))

    # A call of each face

    async def upsert(self, *records, keys=None):
        keys = keys or [f"k{one['number']}" for one in records]
        inputs = [{"id": key, "properties": one} for key, one in zip(keys, records, strict=True)]
        return await self.call("POST", "/safe/records/batch/upsert", {"inputs": inputs})

    async def order(self, *records, key="once"):
        return await self.call("POST", "/key/orders", {"orders": records}, headers={"Idempotency-Key": key})

    async def bulk(self, *records, keys=None):
        keys = keys or [f"k{one['number']}" for one in records]
        pairs = [({"create": {"_id": key}}, one) for key, one in zip(keys, records, strict=True)]
        body = b"".join(orjson.dumps(line) + b"\n" for pair in pairs for line in pair)
        return await self.call("POST", "/exists/records/_bulk", body)

    async def post(self, *records, tag="t"):
        return await self.call(
            "POST", "/search/tasks", [{"tag": tag, "ref": one["number"], "data": one} for one in records]
        )

    async def listed(self, **query):
        """Return what all pages list."""
        rows, page = [], 1
        while page:
            answer = (await self.call("GET", "/search/tasks", page=page, **query)).body
            rows += answer["items"]
            page = answer["next"] and page + 1
        return rows

    async def send(self, *records):
        return await self.call("POST", "/never/messages", list(records))

    async def opened(self, csv=b"number,bad\na,\nb,\nc,\n"):
        """Open a job and upload its rows; return its path."""
        opened = (await self.call("POST", "/ask/jobs", {"contentType": "CSV"})).body
        uploaded = await self.call("PUT", URL(opened["uploadUrl"]).path, csv, credentials=False)
        assert uploaded.status == 201
        return f"/ask/jobs/{opened['id']}"

    async def started(self, csv=b"number,bad\na,\nb,\nc,\n"):
        job = await self.opened(csv)
        assert (await self.call("POST", f"{job}/start")).status == 202
        return job

    async def state(self, job):
        return (await self.call("GET", job)).body["state"]

    async def results(self, job, name="successfulResults"):
        """Return the lines of all pages, heads left out."""
        lines, locator = [], 0
        while locator != "null":
            answer = await self.call("GET", f"{job}/{name}", locator=locator)
            assert answer.status == 200
            head, *rows = answer.body.decode().splitlines()
            lines += [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]
            locator = answer.headers["Ask-Locator"]
        return lines


EVERY_FACE = {
    "safe": lambda api, *records: api.upsert(*records),
    "key": lambda api, *records: api.order(*records),
    "exists": lambda api, *records: api.bulk(*records),
    "search": lambda api, *records: api.post(*records),
    "never": lambda api, *records: api.send(*records),
}
"""Face → a call that brings records, where one call does."""
CALLS = {"safe": "upsert", "key": "create", "exists": "bulk", "search": "post", "never": "send"}
