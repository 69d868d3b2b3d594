"""How a sandbox behaves, as values, and how a TOML file is read into them; all of the sandbox reads these.

Each field's default is the friendliest behaviour: no latency, instant creation, no limit, no fault. Times are seconds.
`call` names one kind of request of the service (`CALLS` beside it) or `"all"`. What one service alone has stands in
`settings.py`.
"""

import difflib
import re
import tomllib
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import orjson
from msgspec import Meta, field
from msgspec.structs import replace

from engine.model.errors import ConfigError
from engine.model.settings import Section
from engine.model.tables import table_of
from engine.sandbox.settings import SandboxBulk, SandboxPlatform, SandboxSama, SecondCall

ALL_CALLS = "all"

VendorKind = Literal["elasticsearch", "openai-batch", "anthropic-batches", "salesforce-bulk2", "hubspot"]
"""Called as the shipped description that is run against it."""
ServiceKind = Literal["sama", "sevenbridges", "bulk"] | VendorKind
CancelAnswer = Literal["accept", "refuse", "lie"]
LateKind = Literal["act_later", "drop_late", "refuse_late", "html_late", "swallow"]
"""Of faults that put the work of a call off."""
FaultKind = Literal["refuse", "refuse_after", "drop_before", "drop_after", "hang", "html", "truncate", LateKind]
CallbackAuth = Literal["none", "basic", "access_key", "token", "hmac"]


class SandboxError(ConfigError):
    """The sandbox cannot start as asked."""


class BehaviourError(SandboxError):
    """The behaviour file is wrong; the message names the key."""


Share = Annotated[float, Meta(ge=0, le=1)]


def value_at(document: object, path: tuple[str, ...]) -> object:
    """Follow a dotted path, already split, into objects; None where it leads nowhere."""
    for key in path:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


class Latency(Section, frozen=True):
    """Answer a call after `seconds` plus up to `jitter_seconds` more."""

    seconds: float = 0.0
    jitter_seconds: float = 0.0


class CreationPace(Section, frozen=True):
    """How fast accepted tasks are created; 0 tasks per second means at once, 0 parallel batches means all of them.

    A canceled batch keeps its turn among the parallel ones: turns are planned when a batch is accepted. The `stalled`
    batches, counted from 1 in the order of their release, stop halfway for `stall_seconds`, and hold up no other one.
    """

    tasks_per_second: float = 0.0
    delay_seconds: float = 0.0
    parallel_batches: int = 0
    stalled: tuple[int, ...] = ()
    stall_seconds: float = 3600.0


class WorkPace(Section, frozen=True):
    """How fast people work on a batch's tasks; at 0 a task stays `new` (or `completed`, if it was submitted)."""

    tasks_per_second: float = 0.0
    step_seconds: float = 0.0


class FailureRule(Section, frozen=True):
    """Fail a task whose value at `path` equals or matches, or a `share` of all tasks (drawn with `seed`).

    Sama does not create such a task; Seven Bridges creates it, and it fails when it is run.
    """

    path: str = ""
    equals: str | int | float | bool | None = None
    matches: str = ""
    share: Share = 0.0
    seed: int = 0
    type: str = "InvalidInputSchema"
    message: str = "The sandbox was told to fail this task."

    def __post_init__(self) -> None:
        if bool(self.path) != (self.equals is not None or bool(self.matches)):
            raise ValueError("path: goes with either equals or matches")
        if not self.path and self.share == 0:
            raise ValueError("path: give it, or share, or both")
        try:
            re.compile(self.matches)
        except re.error as error:
            raise ValueError(f"matches: {self.matches!r} is no regular expression: {error}") from error

    def hits(self, task: object) -> bool:
        """Say whether a task, as it was sent, is to fail.

        A share is drawn from the task itself: the same tasks fail in every order of batches, and when they are retried.
        """
        if self.share > 0 and zlib.crc32(orjson.dumps(task), self.seed) / 2**32 >= self.share:
            return False
        if not self.path:
            return self.share > 0
        value = value_at(task, tuple(self.path.split(".")))
        if self.matches:
            return isinstance(value, str) and re.search(self.matches, value) is not None
        return value == self.equals


class RefusalRule(FailureRule, frozen=True):
    """Refuse every batch that holds a task for which the rule holds, as a whole and without saying which task it is."""

    status: int = 422
    message: str = "The sandbox was told to refuse this batch."


class RateLimit(Section, frozen=True):
    """Answer 429 to every call past `requests` in a window of `seconds`."""

    requests: int
    seconds: float
    call: str = ALL_CALLS
    retry_after: bool = False


