"""Tasks as the service shows them in, warnings for people out where it does the unexpected: each thing once a run."""

from __future__ import annotations

from engine.progress.events import Listener, Noticed
from engine.services.sevenbridges.answers import KNOWN, Task


class Notices:
    """Warns of what the engine has to guess about, and of what its search for drafts cannot do without."""

    def __init__(self, emit: Listener) -> None:
        self._emit = emit
        self._said: set[str] = set()

    def status(self, task: Task) -> None:
        """Warn of a status that nobody here has heard of."""
        if task.status not in KNOWN:
            self._say(
                f"status {task.status}",
                f"task {task.id} has the status {task.status}, which is not among those that Seven Bridges documents; "
                "it is taken for started, and for ended once it has an end_time",
            )

    def description(self, task: Task, marker: str) -> None:
        """Warn of a draft whose description came back without the marker that it was sent with."""
        if marker not in task.description:
            self._say(
                "description",
                f"the description of task {task.id} has lost the marker at its end ({marker}): the service may cut "
                "long ones. If the creation of such a draft is not answered, it is not found again and is made twice; "
                "shorten the descriptions",
            )

    def _say(self, about: str, text: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._emit(Noticed(text))
