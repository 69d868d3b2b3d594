"""The keys of `[service]` with `kind = "sama"`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from engine.model.settings import Question, SecretStr, ServiceSettings, json_of


class SamaSettings(ServiceSettings, frozen=True, kw_only=True):
    """`[service]` with `kind = "sama"`."""

    MENDABLE: ClassVar[frozenset[str]] = frozenset({"base_url", "access_key", "upload_hosts", "notification_email"})
    MENDABLE_UNSENT: ClassVar[frozenset[str]] = frozenset({"project_id"})
    PATHS: ClassVar[frozenset[str]] = frozenset({"task_schema"})

    QUESTIONS: ClassVar[Sequence[Question]] = (
        Question("project_id", "Number of the project"),
        Question("access_key", "Variable of the environment that holds the API key", "SAMA_ACCESS_KEY"),
        Question("task_schema", "File with the project's JSON Schema of a task, if you have it", needed=False),
        Question("mode", "How tasks go up: presigned (an upload) or inline", needed=False, asked=False),
        Question("base_url", "Address of the API, of a sandbox say", needed=False, asked=False),
    )

    kind: Literal["sama"]
    """This service."""
    base_url: str = "https://api.sama.com/v2"
    """Where its API is. Plain http only towards this machine."""
    project_id: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    """Number of the project in which tasks are created."""
    access_key: SecretStr
    """Travels to the service's own origin only."""
    mode: Literal["presigned", "inline"] = "presigned"
    """`presigned`: create an empty batch, PUT the tasks, continue it. `inline`: one POST; after a lost answer the batch
    is searched for by `client_batch_id`, where the project's schema has that input (every task without a value gets
    one), and is uncertain otherwise."""
    notification_email: str | None = None
    """Told by the service when a batch's creation has finished."""
    tasks_file_name: str | None = None
    """The name people see for the upload; the job's name where left out."""
    upload_hosts: tuple[str, ...] = ("*.amazonaws.com",)
    """Hosts to which `tasks_put_url` may point, besides the service's own when it is on loopback."""
    task_schema: Path | None = None
    """Path, from this file's folder, of the project's JSON Schema of a task (`/schemas/create_task.json`), to find bad
    tasks before they are sent. Nothing that it refers to is fetched; a pattern that looks ahead or refers back is an
    error."""
    max_tasks_per_batch: Annotated[int, Meta(ge=1)] = 1000
    """The vendor's limit, should it change."""

    @property
    def place(self) -> str:
        """Tasks go to a project."""
        return str(self.project_id)

    def bearing_on_speed(self) -> Mapping[str, Any]:
        """An upload takes three calls a batch, an inline one takes one."""
        return {"mode": self.mode}

    def speaks(self, body: bytes) -> bool:
        """Sama documents `{"errors": [{"type", "message"}]}`; `{"message": …}` alone is how gateways speak."""
        said = json_of(body)
        return isinstance(said, dict) and ("errors" in said or "error" in said)

    def secret_query(self) -> Mapping[str, SecretStr]:
        """The key travels in the query of every API call."""
        return {"access_key": self.access_key}

    def allowed_upload_hosts(self) -> Sequence[str]:
        """Presigned URLs point to S3."""
        return self.upload_hosts
