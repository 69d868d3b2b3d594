"""Seven Bridges: single task specs in, drafts, running tasks and batch tasks with their children out.

The harmless first step is a DRAFT that carries a client reference; `actions/run` starts it. See `service`.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.services.base import Answer, Call, Column, MappingProposal
from engine.services.sevenbridges.service import build
from engine.services.sevenbridges.settings import SevenBridgesSettings

__all__ = ["SETTINGS", "answer_preview", "build", "propose_mapping"]

SETTINGS = SevenBridgesSettings


def answer_preview(call: Call, settings: SevenBridgesSettings) -> Answer | None:
    """Return what the service would answer, if all went well; see `preview`."""
    from engine.services.sevenbridges import preview  # noqa: PLC0415 - a submit need not load it

    return preview.answer_preview(call, settings)


def propose_mapping(columns: Sequence[Column], settings: SevenBridgesSettings) -> MappingProposal:
    """Return how rows with these columns may become tasks; see `proposing`."""
    from engine.services.sevenbridges import proposing  # noqa: PLC0415 - a submit need not load it

    return proposing.propose_mapping(columns, settings)
