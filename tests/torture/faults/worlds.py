"""A seed in, a whole world out: a way to submit, a service in all its manners at once, and how processes die in it.

What runs in it is the engine's own: operations, services, caller, ledger. Made up are the socket (the sandbox behind
`fakes.sandbox`) and time, and all runs in step, so that a seed always plays alike. A process that dies reaches neither
service nor disk any more; the next one begins with the ledger's files as they stood.

The service is as unkind as the promises allow: from a call until all reads show it, less than the settle time passes.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import anyio.to_thread
from fakes.clock import FakeClock, Watched, under_way
from fakes.sandbox import InProcessSandbox
from msgspec.structs import replace

import engine
from engine.commands import wiring
from engine.commands.result import Result
from engine.http import caller, receiver
from engine.http.client import Lost
from engine.http.receiver import Receiver
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.model.errors import Exit, Interrupted, JobError
from engine.model.job import JobState
from engine.run.context import Stop
from engine.sandbox.behaviour import Behaviour, Callbacks, CreationPace, Fault, Reads, parse_behaviour
from engine.sandbox.callbacks import Deliveries, Delivery

from .judge import Judge, lines
from .model import InStep, at_once
from .tally import Tally
from .ways import ASK, BRIDGES, MARKED, SCHEMA, SECRETS, WAYS, Way

JOB = "j"
NIGHT = "night"
SETTLE_SECONDS = 120.0
LATE_SECONDS = [3.0, 20.0, 60.0]
LAG_SECONDS = [0.0, 0.0, 2.0, 10.0, 30.0]
"""The longest of each, and the way of a call, are together less than the settle time."""
SWALLOWED = 0.15
"""Share of the worlds in which the service accepts a call and forgets it."""
QUIET = 0.4
"""Share of the worlds of Sama without callbacks."""
TICK_SECONDS = 1.0
"""So often the service does beside requests what is due, where it calls back."""
MOST_RUNS = 40
"""After the last death; each run ends by itself, and as often as that a service may be gone."""
MOST_IN_VAIN = 3
"""Runs that leave as much uncertain as the ones before: what they sent again may have been lost again."""
PAUSE_SECONDS = 300.0
"""From the end of a run to the next one."""
SEND = "give_up_seconds = 600"
WAITING = re.compile("still says (waiting|Open)")
"""Of a run that ends because nothing moves."""


class Dead(Exception):
    """The process does not live any more."""


@dataclass(frozen=True)
class Death:
    """Ends a process: at the n-th request that the service has handled, the n-th durable step, or after so long."""

    at: str
    """request, before a step, after a step, time; or signal: at a time, in order"""
    number: float


@dataclass(frozen=True)
class Plan:
    """All that is drawn of a world."""

    seed: int
    way: Way
    batches: int
    behaviour: Behaviour
    deaths: tuple[Death, ...]
    canceled_at: int | None = None
    """After which death a person has the job canceled."""
    settle_seconds: float = SETTLE_SECONDS
    nights: bool = False
    """A job of the same family comes after it, with the same source, and sends what is missing."""
    most_records: int | None = None
    """So many are sent by a run at most."""
    bad: Mapping[int, str] = field(default_factory=dict)
    """Numbers of records that a described service refuses, and how."""
    unknowable: int = 0
    """So many records may be uncertain, though the service can be asked or told again: it lies."""
    most_runs: int = MOST_RUNS
    one_at_a_time: bool = False
    """One batch is under way at most, so that it is known which one meets what."""

    def __str__(self) -> str:
        manner = self.behaviour
        faults = "; ".join(
            f"{one.call} {one.kind}" + (f" {one.seconds:.0f} s" if "late" in one.kind else "") + f" {_how_often(one)}"
            for one in manner.faults
        )
        words = {
            "faults": faults,
            "reads": manner.reads,
            "creation": manner.creation,
            "busy while late": manner.busy_while_late,
            "continue again": manner.continue_again,
            "run again": manner.sevenbridges.run_again,
            "cancel": manner.cancel,
            "callbacks": manner.callbacks if manner.callbacks.url else "none",
            "deaths": ", ".join(f"{one.at} {one.number:g}" for one in self.deaths),
            "canceled after": self.canceled_at,
            "nights": self.nights,
            "most records": self.most_records,
        }
        return f"seed {self.seed}: {self.batches} batches, {self.way}; " + "; ".join(
            f"{name}: {word}" for name, word in words.items()
        )


def _how_often(fault: Fault) -> str:
    return f"of {fault.share:.0%}" if fault.share else f"at {fault.nth}"


def drawn(seed: int, ways: Sequence[Way] = WAYS) -> Plan:
    """Draw a world."""
    draw = random.Random(seed)
    way = draw.choice(ways)
    base = parse_behaviour(way.behaviour)
    reads = Reads(
        status_seconds=draw.choice(LAG_SECONDS),
        single_seconds=draw.choice(LAG_SECONDS),
        list_seconds=draw.choice(LAG_SECONDS),
        new_are_unknown=draw.random() < 0.3,
    )
    delays = [0, 0, 5] if way is MARKED else [0, 0, 5, 200]  # what is not created cannot be found by its mark
    bridges = replace(base.sevenbridges, run_again=draw.choice(["error", "error", "html"]))
    # Drawn of its own, so that the worlds of others stay as they were.
    bulk = replace(base.bulk, start_again=random.Random(-seed).choice(["error", "noop", "duplicate", "html"]))
    deaths = tuple(_death(draw) for _ in range(draw.choice([0, 1, 1, 2, 3, 5])))
    canceled_at = draw.randint(0, len(deaths)) if draw.random() < 0.15 else None
    behaviour = replace(
        base,
        seed=seed,
        busy_while_late=draw.random() < 0.4,
        continue_again=draw.choice(["error", "noop", "duplicate", "duplicate", "html"]),
        # A batch that says canceled and is created all the same: what a canceled job says of it cannot be right.
        cancel=draw.choice(["accept", "refuse", "lie" if canceled_at is None else "accept"]),
        creation=CreationPace(tasks_per_second=draw.choice([0, 1, 20]), delay_seconds=draw.choice(delays)),
        reads=reads,
        faults=tuple(_faults(draw, way)),
        sevenbridges=bridges,
        bulk=bulk,
    )
    most_records = 2 * way.batch - 1 if seed % 4 == 1 else None  # whatever is in doubt is no more than that
    batches = draw.randint(1, 12)
    behaviour = replace(behaviour, callbacks=_callbacks(draw, way))
    return Plan(seed, way, batches, behaviour, deaths, canceled_at, nights=seed % 3 == 0, most_records=most_records)


def _callbacks(draw: random.Random, way: Way) -> Callbacks:
    if way.service != "sama" or draw.random() < QUIET:
        return Callbacks()
    shares = {name: draw.choice([0.0, 0.1, 0.5]) for name in ("lost", "twice", "late", "untrue", "forged")}
    late_seconds, together, names = draw.choice([1.0, 30.0, 300.0]), draw.choice([1, 3]), draw.random() < 0.7
    return Callbacks(
        "made up",
        tasks_per_call=together,
        names=names,
        late_seconds=late_seconds,
        seed=draw.randint(0, 10**6),
        **shares,
    )


RELEASES = {"sama": ["continue", "create"], "sevenbridges": ["create", "run"]}
PLAIN = ["refuse", "refuse_after", "drop_before", "drop_after", "html"]
LATE = ["drop_late", "drop_late", "refuse_late", "html_late", "act_later"]


def _faults(draw: random.Random, way: Way):
    releases = way.releases or RELEASES[way.service]
    for number in range(draw.randint(1, 4)):
        kind = draw.choice([*PLAIN, *LATE])
        call = draw.choice(["all", *releases] if kind in PLAIN else releases)
        often = {"share": draw.choice([0.1, 0.3])} if draw.random() < 0.7 else {"nth": (draw.randint(1, 6),)}
        # A 503 of Seven Bridges is maintenance, in which nothing is done: nobody can guard against a lie in that.
        status = draw.choice([500, 502, 504] if way is BRIDGES else [500, 502, 503, 504])
        seconds = draw.choice(LATE_SECONDS)
        yield Fault(call, kind, seed=1000 * draw.randint(1, 10**6) + number, status=status, seconds=seconds, **often)
    # Of a described service, one whose word can be tested: what a job does is seen, and what a call created is not.
    if draw.random() < SWALLOWED and (way.service != "bulk" or way is ASK):
        yield Fault(draw.choice(releases), "swallow", nth=(draw.randint(1, 6),))


def _death(draw: random.Random) -> Death:
    at = draw.choice(["request", "request", "before a step", "after a step", "time", "signal"])
    if at in {"time", "signal"}:
        return Death(at, draw.choice([draw.uniform(0, 5), draw.uniform(0, 300)]))
    return Death(at, draw.randint(1, 30))


@dataclass
class Played:
    """What became of a world."""

    plan: Plan
    tally: Tally
    runs: int
    last: Result
    complaints: list[str]
    heard: int
    """Callbacks that were taken."""
    history: list[tuple[float, str, int | None]]
    """(time, kind, status) of each request that the service handled; None: its connection broke."""

    def __str__(self) -> str:
        said = [f"{self.plan}", f"{self.runs} runs, the last: exit {self.last.exit_code} {self.last.message}"]
        again = f"BULKSUBMIT_SEED={self.plan.seed} pytest tests/torture/faults/test_worlds.py plays it again"
        return "\n".join([*said, *self.complaints, again])


def play(plan: Plan, folder: Path) -> Played:
    """Play a world to its end and judge it by the service's own journal."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        world = _World(plan, folder)
        for target, name, value in world.made_up():
            stack.enter_context(patch.object(target, name, value))
        stack.enter_context(patch.dict("os.environ", SECRETS))
        state = random.getstate()
        stack.callback(random.setstate, state)
        random.seed(plan.seed)
        return runner.run(world.play())


