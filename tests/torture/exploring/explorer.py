"""Every way in which a batch in doubt can go, walked with the very function that recovery asks.

`Walk` is one batch, carried as uploader and recovery carry it: its calls go to a service made of values (`worlds`), and
wherever something may happen in more than one way, a `Chooser` decides. `explore` has it decide in every way. A place
that was seen before is not walked again, so the number of places is what bounds the work.

With `leases`, another worker may take the batch over right before or right after any step of it is durable. The first
one is refused from then on, so it is the same to the batch as if it had died.

The bounds: at most 3 lost answers and 2 kills a path, time in quarters of the settle time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from random import Random

from msgspec.structs import replace

from engine.model.doubt import Again, Cancel, Declined, Doubt, RemoteStatus
from engine.model.next_step import Action, next_step
from engine.model.submission import TRANSITIONS, State

from .worlds import SETTLE, Manner, Service

MOST_LOST = 3
MOST_KILLS = 2
GIVE_UP = 2 * SETTLE
"""Quarters in which nothing moves, after which a run that only follows ends."""
ENDLESS = 60
"""Quarters after which a path counts as one that never ends."""


class Killed(Exception):
    """The process dies here."""


class SeenBefore(Exception):
    """From here on everything has been walked."""


class Violation(Exception):
    """A promise is broken; the message is the story of how it came to that."""


@dataclass
class Chooser:
    """Decides by a list of numbers, and by 0 where the list ends; notes between how many it had to choose."""

    decisions: list[int] = field(default_factory=list)
    made: list[tuple[int, int]] = field(default_factory=list)

    def choose(self, options):
        at = len(self.made)
        number = self.decisions[at] if at < len(self.decisions) else 0
        self.made.append((number, len(options)))
        return options[number]

    def next_decisions(self):
        """Return the decisions of the next path; None after the last one."""
        for at in range(len(self.made) - 1, -1, -1):
            number, options = self.made[at]
            if number + 1 < options:
                return [one for one, _ in self.made[:at]] + [number + 1]
        return None


class Dice(Chooser):
    """Decides by chance, the same each time for the same seed."""

    def __init__(self, seed) -> None:
        super().__init__()
        self._random = Random(seed)

    def choose(self, options):
        self.decisions.append(self._random.randrange(len(options)))
        return super().choose(options)


@lru_cache(None)
def decided(doubt, settle_seconds):
    """Return the step of the engine's own table; the same question is asked a million times."""
    return next_step(doubt, settle_seconds)


