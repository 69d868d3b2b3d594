"""Recipes that a child can take from here, and workers that need no process."""

import os
import signal
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from engine.batch.mapping import Mapper
from engine.batch.planning import plan_batches
from engine.model.batch import Limits
from engine.model.errors import SourceChanged
from engine.model.settings import MappingSettings, SourceSettings
from engine.source.reader import SEGMENT_BYTES, WINDOW_BYTES


def no_bad_values(task):
    return "bad is no value" if task.get("a") == "bad" else None


@dataclass(frozen=True)
class Recipe:
    """Plans sources; a row whose `a` is "bad" is refused."""

    sources: tuple
    settings: SourceSettings = SourceSettings()  # noqa: RUF009 - it is frozen
    limits: Limits = Limits(1000, 1 << 22)  # noqa: RUF009 - it is frozen
    window_bytes: int = WINDOW_BYTES
    segment_bytes: int = SEGMENT_BYTES

    @property
    def mapper(self):
        return Mapper(MappingSettings(), no_bad_values)

    def __call__(self):
        return self.plan

    def plan(self, segment):
        return plan_batches(
            self.sources,
            self.settings,
            self.mapper,
            self.limits,
            start=segment.start,
            sequence=segment.sequence,
            stop=segment.stop,
            window_bytes=self.window_bytes,
            segment_bytes=self.segment_bytes,
        )


@dataclass(frozen=True)
class Broken(Recipe):
    """Plans, and then fails in a way."""

    way: str = ""

    def plan(self, segment):
        yield replace(next(super().plan(segment)), last=False)
        if self.way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "changed":
            raise SourceChanged("tasks.ndjson ends at byte 5")
        raise ZeroDivisionError("a mistake")


@dataclass(frozen=True)
class Told(Recipe):
    """Tells by an error what the process has from its parent."""

    def plan(self, segment):
        raise SourceChanged(f"{sorted(os.environ)} {os.getpgid(0) == os.getpid()} {os.getpid()}")


@dataclass(frozen=True)
class Endless(Recipe):
    """Has always one more plan."""

    def plan(self, segment):
        while True:
            yield replace(next(super().plan(segment)), last=False)


class Here:
    """A worker in this process."""

    def __init__(self, recipe):
        self._planner = recipe()
        self._asked = deque()

    def tell(self, segment):
        self._asked.append(segment)

    def plans(self):
        return self._planner(self._asked.popleft())


@dataclass(frozen=True)
class Killed(Recipe):
    """Plans, and kills its process in the midst of a segment, so many times: each leaves a file in `folder`."""

    folder: str = ""
    times: int = 1

    def plan(self, segment):
        left = len(list(Path(self.folder).iterdir()))
        for plan in super().plan(segment):
            if segment.start.offset and left < self.times:
                Path(self.folder, f"{left}-{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield plan
