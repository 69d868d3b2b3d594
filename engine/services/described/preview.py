"""The answers that a preview gets in place of a described service's: what its steps take. Nobody is called."""

from __future__ import annotations

from typing import Any

import orjson

from engine.services.base import Answer, Call
from engine.services.described.paths import parts_of
from engine.services.described.settings import DescribedSettings, StepTable

_HEADER = "header."


def answer_preview(call: Call, settings: DescribedSettings) -> Answer | None:
    """Return what the service would answer to a step that others build on; None to what only the service can know."""
    if call.kind == "token" and settings.auth.exchange is not None:
        return Answer(200, {}, orjson.dumps(put(None, list(parts_of(settings.auth.exchange.take)), "TOKEN")))
    step: StepTable | None = {"stage": settings.stage, "upload": settings.upload}.get(call.kind)
    if step is None and call.kind == "release" and settings.results.of != "release":
        step = settings.release
    if step is None:
        return None
    body: Any = None
    headers = {"Content-Type": "application/json"}
    for name, path in step.take.items():
        bare = path.removesuffix("?").strip()
        if bare.startswith(_HEADER):
            headers[bare.removeprefix(_HEADER)] = _stands_for(name, settings)
        elif not bare.startswith("="):
            body = put(body, list(parts_of(bare)), _stands_for(name, settings))
    return Answer(200, headers, b"" if body is None else orjson.dumps(body))


def _stands_for(name: str, settings: DescribedSettings) -> str:
    """Return what stands where a value that is taken will be: an address, if the upload goes to it."""
    upload = settings.upload
    if upload is None or not upload.call.partition(" ")[2].strip().startswith(f"${{{name}}}"):
        return name.upper()
    if not upload.without_credentials or settings.base_url.startswith("http://"):  # the last is a sandbox
        return f"{settings.base_url.rstrip('/')}/{name.upper()}"
    host = next(iter(settings.uploads_to), "*.amazonaws.com").replace("*.", "bucket.")
    return f"https://{host}/{name.upper()}"


def put(body: Any, parts: list[str], value: Any) -> Any:
    """Return a value of JSON with another one put at a place in it."""
    if not parts:
        return value
    first, *rest = parts
    if first.lstrip("-").isdecimal():
        at = abs(int(first))
        items = body if isinstance(body, list) else []
        items += [{}] * (at + 1 - len(items))
        items[int(first) if int(first) >= 0 else -1] = put(None, rest, value)
        return items
    members = body if isinstance(body, dict) else {}
    name = "any" if first == "*" else first
    members[name] = put(members.get(name), rest, value)
    return members
