"""A job whose service's answers are spoilt, one after the other, in made-up time; then one whose answers are right.

The whole engine works, behind the sandbox of `torture.faults.worlds`, whose journal judges: what exists is not called
failed, and nothing exists twice. Beyond that nothing of ours may break, hang, or tell a secret that an answer held.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from msgspec.structs import replace

import engine
from engine.commands.result import Result
from engine.model.errors import BulkSubmitError, Exit, JobError
from engine.model.job import JobState
from engine.progress.events import Event
from engine.run.context import Stop
from engine.sandbox.behaviour import CreationPace, FailureRule, Fault, parse_behaviour
from engine.services.base import Answer
from torture.faults.judge import Judge, lines
from torture.faults.ways import BRIDGES, INLINE, MARKED, PRESIGNED, SECRETS, Way
from torture.faults.worlds import JOB, MOST_RUNS, PAUSE_SECONDS, Plan, _World

from .mutations import CANARY, KEY, SIGNED, mutated

WAYS = [PRESIGNED, PRESIGNED, INLINE, MARKED, BRIDGES, BRIDGES]
GIVE_UP_SECONDS = 600.0
MOST_SECONDS = 2 * GIVE_UP_SECONDS
"""Of a run: a batch may be in doubt for some time before it is followed."""
SPOILT_RUNS = 3
REAL_SECONDS = 60.0


@dataclass
class Fuzzed:
    """What became of a job."""

    seed: int
    way: Way
    mutations: int = 0
    longest_seconds: float = 0.0
    """Of a run, by the clock."""
    complaints: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    """Of the calls whose answers were spoilt."""
    created: int = 0
    records: int = 0
    uncertain: int = 0

    def __str__(self) -> str:
        again = f"BULKSUBMIT_SEED={self.seed} pytest tests/torture/answers plays it again"
        return "\n".join([f"seed {self.seed}, {self.way}, {self.mutations} mutations", *self.complaints, again])


def drawn(seed: int) -> Plan:
    """Draw a service whose errors can be read, too."""
    draw = random.Random(seed)
    way = draw.choice(WAYS)
    faults = tuple(
        Fault(
            draw.choice(_CALLS[way.service]), draw.choice(["refuse", "html", "drop_after"]), share=0.1, seed=seed + at
        )
        for at in range(draw.randint(0, 2))
    )
    faults = tuple(replace(one, status=draw.choice([400, 422, 500, 502, 503, 504])) for one in faults)
    failures = (FailureRule(share=0.2, seed=seed, message=f"no {SIGNED}"),) if draw.random() < 0.5 else ()
    behaviour = replace(
        parse_behaviour(way.behaviour),
        seed=seed,
        creation=CreationPace(tasks_per_second=draw.choice([0, 5])),
        faults=faults,
        failures=failures,
    )
    return Plan(seed, way, draw.randint(4, 12), behaviour, ())


def _fault(draw: random.Random, way: Way, seed: int) -> Fault:
    call, kind = draw.choice(_CALLS[way.service]), draw.choice(["refuse", "html", "drop_after"])
    return Fault(call, kind, share=0.1, seed=seed, status=draw.choice([400, 422, 500, 502, 503, 504]))


_CALLS = {"sama": ["create", "put", "continue", "status"], "sevenbridges": ["create", "run", "get"]}


def fuzz(seed: int, folder: Path) -> Fuzzed:
    """Play a job to its end, and judge it."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        world = FuzzedWorld(seed, folder)
        for target, name, value in world.made_up():
            stack.enter_context(patch.object(target, name, value))
        stack.enter_context(patch.dict("os.environ", SECRETS))
        state = random.getstate()
        stack.callback(random.setstate, state)
        random.seed(seed)
        runner.run(world.fuzz())
    return world.fuzzed