@dataclass
class Walk:
    """One batch on its way; returns how it ended."""

    manner: Manner
    chooser: Chooser
    decide: object = decided
    ends_waiting: bool = True
    """A run in which nothing moves ends."""
    seen: dict | None = None
    leases: bool = False
    """Another worker may take over between any two steps."""
    window: bool = False
    """A worker may stop after it has checked its lease, and its release goes out when another one has taken over."""
    state: State = State.FROZEN
    changed_at: int = 0
    """When the ledger heard of the last step."""
    doubt: Doubt | None = None
    named: bool = False
    lost: int = 0
    kills: int = 0
    again: bool = False
    """The batch was asked about once more after it was parked."""

    def __post_init__(self):
        self.service = Service(self.manner)
        self.log = self.service.log
        self.chosen = []
        """(what was to be chosen, what was)"""

    # The engine

    def run(self):
        while True:
            try:
                end = self._live()
            except Killed:
                self.kills += 1
                wait = self._choose("how long until resume", [0, 2, SETTLE + 1])
                self.service.pass_time(wait)
                self.doubt = None
                self._say(f"resume, {wait} quarters later; the ledger says {self.state}")
                continue
            if end == "uncertain" and self.named and not self.again:
                self.again = True
                if self._choose("and then", ["nothing", "resume"]) == "resume":
                    self.service.pass_time(SETTLE)
                    self._say("resume")
                    self.doubt = None
                    continue
            return end

    def _live(self):
        while True:
            if self.doubt is not None:
                end = self._resolve()
            elif self.state in {State.STAGING, State.RELEASING, State.UNCERTAIN}:
                self.doubt = self._left()
                end = self._resolve()
            elif self.state is State.RELEASED:
                return self._follow()
            else:
                end = self._submit()
            if end is not None:
                return end

    def _submit(self):
        """Carry a batch from its beginning."""
        if self.manner.stage_again is Again.SEARCH and not self.named:
            return self._stage()
        if self.manner.stages and not self.named:
            self._move(State.STAGING)  # an empty batch: nothing of it can go wrong
            self._move(State.STAGED)
            self.named = True
        return self._release()

    def _stage(self):
        self._move(State.STAGING)
        outcome = self._call("create a draft", self._delays_of("make"))
        if outcome == "answered":
            self.named = True
            self._move(State.STAGED)
            return self._release()
        self._lose()
        return None

    def _release(self):
        self._move(State.RELEASING)
        objection = self.service.objection()
        if objection is not None:
            end = self._choose(
                "release", ["declined", *self._loss(["declined, answer lost"]), *self._death(["dies after"])]
            )
            self._say(f"release: {end} ({objection.name})")
            if end == "dies after":
                raise Killed
            if end == "declined":
                self._decline(objection)
            else:
                self._lose()
            return
        outcome = self._call("release", self._delays_of("release"))
        if outcome != "answered":
            self._lose()
            return
        self.named, self.doubt = True, None
        self._move(State.RELEASED)
        return

    def _lose(self):
        self._heard_of_call(Declined.NO, lost=True)

    def _decline(self, objection):
        self._heard_of_call(objection, lost=False)

    def _heard_of_call(self, declined, *, lost):
        if self.doubt is not None and self.doubt.state is self.state:
            self.doubt = self.doubt.with_repeat(self.service.now, declined)
        else:
            self.doubt = replace(self._left(), since=self.service.now, lost=lost, declined=declined)

    def _left(self):
        staging = self.state is State.STAGING
        again = self.manner.stage_again if staging else self.manner.again
        return Doubt(self.state, again, self.changed_at, named=self.named and not staging)

    def _resolve(self):  # noqa: C901, PLR0911 - a line for each action of the table
        """Do what the table says, once."""
        step = self.decide(self.doubt_now(), SETTLE)
        self._say(f"the table: {step.action.name}, for {step.reason}")
        match step.action:
            case Action.ASK:
                return self._ask()
            case Action.CANCEL:
                return self._cancel()
            case Action.FOLLOW:
                self.doubt, self.named = None, True
                self._move(State.RELEASED)
            case Action.PARK:
                if self.state is not State.UNCERTAIN:
                    self.named = self.named and (self.state is not State.RELEASING or self.manner.is_asked)
                    self._move(State.UNCERTAIN)
                self.doubt = None
                # At its end, a run searches for what carries a mark.
                return None if self.manner.again is Again.SEARCH and not self.named else "uncertain"
            case Action.FAIL:
                return "failed"
            case Action.STOP:
                return "stopped"
            case Action.ADOPT:
                self.doubt, self.named = None, True
                self._move(State.STAGED)
            case Action.STAGE if self.manner.stage_again is Again.SEARCH:
                return self._stage()
            case Action.STAGE:  # an empty batch: one more does no harm
                self.doubt, self.named = None, True
                self._move(State.STAGED)
            case Action.SEND:
                self.doubt = None
                self._move(State.FROZEN)
            case Action.RELEASE_AGAIN:
                return self._release()
        return None

    def doubt_now(self):
        """Return the doubt in times from the service's now on, so that equal doubts are equal."""
        doubt, now = self.doubt, self.service.now
        asked = doubt.asked_at if doubt.remote_status is not RemoteStatus.SILENT else float("-inf")
        since = max(doubt.since - now, -2 * SETTLE)
        return replace(doubt, since=since, asked_at=max(asked - now, since - 1) if asked > float("-inf") else asked)

    def _ask(self):
        wait = self._choose("wait before the question", [1, SETTLE])
        self.service.pass_time(wait)
        asked_at = self.service.now
        if self._choose("question", ["answered", *self._loss(["makes no sense"])]) != "answered":
            self.doubt = self.doubt.with_answer(RemoteStatus.SILENT, asked_at)
            return
        if self.state is State.STAGING:
            remote_status = self.service.find()
        elif self.named:
            remote_status = self.service.remote_status()
        else:
            remote_status = self.service.search()
        self._say(f"the service says {remote_status.name}")
        self.doubt = self.doubt.with_answer(remote_status, asked_at)
        return

    def _cancel(self):
        end = self._choose(
            "cancel", ["answered", *self._loss(["answer lost"]), *self._death(["dies before", "dies after"])]
        )
        confirmed = end != "dies before" and self.service.cancel()
        self._say(f"cancel: {end}, {'confirmed' if confirmed else 'declined'}")
        if end.startswith("dies"):
            raise Killed
        cancel = Cancel.CONFIRMED if confirmed and end == "answered" else Cancel.DECLINED
        self.doubt = self.doubt.with_cancel(self.service.now, cancel)

    def _follow(self):
        """Poll a released batch until its end shows."""
        begun = self.service.now
        while True:
            self._check_place()
            remote_status = self.service.remote_status() if self.manner.is_asked else self.service.search()
            if remote_status is RemoteStatus.STARTED:
                return "created"
            if remote_status is RemoteStatus.ENDED:
                return "failed"
            if remote_status is RemoteStatus.NOT_THERE and self.manner.is_asked:
                return "uncertain"
            if self.ends_waiting and self.service.now - begun > GIVE_UP:
                return "stopped"
            self.service.pass_time(1)

    # What may happen

    def _delays_of(self, what):
        return [(what, delay) for delay in self.manner.delays] + [(what, None)]

    def _call(self, name, effects):
        """Let a call be answered, lost, or be the last one of its process; return "answered" or "lost"."""
        answered = [("answered", *effect) for effect in effects if name == "release" or effect[1] == 0]
        options = answered + [("lost", *effect) for effect in self._loss(effects)]
        options += [("dies", *effect) for effect in self._death(effects)]
        if self.window and name == "release":
            options += [("stops", *effect) for effect in self._death([(effects[0][0], SETTLE + 2)])]
        end, what, delay = self._choose(name, options)
        when = "never" if delay is None else f"{delay} quarters later"
        self._say(f"{name}: {end}, carried out {when}")
        if delay is not None:
            self.service.take(what, delay)
        if end in {"dies", "stops"}:
            raise Killed
        return end

    def _loss(self, options):
        return options if self.lost < MOST_LOST else []

    def _death(self, options):
        return options if self.kills < MOST_KILLS else []

    def _choose(self, what, options):
        self._check_place(what)
        chosen = self.chooser.choose(options)
        self.chosen.append((what, chosen))
        word = chosen[0] if isinstance(chosen, tuple) else str(chosen)
        self.lost += word == "lost" or "lost" in word or word == "makes no sense"
        return chosen

    def _check_place(self, what=""):
        if self.service.now > ENDLESS:
            raise self.violation("it never ends")
        if self.seen is None or len(self.chooser.made) < len(self.chooser.decisions):
            return
        doubt = None if self.doubt is None else self.doubt_now()
        age = min(self.service.now - self.changed_at, 2 * SETTLE)
        if not what:
            return
        place = (what, self.state, age, doubt, self.named, self.again, self.service.key())
        # Who came here with less behind it could do all that is possible now, and more.
        before = self.seen.setdefault(place, [])
        if any(lost <= self.lost and kills <= self.kills for lost, kills in before):
            raise SeenBefore
        before.append((self.lost, self.kills))

    def _move(self, state):
        if state is not self.state or state is State.RELEASING:
            assert state in TRANSITIONS[self.state], self.violation(f"there is no step from {self.state} to {state}")
        taken_over = self._taken_over(state) if self.leases else "no"
        if taken_over == "before":
            raise Killed
        self.state, self.changed_at = state, self.service.now
        if state is State.FROZEN:
            self.named = False
        if taken_over == "after":
            raise Killed

    def _taken_over(self, state):
        return self._choose(f"lease at {state}", ["no", *self._death(["before", "after"])])

    def _say(self, words):
        self.log.append(f"{self.service.now}: {words}")

    # What must hold

    def judge(self, end):
        """Let the service do all that it still will, and hold the end against it."""
        self._say(f"THE BATCH IS {end}")
        self.service.pass_time(2 * SETTLE)
        times = len(self.service.created)
        if times > 1:
            raise self.violation("its tasks were created twice")
        if end == "failed" and times:
            raise self.violation("its tasks exist, and it is called failed")
        if end == "created" and not times:
            raise self.violation("it is called created, and its tasks do not exist")
        if len(self.service.made) > 1:
            raise self.violation("two drafts were made")

    def violation(self, words):
        return Violation("\n".join([f"{self.manner}", *self.log, words.upper()]))


