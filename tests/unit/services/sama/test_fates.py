"""Which task is which record: by content where fates differ, and by an order that was proven for the ids."""

import anyio
import orjson
import pytest

from engine.model.errors import SourceChanged, UnexpectedAnswer
from engine.progress.events import Spaced
from engine.services.base import Asked
from engine.services.sama.fates import NOT_LISTED, PROOF_PAUSES
from engine.services.sama.settling import PROOF_BATCHES, Contents, TaskOrder

from .scripted import Caller, Remote, a_batch, service, settled, settled_by

MANY = 300
"""Records of a batch that is larger than a page of the task list."""


def records(count, **more):
    return [{"n": number, **more} for number in range(count)]


def shuffled(count):
    return sorted(range(count), key=lambda number: number * 7_919 % count)


def shifted(count):
    return [*range(1, count), 0]


def unproven(settlement):
    return {at for at, details in settlement.details.items() if details == {"id_proven": False}}


def wrong_ids(settlement):
    """Return the records that are said to have an id of another one, and of which nothing warns."""
    pairs = enumerate(settlement.task_ids)
    return {at for at, task_id in pairs if task_id not in (None, f"t{at}")} - unproven(settlement)


# Fates


@pytest.mark.parametrize("order", [None, shuffled(MANY), shifted(MANY)])
@pytest.mark.parametrize("ways", [{}, {"data": False}, {"outputs": {"output_x": 1}}])
async def test_whatever_the_order_of_the_list_a_failed_task_is_that_of_its_record(order, ways):
    failed = {3: "three", 77: "seventy-seven", 200: "two hundred"}
    settlement = await settled(Remote(records(MANY), failed=failed, order=order, **ways))
    assert settlement.errors.keys() == failed.keys()
    assert (settlement.created, settlement.uncertain) == (MANY - 3, {})
    assert wrong_ids(settlement) == set()
    for at, words in failed.items():
        assert words in settlement.errors[at]


async def test_the_words_of_a_failed_task_are_its_own_where_its_data_is_shown():
    remote = Remote(records(MANY), failed={5: "five", 6: "six"}, order=shuffled(MANY))
    assert (await settled(remote)).errors == {5: "Bad: five", 6: "Bad: six"}


async def test_failed_tasks_that_show_no_data_have_the_list_of_created_ones_read_to_its_end():
    remote = Remote(records(MANY), failed=[5], order=shuffled(MANY), data=False)
    settlement = await settled(remote)
    assert settlement.errors.keys() == {5}
    assert unproven(settlement) == set()
    assert remote.calls_of("tasks") == 1 + 4, "one for the proof, then all and an empty page"


async def test_where_nothing_shows_which_ones_failed_it_is_asked_again_and_then_nobody_knows():
    remote = Remote(records(MANY), failed=[5], order=shuffled(MANY), data=False, tasks=False)
    assert await settled(remote) is None
    settlement = await settled(remote, unmoved=True)
    assert settlement.uncertain.keys() == set(range(MANY))
    assert not settlement.unclear()


async def test_failed_tasks_that_show_no_data_are_told_by_content_also_where_an_order_was_proven():
    first = Remote(records(MANY))
    sama = service(first)
    await settled_by(sama, first)
    for order in (None, shuffled(MANY)):
        remote = Remote(records(MANY), failed=[5, 77], order=order, data=False)
        sama._caller = sama._tasks._caller = remote
        settlement = await settled_by(sama, remote)
        assert settlement.errors.keys() == {5, 77}
        assert wrong_ids(settlement) == set()


async def test_an_order_that_was_proven_says_which_ones_failed_where_nothing_else_does():
    remote = Remote(records(MANY), failed=[5], data=False)
    sama = service(remote)
    await settled_by(sama, remote)
    remote.ways["tasks"] = False
    assert (await settled_by(sama, remote)).errors.keys() == {5}


