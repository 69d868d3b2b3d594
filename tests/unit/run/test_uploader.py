import asyncio
from contextlib import asynccontextmanager

import orjson
import pytest
from fakes.bench import a_bench, write_records
from fakes.clock import under_way, until
from fakes.service import Fault, lost, refused, unauthorized, unavailable

from engine.adaptive.batch_size import SLOW_BYTES, BatchBytes
from engine.adaptive.concurrency import LimitChanged
from engine.ledger.writer import Hooks
from engine.model.batch import Limits
from engine.model.error_hints import Blame
from engine.model.errors import (
    Exit,
    JobRefused,
    LeaseLost,
    Refused,
    SourceChanged,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    WrongAddress,
)
from engine.model.shard import LeaseTerms
from engine.model.submission import UNSENT, State, Submission
from engine.progress.events import BatchMoved, BatchSettled
from engine.reports.audit import audit
from engine.run.uploader import STAGE_TRIES, Uploader


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        yield bench


@pytest.fixture
async def marked(tmp_path):
    async with a_bench(tmp_path, records=3, stages=False, marks=True) as bench:
        yield bench


@pytest.fixture
async def inline(tmp_path):
    async with a_bench(tmp_path, records=3, stages=False) as bench:
        yield bench


def once(count):
    return {str(number): 1 for number in range(count)}


async def one_batch(bench):
    (batch,) = await bench.freeze()
    return batch


async def fate(bench):
    """Return the only batch's submission and settlement, as the ledger has them."""
    (submission,) = await bench.submissions()
    return submission, await bench.ledger.settlement(bench.job.name, 0)


def noting(steps):
    """Note each step of a batch as it becomes durable, beside the calls of the service."""
    return Hooks(on_commit=lambda changes: steps.extend(str(c.state) for c in changes if c.operation == "move"))


EACH_ONCE = {"0": 1, "1": 1, "2": 1}


# The way of a batch


async def test_each_step_is_durable_before_a_call_that_builds_on_it(tmp_path):
    """That a batch may be staged is harmless: its intent is on disk with the name that it is given."""
    steps = []
    async with a_bench(tmp_path, records=3, hooks=noting(steps)) as bench:
        bench.service.log = steps
        batch = await one_batch(bench)
        submission = await bench.submit(batch)
    assert steps == ["stage", "staging", "staged", "upload", "releasing", "release", "released"]
    assert (submission.state, submission.remote_id) == (State.RELEASED, "r1")


async def test_where_people_see_what_is_staged_the_intent_is_durable_first(tmp_path):
    steps = []
    async with a_bench(tmp_path, records=3, hooks=noting(steps), done_by="stage") as bench:
        bench.service.log = steps
        await bench.submit(await one_batch(bench))
    assert steps == ["staging", "stage"]


async def test_what_goes_up_is_what_was_frozen(bench):
    batch = await one_batch(bench)
    await bench.submit(batch)
    assert bench.service.remotes["r1"].payload == bench.reader.read(batch)
    assert bench.service.ids() == EACH_ONCE


async def test_a_call_waits_while_the_lease_of_its_batch_is_not_renewed(bench, monkeypatch):
    batch, began = await one_batch(bench), bench.clock.monotonic()

    def check_lease(job, sequence):
        if bench.clock.monotonic() < began + 3:
            raise LeaseLost.of(job, sequence)

    monkeypatch.setattr(bench.ledger._ledger, "check_lease", check_lease)
    await bench.submit(batch)
    assert bench.clock.monotonic() >= began + 3
    assert bench.service.ids() == EACH_ONCE


async def test_a_call_whose_lease_is_lost_is_not_made_once_the_run_ends(bench, monkeypatch):
    batch = await one_batch(bench)

    def check_lease(job, sequence):
        bench.stop.request(LeaseLost.of(job, sequence))  # as the next renewal does
        raise LeaseLost.of(job, sequence)

    monkeypatch.setattr(bench.ledger._ledger, "check_lease", check_lease)
    with pytest.raises(LeaseLost):
        await bench.submit(batch)
    assert bench.service.ids() == {}


