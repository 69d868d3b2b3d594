"""The ways in which the engine submits enter a test, each with a sandbox, a configuration and tasks of its own.

Every suite runs in all of them: what holds for one service must hold for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from . import catalogue
from .proxy import Message

KEY = "sandbox-key"
SECRETS = {"SAMA_ACCESS_KEY": KEY, "SB_AUTH_TOKEN": KEY, "CALLBACK_TOKEN": KEY, "BULK_KEY": KEY}
"""Environment variables that the configurations name."""

_NONE: Mapping[int, str] = {}
_CONFIGS = Path(__file__).parents[3] / "configs" / "bulk-sandbox"
_SAMA_BEHAVIOUR = """
continue_again = "duplicate"  # the unkindest: a batch that is released twice is created twice

[sama]
task_lists_per_second = 0  # jobs run side by side, and each asks once how its tasks are listed

[journal]
marker = "data.id"

[[projects]]
id = 42

[[projects]]  # its tasks have an input by which they are found again
id = 43
schema = "schema.json"
"""
SCHEMA = b'{"properties": {"data": {"type": "object", "properties": {"client_batch_id": {"type": "string"}}}}}'
_BRIDGES_BEHAVIOUR = """
service = "sevenbridges"

[sevenbridges.rate]
requests = 0

[sevenbridges.life]  # so that a task is asked about more than once
creating_seconds = 0.05
running_seconds = 0.1

[journal]
marker = "name"
"""
# The unkindest: a job that is started twice is created twice. The lists are so short that each has more than one page.
_BULK_BEHAVIOUR = """
service = "bulk"

[bulk]
start_again = "duplicate"
page = 2

[journal]
marker = "number"
"""
_SAMA = """
[service]
kind = "sama"
base_url = "http://127.0.0.1:{port}/v2"
project_id = {number}
access_key = "${{env:SAMA_ACCESS_KEY}}"
mode = "{mode}"
"""
# Parents with children, until they have finished: such a task meets every call that there is.
_BRIDGES = """
[service]
kind = "sevenbridges"
base_url = "http://127.0.0.1:{port}/v2"
auth_token = "${{env:SB_AUTH_TOKEN}}"
project = "owner/{project}"
app = "owner/app/align"
batch_input = "reads"
batch_by = {{ type = "ITEM" }}
run = true
until = "finished"
"""
_SEND = """
[batch]
max_records = {batch}

[send]
poll_seconds = {poll}
max_poll_seconds = {most}
settle_seconds = {settle}
retry_base_seconds = 0.01
retry_cap_seconds = 0.05
{send}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to submit."""

    name: str
    service: str
    """Which sandbox."""
    behaviour: str
    """TOML of it."""
    config: str
    batch: int
    """Records in a batch."""
    kind_of: Callable[[Message], str]
    """Names a request by what it is to the engine."""
    states: tuple[str, ...]
    """Through which a batch goes."""
    parks: bool = False
    """A lost answer may leave a batch uncertain: there is no harmless step, and no way to ask."""
    children: int = 0
    """Tasks that each record's own task is to have."""
    settle_seconds: float = 0.3
    """Longer than the sandbox needs to show what it was told."""
    mode: str = ""
    """Of Sama."""
    number: int = 42
    """Of Sama's project."""
    releases: tuple[str, ...] = ()
    """The sandbox's words for the calls that create or release."""

    def __str__(self) -> str:
        return self.name

    def write_config(  # noqa: PLR0913 - what differs from suite to suite
        self,
        path: Path,
        port: int,
        *,
        settle_seconds: float | None = None,
        poll_seconds: float = 0.01,
        max_poll_seconds: float = 0.05,
        send: str = "",
        project: str = "p",
    ) -> None:
        values = {"mode": self.mode, "number": self.number, "project": project, "batch": self.batch}
        times = {"settle": settle_seconds or self.settle_seconds, "poll": poll_seconds, "most": max_poll_seconds}
        path.write_text((self.config + _SEND).format(port=port, send=send, **values, **times))

    def write_tasks(self, path: Path, prefix: str, batches: int, bad: Mapping[int, str] = _NONE) -> list[str]:
        """Write a source of so many batches; return the markers of its records. `bad`: numbers of bad ones, and how."""
        markers = [f"{prefix}-{number}" for number in range(batches * self.batch)]
        path.write_bytes(
            b"".join(orjson.dumps(self._task(one, bad.get(at, ""))) + b"\n" for at, one in enumerate(markers))
        )
        return markers

    def _task(self, marker: str, bad: str) -> dict:
        if self.service == "bulk":
            return {"number": marker, "bad": bad}
        if not self.children:
            return {"data": {"id": marker}}
        reads = [{"class": "File", "path": f"{marker}-{number}"} for number in range(self.children)]
        return {"name": marker, "inputs": {"reads": reads}}


