"""Sama: tasks in, batches of created tasks out, presigned or inline. See `service`."""

from __future__ import annotations

from collections.abc import Sequence

from engine.services.base import Answer, Call, Column, MappingProposal
from engine.services.sama.callbacks import read_callback
from engine.services.sama.sample import sample
from engine.services.sama.service import build
from engine.services.sama.settings import SamaSettings

__all__ = ["SETTINGS", "answer_preview", "build", "propose_mapping", "read_callback", "sample"]

SETTINGS = SamaSettings


def answer_preview(call: Call, settings: SamaSettings) -> Answer | None:
    """Return what the service would answer, if all went well; see `preview`."""
    from engine.services.sama import preview  # noqa: PLC0415 - a submit need not load it

    return preview.answer_preview(call, settings)


def propose_mapping(columns: Sequence[Column], settings: SamaSettings) -> MappingProposal:
    """Return how rows with these columns may become tasks; see `proposing`."""
    from engine.services.sama import proposing  # noqa: PLC0415 - a submit need not load it

    return proposing.propose_mapping(columns, settings)
