"""The keys of `[service]` with `kind = "sevenbridges"` in, where to call and what tasks have by default out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import force_setattr

from engine.model.error_hints import Blame, Pause, Refusal
from engine.model.record import Row, has_json_form
from engine.model.settings import Question, SecretStr, ServiceSettings, json_of


class Platform(Struct, frozen=True):
    """One of the vendor's sites."""

    api: str
    pages: str
    """Where people look at tasks: `<pages>/u/<owner>/<project>/tasks/<id>/`."""


PLATFORMS: Mapping[str, Platform] = {
    "us": Platform("https://api.sbgenomics.com/v2", "https://igor.sbgenomics.com"),
    "eu": Platform("https://eu-api.sbgenomics.com/v2", "https://eu.sbgenomics.com"),
    "cgc": Platform("https://cgc-api.sbgenomics.com/v2", "https://cgc.sbgenomics.com"),
    "cavatica": Platform("https://cavatica-api.sbgenomics.com/v2", "https://cavatica.sbgenomics.com"),
    "biodatacatalyst": Platform(
        "https://api.sb.biodatacatalyst.nhlbi.nih.gov/v2", "https://platform.sb.biodatacatalyst.nhlbi.nih.gov"
    ),
}
"""The vendor's documentation of its APIs; the pages of tasks as people cite them in public repositories."""

MAINTENANCE = 0
UNAUTHORIZED = 90001
PROJECT_CODES = frozenset({"3001", "3002"})
APP_CODES = frozenset({"6001", "6002", "6011"})
NO_PRIVILEGE = 7001
"""Codes of the vendor's error bodies. What is said of a project or an app is said of all tasks that go there."""
_OF_A_THING = (5, 7)
"""Thousands of the codes about files and tasks: about what a call names, and that differs from record to record."""

MAINTENANCE_SECONDS = 30.0
"""Between two questions whether it is over; the vendor's own client waits 300."""

SPEC_KEYS = (
    *("name", "description", "project", "app", "inputs", "batch", "batch_input", "batch_by"),
    *("use_interruptible_instances", "execution_settings", "output_location"),
)
"""What a task spec may hold: the vendor's page "Create a new draft task", and `output_location` of its API reference.
Each may also stand in `[service]`, as the default of specs that lack it."""


def _address(name: str) -> str:
    if name in PLATFORMS:
        return PLATFORMS[name].api
    if "://" not in name:
        near = get_close_matches(name, PLATFORMS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(PLATFORMS)}"
        raise ValueError(f"base_url: {name!r} is neither a URL nor the name of a platform; {hint}")
    return name.rstrip("/")


class SevenBridgesSettings(ServiceSettings, frozen=True, kw_only=True):
    """`[service]` with `kind = "sevenbridges"`."""

    MENDABLE: ClassVar[frozenset[str]] = frozenset({"base_url", "auth_token"})
    MENDABLE_UNSENT: ClassVar[frozenset[str]] = frozenset({"project", "app"})

    QUESTIONS: ClassVar[Sequence[Question]] = (
        Question("base_url", f"Platform: {', '.join(PLATFORMS)}, or a URL", "us"),
        Question("auth_token", "Variable of the environment that holds the token", "SB_AUTH_TOKEN"),
        Question("project", "Project, as owner/project"),
        Question("app", "App, as owner/project/app"),
        Question("run", "Run each draft once it is created", "no"),
    )

    kind: Literal["sevenbridges"]
    """This service."""
    base_url: str = PLATFORMS["us"].api
    """`us`, `eu`, `cgc`, `cavatica`, `biodatacatalyst`, or a URL; plain http only towards this machine."""
    auth_token: SecretStr
    """Travels in `X-SBG-Auth-Token`, to the service's own origin only."""
    run: bool = False
    """Run each draft once it is created."""
    until: Literal["created", "finished"] = "created"
    """When a record counts as done: `created`, when its task exists, and of a batch task its children; `finished`, when
    it has ended. `--until` overrides it."""
    name: str | None = None
    """Name of tasks that have none of their own; likewise the next keys."""
    description: str | None = None
    """Description of tasks; our client reference is put behind it."""
    project: str | None = None
    """Project of tasks, as `owner/project`."""
    app: str | None = None
    """App of tasks, as `owner/project/app`."""
    inputs: dict[str, Any] | None = None
    """Inputs of tasks; of these, a spec lacks what its own inputs do not name."""
    batch: bool | None = None
    """False: no batch task, although the app makes one by itself."""
    batch_input: str | None = None
    """Input by whose files a batch task is divided."""
    batch_by: dict[str, Any] | None = None
    """How it is divided: `type` is `ITEM` or `CRITERIA`, with `criteria` as a list of fields."""
    use_interruptible_instances: bool | None = None
    """Whether tasks may run on instances that can be taken away."""
    execution_settings: dict[str, Any] | None = None
    """How tasks run, as the vendor's API takes it."""
    output_location: dict[str, Any] | None = None
    """Where outputs go, as the vendor's API takes it."""

    def __post_init__(self) -> None:
        force_setattr(self, "base_url", _address(self.base_url))
        for key in ("inputs", "batch_by", "execution_settings", "output_location"):
            if not has_json_form(getattr(self, key)):
                raise ValueError(f"{key}: {getattr(self, key)!r} holds what is no JSON value; put it into quotes")

    def error_hint(self, status: int, body: bytes) -> Pause | Refusal | None:
        """Tell maintenance (503, code 0) from an outage, and what names a project, an app or a thing from the rest."""
        said = json_of(body)
        code = said.get("code") if isinstance(said, dict) else None
        if type(code) is not int:
            return None
        if status == HTTPStatus.SERVICE_UNAVAILABLE and code == MAINTENANCE:
            # Seen, too, for hundreds of names in one call for files (sevenbridges-python, issue 112).
            return Pause(MAINTENANCE_SECONDS, "the platform is under maintenance", or_too_much=True)
        if code == UNAUTHORIZED or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        reason = f"status {status}, code {code}"
        if code // 1000 in _OF_A_THING and code != NO_PRIVILEGE:
            return Refusal(reason, Blame.RECORDS)
        if status == HTTPStatus.FORBIDDEN or str(code) in PROJECT_CODES | APP_CODES:
            return Refusal(reason, Blame.JOB)
        return None

    def speaks(self, body: bytes) -> bool:
        """Tell the vendor's `{"status", "code", "message", "more_info"}` from what stands in between."""
        said = json_of(body)
        return isinstance(said, dict) and "code" in said and "message" in said

    @property
    def place(self) -> str:
        """Tasks go to a project."""
        return self.project or ""

    def secret_headers(self) -> Mapping[str, SecretStr]:
        """The token travels in the vendor's own header."""
        return {"X-SBG-Auth-Token": self.auth_token}

    def defaults(self) -> Row:
        """Return what specs get that lack it."""
        values = {key: getattr(self, key) for key in SPEC_KEYS}
        return {key: value for key, value in values.items() if value is not None}

    def task_url(self, project: str | None, task_id: str) -> str:
        """Return the page of a task; of a service that is no platform, or without its project, its address."""
        pages = next((one.pages for one in PLATFORMS.values() if one.api == self.base_url), None)
        return (
            f"{pages}/u/{quote(project)}/tasks/{task_id}/" if pages and project else f"{self.base_url}/tasks/{task_id}"
        )