async def test_inline_the_intent_is_durable_before_the_only_call(tmp_path):
    steps = []
    async with a_bench(tmp_path, records=3, hooks=noting(steps), stages=False) as bench:
        bench.service.log = steps
        submission = await bench.submit(await one_batch(bench))
    assert steps == ["releasing", "release", "released"]
    assert submission.remote_id == "r1"
    assert bench.service.ids() == EACH_ONCE


@pytest.mark.parametrize("way", [{}, {"stages": False}, {"done_by": "stage"}])
async def test_who_waits_for_a_place_hears_of_the_last_answer_before_it_is_written_down(tmp_path, way):
    steps = []
    hooks = Hooks(on_commit=lambda changes: steps.extend(str(change.state) for change in changes if change.state))
    async with a_bench(tmp_path, records=3, hooks=hooks, **way) as bench:
        batch, run = await one_batch(bench), bench.run()
        bench.service.log = steps
        await Uploader(run, bench).submit(batch, Submission(0), lambda: steps.append("answered"))
        last_call = max(index for index, step in enumerate(steps) if step in {"stage", "upload", "release"})
        assert steps[last_call + 1 :] == ["answered", "settled" if way.get("done_by") else "released"]


async def test_of_a_call_that_was_lost_nobody_hears_that_it_was_answered(tmp_path):
    async with a_bench(tmp_path, records=3, stages=False, faults={"release": [lost(applied=True)]}) as bench:
        submitted = await Uploader(bench.run(), bench).submit(await one_batch(bench), Submission(0), pytest.fail)
        assert submitted.doubt is not None


async def test_each_step_is_told_to_who_listens(bench):
    await bench.submit(await one_batch(bench))
    moves = [(event.before, event.after, event.records) for event in bench.events if isinstance(event, BatchMoved)]
    assert moves == [
        (State.FROZEN, State.STAGING, 3),
        (State.STAGING, State.STAGED, 3),
        (State.STAGED, State.RELEASING, 3),
        (State.RELEASING, State.RELEASED, 3),
    ]


async def test_a_source_that_changed_is_not_sent(bench):
    batch = await one_batch(bench)
    path = bench.job.sources[0].path
    with open(path, "r+b") as file:  # noqa: ASYNC230, PTH123 - one byte, in place
        file.seek(16)
        file.write(b"9")
    with pytest.raises(SourceChanged):
        await bench.submit(batch)
    assert bench.service.log == []
    assert await bench.states() == [State.FROZEN]


async def test_where_staging_is_all_there_is_to_do_the_batch_is_settled_at_once(tmp_path):
    steps = []
    async with a_bench(tmp_path, records=3, hooks=noting(steps), done_by="stage", failing={"1": "no"}) as bench:
        bench.service.log = steps
        submission = await bench.submit(await one_batch(bench))
        _, settlement = await fate(bench)
    assert (submission.state, submission.remote_id) == (State.SETTLED, "r1")
    assert steps == ["staging", "stage"], "and the fate is kept in one step with the name"
    assert (settlement.task_ids, settlement.errors) == (["r1-0", None, "r1-2"], {1: "no"})
    assert bench.events[-1] == BatchSettled(0, 2, 1, "no")


@pytest.mark.parametrize("stages", [True, False])
async def test_where_the_release_tells_the_fate_the_batch_is_settled_by_it(tmp_path, stages):
    async with a_bench(tmp_path, records=3, done_by="release", stages=stages) as bench:
        submission = await bench.submit(await one_batch(bench))
        known, settlement = await fate(bench)
    assert (submission.state, known.remote_id, settlement.created) == (State.SETTLED, "r1", 3)


# Where an earlier process stopped


async def test_a_batch_found_staging_is_staged_again(bench):
    batch = await one_batch(bench)
    await bench.bring(batch, State.STAGING)
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.log == ["stage", "upload", "release"]


async def test_a_batch_found_staged_is_staged_again_and_its_old_id_is_an_orphan(bench):
    batch = await one_batch(bench)
    await bench.bring(batch, State.STAGED, "old")
    assert (await bench.submit(batch)).remote_id == "r1"
    assert bench.service.log == ["stage", "upload", "release"]
    assert await bench.ledger.orphans("j") == ["old"]