@pytest.mark.parametrize("failed", [(), range(MANY)])
async def test_where_all_records_have_one_fate_it_needs_no_order(failed):
    remote = Remote(records(MANY), failed=failed, order=shuffled(MANY), data=False, tasks=False)
    settlement = await settled(remote)
    assert settlement.created == MANY - len(failed)
    assert settlement.uncertain == {}


async def test_different_reasons_in_no_known_order_are_all_named():
    remote = Remote(records(3), failed={0: "a", 1: "b", 2: "a"}, data=False, tasks=False)
    assert set((await settled(remote)).errors.values()) == {"one of: Bad: a | Bad: b"}


async def test_records_of_equal_content_are_interchangeable():
    alike = [{"n": number // 2} for number in range(10)]
    settlement = await settled(Remote(alike, failed=[4], order=shuffled(10)))
    assert len(settlement.errors) == 1
    assert settlement.errors.keys() <= {4, 5}
    assert sorted(filter(None, settlement.task_ids)) == [f"t{at}" for at in range(10) if at != 4]


async def test_of_records_with_more_and_with_fewer_inputs_the_fuller_one_is_meant():
    remote = Remote([{"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": None}], failed={1: "full"}, order=[1, 0, 2])
    assert (await settled(remote)).errors == {1: "Bad: full"}


async def test_a_batch_cut_short_by_our_cancel_tells_by_content_what_was_created():
    remote = Remote(records(MANY), order=shuffled(MANY), state="canceled", listed=120)
    sama = service(remote)
    remote.failed = dict.fromkeys(remote.order[120:], "never")
    sama._fates.was_canceled("7")
    assert await settled_by(sama, remote) is None, "what is missing may still show"
    settlement = await settled_by(sama, remote, unmoved=True)
    assert {at for at, task_id in enumerate(settlement.task_ids) if task_id} == set(remote.order[:120])
    assert set(settlement.errors.values()) == {"the batch ended as 'canceled'"}


async def test_what_a_batch_that_ended_too_early_does_not_list_is_uncertain():
    remote = Remote(records(MANY), order=shuffled(MANY), listed=120)
    remote.failed = dict.fromkeys(remote.order[120:], "never")
    settlement = await settled(remote, unmoved=True)
    assert {at for at, task_id in enumerate(settlement.task_ids) if task_id} == set(remote.order[:120])
    assert settlement.uncertain.keys() == set(remote.order[120:])


async def test_more_tasks_than_records_are_no_settlement():
    asked = Asked(0, "7", 2)
    sama = service(Remote(records(3)))
    await sama.progress([asked])
    with pytest.raises(UnexpectedAnswer, match="3 tasks for 2 records"):
        await sama.settlement(asked)


@pytest.mark.parametrize("data", [True, False])
async def test_without_the_source_fates_stand_that_need_no_record_and_the_others_are_not_told(data):
    remote, gone = Remote(records(MANY), failed=[5], data=data), Remote(records(MANY))
    for one in (remote, gone):
        one.payload = _gone
    with pytest.raises(SourceChanged):
        await settled(remote)
    assert remote.calls_of("tasks") == 1, "the others would be compared with nothing"
    settlement = await settled(gone)
    assert (settlement.created, unproven(settlement)) == (MANY, set(range(MANY)))


async def test_without_the_source_an_order_that_was_proven_says_which_ones_failed():
    remote = Remote(records(MANY), failed=[5])
    sama = service(remote)
    await settled_by(sama, remote)
    remote.payload = _gone
    settlement = await settled_by(sama, remote)
    assert (settlement.errors, unproven(settlement)) == ({5: "Bad: no"}, set())


async def _gone():
    raise SourceChanged("it is gone")


# Ids


async def test_ids_follow_an_order_that_one_page_has_proven():
    remote = Remote(records(MANY))
    settlement = await settled(remote)
    assert settlement.task_ids == [f"t{at}" for at in range(MANY)]
    assert settlement.details == {}
    assert (remote.calls_of("tasks"), remote.calls_of("status")) == (1, 2)


@pytest.mark.parametrize("order", [shuffled(MANY), shifted(MANY)])
async def test_in_another_order_the_ids_that_one_page_shows_are_right_and_the_others_marked(order):
    settlement = await settled(Remote(records(MANY), order=order))
    assert wrong_ids(settlement) == set()
    assert len(unproven(settlement)) == MANY - 100


async def test_a_small_batch_has_all_its_ids_by_one_page():
    settlement = await settled(Remote(records(100), order=shuffled(100)))
    assert settlement.task_ids == [f"t{at}" for at in range(100)]
    assert settlement.details == {}


async def test_the_order_is_proven_for_the_first_batch_and_every_hundredth():
    remote = Remote(records(MANY))
    sama = service(remote)
    for _ in range(2 * PROOF_BATCHES + 1):
        assert (await settled_by(sama, remote)).details == {}
    assert remote.calls_of("tasks") == 3


async def test_while_the_order_is_proven_again_other_batches_go_on_by_the_proof_before():
    remote, listed = Remote(records(MANY)), anyio.Event()
    sama, answer = service(remote), remote.call
    for _ in range(PROOF_BATCHES):
        await settled_by(sama, remote)

    async def late(call):
        if call.kind == "tasks":
            await listed.wait()
        return await answer(call)

    async def settle():
        ended.append(await settled_by(sama, remote))

    remote.call, ended = late, []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settle)
        tasks.start_soon(settle)
        await anyio.wait_all_tasks_blocked()
        assert [one.details for one in ended] == [{}]
        listed.set()
    assert remote.calls_of("tasks") == 2


async def test_an_order_that_is_broken_later_is_not_followed_any_more():
    remote = Remote(records(MANY), failed=[7])
    sama = service(remote)
    assert (await settled_by(sama, remote)).details == {}
    remote.order = shifted(MANY)
    assert len(unproven(await settled_by(sama, remote))) == MANY - 1
    remote.order, remote.failed = list(range(MANY)), {}
    assert len(unproven(await settled_by(sama, remote))) == MANY


async def test_where_the_proof_is_not_to_be_had_fates_stand_and_ids_are_marked():
    remote = Remote(records(MANY), failed=[7], tasks=False)
    settlement = await settled(remote)
    assert settlement.errors.keys() == {7}
    assert unproven(settlement) == set(range(MANY)) - {7}


async def test_a_proof_that_is_not_to_be_had_is_tried_ever_more_seldom():
    remote = Remote(records(MANY), tasks=False)
    sama = service(remote)
    for _ in range(PROOF_BATCHES):
        await settled_by(sama, remote)
    assert remote.calls_of("tasks") == 6


async def test_the_first_proof_waits_a_little_for_a_list_that_lags_behind():
    remote = Remote(records(MANY))
    tasks, remote._made = remote._made, lambda: tasks() if remote.calls_of("tasks") > 2 else []
    assert (await settled(remote)).details == {}
    assert remote.calls_of("tasks") <= 1 + len(PROOF_PAUSES)


async def test_whoever_waits_for_a_list_that_lags_behind_says_so_where_it_takes_over_a_second():
    remote, events = Remote(records(MANY)), []
    tasks, remote._made = remote._made, lambda: tasks() if remote.calls_of("tasks") > 3 else []
    await settled_by(service(remote, emit=events.append), remote)
    assert events == [Spaced(NOT_LISTED, seconds) for seconds in PROOF_PAUSES if seconds > 1]


async def test_a_single_record_needs_no_proof():
    remote = Remote(records(1))
    assert (await settled(remote)).details == {}
    assert remote.calls_of("tasks") == 0


async def test_a_page_of_equal_tasks_proves_no_order():
    settlement = await settled(Remote([{"n": 0}] * 200 + records(100)))
    assert len(unproven(settlement)) == 200


async def test_records_that_are_all_equal_need_no_proof_of_their_ids():
    assert (await settled(Remote([{"n": 0}] * MANY))).details == {}


# Ids that the answer to an inline batch has told


async def inline(remote, told):
    sama = service(remote, mode="inline")
    sama._caller = Caller({"batch_id": 7, "task_ids": told})
    await sama.release(a_batch(MANY), None, await remote.payload())
    sama._caller = remote
    return sama


async def test_ids_that_the_answer_told_are_those_of_the_records_whatever_the_order_of_the_list():
    remote = Remote(records(MANY), order=shuffled(MANY))
    sama = await inline(remote, [f"t{at}" for at in range(MANY)])
    settlement = await settled_by(sama, remote)
    assert settlement.task_ids == [f"t{at}" for at in range(MANY)]
    assert settlement.details == {}, "one page has proven the order in which they were told"


async def test_told_ids_are_confirmed_by_the_status_or_forgotten():
    remote = Remote(records(MANY))
    sama = await inline(remote, [f"other{at}" for at in range(MANY)])
    assert (await settled_by(sama, remote)).task_ids == [f"t{at}" for at in range(MANY)]


async def test_ids_told_in_another_order_are_found_out_by_the_proof():
    remote = Remote(records(MANY))
    sama = await inline(remote, [f"t{at}" for at in shuffled(MANY)])
    settlement = await settled_by(sama, remote)
    assert wrong_ids(settlement) == set()
    assert unproven(settlement)


async def test_told_ids_of_tasks_that_failed_are_no_ids_of_created_ones():
    remote = Remote(records(MANY), failed=[5, 6], order=shuffled(MANY))
    sama = await inline(remote, [f"t{at}" for at in range(MANY)])
    settlement = await settled_by(sama, remote)
    assert settlement.errors.keys() == {5, 6}
    assert wrong_ids(settlement) == set()


# The parts


def test_content_is_the_same_in_another_order_of_keys_and_with_outputs_beside_it():
    sent = Contents([orjson.dumps({"data": {"b": {"y": 1, "x": 2}, "a": 1, "none": None}})])
    shown = {"output_z": 3, "a": 1, "b": {"x": 2, "y": 1}}
    assert sent.places({4: shown}) == {4: 0}
    assert sent.places({4: shown, 5: shown}) == {4: 0}, "it is taken"
    assert sent.places({4: {"a": 1}}) == {}


@pytest.mark.parametrize(
    ("records", "shown", "places"),
    [
        ([{"a": 1}, {"a": 2}], {0: {"a": 1}, 1: {"a": 2}}, {0: 0, 1: 1}),
        ([{"a": 1}, {"a": 1}], {1: {"a": 1}}, {1: 1}),
        ([{"a": 1, "b": None}], {0: {"a": 1}}, {0: 0}),
        ([{"a": 1}, {"a": 1, "out": 2}], {0: {"a": 1, "out": 2}}, {0: 1}),
        ([{"a": 1}, {"a": 1.0}, {"a": True}], {0: {"a": 1.0}}, {0: 1}),
        ([{"a": 1}, {"a": 2}, {"a": 2}], {0: {"a": 1}, 2: {"a": 2}, 3: {"a": 2}}, {0: 0, 2: 2, 3: 1}),
    ],
)
def test_a_task_has_its_own_place_only_if_no_other_record_is_more_like_it(records, shown, places):
    assert Contents([orjson.dumps({"data": data}) for data in records]).places(shown) == places


def test_records_differ_if_not_all_have_the_same_content():
    sent = Contents([orjson.dumps({"data": data}) for data in ({"a": 1}, {"a": 1, "b": None}, {"a": 2})])
    assert (sent.differ([]), sent.differ([2]), sent.differ([0, 1]), sent.differ([0, 1, 2])) == (
        False,
        False,
        False,
        True,
    )


def test_an_order_is_due_first_and_then_after_each_hundred():
    order = TaskOrder()
    assert order.due
    order.proven()
    order.settled()
    assert (order.due, order.holds) == (False, True)
    for _ in range(PROOF_BATCHES - 1):
        order.settled()
    assert order.due
    order.broken()
    assert (order.due, order.holds) == (False, False)
    order.proven()
    assert not order.holds
