"""What the behaviour file says of Sama where its vendor's pages say nothing, as checked values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True)
class SamaUnwritten:
    """What no page of the vendor's says; each value but the default is the opposite of what the engine believes.

    batch_words             words of a batch's states that are other ones
    case                    how all words of states are written
    counts                  a creation status counts the tasks, in all and created
    etag                    the store answers an upload with an ETag
    failed_data             a creation status shows the data of failed tasks
    known_batch_every       each so many-th empty batch is answered with name and URL of the one before it; 0: none
    no_id_every             each so many-th created task has no id in a creation status; 0: none
    same_id_every           ... has the id of the task before it
    searches                tasks are found by their client_batch_id
    task_order              in which order a creation status lists the tasks; "shifted": the second one first
    task_words              words of a task's creation states that are other ones
    told_ids                under which key the answer to inline tasks names their ids; "": it does not
    zones                   times have a zone
    """

    batch_words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    case: Literal["lower", "title", "upper"] = "lower"
    counts: bool = True
    etag: bool = True
    failed_data: bool = True
    known_batch_every: int = 0
    no_id_every: int = 0
    same_id_every: int = 0
    searches: bool = True
    task_order: Literal["sent", "shuffled", "shifted"] = "sent"
    task_words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    told_ids: Literal["", "task_ids", "tasks", "ids"] = ""
    zones: bool = True


@dataclass(frozen=True, slots=True)
class SandboxSama:
    """Keys of Sama alone that stand in a table of their own; 0 lists of tasks a second: as many as are asked for."""

    task_lists_per_second: float = 1.0  # the vendor's limit
    unwritten: SamaUnwritten = field(default_factory=SamaUnwritten)