# Names


def naming(bench, *names):
    """Have the service give these names, one after the other."""
    given, new = list(names), bench.service._new

    def renamed(batch, payload=None):
        remote_id, name = new(batch, payload), given.pop(0)
        bench.service.remotes[name] = bench.service.remotes.pop(remote_id)
        return name

    bench.service._new = renamed


async def test_a_batch_that_is_given_the_name_of_another_one_is_staged_again(tmp_path):
    async with a_bench(tmp_path, records=20) as bench:
        first, second = await bench.freeze()
        naming(bench, "7", "7", "8")
        assert (await bench.submit(first)).remote_id == "7"
        bench.service.remotes["mine"] = bench.service.remotes["7"]  # what the second one gets is not the first one's
        assert (await bench.submit(second)).remote_id == "8"
        assert set(bench.service.ids().values()) == {1}


async def test_two_batches_that_get_one_name_at_the_same_moment_do_not_both_keep_it(tmp_path):
    async with a_bench(tmp_path, records=20) as bench:
        first, second = await bench.freeze()
        naming(bench, "7", "7", "8")
        uploader = Uploader(bench.run(), bench)
        ends = await asyncio.gather(*(uploader.submit(batch, Submission(batch.sequence)) for batch in (first, second)))
        assert sorted(end.doubt is None for end in ends) == [False, True]


async def test_inline_a_batch_that_is_given_the_name_of_another_one_is_uncertain(tmp_path):
    async with a_bench(tmp_path, records=20, stages=False) as bench:
        first, second = await bench.freeze()
        naming(bench, "7", "7")
        await bench.submit(first)
        assert (await bench.submit(second)).state is State.UNCERTAIN


# What the service declines


@pytest.mark.parametrize("call", ["stage", "upload", "release"])
async def test_a_refusal_settles_the_batch_as_failed_in_the_words_of_the_service(bench, call):
    bench.service.faults = {call: [refused("InvalidThing: not this one")]}
    submission = await bench.submit(await one_batch(bench))
    assert submission.state is State.SETTLED
    known, settlement = await fate(bench)
    assert (known.state, known.note) == (State.SETTLED, "InvalidThing: not this one")
    assert settlement.task_ids == [None, None, None]
    assert set(settlement.errors.values()) == {"InvalidThing: not this one"}
    assert bench.service.journal == []


@pytest.mark.parametrize("call", ["upload", "release"])
@pytest.mark.parametrize("answer", [None, unavailable(), refused()], ids=["done", "unavailable", "refused"])
async def test_what_was_staged_of_a_refused_batch_is_canceled_where_possible(bench, call, answer):
    bench.service.faults = {call: [refused("not this one")], "cancel": [answer]}
    assert (await bench.submit(await one_batch(bench))).state is State.SETTLED
    assert bench.service.calls("cancel") == ["cancel"]
    assert bench.service.remotes["r1"].canceled == (answer is None)


async def test_credentials_that_do_not_hold_for_the_tidying_up_stop_the_job(bench):
    bench.service.faults = {"upload": [refused("not this one")], "cancel": [unauthorized()]}
    with pytest.raises(Unauthorized):
        await bench.submit(await one_batch(bench))
    assert await bench.states() == [State.STAGED]


async def test_a_refusal_is_told_to_who_listens(bench):
    bench.service.faults = {"upload": [refused("too large", status=413)]}
    await bench.submit(await one_batch(bench))
    moved, settled = bench.events[-2:]
    assert (moved.before, moved.after, moved.records, moved.reason) == (State.STAGED, State.SETTLED, 3, "too large")
    assert settled == BatchSettled(0, 0, 3, "too large")


async def test_inline_a_refusal_settles_the_batch_as_failed(inline):
    inline.service.faults = {"release": [refused("too many tasks")]}
    assert (await inline.submit(await one_batch(inline))).state is State.SETTLED
    _, settlement = await fate(inline)
    assert settlement.errors == {0: "too many tasks", 1: "too many tasks", 2: "too many tasks"}


# Upload URLs


def expired(words="AccessDenied: Request has expired"):
    return refused(words, status=403, blame=Blame.URL)


