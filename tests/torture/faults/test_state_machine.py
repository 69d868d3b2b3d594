"""A model of what must hold, whatever happens: rules drawn by Hypothesis act on the real engine, and the model judges.

The rules are what happens to a job: it is begun, in one of the manners of a service; calls fail, answers are lost, the
process is stopped or killed, its disk breaks; it is resumed, canceled, or a person has it sent again. After each rule
the model compares what the ledger says with what the server really holds; at the end, when nothing fails any more,
every record must have its one outcome.

A failing example replays: every run draws the same examples as long as BULKSUBMIT_SEED is the same (4 where it is not
set), and Hypothesis prints the shortest failing one as a program, with a `@reproduce_failure` line for the class below.
BULKSUBMIT_TORTURE=1 draws many more and longer ones.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from itertools import product

import pytest
from fakes.service import Fault, Killed, killed, lost, refused, unauthorized, unavailable
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.commands.cancel import CANCELED
from engine.model.error_hints import Blame
from engine.model.errors import (
    LeaseLost,
    LedgerError,
    PossiblyApplied,
    Refused,
    StillWaiting,
    Unavailable,
    UnexpectedAnswer,
)
from engine.model.job import JobState
from engine.model.next_step import STEP_TABLE, Action
from engine.model.outcome import Fate
from engine.model.submission import TRANSITIONS, State

from .late import NEVER, Later
from .model import CANCELED_THERE, MODES, End, Kind, Plan, World, cancel, look, open_parked, resume, send_again
from .tally import TABLE as FIGURES
from .tally import Tally

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
SEED = int(os.environ.get("BULKSUBMIT_SEED", "4"))

PLANS = st.builds(
    Plan,
    records=st.lists(st.sampled_from([Kind.GOOD] * 6 + [*Kind]), min_size=1, max_size=12).map(tuple),
    mode=st.sampled_from([*MODES]),
    batch=st.integers(1, 8),
    most_records=st.sampled_from([10**9, 10**9, 4, 1]),
    release_again=st.sampled_from(["duplicate", "duplicate", "refuse", "noop"]),
    call_seconds=st.sampled_from([0.0, 0.25]),
    tasks_per_second=st.sampled_from([float("inf"), 3.0]),
    seen_after=st.sampled_from([0.0, 10.0]),
    lag_seconds=st.sampled_from([0.0, 0.0, 4.0, 15.0]),
    busy_while_late=st.booleans(),
    cancels=st.sampled_from(["accept", "accept", "refuse", "lie"]),
    in_flight=st.integers(1, 4),
    shared=st.booleans(),
)

NOTHING_CAME_OF_IT = [row.reason for row in STEP_TABLE if row.action is Action.FAIL]
"""What the table of steps says of a batch in doubt of which nothing was created."""
NO = "no thanks"
ALL_OF_IT = "something in it is bad"


def refused_whole():
    return Fault(Refused(ALL_OF_IT, status=422, blame=Blame.PAYLOAD))


def later(error, seconds):
    return Later(error(), seconds=seconds)


def nonsense(*, applied):
    return Fault(UnexpectedAnswer("<html>"), applied)


LATE_SECONDS = [5.0, 50.0, 90.0]
"""With what reads lag behind it is less than the settle time."""
TROUBLES = {
    "refused": lambda: refused(NO),
    "refused, its URL too old": lambda: refused(NO, status=403),
    "refused as a whole": refused_whole,
    "unauthorized": unauthorized,
    "unavailable": unavailable,
    "unavailable, applied": lambda: Fault(Unavailable("nobody answers"), applied=True),
    "lost": lambda: lost(applied=False),
    "lost, applied": lambda: lost(applied=True),
    "nonsense": lambda: nonsense(applied=False),
    "nonsense, applied": lambda: nonsense(applied=True),
    "killed": lambda: killed(applied=False),
    "killed, applied": lambda: killed(applied=True),
    **{f"done {seconds:.0f} s later": partial(Later, seconds=seconds) for seconds in LATE_SECONDS},
    **{
        f"{words}, done {seconds:.0f} s later": partial(later, error, seconds)
        for seconds, (words, error) in product(LATE_SECONDS, {"lost": PossiblyApplied, "killed": Killed}.items())
    },
    "swallowed": Later,
}
LATE = [name for name in TROUBLES if "later" in name]
UNANSWERED_LATE = [name for name in LATE if not name.startswith("done")]
ALWAYS = ["refused", "unauthorized", "unavailable", "nonsense", "killed"]
ANSWERS = [*ALWAYS, "nonsense, applied", "killed, applied"]
CALLS = {
    # What may be repeated is repeated by the caller, so its lost answers are told as unavailable; see
    # `services.base.Caller`.
    "stage": [*ANSWERS, "lost", "lost, applied", *UNANSWERED_LATE],
    "upload": [*ANSWERS, "unavailable, applied", "refused, its URL too old", "refused as a whole"],
    "release": [*ANSWERS, "lost", "lost, applied", "refused as a whole", *LATE, "swallowed"],
    "remote_status": ALWAYS,
    "progress": ALWAYS,
    "settlement": ALWAYS,
    "locate": ALWAYS,
    "find": ["unauthorized", "unavailable", "killed"],
    "cancel": [*ANSWERS, "unavailable, applied"],
}
STANDSTILLS = ["standstill", "standstill alone"]
WAYS_TO_END = ["event", "after a step", "disk before a step", "disk after a step", "reading", *STANDSTILLS]
ENDS = st.sampled_from([*WAYS_TO_END, *["before a step"] * 3]).flatmap(
    # Most lives end early, and most of those when the server has done something that the ledger never hears of.
    lambda at: st.builds(End, st.just(at), st.integers(1, 12)) | st.builds(End, st.just(at), st.integers(1, 40))
)
LIFE = ENDS | ENDS | st.none()

INLINE = {"release", "progress", "settlement", "cancel"}
CALLS_OF = {
    "staged": CALLS.keys() - {"locate", "find"},
    "staged, polled together": CALLS.keys() - {"locate", "find", "settlement"},
    "drafts": CALLS.keys() - {"locate"},
    "done by its stage": {"stage", "find", "cancel"},
    "done by its release": {"stage", "upload", "release", "remote_status", "cancel"},
    "inline": INLINE,
    "inline, done by its release": {"release"},
    "inline, marked": INLINE | {"locate"},
}
"""Calls that are made in each manner of a service."""


def troubles_of(mode):
    """Return calls and what may happen to them, the worst more often than once."""
    kinds = [(call, name) for call in sorted(CALLS_OF[mode]) for name in CALLS[call]]
    if "done by its release" in mode:  # whose answer is its settlement
        kinds = [(call, name) for call, name in kinds if name not in {"swallowed", *LATE} - {*UNANSWERED_LATE}]
    worst = [(call, name) for call, name in kinds if name.endswith((", applied", " later"))]
    return [*kinds, *worst * 2]


AFTER = st.integers(0, 4)
"""How many calls go well before the trouble."""


def jobs():
    """Draw a plan, the first troubles of a job, and the end of its first life."""

    def with_troubles(plan):
        troubles = st.tuples(st.sampled_from(troubles_of(plan.mode)), AFTER)
        return st.tuples(st.just(plan), st.lists(troubles, max_size=5), LIFE)

    return PLANS.flatmap(with_troubles)


@seed(SEED)
class JobMachine(RuleBasedStateMachine):
    """One job: `world` is what is tested, the rest is the model.

    What is drawn depends on nothing that the engine did: where a life ends is for its threads to say, and Hypothesis
    gives up when the same draws lead elsewhere. So each rule may always be drawn, and does nothing where it has nothing
    to do.
    """

    @initialize(job=jobs())
    def begin(self, job):
        plan, troubles, end = job
        self.world = World(plan)
        self.server = self.world.server
        self.kinds = plan.records
        self.kills = 0
        self.allowed = Counter({str(number): 1 for number in range(len(plan.records))})
        """Record's id → how often it may be created: once, and once more each time that a person says so."""
        self.sight = self.world.live(look, None)
        for trouble in troubles:
            self.trouble(trouble)
        self.live(resume, end)

    # What happens

    @rule(job=jobs())
    def begin_another(self, job):
        if self.job.state is JobState.OPEN:
            self.resume(job[-1])
        else:
            self.end()
            self.begin(job)

    @rule(number=st.integers(0, 2**16), after=AFTER)
    def meet(self, number, after):
        kinds = troubles_of(self.world.plan.mode)
        self.trouble((kinds[number % len(kinds)], after))

    def trouble(self, trouble):
        (call, name), after = trouble
        self.server.faults.setdefault(call, []).extend([*[None] * after, TROUBLES[name]()])

    @rule(end=LIFE)
    def resume(self, end):
        state = self.job.state
        if state is JobState.OPEN or (state is JobState.FINISHED and self.names(Fate.UNCERTAIN)):
            self.live(resume, end)

    @rule(end=LIFE)
    def cancel(self, end):
        if self.sight.outcomes and self.job.state is not JobState.FINISHED:
            self.live(cancel, end)

    @rule(end=LIFE)
    def send_again(self, end):
        if self.job.state is not JobState.FINISHED or not self.names(Fate.UNCERTAIN):
            return
        self.allowed.update(self.names(Fate.UNCERTAIN))
        self.server.unanswered.clear()  # whatever may come twice
        self.live(send_again, end)

    def have_sent_again_what_waits(self):
        """Do what a person does who is told that the service never begins with some batches."""
        self.allowed.update(
            str(index)
            for index, outcome in enumerate(self.sight.outcomes)
            if outcome.fate is Fate.UNRESOLVED and outcome.remote_id and self.server.is_idle(outcome.remote_id)
        )
        return self.live(send_again, None)

    def live(self, work, end):
        calls = len(self.server.log)
        error = self.world.live(lambda life: work(life, self.world.plan.in_flight), end)
        self.kills += self.server.dead
        broken = self.server.dead or (end is not None and end.at.startswith("disk"))
        refused = isinstance(error, LeaseLost) and end is not None and end.at == "standstill"
        assert broken or refused or not isinstance(error, LedgerError), error
        if work is cancel:
            assert not {"stage", "upload", "release"} & set(self.server.log[calls:]), "a canceled job sent something"
        self.sight = self.world.live(look, None)
        return error

    # What is known

    @property
    def job(self):
        return self.sight.job

    def names(self, fate):
        return [str(index) for index, outcome in enumerate(self.sight.outcomes) if outcome.fate is fate]

    # What must hold

    @invariant()
    def no_record_is_created_twice(self):
        created = Counter(name for _, name in self.server.created)
        assert created <= self.allowed, created - self.allowed

    @invariant()
    def every_step_exists(self):
        stands = {}
        for operation, sequence, state in self.world.steps:
            if sequence is None:
                continue
            if operation in {"move", "settle"} or state is State.SPLIT:
                assert state in TRANSITIONS[stands[sequence]], (sequence, stands[sequence], state)
            else:
                assert sequence not in stands, f"{sequence} is frozen twice"
            stands[sequence] = state

    @invariant()
    def what_is_split_can_no_longer_be_released(self):
        split = {sequence for _, sequence, state in self.world.steps if state is State.SPLIT}
        for remote_id in self.server.unanswered - {None}:
            remote = self.server.remotes[remote_id]
            # Where the yes to a cancel was a lie, all that was late has come by then.
            over = remote.canceled or (self.server.cancels == "lie" and self.server.is_idle(remote_id))
            assert over or remote.sequence not in split, remote_id

    @invariant()
    def the_ledger_is_whole(self):
        assert not self.sight.findings

    @invariant()
    def what_is_created_is_there(self):
        there = set(self.server.created)
        for index, outcome in enumerate(self.sight.outcomes):
            if outcome.fate is Fate.CREATED:
                assert (outcome.task_id, str(index)) in there, (index, outcome)

    @invariant()
    def what_failed_has_its_reason_and_is_not_there(self):
        created = Counter(name for _, name in self.server.created)
        for index, outcome in enumerate(self.sight.outcomes):
            if outcome.fate is Fate.FAILED:
                assert self.is_due(self.kinds[index], outcome), (index, outcome)
                stays = self.world.plan.mode == "done by its stage" and outcome.sequence in self.server.untidied
                assert stays or created[str(index)] < self.allowed[str(index)], (index, outcome)

    def is_due(self, kind, outcome):
        """Tell whether a record may have failed as it did."""
        # A batch that is refused as a whole goes up again in halves, unless the whole may yet arrive.
        alone = outcome.batched == 1 or outcome.sequence in self.server.untidied
        remote = self.server.remotes.get(outcome.remote_id)
        canceled = self.job.state is JobState.CANCELED
        return {
            NO: True,
            ALL_OF_IT: alone,
            "a task is bad": alone and (kind is Kind.POISON or outcome.sequence in self.server.untidied),
            "too large": outcome.sequence in self.server.untidied,
            "no": kind is Kind.FAILING,
            # Killed between the cancelation of a batch that was refused as a whole and the freezing of its halves.
            CANCELED_THERE: remote is not None and remote.canceled and not remote.releases,
            **dict.fromkeys([CANCELED, *NOTHING_CAME_OF_IT], canceled),
        }.get(outcome.error, False)

    @invariant()
    def what_is_not_fit_stays_here(self):
        unfit = {str(index) for index, kind in enumerate(self.kinds) if kind is Kind.UNFIT}
        read = {str(index) for index in range(len(self.sight.outcomes))}
        assert set(self.names(Fate.REJECTED)) == unfit & read

    # What must become of it when nothing fails any more

    def teardown(self):
        if hasattr(self, "world"):
            self.end()

    def end(self):
        try:
            self.server.faults.clear()
            self.finish()
        finally:
            self.world.close()
            del self.world

    def finish(self):
        canceled = self.job.state is JobState.CANCELED
        error = self.live(cancel if canceled else resume, None)
        if self.world.live(open_parked, None):
            error = self.live(cancel if canceled else resume, None)
        if isinstance(error, StillWaiting) and not canceled:
            error = self.have_sent_again_what_waits()
        stays = isinstance(error, StillWaiting) and canceled and self.server.cancels != "accept"
        assert error is None or stays, error
        self.server.catch_up(NEVER)
        assert self.job.state is (JobState.CANCELED if canceled else JobState.FINISHED)
        assert canceled or len(self.sight.outcomes) == len(self.kinds)
        unsent = self.names(Fate.UNRESOLVED)
        assert stays or canceled or not unsent
        assert stays or {name for _, name in self.server.created}.isdisjoint(
            unsent
        )  # a canceled job keeps it for later
        forgetful = self.world.plan.mode in {"inline", "inline, done by its release"}
        self.count(forgetful)
        # That a search finds nothing is no proof before it has found something that is there.
        unproven = self.world.plan.mode == "inline, marked" and not self.names(Fate.CREATED)
        for index, outcome in enumerate(self.sight.outcomes):
            if outcome.fate is Fate.UNCERTAIN and not canceled:  # or what may yet come could not be canceled
                assert forgetful or unproven or outcome.sequence in self.server.untidied, (index, outcome)
        self.check_all()

    def count(self, forgetful):
        """Add to the figures of the suite."""
        created = Counter(name for _, name in self.server.created)
        good = [str(index) for index, outcome in enumerate(self.sight.outcomes) if outcome.fate is not Fate.REJECTED]
        lost = [
            index
            for index, outcome in enumerate(self.sight.outcomes)
            if outcome.fate is Fate.CREATED and not created[str(index)]
        ]
        parked = len(self.names(Fate.UNCERTAIN))
        tally = Tally(
            1, self.server.struck, self.kills, sent=len(good), created=sum(created[name] > 0 for name in good)
        )
        tally.lost, tally.duplicated = len(lost), len(created - self.allowed)
        tally.parked, tally.knowable = parked, 0 if forgetful else parked
        FIGURES.of("state machine").add(tally)

    def check_all(self):
        self.no_record_is_created_twice()
        self.every_step_exists()
        self.what_is_split_can_no_longer_be_released()
        self.the_ledger_is_whole()
        self.what_is_created_is_there()
        self.what_failed_has_its_reason_and_is_not_there()
        self.what_is_not_fit_stays_here()


