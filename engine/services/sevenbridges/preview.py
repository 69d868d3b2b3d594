"""The answers that a preview gets in place of Seven Bridges': they say that all went well. Nothing is called.

A file that is looked up by its name is there, once, and has the id ID-OF-NAME.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import orjson

from engine.model.record import Row, loads
from engine.services.base import Answer, Call
from engine.services.sevenbridges.calls import DRAFT, TOTAL_HEADER
from engine.services.sevenbridges.settings import SevenBridgesSettings

TASK = "TASK"
"""Stands where the id of a task will be."""


def answer_preview(call: Call, settings: SevenBridgesSettings) -> Answer | None:
    """Return what Seven Bridges would answer to a call that makes tasks; None to what only it can answer."""
    del settings
    if call.kind == "files":
        names = [value for key, value in parse_qsl(urlsplit(call.url).query) if key == "name"]
        return _json({"items": [{"id": f"ID-OF-{name}", "name": name} for name in names]}, len(names))
    if call.kind == "create":
        body: Row = loads(b"".join(call.pieces))
        return _json({"id": TASK, "status": DRAFT, "description": body["description"]})
    return _json({"id": TASK, "status": "QUEUED"}) if call.kind == "run" else None


def _json(said: object, total: int | None = None) -> Answer:
    headers = {"Content-Type": "application/json"} | ({} if total is None else {TOTAL_HEADER: str(total)})
    return Answer(200, headers, orjson.dumps(said))
