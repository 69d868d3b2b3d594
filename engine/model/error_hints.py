"""What a refusal means, where the HTTP status alone says too little: a service's own code, and whose fault it is.

The table that tells whose fault a refusal is stands in `http.classify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from msgspec import Struct, field


class Carries(Enum):
    """What a call brings along, and so what its refusal can be about. A service says it of each of its calls."""

    NOTHING = auto()
    """No record: a question, or an empty batch."""
    RECORDS = auto()
    """Records, which the service reads before it answers."""
    RELEASE = auto()
    """No record of its own: it starts what was brought before."""
    BYTES = auto()
    """Records, for a store that keeps them unread."""


class Blame(Enum):
    """Whose fault a refusal is."""

    RECORDS = auto()
    """These records: they fail with the service's words."""
    PAYLOAD = auto()
    """This payload, nobody says which part of it: it goes in halves, and a record that stands alone fails."""
    SUSPECT = auto()
    """Likewise, if a call without it succeeds afterwards. If none does, the payload is not the cause."""
    URL = auto()
    """The presigned URL: a fresh one may do."""
    KEY = auto()
    """The credentials: a person must renew them."""
    JOB = auto()
    """The job as a whole: a person must mend something, and no record fails."""
    NOT_NOW = auto()
    """Nobody: the same call may succeed later."""


class Pause(Struct, frozen=True):
    """Nothing was done and nothing will be for a while: nobody calls for `seconds`."""

    seconds: float
    reason: str
    or_too_much: bool = False
    """The service says the same to a call that asks for too much at once: one of few tries is refused instead."""


class Refusal(Struct, frozen=True):
    """Nothing was done, and the next call like it would be refused as well; whose fault that is."""

    reason: str
    blame: Blame
    flaws: Mapping[int, str] = field(default_factory=dict)
    """Position in what the call carried → what is wrong with it: these alone are at fault."""
    gone: bool = False
    """What the call is about is not there: it is gone, or not there yet."""
    exists: bool = False
    """What the call would have made is there already."""
    task_id: str = ""
    """The service's id of that; "" where it is not said."""