TestJob = JobMachine.TestCase
TestJob.settings = settings(
    max_examples=1000 if TORTURE else 90,
    stateful_step_count=20 if TORTURE else 10,
    # Shortening a failing example takes minutes, in which nobody knows that there is one.
    phases=[*Phase] if TORTURE else [Phase.explicit, Phase.generate],
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# Stories that once ended badly


STORIES = {
    "a canceled job does not send what no search found": (
        Plan((Kind.GOOD,), "inline, marked"),
        [(("release", "killed"), 0)],
        [lambda job: job.cancel(None)],
    ),
    "what a person has sent again is taken up once": (
        Plan((Kind.GOOD,) * 9, "inline, marked", batch=1),
        [(("release", "swallowed"), 0)] * 9,
        [],
    ),
    "what a person has released again is taken up once": (
        Plan((Kind.GOOD,) * 9, "staged", batch=1),
        [(("release", "swallowed"), 0)] * 9,
        [],
    ),
    "a refused stage tidies up what a lost one made": (
        Plan((Kind.GOOD,), "done by its stage"),
        [(("stage", "lost, applied"), 0), (("stage", "refused"), 0)],
        [],
    ),
    "a refused stage tidies up what a killed process made": (
        Plan((Kind.GOOD,), "done by its stage"),
        [(("stage", "killed, applied"), 0), (("stage", "refused"), 0)],
        [lambda job: job.resume(None)],
    ),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_once_it_ended_badly(story):
    plan, troubles, steps = story
    job = JobMachine()
    job.begin((plan, troubles, None))
    for step in steps:
        step(job)
        job.check_all()
    job.teardown()


# A lease that is lost between two steps


@pytest.mark.parametrize("standstill", STANDSTILLS)
@pytest.mark.parametrize("mode", MODES)
def test_a_worker_that_stands_still_after_any_step_loses_nothing_and_creates_nothing_twice(mode, standstill):
    plan = Plan((Kind.GOOD,) * 3 + (Kind.POISON,) + (Kind.GOOD,) * 2, mode, batch=2, call_seconds=0.25, shared=True)
    for step in range(1, 30) if TORTURE else (2, 5, 11):  # most of them end after its lease
        job = JobMachine()
        job.begin((plan, [], End(standstill, step)))
        job.check_all()
        job.teardown()


def test_a_worker_that_stood_still_beyond_its_lease_is_refused():
    world = World(Plan((Kind.GOOD,) * 6, "staged", batch=1, call_seconds=0.25, shared=True))
    try:
        error = world.live(lambda life: resume(life, 2), End("standstill", 11))
        assert isinstance(error, LeaseLost)
        assert Counter(name for _, name in world.server.created) == dict.fromkeys(world.names(Kind.GOOD), 1)
    finally:
        world.close()