async def test_a_refused_upload_url_is_replaced_by_a_fresh_one(bench):
    bench.service.faults = {"upload": [expired()] * (STAGE_TRIES - 1)}
    submission = await bench.submit(await one_batch(bench))
    assert (submission.state, submission.remote_id) == (State.RELEASED, "r3")
    assert await bench.ledger.orphans("j") == ["r1", "r2"]
    assert bench.service.ids() == EACH_ONCE


async def test_a_store_that_refuses_every_fresh_url_stops_the_job(bench):
    bench.service.faults = {"upload": [expired("InvalidArgument: One way only")] * STAGE_TRIES}
    batch = await one_batch(bench)
    with pytest.raises(JobRefused, match="3 fresh upload URLs in a row: InvalidArgument: One way only") as raised:
        await bench.submit(batch)
    assert raised.value.exit_status == Exit.MEND_FIRST
    assert bench.service.calls("upload", "release") == ["upload"] * STAGE_TRIES
    assert await bench.states() == [State.STAGED]
    assert (await bench.submit(batch)).state is State.RELEASED


async def test_an_upload_that_somebody_else_answered_is_made_again_with_a_fresh_url(bench):
    bench.service.faults = {"upload": [Fault(UnexpectedAnswer("no ETag"))]}
    submission = await bench.submit(await one_batch(bench))
    assert (submission.state, submission.remote_id) == (State.RELEASED, "r2")
    assert bench.service.ids() == EACH_ONCE


async def test_an_upload_url_that_is_too_old_is_not_used(bench):
    bench.service.url_seconds = 5.0
    stage, seconds = bench.service.stage, [6.0]

    async def slow_once(batch, payload, *, earlier_id=None, intent):
        staged = await stage(batch, payload, earlier_id=earlier_id, intent=intent)
        await bench.clock.sleep(seconds.pop() if seconds else 0.0)
        return staged

    bench.service.stage = slow_once
    submission = await bench.submit(await one_batch(bench))
    assert (submission.state, submission.remote_id) == (State.RELEASED, "r2")
    assert bench.service.log == ["stage", "stage", "upload", "release"]
    assert await bench.ledger.orphans("j") == ["r1"]


# Whose fault a refusal is


@pytest.mark.parametrize("stages", [True, False])
async def test_a_refusal_that_concerns_the_whole_job_stops_it_and_no_record_fails(tmp_path, stages):
    async with a_bench(tmp_path, records=3, stages=stages) as bench:
        call = "stage" if stages else "release"
        bench.service.faults = {call: [refused("no such project", status=404, blame=Blame.JOB)]}
        batch = await one_batch(bench)
        with pytest.raises(JobRefused, match=r"no such project; the project is there\. No record has failed") as raised:
            await bench.submit(batch)
        assert raised.value.exit_status == Exit.MEND_FIRST
        assert await bench.states() == [State.FROZEN]
        assert (await bench.submit(batch)).state is State.RELEASED


async def test_what_the_service_says_of_the_project_stands_in_the_message(bench):
    bench.service.faults = {
        "stage": [refused("create: 404", status=404, blame=Blame.JOB)],
        "look": [refused("project 43 is not there", status=404, blame=Blame.JOB)],
    }
    with pytest.raises(JobRefused, match="create: 404; project 43 is not there"):
        await bench.submit(await one_batch(bench))


WAYS = [{}, {"stages": False}, {"done_by": "stage", "limits": Limits(1, 1 << 20)}]


@pytest.mark.parametrize("service", WAYS, ids=["presigned", "inline", "drafts"])
@pytest.mark.parametrize("bad", ["0", "3", "6"])
async def test_a_record_that_a_firewall_turns_away_fails_with_the_words_of_its_page(tmp_path, service, bad):
    async with a_bench(tmp_path, records=7, blocked=frozenset(bad), **service) as bench:
        assert await bench.work() is None
        assert bench.service.ids() == dict.fromkeys({"0", "1", "2", "3", "4", "5", "6"} - {bad}, 1)
        (words,) = await errors_of(bench)
        assert "403 Forbidden: Request blocked" in words
        held = await audit(bench.job, bench.ledger, bench.evidence)
        assert (held.findings, held.records) == ([], 7)


