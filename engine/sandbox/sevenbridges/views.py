"""Tasks, files and apps enter, the vendor's form of them leaves: each field by its name, only those that are wanted."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import orjson

from engine.sandbox.sevenbridges.answers import time_text
from engine.sandbox.sevenbridges.folders import File
from engine.sandbox.sevenbridges.settings import App, SandboxPlatform
from engine.sandbox.sevenbridges.tasks import TERMINAL, SevenBridgesTask, Status

SHORT_TASK = ("href", "id", "name", "project")  # of a list without `fields`; from memory of the vendor's pages
SHORT_FILE = SHORT_TASK
SHORT_APP = ("href", "id", "name", "project", "revision")
_MESSAGES = {Status.DRAFT: "", Status.COMPLETED: "Done", Status.FAILED: "Task failed", Status.ABORTED: "Task aborted"}
_DOLLARS_AN_HOUR = 0.4  # of one instance, about; a parent costs what it does itself
_COUNTED = {
    "queued": (Status.DRAFT, Status.CREATING, Status.QUEUED),
    "running": (Status.RUNNING, Status.ABORTING),
    "completed": (Status.COMPLETED,),
    "failed": (Status.FAILED,),
    "aborted": (Status.ABORTED,),
}


@dataclass(frozen=True, slots=True)
class View:
    """How answers to one request show things: addresses below `base_url`, times up to `now`."""

    base_url: str
    settings: SandboxPlatform
    now: float

    @property
    def user(self) -> str:
        """Who has created everything."""
        return self.settings.user

    def status(self, task: SevenBridgesTask) -> str:
        """Return the word for where a task stands."""
        return self.settings.unwritten.status_words.get(task.status, task.status)

    def file_type(self, file: File) -> str:
        """Return the word for what a file is."""
        return file.type.upper() if self.settings.unwritten.file_types == "upper" else file.type

    def task(self, task: SevenBridgesTask, names: Iterable[str]) -> dict[str, object]:
        """Show a task."""
        return {name: TASK_FIELDS[name](task, self) for name in names}

    def file(self, file: File, names: Iterable[str]) -> dict[str, object]:
        """Show a file."""
        return {name: FILE_FIELDS[name](file, self) for name in names}

    def app(self, app: App, names: Iterable[str]) -> dict[str, object]:
        """Show an app."""
        return {name: APP_FIELDS[name](app, self) for name in names}

    def project(self, project: str) -> dict[str, object]:
        """Show a project."""
        name = project.rsplit("/", 1)[1]
        return {"href": f"{self.base_url}/projects/{project}", "id": project, "name": name, "type": "v2", "tags": []}

    def details(self, task: SevenBridgesTask) -> dict[str, object]:
        """Show how a task was executed: as one job."""
        job: Mapping[str, object] = {
            "name": task.draft.app.rsplit("/", 2)[-2],
            "status": {Status.COMPLETED: "DONE", Status.RUNNING: "RUNNING"}.get(task.status, "FAILED"),
            "start_time": time_text(task.running_at),
            "end_time": time_text(task.ended_at),
            "command_line": "true",
            "retried": False,
            "instance": {"id": "sandbox", "type": "c4.2xlarge", "provider": "AWS"},
            "docker": {"checksum": ""},
            "logs": {},
        }
        return {
            "href": f"{self.base_url}/tasks/{task.id}/execution_details",
            "start_time": time_text(task.run_at),
            "end_time": time_text(task.ended_at),
            "status": self.status(task),
            "message": _message(task),
            "jobs": [] if task.running_at is None or task.children else [job],
        }


def _execution_status(task: SevenBridgesTask, view: View) -> dict[str, object]:
    if task.counts is not None:
        children = {word: sum(task.counts[status] for status in counted) for word, counted in _COUNTED.items()}
        return {"message": _message(task), **children}
    if task.run_at is None:
        return {}
    end = view.now if task.ended_at is None else task.ended_at
    queued = (end if task.running_at is None else task.running_at) - task.run_at
    running = 0.0 if task.running_at is None else end - task.running_at
    return {
        "steps_completed": int(task.status is Status.COMPLETED),
        "steps_total": 1,
        "message": _message(task),
        "message_code": f"task_{task.status.lower()}",
        "system_limit": False,
        "account_limit": False,
        "instance_init": False,
        "queued_duration": _milliseconds(queued),
        "running_duration": _milliseconds(running),
        "execution_duration": _milliseconds(running),
        "duration": _milliseconds(queued + running),
    }


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _message(task: SevenBridgesTask) -> str:
    return task.message or _MESSAGES.get(task.status, task.status.capitalize())


def _price(task: SevenBridgesTask, _: View) -> dict[str, object] | None:
    if task.status not in TERMINAL:
        return None
    ran = 0.0 if task.running_at is None or task.ended_at is None else task.ended_at - task.running_at
    return {"amount": round(ran / 3600 * _DOLLARS_AN_HOUR, 6), "currency": "USD"}


def _app_inputs(app: App, _: View) -> dict[str, object]:
    inputs = [{"id": f"#{one.id}", "type": [one.type] if one.required else ["null", one.type]} for one in app.inputs]
    return {"class": "Workflow", "id": f"{app.id}/{app.revision}", "inputs": inputs, "outputs": []}


TASK_FIELDS: Mapping[str, Callable[[SevenBridgesTask, View], object]] = {
    "href": lambda task, view: f"{view.base_url}/tasks/{task.id}",
    "id": lambda task, _: task.id,
    "name": lambda task, _: task.draft.name,
    "status": lambda task, view: view.status(task),
    "description": lambda task, _: task.draft.description,
    "project": lambda task, _: task.draft.project,
    "app": lambda task, _: task.draft.app,
    "type": lambda *_: "v2",
    "created_by": lambda _, view: view.user,
    "executed_by": lambda task, view: view.user if task.run_at is not None else None,
    "created_time": lambda task, _: time_text(task.created_at),
    "start_time": lambda task, _: time_text(task.run_at),
    "end_time": lambda task, _: time_text(task.ended_at),
    "batch": lambda task, _: task.draft.batching is not None,
    "batch_by": lambda task, _: task.draft.batching.by() if task.draft.batching else None,
    "batch_input": lambda task, _: task.draft.batching.input if task.draft.batching else None,
    "batch_group": lambda task, _: task.group,
    "parent": lambda task, _: task.parent.id if task.parent else None,
    "execution_status": _execution_status,
    "errors": lambda task, _: task.errors,
    "warnings": lambda *_: [],
    "price": _price,
    "inputs": lambda task, _: orjson.Fragment(task.draft.inputs),
    "outputs": lambda *_: {},
    "execution_settings": lambda task, _: task.draft.execution_settings or {},
    "output_location": lambda task, _: task.draft.output_location,
    "use_interruptible_instances": lambda task, _: task.draft.interruptible,
    "origin_id": lambda *_: None,
}
FILE_FIELDS: Mapping[str, Callable[[File, View], object]] = {
    "href": lambda file, view: f"{view.base_url}/files/{file.id}",
    "id": lambda file, _: file.id,
    "name": lambda file, _: file.name,
    "project": lambda file, _: file.project,
    "type": lambda file, view: view.file_type(file),
    "parent": lambda file, _: file.parent or None,
    "size": lambda *_: 0,
    "metadata": lambda file, _: dict(file.metadata),
    "tags": lambda *_: [],
}
APP_FIELDS: Mapping[str, Callable[[App, View], object]] = {
    "href": lambda app, view: f"{view.base_url}/apps/{app.id}/{app.revision}",
    "id": lambda app, _: f"{app.id}/{app.revision}",
    "name": lambda app, _: app.id.rsplit("/", 1)[1],
    "project": lambda app, _: app.id.rsplit("/", 1)[0],
    "revision": lambda app, _: app.revision,
    "raw": _app_inputs,
}
