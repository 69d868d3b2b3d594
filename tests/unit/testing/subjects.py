"""The services that the checks are run over: each before its own server, fresh for each check."""

import sys
from contextlib import asynccontextmanager

import msgspec
import orjson
from fakes.toy import KEY, PACKAGE, ToyServer

from engine.batch.planning import service_at
from engine.http.caller import open_caller
from engine.model.errors import Refused, Unauthorized
from engine.model.settings import SendSettings, of_text
from engine.sandbox.behaviour import Behaviour, FailureRule, JournalSettings, Project
from engine.sandbox.journal import read_journal
from engine.sandbox.server import running_sandbox
from engine.sandbox.settings import SandboxSama
from engine.services.base import Answer
from engine.testing import Subject

SCHEMA = b'{"properties": {"data": {"type": "object", "properties": {"client_batch_id": {"type": "string"}}}}}'
BROKEN = FailureRule(path="data.image", equals="broken", message="no such image")

sys.path.append(str(PACKAGE))  # as an installed package


def sama(mode, *, marked=False):
    """Return a way to a Sama before the sandbox."""

    @asynccontextmanager
    async def opened(folder):
        schema = folder / "schema.json"
        schema.write_bytes(SCHEMA)
        behaviour = Behaviour(
            journal=JournalSettings(folder / "journal.ndjson"),
            projects=(Project(42, schema if marked else None),),
            failures=(BROKEN,),
            sama=SandboxSama(task_lists_per_second=0),
        )
        keys = {"kind": "sama", "project_id": 42, "access_key": "sandbox-key", "mode": mode}
        good = [{"data": {"image": f"https://example.com/{number}"}, "priority": number} for number in range(3)]
        bad = {"data": {"priority": 1}, "priority": {"data": {}, "priority": "high"}}
        async with _before_sandbox("sama", keys, behaviour, good=good, bad=bad) as subject:
            subject.refused = [{"data": {"image": "broken"}}]
            yield subject

    return opened


def seven_bridges(*, run):
    """Return a way to a Seven Bridges before the sandbox."""

    @asynccontextmanager
    async def opened(folder):
        behaviour = Behaviour(service="sevenbridges", journal=JournalSettings(folder / "journal.ndjson"))
        keys = {"kind": "sevenbridges", "auth_token": "sandbox-key", "project": "owner/project", "run": run}
        keys["app"] = "owner/project/align"
        good = [{"name": f"task {number}", "inputs": {"n": number}} for number in range(2)]
        bad = {"name": {"name": 7}, "project": {"project": "nowhere"}}
        made = "run" if run else "task"
        async with _before_sandbox("sevenbridges", keys, behaviour, good=good, bad=bad, made=made) as subject:
            yield subject

    return opened


@asynccontextmanager
async def _before_sandbox(kind, keys, behaviour, *, made="task", **tasks):
    module = service_at(f"engine.services.{kind}")
    async with running_sandbox(behaviour) as sandbox:
        keys = {**keys, "base_url": sandbox.url}
        settings = msgspec.convert(keys, module.SETTINGS, strict=False, dec_hook=of_text)
        async with open_caller(settings, SendSettings()) as caller:
            path = behaviour.journal.path
            yield Subject(
                module, keys, caller, created=lambda: sum(one.kind == made for one in read_journal(path)), **tasks
            )


class ToyCaller:
    """Makes calls to the toy's server, without a socket."""

    def __init__(self, server):
        self.server = server

    async def call(self, call):
        path = "/" + call.url.removeprefix("https://toy.example").lstrip("/")
        status, said = self.server.answer(call.method, path, KEY, call.body)
        if status == 401:
            raise Unauthorized(str(said), call=call.kind, status=status)
        if status >= 400:
            raise Refused(str(said), call=call.kind, status=status)
        return Answer(status, {}, orjson.dumps(said))


def toy(module=None):
    """Return a way to the toy of docs/extending.md, or to another module in its place."""

    @asynccontextmanager
    async def opened(folder):
        server = ToyServer()
        yield Subject(
            module or service_at("bulksubmit_toy"),
            {"kind": "toy", "base_url": "https://toy.example", "api_key": KEY},
            ToyCaller(server),
            good=[{"title": "a"}, {"title": "b"}, {"title": "c"}],
            bad={"title": {"name": "a"}},
            refused=[{"title": "taken"}],
            created=lambda: len(server.items),
        )

    return opened
