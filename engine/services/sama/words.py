"""Words of the service in, what they mean out: how far a batch's creation is, and how a task's creation ended.

The states of a task are the vendor's: `queued`, `preprocessing` and `ready` (waiting to be created) are under way,
`created`, `failed` and `canceled` are final. Of a batch's states only *waiting* is public. So no word settles a batch:
its tasks do. A word only says when looking at them pays, and a word that nobody has heard of says nothing.
"""

from __future__ import annotations

from enum import Enum, auto


class Phase(Enum):
    """How far the creation of a batch is, by its own word."""

    WAITING = auto()
    """For `continue`."""
    UNDER_WAY = auto()
    COMPLETED = auto()
    FAILED = auto()
    CANCELED = auto()
    UNKNOWN = auto()
    """It says nothing, or a word that is none of ours."""


class Creation(Enum):
    """How far the creation of one task is."""

    CREATED = auto()
    FAILED = auto()
    CANCELED = auto()
    OPEN = auto()
    """Not ended, also where the word is none that the vendor names."""


ENDS = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELED})

_PHASES = {
    "waiting": Phase.WAITING,
    **dict.fromkeys(("queued", "preprocessing", "processing", "in progress", "ready"), Phase.UNDER_WAY),
    **dict.fromkeys(("completed", "complete", "created", "done", "finished"), Phase.COMPLETED),
    "failed": Phase.FAILED,
    **dict.fromkeys(("canceled", "cancelled"), Phase.CANCELED),
}

_CREATIONS = {
    "created": Creation.CREATED,
    "failed": Creation.FAILED,
    **dict.fromkeys(("canceled", "cancelled"), Creation.CANCELED),
}


def phase_of(word: str) -> Phase:
    """Return what a batch's word means."""
    return _PHASES.get(_plain(word), Phase.UNKNOWN)


def creation_of(word: str) -> Creation:
    """Return what a task's word means."""
    return _CREATIONS.get(word) or _CREATIONS.get(_plain(word), Creation.OPEN)


def _plain(word: str) -> str:
    """Return a word without what differs between spellings: case, and what stands between its parts."""
    return " ".join(word.casefold().replace("_", " ").replace("-", " ").split())