@dataclass
class Explored:
    """What came of walking everywhere."""

    places: int = 0
    paths: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def explore(manner, decide=decided, *, ends_waiting=True, wanted="", **leases):
    """Walk every path of a manner, up to the first violation whose story has the `wanted` words.

    `leases`: as of a walk.
    """
    return walk_everywhere(lambda chooser, seen: Walk(manner, chooser, decide, ends_waiting, seen, **leases), wanted)


def walk_everywhere(make, wanted=""):
    """Walk every path: `make` returns a walk by what chooses, and the places that were seen."""
    explored, seen, decisions = Explored(), {}, []
    while decisions is not None:
        chooser = Chooser(decisions)
        walk = make(chooser, seen)
        try:
            end = walk.run()
            walk.judge(end)
            explored.ends[end] = explored.ends.get(end, 0) + 1
        except SeenBefore:
            pass
        except Violation as violation:
            if wanted in str(violation):
                explored.violations.append(str(violation))
                break
        explored.paths += 1
        decisions = chooser.next_decisions()
    explored.places = len(seen)
    return explored


def every_manner(lags):
    """Yield each way in which a service may be, with reads that lag so many quarters behind."""
    for lag in lags:
        yield Manner(Again.NEVER, lag=lag)
        yield Manner(Again.SEARCH, lag=lag, repeat="obey")
        yield Manner(Again.SEARCH, lag=lag, repeat="obey", staged=True)
        yield Manner(Again.SEARCH, lag=lag, repeat="obey", content="bad", staged=True)
        for content, cancel, busy in product(("good", "bad"), ("accept", "refuse", "lie"), (False, True)):
            for repeat in ("refuse", "refuse in other words", "obey"):
                yield Manner(Again.ASK, lag=lag, repeat=repeat, busy=busy, content=content, cancel=cancel)
            if content == "bad" or cancel == "accept":  # what it holds is taken: nothing is canceled
                yield Manner(Again.REFUSED, Again.SEARCH, lag=lag, busy=busy, content=content, cancel=cancel)
        for content in ("good", "bad") if lag else ():
            yield Manner(Again.REFUSED, Again.SEARCH, lag=lag, content=content, hides=True)