@pytest.mark.parametrize("service", WAYS[1:], ids=["inline", "drafts"])
async def test_a_page_is_no_matter_of_the_records_if_a_call_without_them_does_not_get_through_either(tmp_path, service):
    async with a_bench(tmp_path, records=1, blocked=frozenset("0"), **service) as bench:
        bench.service.faults = {"look": [Fault(WrongAddress("look: 403 Forbidden"))]}
        batch = await one_batch(bench)
        with pytest.raises(WrongAddress):
            await bench.submit(batch)
        assert await bench.states() == [State.FROZEN]
        bench.service.blocked = frozenset()
        await bench.submit(batch)
        assert bench.service.ids() == {"0": 1}


async def test_a_page_that_was_shown_once_costs_one_more_try(tmp_path):
    async with a_bench(tmp_path, records=1, stages=False) as bench:
        page = refused("403 Forbidden", status=403, blame=Blame.SUSPECT)
        bench.service.faults = {"release": [page]}
        assert await bench.work() is None
        assert bench.service.ids() == {"0": 1}


@pytest.mark.parametrize("service", WAYS, ids=["presigned", "inline", "drafts"])
async def test_where_every_record_is_turned_away_the_job_stops_and_none_has_failed(tmp_path, service):
    records = frozenset(map(str, range(20)))
    async with a_bench(tmp_path, records=20, blocked=records, **service) as bench:
        stopped = await bench.work()
        assert isinstance(stopped, JobRefused)
        assert stopped.exit_status == Exit.MEND_FIRST
        assert "records in a row" in str(stopped)
        assert State.SETTLED not in await bench.states()
        bench.service.blocked = frozenset()
        assert await bench.work() is None
        assert bench.service.ids() == once(20)


@pytest.mark.parametrize("service", WAYS[:2], ids=["presigned", "inline"])
async def test_records_turned_away_here_and_there_stop_nothing(tmp_path, service):
    bad = frozenset(map(str, range(0, 60, 7)))
    async with a_bench(tmp_path, records=60, blocked=bad, **service) as bench:
        assert await bench.work() is None
        assert bench.service.ids() == dict.fromkeys({str(number) for number in range(60)} - bad, 1)


async def test_what_got_through_counts_though_the_answer_to_its_release_is_lost(tmp_path):
    bad = frozenset(map(str, range(0, 20, 3)))
    async with a_bench(tmp_path, records=20, blocked=bad, limits=Limits(1, 1 << 20)) as bench:
        bench.service.faults = {"release": [lost(applied=True)] * 20}
        assert await bench.work() is None
        assert bench.service.ids() == dict.fromkeys({str(number) for number in range(20)} - bad, 1)


async def test_a_batch_whose_upload_was_too_large_after_a_lost_try_is_halved_all_the_same(tmp_path):
    async with a_bench(tmp_path, records=2) as bench:
        too_large = Refused("too large", status=413, blame=Blame.PAYLOAD, too_large=True)
        too_large.earlier_lost = True
        bench.service.faults = {"upload": [Fault(too_large)]}
        await bench.freeze()
        await halve_until_done(bench)
        assert bench.service.ids() == once(2)


# Credentials


@pytest.mark.parametrize("call", ["stage", "upload", "release"])
async def test_credentials_that_do_not_hold_stop_the_job_and_new_ones_finish_the_batch(bench, call):
    bench.service.faults = {call: [unauthorized()]}
    batch = await one_batch(bench)
    with pytest.raises(Unauthorized):
        await bench.submit(batch)
    assert (await bench.states())[0] in UNSENT
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.ids() == EACH_ONCE


# A batch that is refused as a whole


def refused_whole(status=422):
    return Fault(Refused("something in it is bad", status=status, blame=Blame.PAYLOAD))


async def halve_until_done(bench, sizes=None):
    """Submit every batch, and the halves of those that are split, as the pipeline does."""
    waiting = [batch for batch, _ in await bench.batches()]
    while waiting:
        batch = waiting.pop(0)
        submitted = await bench.carry(batch, sizes)
        waiting = [*submitted.to_send, *waiting]


