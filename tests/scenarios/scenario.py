"""A TOML file in, a checked scenario out: how the server behaves and changes, the job, and what must come of it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

FOLDER = Path(__file__).parent

Seconds = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
Kind = Literal["create", "put", "continue", "post", "status"]
"""Of a call; `post` is the one of inline mode."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Release = Literal["continue", "post"]
"""A call that has tasks created."""
Condition = Literal["up", "unreachable", "silent", "errors"]
"""unreachable: no connection; silent: the request is swallowed; errors: 503 from something in between."""


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Behaviour(Table):
    """`[server]`; a `[[change]]` replaces some of it."""

    api: Condition = "up"
    store: Condition = "up"
    """Where `tasks_put_url` points: another host, with troubles of its own."""
    answer_seconds: Seconds = 0.5
    """Work for one request."""
    slower_by_load: Seconds = 0.0
    """Each request at work or waiting makes the next one longer by this share."""
    workers: Annotated[int, Field(ge=1)] = 1000
    """Requests at work at once; others wait, first come, first served, also when their client has given up."""
    most_bytes: Annotated[int, Field(gt=0)] | None = None
    """A larger body is refused, by API and store alike."""
    bytes_per_second: Annotated[float, Field(gt=0)] | None = None
    """Speed of each connection on the way up; a call whose body takes too long by it never arrives."""
    tasks_per_second: Seconds = 1000.0
    """Tasks are created one batch after the other."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """More are told 429, with a Retry-After."""
    burst: Annotated[int, Field(ge=1)] = 1
    keys: tuple[str, ...] = ("first-key",)
    """Keys that hold."""
    key_refusal: Literal[401, 403] = 401
    """What another key is told."""
    url_seconds: Seconds = 4 * 3600.0
    """Life of a `tasks_put_url`."""
    continue_again: Literal["refuse", "noop", "duplicate", "html"] = "duplicate"
    """A second release: 400, nothing, all is created again, or a page (409)."""
    cancel: Literal["accept", "refuse", "lie"] = "accept"
    """lie: is answered, and what is late is created all the same."""
    stalled: tuple[int, ...] = ()
    """Numbers of batches, in the order of their release, whose creation stops halfway for `stall_seconds`."""
    stall_seconds: Seconds = 0.0
    lost_answers: dict[Kind, Share] = {}
    """Share that is done, but whose connection breaks before the answer."""
    lost_requests: dict[Kind, Share] = {}
    """Share whose connection breaks before anything is done."""
    late: dict[Release, Share] = {}
    """Share that is done `late_seconds` after the server has taken it; until then the batch says waiting."""
    late_seconds: Seconds = 5.0
    late_answer: Literal["given", "lost", "page"] = "lost"
    """What a late call is told at once; page: of a 504."""
    swallowed: dict[Release, Share] = {}
    """Share that is answered, and never done; such a call may be made again."""
    busy_while_late: bool = False
    """409 to a continue or cancel of a batch until what is late of it is done."""
    status_lag_seconds: Seconds = 0.0
    """A status says what was true so long ago."""


class Work(Table):
    """`[job]`"""

    records: Annotated[int, Field(ge=1)]
    batch_records: Annotated[int, Field(ge=1)]
    record_bytes: Annotated[int, Field(ge=0)] = 0
    """So much text in each record."""
    mode: Literal["presigned", "inline"] = "presigned"
    send: dict[str, Any] = {}
    """`[send]` of the engine's configuration."""


class Resume(Table):
    """A `bulksubmit resume`, if the run before left something to do."""

    at: Seconds
    """At the earliest; seconds since the job began."""
    access_key: str = "first-key"


class Scenario(Table):
    """The whole file."""

    name: str
    prose: Annotated[str, Field(min_length=80)]
    """What it is about and what must hold, for people."""
    seed: int = 1
    server: Behaviour = Behaviour()
    changes: tuple[tuple[float, Behaviour], ...] = Field(default=(), alias="change")
    """(time, all of the behaviour from then on), by time."""
    job: Work
    resumes: tuple[Resume, ...] = Field(default=(), alias="resume")
    accept: Annotated[dict[str, int | float | str | Range], Field(min_length=1)]
    """Measure → the number it must be, the range it must be in, or words that it must contain."""

    @model_validator(mode="before")
    @classmethod
    def _add_up_changes(cls, tables: dict[str, Any]) -> dict[str, Any]:
        """Make each change the whole behaviour; one with several times happens at each of them."""
        listed = []
        for change in tables.get("change", ()):
            times = change.get("at", ())
            what = {key: value for key, value in change.items() if key != "at"}
            listed += [(time, what) for time in (times if isinstance(times, list) else [times])]
        behaviour, summed = tables.get("server", {}), []
        for time, what in sorted(listed, key=lambda change: change[0]):
            behaviour = {**behaviour, **what}
            summed.append((time, behaviour))
        return {**tables, "change": summed}


def scenario_files() -> list[Path]:
    return sorted(FOLDER.glob("*.toml"))


def read_scenario(path: Path) -> Scenario:
    return parse_scenario(path.read_text(encoding="utf-8"), path.stem)


def parse_scenario(text: str, name: str) -> Scenario:
    return Scenario.model_validate({"name": name, **tomllib.loads(text)})