PRESIGNED = Way(
    "presigned",
    "sama",
    _SAMA_BEHAVIOUR,
    _SAMA,
    3,
    catalogue.sama_kind,
    ("frozen", "staging", "staged", "releasing", "released", "settled"),
    mode="presigned",
)
INLINE = Way(
    "inline",
    "sama",
    _SAMA_BEHAVIOUR,
    _SAMA,
    3,
    catalogue.sama_kind,
    ("frozen", "releasing", "released", "settled"),
    parks=True,
    mode="inline",
)
MARKED = replace(INLINE, name="inline with marks", parks=False, number=43)
BRIDGES = Way(
    "seven bridges",
    "sevenbridges",
    _BRIDGES_BEHAVIOUR,
    _BRIDGES,
    1,
    catalogue.bridges_kind,
    ("frozen", "staging", "staged", "releasing", "released", "settled"),
    children=2,
)
WAYS = [PRESIGNED, INLINE, MARKED, BRIDGES]


def _bulk_way(name: str, release: str, *states: str, parks: bool = False) -> Way:
    """Return the way of one of the sandbox's bulk faces, by the description of it that is shipped."""
    config = (_CONFIGS / f"{name}.toml").read_text().replace("{", "{{").replace("}", "}}")
    return Way(
        f"bulk {name}",
        "bulk",
        _BULK_BEHAVIOUR,
        config.replace("127.0.0.1:8802", "127.0.0.1:{port}"),
        3,
        catalogue.bulk_kind,
        ("frozen", *states, "settled"),
        parks=parks,
        releases=(release,),
    )


SAFE = _bulk_way("safe", "upsert", "releasing")
KEYED = _bulk_way("key", "create", "releasing")
EXISTS = _bulk_way("exists", "bulk", "releasing")
ASK = _bulk_way("ask", "start", "staging", "staged", "releasing", "released")
SEARCH = _bulk_way("search", "post", "releasing")
NEVER = _bulk_way("never", "send", "releasing", parks=True)
BULK_WAYS = [SAFE, KEYED, EXISTS, ASK, SEARCH, NEVER]
"""Described services: one for each thing that makes a repeated call safe."""
BRIEF = replace(
    KEYED,
    name="bulk key, soon forgotten",
    behaviour=_BULK_BEHAVIOUR.replace("[bulk]", "[bulk]\nkey_seconds = 240"),
    config=KEYED.config.replace("86_400", "240"),
    parks=True,
)
"""An idempotency key that may be older than the service remembers, by the time that it would be sent again."""
EVERY_WAY = [*WAYS, *BULK_WAYS]
FEW_WAYS = [*WAYS, KEYED, ASK]
"""Where each run costs much: what a described service must keep over a death is the time of its first attempt, or the
name of its job."""

_LATE = {
    "sama": """
[reads]
status_seconds = 0.3
list_seconds = 0.3

[[faults]]
call = "all"
kind = "drop_late"
share = 0.1
seed = 1
seconds = 0.5

[[faults]]
call = "continue"
kind = "html_late"
share = 0.1
seed = 2
status = 504
seconds = 0.5
""",
    "sevenbridges": """
[reads]
single_seconds = 0.3
list_seconds = 0.3

[[faults]]
call = "all"
kind = "drop_late"
share = 0.1
seed = 1
seconds = 0.5
""",
    "bulk": """
[reads]
status_seconds = 0.3
list_seconds = 0.3

[[faults]]
call = "all"
kind = "drop_late"
share = 0.1
seed = 1
seconds = 0.5

[[faults]]
call = "all"
kind = "html_late"
share = 0.05
seed = 2
status = 504
seconds = 0.5
""",
}


def late(way: Way) -> Way:
    """Return the same way to a sandbox that acts later than it answers, and shows things later than they are."""
    return replace(
        way,
        name=f"{way}, late",
        behaviour="busy_while_late = true\n" + way.behaviour + _LATE[way.service],
        settle_seconds=2.0,
    )