async def errors_of(bench):
    """Return why records failed."""
    settlements = [await bench.ledger.settlement("j", batch.sequence) for batch, _ in await bench.batches()]
    return [words for settlement in settlements if settlement for words in settlement.errors.values()]


async def states_by_record(bench):
    """Return the state of the batch of each record, in the order of the records."""
    return [submission.state for batch, submission in await bench.batches() for _ in range(batch.count)]


@pytest.mark.parametrize("stages", [True, False])
@pytest.mark.parametrize("bad", [{"0"}, {"4"}, {"6"}, {"2", "3"}, {"0", "1", "2", "3", "4", "5", "6"}])
async def test_bad_records_are_refused_alone_and_the_good_ones_are_created_once(tmp_path, stages, bad):
    async with a_bench(tmp_path, records=7, stages=stages, poison=frozenset(bad)) as bench:
        await bench.freeze()
        await halve_until_done(bench)
        states = await states_by_record(bench)
        assert bench.service.ids() == dict.fromkeys({"0", "1", "2", "3", "4", "5", "6"} - bad, 1)
        assert states == [State.SETTLED if str(number) in bad else State.RELEASED for number in range(7)]
        refusals = [
            await bench.ledger.settlement("j", submission.sequence)
            for _, submission in await bench.batches()
            if submission.state is State.SETTLED
        ]
        assert [list(settlement.errors.values()) for settlement in refusals] == [["a task is bad"]] * len(bad)
        held = await audit(bench.job, bench.ledger, bench.evidence)
        assert (held.findings, held.records) == ([], 7)


@pytest.mark.parametrize("stages", [True, False])
async def test_a_batch_that_is_too_large_goes_up_in_parts(tmp_path, stages):
    async with a_bench(tmp_path, records=9, stages=stages, most_records=2) as bench:
        await bench.freeze()
        await halve_until_done(bench)
        assert bench.service.ids() == {str(number): 1 for number in range(9)}
        assert await states_by_record(bench) == [State.RELEASED] * 9


async def test_the_parts_are_durable_before_one_of_them_is_sent(tmp_path):
    steps = []
    async with a_bench(tmp_path, records=2, stages=False, poison=frozenset("0"), hooks=noting(steps)) as bench:
        bench.service.log = steps
        (batch,) = await bench.freeze()
        submitted = await bench.carry(batch)
        assert submitted.submission.state is State.SPLIT
        assert await bench.states() == [State.FROZEN, State.FROZEN]
    assert steps == ["releasing", "release"]
    assert bench.events[-1] == BatchMoved(
        0, State.RELEASING, State.SPLIT, batch.count, batch.size_bytes, "a task is bad"
    )


async def test_a_refusal_that_says_which_records_are_bad_is_not_tried_in_parts(inline):
    batch = await one_batch(inline)
    inline.service.faults["release"] = [refused("record 2 is bad")]
    assert (await inline.submit(batch)).state is State.SETTLED
    assert (await fate(inline))[1].errors == dict.fromkeys(range(3), "record 2 is bad")


async def test_a_single_record_is_not_halved(tmp_path):
    async with a_bench(tmp_path, records=1, stages=False, poison=frozenset("0")) as bench:
        (batch,) = await bench.freeze()
        assert (await bench.submit(batch)).state is State.SETTLED
        assert bench.service.calls("release") == ["release"]


async def test_what_is_left_of_a_halved_batch_is_an_orphan_until_it_is_canceled(tmp_path):
    async with a_bench(tmp_path, records=2, poison=frozenset("0")) as bench:
        (batch,) = await bench.freeze()
        bench.service.faults["cancel"] = [refused("it is gone", status=409)]
        assert (await bench.carry(batch)).submission.state is State.SPLIT
        assert await bench.ledger.orphans("j") == ["r1"]
    again = tmp_path / "again"
    again.mkdir()
    async with a_bench(again, records=2, poison=frozenset("0")) as bench:
        (batch,) = await bench.freeze()
        assert (await bench.carry(batch)).submission.state is State.SPLIT
        assert bench.service.remotes["r1"].canceled
        assert await bench.ledger.orphans("j") == []


