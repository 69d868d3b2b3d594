"""A service that acts later than it answers, or never, and shows things later than they are: both services, all modes.

Each manner is a sandbox process of its own, and its journal the judge. The jobs run side by side, since they mostly
wait; each test then awaits its own. What is late is shown within the settle time: so nothing is lost, nothing twice.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from engine.commands import api
from engine.commands.api import Order
from engine.model.errors import Exit
from engine.run.context import Stop

from .judge import Sandboxes, lines
from .tally import Tally
from .ways import BRIDGES, INLINE, MARKED, PRESIGNED, SECRETS, WAYS, Way

BATCHES = 6
SIDE_BY_SIDE = 24
SETTLE_SECONDS = 2.5
LATE, LAG = 0.7, 0.5
"""Seconds; together less than the settle time, on a busy machine, too."""
SEND = "give_up_seconds = 3"
RUN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Manner:
    """What is the matter with a service."""

    name: str
    fault: str
    """Of every second call that creates or releases."""
    again: str = "duplicate"
    """What a second release does."""
    busy: bool = False
    lags: bool = False
    status: int = 504

    def __str__(self) -> str:
        return self.name

    def of(self, way: Way) -> Way:
        """Return a way to submit to such a service."""
        call = RELEASE[way]
        faults = {
            "drop_after": [f'call = "{one}"\nevery = 2' for one in {"create", call}],  # other calls may be repeated
            "swallow": [f'call = "{call}"\nnth = [2]  # {way}'],  # of a sandbox that has no other way
        }.get(self.fault, ['call = "all"\nevery = 2'])
        head = f'\n[[faults]]\nkind = "{self.fault}"\nstatus = {self.status}\nseconds = {LATE}\n'
        tables = "".join(f"{head}{fault}\n" for fault in sorted(faults))
        if self.lags:
            tables += f"\n[reads]\nstatus_seconds = {LAG}\nsingle_seconds = {LAG}\nlist_seconds = {LAG}\n"
        behaviour = way.behaviour.replace('continue_again = "duplicate"', f'continue_again = "{self.again}"')
        if way is BRIDGES:
            tables += f'\n[sevenbridges]\nrun_again = "{self.again}"\n'
        busy = f"busy_while_late = {str(self.busy).lower()}\n"
        return replace(way, behaviour=busy + behaviour + tables, settle_seconds=SETTLE_SECONDS)


RELEASE = {PRESIGNED: "continue", INLINE: "create", MARKED: "create", BRIDGES: "run"}
SAMA = [
    Manner("acts later", "act_later"),
    Manner("acts later, the answer is lost", "drop_late"),
    Manner("acts later, says 504 and is busy", "html_late", busy=True),
    Manner("acts later, says 500, a second call is refused", "refuse_late", again="error", status=500),
    Manner("reads lag, answers are lost", "drop_after", lags=True),
    Manner("reads lag, answers are lost, a second call is refused", "drop_after", lags=True, again="error"),
    Manner("reads lag, it acts later, a second call gets a page", "drop_late", lags=True, again="html"),
    Manner("reads lag, it acts later, a second call does nothing", "html_late", lags=True, again="noop", busy=True),
]
OF_BRIDGES = [
    Manner("acts later", "act_later", again="error"),
    Manner("acts later, the answer is lost", "drop_late", again="error"),
    Manner("acts later, says 504 and is busy", "html_late", again="error", busy=True),
    Manner("reads lag, answers are lost", "drop_after", again="error", lags=True),
    Manner("reads lag, it acts later, a second run gets a page", "refuse_late", again="html", lags=True),
]
CASES = [
    *((way, manner) for way in (PRESIGNED, INLINE, MARKED) for manner in SAMA),
    *((BRIDGES, manner) for manner in OF_BRIDGES),
]
SWALLOWS = Manner("swallows", "swallow", again="error")


@dataclass
class End:
    """What became of a job."""

    codes: list[int]
    message: str
    tally: Tally
    complaints: list[str]


class Field:
    """Where all jobs run."""

    def __init__(self, folder, sandboxes) -> None:
        self.folder, self.sandboxes = folder, sandboxes
        self.places = asyncio.Semaphore(SIDE_BY_SIDE)
        self.ends: dict[tuple[Way, Manner], asyncio.Task[End]] = {}

    async def work(self, way: Way, manner: Manner) -> End:
        """Submit a job; what is uncertain and can be asked about is asked about once more."""
        late = manner.of(way)
        async with self.places, asyncio.timeout(RUN_SECONDS):
            home = self.folder / f"job-{len(list(self.folder.iterdir()))}"
            home.mkdir()
            port, judge = self.sandboxes[late.behaviour]
            config, source, ledger = home / "engine.toml", home / "tasks.ndjson", home / "ledger.db"
            late.write_config(config, port, send=SEND, project=home.name)
            markers = late.write_tasks(source, home.name, BATCHES)
            order = Order([str(source)], config, job="j", output=home)
            result = await api.submit(order, ledger, lambda _: None, Stop())
            codes, message = [result.exit_code], result.message
            if result.exit_code == Exit.STOPPED_EARLY:
                result = await api.send_again("j", ledger, lambda _: None, Stop())
                codes.append(result.exit_code)
            if result.exit_code == Exit.SOME_UNCERTAIN and not way.parks:
                result = await api.resume("j", ledger, lambda _: None, Stop())
                codes.append(result.exit_code)
            audit = await api.audit("j", ledger)
        tally = Tally(faults=1 if manner is SWALLOWS else BATCHES // 2)
        complaints = judge.weigh(late, lines(result.outcomes), markers, tally)
        complaints += [] if audit.holds else audit.findings or ["the audit does not hold"]
        return End(codes, message, tally, complaints)


def started(ways, stack, new_folder):
    """Return the sandboxes of ways to submit, all started at the same time."""
    sandboxes = Sandboxes(stack, new_folder)
    behaviours = {way.behaviour for way in ways}
    with ThreadPoolExecutor(len(behaviours)) as pool:
        list(pool.map(sandboxes.__getitem__, behaviours))
    return sandboxes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def field(request, tmp_path_factory):
    wanted = [item.callspec.params["case"] for item in request.session.items if _is_case(item)]
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        ways = [manner.of(way) for way, manner in wanted]
        field = Field(tmp_path_factory.mktemp("late"), started(ways, stack, tmp_path_factory.mktemp))
        field.ends = {case: asyncio.create_task(field.work(*case)) for case in wanted}
        yield field
        for end in field.ends.values():
            end.cancel()
        await asyncio.gather(*field.ends.values(), return_exceptions=True)


def _is_case(item) -> bool:
    return item.module is not None and item.module.__name__ == __name__ and hasattr(item, "callspec")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}, {case[1]}")
async def test_what_comes_late_is_neither_lost_nor_created_twice(case, field, tally):
    way, _ = case
    end = await field.ends[case]
    tally.add(end.tally)
    assert not end.complaints
    assert end.codes[-1] == (Exit.SOME_UNCERTAIN if end.tally.parked else Exit.ALL_CREATED), end.message
    assert way.parks or not end.tally.parked


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", [(way, SWALLOWS) for way in WAYS], ids=lambda case: str(case[0]))
async def test_what_is_swallowed_is_named_and_sent_again_by_a_person_only(case, field, tally):
    end = await field.ends[case]
    tally.add(end.tally)
    assert not end.complaints
    assert end.codes == [Exit.STOPPED_EARLY, Exit.ALL_CREATED]
    assert "still says waiting of 1 batch that it has accepted: " in end.message
