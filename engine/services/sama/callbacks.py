"""What a callback of Sama tells of the creation of tasks; `http.receiver` asks it about each body that it has received.

The vendor shows the body for a failure: `{"success": false, "errors": [{"task_id", "type", "message", …}]}`. That for a
success is a guess: tasks under `tasks` or `task`, as in a delivery. Whether a task names its batch, as one that is
delivered does, is a guess, too. What of it is wrong costs polls, and nothing else: no fate comes from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from engine.model.settings import json_of

_LISTS = ("tasks", "errors")
_LONGEST_NAME = 200
"""As of every name of a batch."""


def read_callback(body: bytes) -> Mapping[str, int]:
    """Return of how many tasks of which batches a callback tells; "" stands for a batch that is not named.

    Raises:
        ValueError: it is no callback about tasks.
    """
    said = json_of(body)
    if not isinstance(said, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - what is wrong is the body
    items = [item for key in _LISTS if isinstance(said.get(key), list) for item in said[key]]
    if isinstance(said.get("task"), dict):
        items.append(said["task"])
    told = Counter(_batch_of(item) or _batch_of(said) for item in items if isinstance(item, dict))
    if not told:
        raise ValueError("it tells of no task")
    return told


def _batch_of(item: dict[str, Any]) -> str:
    name = item.get("batch_id")
    return str(name) if isinstance(name, int | str) and len(str(name)) <= _LONGEST_NAME else ""