# How large batches may be


def padded(folder, records, **service):
    """Return a bench whose batches have some 3 KB each."""
    path = write_records(folder / "tasks.ndjson", records, text="x" * 300)
    return a_bench(folder, sources=[path], **service)


@pytest.mark.parametrize("stages", [True, False])
async def test_batches_as_large_as_one_that_was_refused_are_halved_before_they_are_sent(tmp_path, stages):
    async with padded(tmp_path, 50, stages=stages, most_bytes=2000) as bench:
        sizes = BatchBytes(10_000)
        await bench.freeze()
        await halve_until_done(bench, sizes)
        assert bench.service.ids() == once(50)
        sent = bench.service.calls("upload" if stages else "release")
        assert len(sent) == 1 + 2 * 5  # all but one of the five whole batches went in halves at once
        assert [event for event in bench.events if isinstance(event, LimitChanged)] == [
            LimitChanged("max_batch_bytes", 10_000, 1650, "a payload of 3301 bytes was too large")
        ]
        held = await audit(bench.job, bench.ledger, bench.evidence)
        assert (held.findings, held.records) == ([], 50)


@pytest.mark.parametrize("stages", [True, False])
async def test_where_the_size_is_fixed_every_batch_is_sent_as_it_was_frozen(tmp_path, stages):
    async with padded(tmp_path, 50, stages=stages, most_bytes=2000) as bench:
        await bench.freeze()
        await halve_until_done(bench)
        assert len(bench.service.calls("upload" if stages else "release")) == 3 * 5


async def test_a_single_record_tells_nothing_of_how_large_batches_may_be(tmp_path):
    async with padded(tmp_path, 1, most_bytes=10) as bench:
        sizes = BatchBytes(10_000)
        await bench.freeze()
        await halve_until_done(bench, sizes)
        assert await bench.states() == [State.SETTLED]
        assert sizes.limit == 10_000


def long_records(folder, count):
    return write_records(folder / "tasks.ndjson", count, text="x" * SLOW_BYTES)


async def test_an_upload_that_does_not_get_through_in_time_goes_in_halves(tmp_path):
    path = long_records(tmp_path, 8)
    async with a_bench(tmp_path, sources=[path], in_time_bytes=3 * SLOW_BYTES) as bench:
        sizes = BatchBytes(1 << 20)
        await bench.freeze()
        await halve_until_done(bench, sizes)
        assert bench.service.ids() == once(8)
        assert sizes.limit < 3 * SLOW_BYTES
        assert all(remote.canceled or remote.releases for remote in bench.service.remotes.values())
        assert await bench.ledger.orphans("j") == []


async def test_an_upload_whose_connection_always_breaks_goes_in_halves(tmp_path):
    path = long_records(tmp_path, 8)
    async with a_bench(tmp_path, sources=[path], reset_bytes=3 * SLOW_BYTES) as bench:
        sizes = BatchBytes(1 << 20)
        await bench.freeze()
        await halve_until_done(bench, sizes)
        assert bench.service.ids() == once(8)
        assert next(event.after for event in bench.events if isinstance(event, LimitChanged)) < 5 * SLOW_BYTES
        assert sum(bool(remote.releases) for remote in bench.service.remotes.values()) == 4


async def test_a_connection_that_breaks_now_and_then_costs_a_fresh_url_and_nothing_else(bench):
    error = Unavailable("put: the connection was lost")
    error.reset = True
    bench.service.faults = {"upload": [Fault(error)]}
    assert (await bench.submit(await one_batch(bench))).remote_id == "r2"
    assert bench.service.calls("upload", "release") == ["upload", "upload", "release"]


@pytest.mark.parametrize("service", [{"in_time_bytes": 1000}, {"reset_bytes": 1000}], ids=["timeout", "reset"])
async def test_a_record_that_never_gets_up_fails_once_others_have_got_through(tmp_path, service):
    path = write_records(tmp_path / "tasks.ndjson", 1, text="x" * 1000)
    path.write_bytes(path.read_bytes() + orjson.dumps({"data": {"id": "1"}}))
    async with a_bench(tmp_path, sources=[path], **service) as bench:
        assert await bench.work() is None
        assert bench.service.ids() == {"1": 1}
        (words,) = await errors_of(bench)
        assert "while another upload got through" in words
        held = await audit(bench.job, bench.ledger, bench.evidence)
        assert (held.findings, held.records) == ([], 2)


