"""How a sandbox behaves, as values: the TOML file enters through `loading.py`, every other module reads these.

Each field's default is the friendliest behaviour: no latency, instant creation, no limit, no fault. Times are seconds.
`call` names one kind of request of the service (see its `service.py`) or `"all"`. What one service alone has stands in
its own `settings.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Strict, ValidationInfo

from engine.sandbox.sama.settings import SandboxSama
from engine.sandbox.sevenbridges.settings import SandboxPlatform, SecondCall

ALL_CALLS = "all"

ServiceKind = Literal["sama", "sevenbridges"]
CancelAnswer = Literal["accept", "refuse", "lie"]
FaultKind = Literal[
    "refuse",
    "refuse_after",
    "drop_before",
    "drop_after",
    "hang",
    "html",
    "truncate",
    "act_later",
    "drop_late",
    "refuse_late",
    "html_late",
    "swallow",
]
CallbackAuth = Literal["none", "basic", "access_key", "token", "hmac"]


def _below_the_file(path: Path, info: ValidationInfo) -> Path:
    return Path(info.context or "") / path


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


FilePath = Annotated[Path, AfterValidator(_below_the_file)]
Markers = Annotated[tuple[str, ...], Strict(strict=False), BeforeValidator(_one_or_many)]


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share}")


@dataclass(frozen=True, slots=True)
class Latency:
    """Answer a call after `seconds` plus up to `jitter_seconds` more."""

    seconds: float = 0.0
    jitter_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CreationPace:
    """How fast accepted tasks are created; 0 tasks per second means at once, 0 parallel batches means all of them.

    A canceled batch keeps its turn among the parallel ones: turns are planned when a batch is accepted.
    """

    tasks_per_second: float = 0.0
    delay_seconds: float = 0.0
    parallel_batches: int = 0


@dataclass(frozen=True, slots=True)
class WorkPace:
    """How fast people work on a batch's tasks; at 0 a task stays `new` (or `completed`, if it was submitted)."""

    tasks_per_second: float = 0.0
    step_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FailureRule:
    """Fail a task whose value at `path` equals or matches, or a `share` of all tasks (drawn with `seed`).

    Sama does not create such a task; Seven Bridges creates it, and it fails when it is run.
    """

    path: str = ""
    equals: str | int | float | bool | None = None
    matches: str = ""
    share: float = 0.0
    seed: int = 0
    type: str = "InvalidInputSchema"
    message: str = "The sandbox was told to fail this task."

    def __post_init__(self) -> None:
        _check_share(self.share)
        if bool(self.path) != (self.equals is not None or bool(self.matches)):
            raise ValueError("path goes with either equals or matches")
        if not self.path and self.share == 0:
            raise ValueError("give path, or share, or both")


@dataclass(frozen=True, slots=True)
class RefusalRule(FailureRule):
    """Refuse every batch that holds a task for which the rule holds, as a whole and without saying which task it is."""

    status: int = 422
    message: str = "The sandbox was told to refuse this batch."


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Answer 429 to every call past `requests` in a window of `seconds`."""

    requests: int
    seconds: float
    call: str = ALL_CALLS
    retry_after: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Strike the `nth` calls (from 1), `every` so many, or a `share` of them (drawn with `seed`).

    Or strike every call from `from_seconds` to `to_seconds` after the start.

    refuse        answer `status`, do nothing        refuse_after  do the work, then answer `status`
    drop_before   close, do nothing                  drop_after    do the work, then close without an answer
    hang          do the work, answer after `seconds`
    html          answer an HTML page with `status`, do nothing
    truncate      do the work, send half of the answer, close

    And of calls that create or release (Sama: create with tasks, continue; Seven Bridges: create, clone, run), which
    are the ones that "all" means here; the call is judged at once, and only its work comes later:

    act_later     answer as ever, do the work `seconds` later
    drop_late     close, do the work `seconds` later
    refuse_late   answer `status`, do the work `seconds` later
    html_late     answer an HTML page with `status`, do the work `seconds` later
    swallow       answer as ever, do nothing
    """

    call: str
    kind: FaultKind
    nth: tuple[int, ...] = ()
    every: int = 0
    share: float = 0.0
    seed: int = 0
    from_seconds: float = 0.0
    to_seconds: float = 0.0
    status: int = 503
    seconds: float = 30.0
    retry_after_seconds: int | None = None

    def __post_init__(self) -> None:
        _check_share(self.share)
        if not (self.nth or self.every or self.share or self.to_seconds > self.from_seconds):
            raise ValueError("this fault never strikes: give nth, every, share, or from_seconds and to_seconds")


@dataclass(frozen=True, slots=True)
class Reads:
    """How far reads lag behind writes: a read says what was true so many seconds ago.

    Sama: `status`, `task`, `tasks` and `delivered`. Seven Bridges: `get`, `bulk` and `details` are single, `list` is a
    list. A list lacks what is newer; the others show it as it began, or 404 if `new_are_unknown`. Edits of a draft are
    shown at once.
    """

    status_seconds: float = 0.0
    single_seconds: float = 0.0
    list_seconds: float = 0.0
    new_are_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Report each created or failed task to `url`, in five tries; an empty `url` reports nothing.

    A try that is not answered within `timeout_seconds` has failed: a receiver that hangs holds up nothing else.

    `user` is for auth "basic"; `secret` is the password, the access key, the token or the HMAC key.
    """

    url: str = ""
    auth: CallbackAuth = "none"
    user: str = ""
    secret: str = ""
    tasks_per_call: int = 1
    retry_seconds: float = 1.0
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Where the journal goes, and the dotted paths at which a task's marker stands: the first one present counts."""

    path: FilePath | None = None
    marker: Markers = ("data.id", "data.client_batch_id", "name")


@dataclass(frozen=True, slots=True)
class Project:
    """A project that exists, and the file with the JSON Schema that its tasks must satisfy."""

    id: int
    schema: FilePath | None = None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Everything that a sandbox can be told. With no `projects`, every project id exists.

    `cancel` "lie" is accepted, and stops nothing: neither tasks that are being created, nor a late release.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # of the tables in it too

    service: ServiceKind = "sama"
    access_keys: tuple[str, ...] = ("sandbox-key",)
    projects: tuple[Project, ...] = ()
    seed: int = 0
    busy_while_late: bool = False
    max_body_bytes: int = 256 * 1024 * 1024
    max_inline_tasks: int = 1000  # the vendor's limit
    max_upload_tasks: int = 1000  # the vendor's page says 1,000 for both ways
    keep_task_data: bool = True
    continue_again: SecondCall = "error"
    cancel: CancelAnswer = "accept"
    tasks_put_url_seconds: float = 4 * 3600  # the vendor's lifetime
    waiting_seconds: float = 24 * 3600
    creation: CreationPace = CreationPace()
    work: WorkPace = WorkPace()
    reads: Reads = Reads()
    callbacks: Callbacks = Callbacks()
    journal: JournalSettings = JournalSettings()
    latency: Mapping[str, Latency] = field(default_factory=lambda: MappingProxyType({}))
    failures: tuple[FailureRule, ...] = ()
    refusals: tuple[RefusalRule, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    faults: tuple[Fault, ...] = ()
    sama: SandboxSama = field(default_factory=SandboxSama)
    sevenbridges: SandboxPlatform = field(default_factory=SandboxPlatform)
