"""A client of the sandbox for its tests: paths and bodies enter, status and parsed body leave, nothing is retried."""

from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import yarl

from engine.sandbox.server import Sandbox

KEY = "sandbox-key"


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: Any


class Api:
    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession, project: int = 42):
        self.sandbox, self.session, self.project = sandbox, session, project

    @property
    def origin(self):
        return self.sandbox.url.removesuffix("/v2")

    async def call(self, method, path, body=None, *, key=KEY, **query):
        url = f"{self.sandbox.url}/projects/{self.project}{path}"
        data = None if body is None else orjson.dumps(body)
        params = {**({"access_key": key} if key else {}), **{name: str(value) for name, value in query.items()}}
        return await self.send(method, yarl.URL(url).with_query(params), data)

    async def send(self, method, url, data=None, **options):
        async with self.session.request(method, url, data=data, **options) as answer:
            raw = await answer.read()
            body = orjson.loads(raw) if answer.content_type == "application/json" else raw
            return Answer(answer.status, body, answer.headers)

    async def create(self, tasks=None, **fields):
        return await self.call("POST", "/batches.json", {"tasks": tasks, **fields})

    async def put(self, url, tasks, **options):
        data = tasks if isinstance(tasks, bytes) else orjson.dumps(tasks)
        return await self.send("PUT", yarl.URL(url, encoded=True), data, **options)

    async def upload(self, tasks):
        """Create a batch and upload its tasks; return its id."""
        created = await self.create()
        assert (await self.put(created.body["tasks_put_url"], tasks)).status == 200
        return created.body["batch_id"]

    async def go_on(self, batch_id):
        return await self.call("POST", f"/batches/{batch_id}/continue.json")

    async def cancel(self, batch_id):
        return await self.call("POST", f"/batches/{batch_id}/cancel.json")

    async def status(self, batch_id, page_size=1000, **query):
        answer = await self.call("GET", f"/batches/{batch_id}.json", page_size=page_size, **query)
        assert answer.status == 200
        return answer.body

    async def created_ids(self, tasks):
        """Create tasks inline; return their ids."""
        batch_id = (await self.create(tasks)).body["batch_id"]
        return [task["id"] for task in (await self.status(batch_id))["tasks"]]


def tasks(count, **fields):
    return [{"data": {"id": str(number), **fields}} for number in range(count)]