@pytest.mark.parametrize("records", [1, 2])
async def test_where_nothing_gets_through_no_record_fails(tmp_path, records):
    async with a_bench(tmp_path, records, in_time_bytes=1) as bench:
        (batch,) = await bench.freeze()
        with pytest.raises(Unavailable):
            await bench.submit(batch)
        assert await bench.states() == [State.STAGED]


async def test_inline_a_batch_that_times_out_is_uncertain_and_the_next_ones_are_smaller(tmp_path):
    path = long_records(tmp_path, 8)
    async with a_bench(tmp_path, sources=[path], stages=False, in_time_bytes=3 * SLOW_BYTES) as bench:
        sizes = BatchBytes(1 << 20)
        (batch,) = await bench.freeze()
        submitted = await bench.carry(batch, sizes)
        assert submitted.submission.state is State.UNCERTAIN
        assert sizes.limit == batch.size_bytes // 2


async def test_a_mark_goes_up_with_every_task(marked):
    batch = await one_batch(marked)
    await marked.submit(batch)
    assert [task["data"]["mark"] for task in marked.service.journal] == ["m0"] * 3


# Where several processes send a job


TERMS = LeaseTerms("w", 30.0, 20.0)


@asynccontextmanager
async def leased(tmp_path, waited, **service):
    """Make a bench with one batch, whose lease was taken so many seconds ago."""
    async with a_bench(tmp_path, records=3, shares_jobs=True, **service) as bench:
        batch = await one_batch(bench)
        await bench.ledger.take_shards("j", TERMS, 1)
        await bench.clock.sleep(waited)
        yield bench, batch


async def ends_of(calls):
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("stages", [True, False])
async def test_no_call_goes_out_that_could_end_after_the_lease(tmp_path, stages):
    async with leased(tmp_path, TERMS.seconds - TERMS.call_seconds + 0.1, stages=stages) as (bench, batch):
        uploader = Uploader(bench.run(), bench)
        calls = [uploader.submit(batch, Submission(0)), uploader.tidy_up(batch, "r1")]
        async with under_way(ends_of(calls)) as waiting:
            await until(lambda: bench.clock.elapsed > 2 * TERMS.seconds)
            assert not waiting.done()
            bench.stop.request(LeaseLost.of("j", 0))  # as the next renewal does, if another worker has the batch
            assert [type(error) for error in await waiting] == [LeaseLost] * 2
        assert not {"release", "cancel"} & set(bench.service.log)


@pytest.mark.parametrize("stages", [True, False])
async def test_calls_go_out_once_a_lease_is_renewed_that_was_over_and_that_nobody_took(tmp_path, stages):
    async with leased(tmp_path, 2 * TERMS.seconds, stages=stages) as (bench, batch):
        uploader = Uploader(bench.run(), bench)
        async with under_way(uploader.submit(batch, Submission(0))) as submitting:
            await until(lambda: bench.clock.elapsed > 3 * TERMS.seconds)
            assert "release" not in bench.service.log
            await bench.ledger.renew_shards("j", TERMS)
            assert (await submitting).submission.state is State.RELEASED
        assert bench.service.ids() == EACH_ONCE


async def test_a_call_that_had_to_wait_for_longer_than_the_lease_does_not_go_out(tmp_path):
    async with a_bench(tmp_path, records=3, stages=False, shares_jobs=True) as bench:
        batch = await one_batch(bench)
        await bench.ledger.take_shards("j", LeaseTerms("w", 30.0, 20.0), 1)
        release = bench.service.release

        async def waiting(batch, remote_id, payload, intent, *, sent_before):
            await bench.clock.sleep(15)
            await release(batch, remote_id, payload, intent, sent_before=sent_before)

        bench.service.release = waiting
        async with under_way(Uploader(bench.run(), bench).submit(batch, Submission(0))):
            await until(lambda: bench.clock.elapsed > 60)
            assert bench.service.log == []