class Fault(Section, frozen=True):
    """Strike the `nth` calls (from 1), `every` so many, or a `share` of them (drawn with `seed`).

    Or strike every call from `from_seconds` to `to_seconds` after the start.

    refuse        answer `status`, do nothing        refuse_after  do the work, then answer `status`
    drop_before   close, do nothing                  drop_after    do the work, then close without an answer
    hang          do the work, answer after `seconds`
    html          answer an HTML page with `status`, do nothing
    truncate      do the work, send half of the answer, close

    And of calls that create or release (Sama: create with tasks, continue; Seven Bridges: create, clone, run; bulk:
    upsert, create, bulk, start, post, send), which are the ones that "all" means here; the call is judged at once, and
    only its work comes later:

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
    share: Share = 0.0
    seed: int = 0
    from_seconds: float = 0.0
    to_seconds: float = 0.0
    status: int = 503
    seconds: float = 30.0
    retry_after_seconds: int | None = None

    def __post_init__(self) -> None:
        if not (self.nth or self.every or self.share or self.to_seconds > self.from_seconds):
            raise ValueError("nth: this fault never strikes: give nth, every, share, or from_seconds and to_seconds")


class Reads(Section, frozen=True):
    """How far reads lag behind writes: a read says what was true so many seconds ago.

    Sama: `status`, `task`, `tasks` and `delivered`. Seven Bridges: `get`, `bulk` and `details` are single, `list` is a
    list. Bulk: `status`, `list`; `record` and `doc` are single. A list lacks what is newer; the others show it as it
    began, or 404 if `new_are_unknown`. Edits of a draft are shown at once.
    """

    status_seconds: float = 0.0
    single_seconds: float = 0.0
    list_seconds: float = 0.0
    new_are_unknown: bool = False


class Callbacks(Section, frozen=True):
    """Report each created or failed task to `url`, in five tries; an empty `url` reports nothing.

    A try that is not answered within `timeout_seconds` has failed: a receiver that hangs holds up nothing else.

    `user` is for auth "basic"; `secret` is the password, the access key, the token or the HMAC key.

    `names` false: a created task does not say which batch it is of; a failed one never does, as the vendor shows it.

    What goes wrong, as shares of the bodies (drawn with `seed`): `lost` is never sent, `twice` is sent again, `late`
    comes up to `late_seconds` later, and so after others. With `forged` somebody else sends one too, with a wrong
    secret; with `untrue` one, with the right secret, tells of tasks that are not there.
    """

    url: str = ""
    auth: CallbackAuth = "none"
    user: str = ""
    secret: str = ""
    tasks_per_call: int = 1
    retry_seconds: float = 1.0
    timeout_seconds: float = 10.0
    names: bool = True
    lost: Share = 0.0
    twice: Share = 0.0
    late: Share = 0.0
    late_seconds: float = 30.0
    forged: Share = 0.0
    untrue: Share = 0.0
    seed: int = 0


class JournalSettings(Section, frozen=True):
    """Where the journal goes, and the dotted paths at which a task's marker stands: the first one present counts."""

    path: Path | None = None
    marker: tuple[str, ...] | str = ("data.id", "data.client_batch_id", "name")


class Tls(Section, frozen=True):
    """Serve by TLS, with a certificate of an authority that is made for it; `authority`: the file that gets its own.

    trusted      by whom the authority is trusted    expired      it ended yesterday
    self_signed  nobody stands behind it             other_host   it is for another name
    """

    certificate: Literal["trusted", "expired", "self_signed", "other_host"] = "trusted"
    authority: Path | None = None


class Project(Section, frozen=True):
    """A project that exists, and the file with the JSON Schema that its tasks must satisfy."""

    id: int
    schema: Path | None = None


class Behaviour(Section, frozen=True):
    """Everything that a sandbox can be told. With no `projects`, every project id exists.

    `clock_skew_seconds`: so far the `Date` of its answers is ahead of this machine's clock, or behind it.

    `cancel` "lie" is accepted, and stops nothing: neither tasks that are being created, nor a late release.
    """

    service: ServiceKind = "sama"
    access_keys: tuple[str, ...] = ("sandbox-key",)
    projects: tuple[Project, ...] = ()
    seed: int = 0
    clock_skew_seconds: float = 0.0
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
    tls: Tls | None = None
    latency: dict[str, Latency] = field(default_factory=dict)
    failures: tuple[FailureRule, ...] = ()
    refusals: tuple[RefusalRule, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    faults: tuple[Fault, ...] = ()
    sama: SandboxSama = SandboxSama()
    sevenbridges: SandboxPlatform = SandboxPlatform()
    bulk: SandboxBulk = SandboxBulk()


def load_behaviour(path: Path) -> Behaviour:
    """Read a behaviour file; paths in it are relative to the file. Raise BehaviourError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BehaviourError(f"cannot read the behaviour file {path}: {error}") from error
    return parse_behaviour(text, base=path.parent)


def parse_behaviour(text: str, base: Path = Path()) -> Behaviour:
    """Read behaviour from TOML text. Raise BehaviourError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BehaviourError(f"the behaviour file is not TOML: {error}") from error
    complaints: list[str] = []
    said = table_of(Behaviour, table, "", complaints)
    if said is None:
        raise BehaviourError("\n".join(complaints))

    def rooted(path: Path | None) -> Path | None:
        return path and base / path

    projects = tuple(replace(project, schema=rooted(project.schema)) for project in said.projects)
    tls = said.tls and replace(said.tls, authority=rooted(said.tls.authority))
    return replace(said, projects=projects, journal=replace(said.journal, path=rooted(said.journal.path)), tls=tls)


def unknown_name(what: str, name: str, known: Iterable[str]) -> BehaviourError:
    """Word the error for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return BehaviourError(f"unknown {what} {name!r}: {hint}")