class FuzzedWorld(_World):
    """The same world, but its answers are spoilt."""

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(drawn(seed), folder)
        self.fuzzed = Fuzzed(seed, self.plan.way, records=len(self.markers))
        self.said: list[str] = []
        """All that was told while it ran."""
        self._draw = random.Random(seed)
        self._share = self._draw.choice([0.1, 0.5, 0.9])

    async def send(self, request):
        answer = await super().send(request)
        if isinstance(answer, Answer) and self._draw.random() < self._share:
            self.fuzzed.mutations += 1
            self.fuzzed.kinds.add(request.call.kind)
            return mutated(answer, self._draw)
        return answer

    async def _go_on(self, stop: Stop) -> Result:
        """Listen besides: what the displays and the log are told."""
        try:
            return await engine.resume(JOB, self._ledger, self._note, stop=stop)
        except JobError as error:
            if "no job" not in str(error) and "no ledger" not in str(error):
                raise
        output = self._folder / "out"
        return await engine.submit(
            self._source, self._config, self._ledger, self._note, stop=stop, job=JOB, output=output
        )

    def _note(self, event: Event) -> None:
        self.said.append(repr(event))

    async def fuzz(self) -> None:
        result = await self._runs()
        await self._sandbox.come_to_rest()
        if result is None or result.state != JobState.FINISHED:
            self.fuzzed.complaints.append(f"it does not end: {result and result.message}")
        else:
            self.fuzzed.complaints += self._judge(result)
        self.fuzzed.complaints += self._told()

    async def _runs(self):
        result = None
        for number in range(SPOILT_RUNS + MOST_RUNS):
            if number == SPOILT_RUNS:
                self._share = 0.0
            began = self._clock.elapsed
            try:
                async with asyncio.timeout(REAL_SECONDS):
                    result = await self._live(self._go_on, None)
            except BulkSubmitError as error:
                self.said.append(f"{error!r}")
            seconds = self._clock.elapsed - began
            self.fuzzed.longest_seconds = max(self.fuzzed.longest_seconds, seconds)
            if seconds > MOST_SECONDS:
                self.fuzzed.complaints.append(f"a run took {seconds:.0f} s, and gives up after {GIVE_UP_SECONDS:.0f}")
            if result is not None:
                self.said.append(result.message)
                if result.exit_code == Exit.ERROR:
                    self.fuzzed.complaints.append(f"an error that is none of ours: {result.message}")
                if result.state == JobState.FINISHED:
                    break
            await self._clock.sleep(PAUSE_SECONDS)
        return result

    def _judge(self, result) -> Iterator[str]:
        judge = Judge(self._sandbox.path)
        judge.look()
        outcomes = lines(result.outcomes)
        if len(outcomes) != len(self.markers):
            yield f"the report tells of {len(outcomes)} records, and there are {len(self.markers)}"
        yield from (f"{marker} was created twice, or run twice" for marker in judge.duplicated)
        for outcome, marker in zip(outcomes, self.markers, strict=False):
            created, state = judge.task_ids.get(marker, []), outcome["state"]
            self.fuzzed.created += bool(created)
            self.fuzzed.uncertain += state == "uncertain"
            if state == "failed" and created and not self._is_a_deleted_draft(marker, judge):
                yield f"{marker} is failed ({outcome['error']}), and there is {created}"
            if state == "created" and not created:
                yield f"{marker} is said to be task {outcome['task_id']}, and was never created"

    def _told(self) -> Iterator[str]:
        """Look for the secrets in all that was written and told."""
        written = {str(path): path.read_bytes() for path in self._folder.rglob("*") if self._is_ours(path)}
        written["what was said"] = "\n".join(self.said).encode("utf-8", "replace")
        for name, content in written.items():
            for secret in (CANARY, KEY):
                if (at := content.find(secret.encode())) >= 0:
                    yield f"a secret stands in {name}: {content[max(0, at - 200) : at + 40]!r}"

    def _is_ours(self, path: Path) -> bool:
        return path.is_file() and path != self._sandbox.path
