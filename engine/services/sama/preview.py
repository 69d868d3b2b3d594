"""The answers that a preview gets in place of Sama's: they say that all went well. Nothing is called."""

from __future__ import annotations

import orjson
from yarl import URL

from engine.services.base import Answer, Call
from engine.services.sama.settings import SamaSettings

BATCH = "BATCH"
"""Stands where Sama's own name of a batch will be."""


def answer_preview(call: Call, settings: SamaSettings) -> Answer | None:
    """Return what Sama would answer to a call that creates tasks; None to a question that only Sama can answer."""
    if call.kind == "create":
        return _json({"batch_id": BATCH, "tasks_put_url": _upload_url(settings)})
    if call.kind == "put":
        return Answer(200, {"ETag": '"preview"'}, b"")
    if call.kind in {"continue", "post"}:
        return _json({"batch_id": BATCH})
    return None


def _upload_url(settings: SamaSettings) -> str:
    """Return a URL at a host to which payloads may go; the real one is the service's choice."""
    origin = URL(settings.base_url).origin()
    if origin.scheme == "http":  # a sandbox, which takes uploads itself
        return f"{origin}/PRESIGNED"
    allowed = next(iter(settings.upload_hosts), "*.amazonaws.com")
    return f"https://{allowed.replace('*.', 'BUCKET.s3.').lower()}/PRESIGNED"


def _json(said: object) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, orjson.dumps(said))
