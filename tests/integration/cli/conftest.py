"""An engine that sends nothing, and a way to call the command line with it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes.facts import usual_facts
from msgspec.structs import replace
from unit.bench.benches import bench

from engine.bench.results import Bench
from engine.cli.app import call
from engine.commands.again import FailedTasks
from engine.commands.check import Checked, CheckReport
from engine.commands.lineage import Attempt, Story
from engine.commands.probe import Probed, Seen
from engine.commands.prune import Fall, JobFall, Pruned
from engine.commands.result import FailedTask, JobStatus, Result, UncertainRecords, Validation
from engine.commands.undo import Undoable
from engine.model.errors import JobCanceled
from engine.model.job import Job, JobState
from engine.model.outcome import Fate, Outcome, Tally
from engine.model.record import Format, Reject, Source
from engine.model.settings import RunLimits
from engine.reports.audit import Audit
from engine.services.checks import CheckVerdict

OPERATIONS = [
    "submit",
    "resume",
    "nightly",
    "retry",
    "find_uncertain",
    "cancel",
    "status",
    "report",
    "overview",
    "write_page",
    "audit",
    "backup",
    "tell_story",
    "find_failed_tasks",
    "find_undoable",
    "retry_tasks",
    "undo",
    "refresh",
    "validate",
    "check",
    "probe",
    "prune",
]
TALLY = Tally(records=10, batches=2, created=7, failed=2, rejected=1, states={"settled": 2})
RESULT = Result("nightly", JobState.FINISHED, TALLY, 2.5, 3, outcomes=Path("out/outcomes.ndjson"), resolved=10)
SOURCE = Source(0, "in.ndjson", Format.NDJSON, 1_000, 0, 0)
JOB = Job("nightly", "sama", "", (SOURCE,), "out", JobState.FINISHED, read_complete=True)

PRUNED = Pruned([JobFall("old", "f", "finished", 0.0, Fall.REMOVED, "older than 90 days")])


@dataclass
class FakeEngine:
    """The operations of `engine`, and those of a bench: answers from its fields, or raises, and notes questions."""

    result: Result = RESULT
    bench_result: Bench = field(default_factory=bench)
    local: bool = True
    again_in: str = ""
    """Job in which uncertain records are sent again; their own where empty."""
    canceled: bool = False
    pruned: Pruned = PRUNED
    undoable: bool = True
    """What was created can be taken back."""
    verdict: CheckVerdict = CheckVerdict.OK
    """Of the one check."""
    error: Exception | None = None
    asked: list[tuple] = field(default_factory=list)
    events: list = field(default_factory=list)

    async def submit(self, sources, config, ledger_path, emit, stop, **options):
        return self._work("submit", sources, ledger_path, emit, {"config": config, **options})

    async def resume(self, name, ledger_path, emit, stop, *, reopen=False, **options):
        said = [option for option in [*options.values(), "reopen"] if option and option != RunLimits()]
        if self.canceled and not reopen:
            self._note("resume", name, ledger_path, *said[:-1])
            raise JobCanceled("job 'nightly' was canceled: 3 records that it has read were not sent.")
        return self._work("resume", name, ledger_path, emit, *(said if reopen else said[:-1]))

    async def nightly(self, sources, config, ledger_path, emit, stop, **options):
        return self._work("nightly", sources, ledger_path, emit, {"config": config, **options})

    async def retry(self, name, ledger_path, emit, stop, *, uncertain=False, **given):
        given = [one for one in given.values() if one and one != RunLimits()]
        return self._work("retry uncertain" if uncertain else "retry", name, ledger_path, emit, *given)

    async def find_uncertain(self, name, ledger_path):
        self._note("find_uncertain", name, ledger_path)
        return UncertainRecords(2_000, 4, ["records 0 to 499 (batch 0: the answer was lost)"], self.again_in or name)

    async def cancel(self, name, ledger_path, emit, stop):
        return self._work("cancel", name, ledger_path, emit)

    async def status(self, name, ledger_path, *, tasks=False, failed=False, tell=None, **wanted):
        self._note(
            "status", name, ledger_path, *([tasks, "failed"] if failed else [tasks]), *filter(None, wanted.values())
        )
        task = FailedTask(4, "task-4", "https://example.com/task-4", "failed", "out of memory")
        more = {"failed_tasks": [task], "failed": 1, "later": {"failed": 1}} if failed else {}
        return [JobStatus(JOB, TALLY, running=False, working={"completed": 3} if tasks else {}, **more)]

    async def find_undoable(self, name, ledger_path):
        self._note("find_undoable", name, ledger_path)
        return Undoable(7, "sama", "api.sama.com", 30.0)

    async def undo(self, name, ledger_path, emit, stop):
        return self._work("undo", name, ledger_path, emit)

    async def find_failed_tasks(self, name, ledger_path):
        self._note("find_failed_tasks", name, ledger_path)
        return FailedTasks(3, "sevenbridges", "api.sbgenomics.com", f"{name}.again", {"USD": 4.5}, 2)

    async def retry_tasks(self, name, ledger_path, emit, stop, *, limits=None, metrics_textfile=None):
        more = [] if limits == RunLimits() else [limits]
        return self._work("retry_tasks", name, ledger_path, emit, *more, *filter(None, [metrics_textfile]))

    async def refresh(self, name, ledger_path, emit, stop):
        return self._work("refresh", name, ledger_path, emit)

    async def report(self, name, ledger_path):
        self._note("report", name, ledger_path)
        return self.result

    async def overview(self, name, ledger_path, *, audit=False):
        self._note("overview", name, ledger_path, audit)
        return replace(usual_facts(), job=name)

    async def write_page(self, facts, file=None):
        self._note("write_page", facts.job, file)
        return Path(__file__)  # a file that is there

    async def audit(self, name, ledger_path):
        self._note("audit", name, ledger_path)
        fates = Counter({Fate.CREATED: 7, Fate.FAILED: 2, Fate.REJECTED: 1})
        return Audit(name, 10, 2, fates)

    async def backup(self, to, ledger_path):
        self._note("backup", to, ledger_path)
        return [JOB]

    async def tell_story(self, name, ledger_path, *, record=None, key=None):
        self._note("tell_story", name, ledger_path, record, key)
        url = "https://example.com/task-1"
        outcome = Outcome(record or 7, "in.ndjson", 480, Fate.CREATED, "task-1", "batch-1", url)
        attempt = Attempt(name, 1, outcome, 8, 0.0)
        return Story(attempt, [attempt])

    async def bench_plan(self, order):
        self._note("bench_plan", order)
        return replace(self.bench_result.plan, local=self.local)

    async def bench(self, order, emit, stop):
        self._note("bench", order)
        return self.bench_result

    async def prune(self, ledger_path, emit=None, stop=None, *, dry_run=False, **policy):
        self._note("prune", ledger_path, policy, dry_run)
        return self.pruned

    async def check(self, config, sources, ledger_path, **options):
        self._note("check", config, sources, ledger_path, *filter(None, options.values()))
        line = Checked("key", self.verdict, "the key", "renew it")
        return CheckReport(
            "sama.toml", [line], "api.sama.com (sama, project 42)", "People see them.", [0, 3], self.undoable
        )

    async def probe(self, config, sources, ledger_path, emit, stop, *, records, **options):
        result = self._work("probe", sources, ledger_path, emit, records, *filter(None, options.values()))
        return Probed(result, [Seen("any.begun", "what was accepted is begun", holds=True, seen="2 of 2")], ledger_path)

    async def validate(self, sources, config, emit, **options):
        self._note("validate", sources, {"config": config, **options})
        return Validation(
            10,
            1,
            2,
            1_000,
            [(Source(0, "in.ndjson", Format.NDJSON, 1000, 0, 0), Reject(4, 480, 7, 5, "not valid JSON"))],
        )

    def _work(self, what, which, ledger_path, emit, *more):
        self._note(what, which, ledger_path, *more)
        for event in self.events:
            emit(event)
        return self.result

    def _note(self, *question):
        self.asked.append(question)
        if self.error is not None:
            raise self.error


@dataclass
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return json.loads(lines[0])


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def say(engine, capsys, monkeypatch):
    """Call `bulksubmit …` with the fake engine."""
    for name in OPERATIONS:
        monkeypatch.setattr(f"engine.{name}", getattr(engine, name))
    for name in ("bench", "bench_plan"):
        monkeypatch.setattr(f"engine.commands.bench.{name}", getattr(engine, name))

    def run(*arguments):
        code = call([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run
