"""A client of the sandbox's Seven Bridges for its tests: paths and bodies enter, status, body and headers leave."""

import aiohttp
import orjson

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.server import Sandbox
from engine.sandbox.settings import SandboxPlatform

from ..api import KEY, Answer  # noqa: TID252 - tests of one package

PROJECT = "owner/project"
APP = "owner/project/align"


def behaviour(*, journal=None, failures=(), faults=(), access_keys=(KEY,), **settings):
    extra = {"journal": journal} if journal else {}
    return Behaviour(
        service="sevenbridges",
        access_keys=access_keys,
        failures=failures,
        faults=faults,
        sevenbridges=SandboxPlatform(**settings),
        **extra,
    )


def files(*ids):
    return [{"class": "File", "path": file_id} for file_id in ids]


def draft(name="a task", **fields):
    return {"project": PROJECT, "app": APP, "name": name, **fields}


def batch(*ids, criteria=(), **fields):
    by = {"type": "CRITERIA", "criteria": list(criteria)} if criteria else {"type": "ITEM"}
    return draft(batch_input="reads", batch_by=by, inputs={"reads": files(*ids), "threads": 4}, **fields)


class SbApi:
    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession):
        self.sandbox, self.session = sandbox, session

    async def call(self, method, path, body=None, *, headers=None, raw=None, **query):
        headers = {"X-SBG-Auth-Token": KEY} if headers is None else headers
        data = raw if body is None else orjson.dumps(body)
        url = f"{self.sandbox.url}{path}"
        async with self.session.request(method, url, data=data, headers=headers, params=query) as answer:
            text = await answer.read()
            parsed = orjson.loads(text) if answer.content_type == "application/json" else text
            return Answer(answer.status, parsed, answer.headers)

    async def create(self, body=None, **query):
        answer = await self.call("POST", "/tasks", body or draft(), **query)
        assert answer.status == 201, answer
        return answer.body

    async def run(self, task, **query):
        return await self.call("POST", f"/tasks/{task['id']}/actions/run", **query)

    async def abort(self, task):
        return await self.call("POST", f"/tasks/{task['id']}/actions/abort")

    async def get(self, task):
        answer = await self.call("GET", f"/tasks/{task['id']}")
        assert answer.status == 200
        return answer.body

    async def status(self, task):
        return (await self.get(task))["status"]

    async def list(self, **query):
        answer = await self.call("GET", "/tasks", **query)
        assert answer.status == 200, answer
        return answer

    async def names(self, **query):
        return [task["name"] for task in (await self.list(**query)).body["items"]]


def error(answer):
    assert set(answer.body) == {"status", "code", "message", "more_info"}
    assert answer.body["status"] == answer.status
    return answer.status, answer.body["code"]
