"""Sama: tasks in, batches of created tasks out, presigned or inline. See `service`."""

from __future__ import annotations

from engine.services.base import Answer, Call
from engine.services.sama.callbacks import read_callback
from engine.services.sama.sample import sample
from engine.services.sama.service import build
from engine.services.sama.settings import SamaSettings

__all__ = ["SETTINGS", "answer_preview", "build", "read_callback", "sample"]

SETTINGS = SamaSettings


def answer_preview(call: Call, settings: SamaSettings) -> Answer | None:
    """Return what the service would answer, if all went well; see `preview`."""
    from engine.services.sama import preview  # noqa: PLC0415 - a submit need not load it

    return preview.answer_preview(call, settings)
