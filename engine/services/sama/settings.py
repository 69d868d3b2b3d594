"""The keys of `[service]` with `kind = "sama"`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from engine.model.settings import ServiceSettings


class SamaSettings(ServiceSettings):
    """`[service]` with `kind = "sama"`."""

    kind: Literal["sama"]
    base_url: str = "https://api.sama.com/v2"
    project_id: Annotated[int, Field(ge=0, lt=2**63)]
    access_key: SecretStr
    mode: Literal["presigned", "inline"] = "presigned"
    notification_email: str | None = None
    """Told by the service when a batch's creation has finished."""
    tasks_file_name: str | None = None
    """The name people see for the upload; the job's name where left out."""
    upload_hosts: tuple[str, ...] = ("*.amazonaws.com",)
    """Hosts to which `tasks_put_url` may point, besides the service's own when it is on loopback."""
    task_schema: Path | None = None
    """The project's JSON Schema of a task (`/schemas/create_task.json`), to find bad tasks before they are sent."""
    max_tasks_per_batch: Annotated[int, Field(ge=1)] = 1000
    """The vendor's limit, should it change."""

    def secret_query(self) -> Mapping[str, SecretStr]:
        """The key travels in the query of every API call."""
        return {"access_key": self.access_key}

    def allowed_upload_hosts(self) -> Sequence[str]:
        """Presigned URLs point to S3."""
        return self.upload_hosts