@asynccontextmanager
async def _remote_status_still(clock, manager):
    """Let no time pass while something is opened or closed in a thread."""
    async with AsyncExitStack() as stack:
        with clock.stopped():
            opened = await stack.enter_async_context(manager)
        try:
            yield opened
        finally:
            with clock.stopped():
                await stack.aclose()


class _World:
    """Survives every process."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self._folder = folder
        self._clock = FakeClock()
        (folder / "schema.json").write_bytes(SCHEMA)
        projects = tuple(
            replace(one, schema=folder / "schema.json" if one.schema else None) for one in plan.behaviour.projects
        )
        self._calls_back = bool(plan.behaviour.callbacks.url)
        self._deliveries = Deliveries(plan.behaviour.callbacks)
        self._on_their_way: set[asyncio.Task] = set()
        self._receiver: Receiver | None = None
        self.heard = 0
        self._sandbox = InProcessSandbox(
            replace(plan.behaviour, projects=projects),
            self._clock,
            folder,
            report=self._report if self._calls_back else None,
        )
        self._config, self._source = folder / "engine.toml", folder / "tasks.ndjson"
        send = SEND + ("\nmax_in_flight = 1\nmax_open_batches = 1" if plan.one_at_a_time else "")
        plan.way.write_config(
            self._config, 8800, settle_seconds=plan.settle_seconds, send=send, poll_seconds=1, max_poll_seconds=20
        )
        if self._calls_back:
            with self._config.open("a") as config:
                config.write('\n[callback]\ntoken = "${env:CALLBACK_TOKEN}"\n')
        self.markers = plan.way.write_tasks(self._source, "w", plan.batches, plan.bad)
        self._bad = {self.markers[number] for number in plan.bad}
        self._life = 0
        self._death: Death | None = None
        self._dead = False
        self._requests = self._steps = 0
        self._work: asyncio.Task | None = None
        self._history: list[tuple[float, str, int | None]] = []
        self._is_canceled = False
        self._canceled_at = plan.canceled_at
        self._job = JOB
        self.kills = self.runs = 0

    def made_up(self):
        """Yield (where, name, what stands there instead): the socket, time, threads and the disk's hooks."""
        open_ledger, clock = SqliteLedger.open, self._clock

        @asynccontextmanager
        async def open_wire(*_, **__):
            yield self

        @asynccontextmanager
        async def open_in_step(path, _, **__):
            hooks = Hooks(before_commit=self._before, on_commit=self._after)
            async with _remote_status_still(clock, open_ledger(path, clock, hooks=hooks)) as ledger:
                InStep(ledger._writer)
                ledger._writer._connection.raw.pragma("synchronous", 0)  # a lost power is another test's matter
                yield Watched(ledger, clock)

        @asynccontextmanager
        async def open_receiver(*parts):
            self._receiver = Receiver(*parts)
            async with under_way(self._receiver.work()), under_way(self._catch_up_again_and_again()):
                yield self._receiver
            self._receiver = None

        yield receiver, "receiving", open_receiver
        yield caller, "open_client", open_wire
        yield SqliteLedger, "open", open_in_step
        yield anyio.to_thread, "run_sync", at_once
        yield secrets, "token_hex", lambda length: "5eed" * (length // 2)
        yield wiring, "CLOCK", clock

    async def play(self) -> Played:
        result = await self._lives(self.plan.deaths)
        tally = Tally(faults=self._sandbox.faults, crashes=self.kills)
        complaints = await self._complaints(result, tally)
        if self.plan.nights:
            self._job, self._is_canceled = NIGHT, False
            self._canceled_at = None
            result = await self._lives([])
            complaints += [f"the night: {one}" for one in await self._complaints(result, Tally())]
        self._sandbox.close()
        return Played(self.plan, tally, self.runs, result, complaints, self.heard, self._history)

    async def _complaints(self, result: Result, tally: Tally) -> list[str]:
        """Return what is wrong with a job that has come to its end."""
        await self._sandbox.calm_down()
        audit = await engine.audit(self._job, self._ledger)
        complaints = self._judged(result, tally)
        if not audit.holds:
            complaints += audit.findings or ["the audit does not hold"]
        if self.plan.way.service == "bulk" and tally.knowable > self.plan.unknowable and not self._is_canceled:
            complaints.append(f"{tally.knowable} records are uncertain, and the service can be asked or told again")
        ends = {JobState.CANCELED} if self._is_canceled else {JobState.FINISHED}
        if result.state not in ends:
            complaints.append(f"it does not end: {result.state}, exit {result.exit_code}: {result.message}")
        return complaints

    async def _lives(self, dying: Sequence[Death]) -> Result:
        """Let processes live and die, and the last ones live until nothing is left to do."""
        deaths: list[Death | None] = [*dying, *[None] * self.plan.most_runs]
        result, in_vain, least = None, 0, math.inf
        for number, death in enumerate(deaths):
            canceled = self._canceled_at is not None and number >= self._canceled_at
            waits = death is None and result is not None and WAITING.search(result.message)
            work = self._cancel if canceled else self._send_again if waits else self._go_on
            result = await self._live(work, death)
            if death is None and result is not None:
                if result.exit_code == Exit.SOME_UNCERTAIN and not self.plan.way.parks and in_vain < MOST_IN_VAIN:
                    # The next run asks the service once more, and about others, if it may not send all.
                    left = result.tally.uncertain
                    in_vain, least = (0, left) if left < least else (in_vain + 1, least)
                elif result.exit_code not in {Exit.STOPPED_EARLY, Exit.ERROR}:
                    break
            await self._clock.sleep(PAUSE_SECONDS if death is None else 0)
        assert result is not None
        return result

    async def _go_on(self, stop: Stop) -> Result:
        limits = engine.RunLimits(max_records=self.plan.most_records)
        try:
            return await engine.resume(self._job, self._ledger, stop=stop, limits=limits)
        except JobError as error:
            if "no job" not in str(error) and "no ledger" not in str(error):
                raise
        family = {"family": "nightly", "delta": True} if self.plan.nights else {}
        order = {"job": self._job, "output": self._folder / f"out-{self._job}-{self._life}", **family}
        return await engine.submit(self._source, self._config, self._ledger, stop=stop, limits=limits, **order)

    async def _send_again(self, stop: Stop) -> Result:
        """Do what a person does who is told that the service does not begin with some batches."""
        return await engine.retry(self._job, self._ledger, stop=stop, uncertain=True)

    async def _cancel(self, stop: Stop) -> Result:
        try:
            result = await engine.cancel(self._job, self._ledger, stop=stop)
        except JobError:  # there is no job yet, or it is finished
            return await self._go_on(stop)
        self._is_canceled = True
        return result

    async def _live(self, work, death: Death | None) -> Result | None:
        """Let a process work until it dies; None if it did."""
        self._death, self._dead, self._requests, self._steps = death, False, 0, 0
        self.runs += 1
        stop = Stop()
        self._work = asyncio.ensure_future(work(stop))
        watch = asyncio.ensure_future(self._end_in_time(stop))
        try:
            return await self._work
        except (asyncio.CancelledError, Exception):
            if not self._dead:
                raise
            self.kills += 1
            return None
        finally:
            watch.cancel()
            self._life += self._dead

    async def _end_in_time(self, stop: Stop) -> None:
        if self._death is None or self._death.at not in {"time", "signal"}:
            return
        await self._clock.sleep(self._death.number)
        if self._death.at == "signal":
            stop.request(Interrupted(15))
        else:
            self._die()

    def _die(self) -> None:
        self._dead = True
        self._leave_behind()
        self._work.cancel()

    # What reaches the outside

    async def send(self, request):
        """Be the wire of a process, until it dies."""
        await self._clock.sleep(0.025)
        if self._dead:
            raise Dead
        answer = await self._sandbox.serve(request)
        status = None if isinstance(answer, Lost) else answer.status
        self._history.append((self._clock.elapsed, request.call.kind, status))
        self._requests += 1
        if self._death == Death("request", self._requests):
            self._die()
            raise Dead
        await self._clock.sleep(0.025)
        if self._dead:
            raise Dead
        return answer

    def _report(self, body: bytes) -> None:
        """Send a callback, or what a fault makes of it; one that is forged gets no further than its proof."""
        for delivery in self._deliveries.of(body):
            if not delivery.forged:
                task = asyncio.ensure_future(self._deliver(delivery))
                self._on_their_way.add(task)
                task.add_done_callback(self._on_their_way.discard)

    async def _deliver(self, delivery: Delivery) -> None:
        await self._clock.sleep(0.025 + delivery.after_seconds)
        if self._receiver is not None:
            self.heard += self._receiver.take(delivery.body).status == 204

    async def _catch_up_again_and_again(self) -> None:
        while True:
            await self._clock.sleep(TICK_SECONDS)
            self._sandbox.catch_up()

    def _before(self, _changes) -> None:
        if self._dead:
            raise Dead
        self._steps += 1
        self._strike("before a step")

    def _after(self, _changes) -> None:
        self._strike("after a step")

    def _strike(self, when: str) -> None:
        if self._death == Death(when, self._steps):
            self._die()
            raise Dead

    @property
    def _ledger(self) -> Path:
        return self._folder / f"life-{self._life}" / "ledger.db"

    def _leave_behind(self) -> None:
        """Give the next life the files as they are: the closing of this one's ledger never happened."""
        target = self._folder / f"life-{self._life + 1}"
        target.mkdir(exist_ok=True)
        for name in ("ledger.db", "ledger.db-wal"):
            if (found := self._ledger.with_name(name)).exists():
                shutil.copyfile(found, target / name)

    # What is judged

    def _judged(self, result: Result, tally: Tally) -> list[str]:
        assert result.outcomes is not None, result.message
        outcomes = lines(result.outcomes)
        judge = Judge(self._sandbox.path)
        if not self._is_canceled and len(outcomes) != len(self.markers):
            return [f"the report tells of {len(outcomes)} records, and there are {len(self.markers)}"]
        if not self._is_canceled:
            canceled_before = self._job == NIGHT and self.plan.canceled_at is not None
            return judge.weigh(
                self.plan.way, outcomes, self.markers, tally, canceled_before=canceled_before, bad=self._bad
            )
        judge.look()
        tally.runs, tally.sent = 1, len(outcomes)
        twice = set(judge.duplicated)
        tally.duplicated = len(twice)
        found = [f"{marker} was created twice, or run twice" for marker in sorted(twice)]
        for outcome, marker in zip(outcomes, self.markers, strict=False):
            created, state = judge.task_ids.get(marker, []), outcome["state"]
            tally.created += bool(created)
            tally.parked += state == "uncertain"
            tally.knowable += state == "uncertain" and not self.plan.way.parks
            if state == "created" and created != [outcome["task_id"]]:
                found.append(f"{marker} is said to be task {outcome['task_id']}, and is {created}")
            if state == "failed" and created and not self._is_a_deleted_draft(marker, judge):
                found.append(f"{marker} is failed ({outcome['error']}), and there is {created}")
        return found

    def _is_a_deleted_draft(self, marker: str, judge: Judge) -> bool:
        """Tell whether what was made was deleted before it was run: the journal has it all the same."""
        return self.plan.way.service == "sevenbridges" and not judge.runs[marker]
