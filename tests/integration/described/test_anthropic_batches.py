import pytest

from engine.model.errors import Exit
from engine.run import recovery
from engine.sandbox.behaviour import Fault, RateLimit, Reads
from engine.sandbox.vendors.anthropic_batches import AnthropicBatch, AnthropicStandIn, AnthropicSwitches

from .desk import counts, is_checked, is_resumed, once, reasons

FILLED_IN = """
base_url = "{url}"
[service.auth]
secret = "${env:VENDOR_KEY}"
"""


@pytest.fixture
def vendor(desk):
    async def starting(*, switches=None, **behaviour):
        stand_in = ("anthropic-batches", AnthropicStandIn, FILLED_IN)
        return await desk(*stand_in, marker="metadata.user_id", switches=switches or AnthropicSwitches(), **behaviour)

    return starting


def requests(count, start=0, **fields):
    message = {"role": "user", "content": "?"}
    return [
        {"model": "m", "max_tokens": 1, "messages": [message], "metadata": {"user_id": str(number)}, **fields}
        for number in range(start, start + count)
    ]


async def test_each_request_is_made_once_and_each_bad_one_has_its_reason(vendor):
    vendor = await vendor(rate_limits=(RateLimit(1000, 60.0),))
    bad = [{"model": "m", "messages": []}, {"max_tokens": 1}]
    result = await vendor.submit([*requests(90), *bad, *requests(90, 90)])
    assert counts(result) == (180, 2, 0, 0, 0)
    assert vendor.created() == once(range(180))
    assert reasons(result) == {90: "max_tokens: Field required", 91: "model: Field required"}
    assert {outcome.task_id[:4] for outcome in result.read_outcomes() if outcome.task_id} == {"msg_"}
    assert (await vendor.audit()).holds


async def test_a_job_may_have_any_name(vendor):
    vendor = await vendor()
    result = await vendor.submit(requests(5), job="a.name-of-this-length-" + "x" * 60)
    assert counts(result) == (5, 0, 0, 0, 0)


async def test_a_lost_batch_is_found_by_the_keys_in_its_results(vendor):
    lost = (
        Fault("create", "drop_after", nth=(2,)),
        Fault("create", "drop_before", nth=(4,)),
        Fault("create", "refuse_after", nth=(5,), status=500),
        Fault("list", "drop_before", nth=(1,)),
    )
    vendor = await vendor(faults=lost, reads=Reads(list_seconds=0.1))
    result = await vendor.submit(requests(120), send="max_in_flight = 1")
    assert (counts(result), result.exit_code) == ((120, 0, 0, 0, 0), Exit.ALL_CREATED)
    assert (vendor.faults, vendor.created()) == (4, once(range(120)))
    assert len(vendor.service.batches) == 6
    assert vendor.calls("results") == 6 + 2 + 1  # to settle them, to tell whose two are, and whether a search tells


async def test_batches_of_others_are_none_of_ours(vendor):
    vendor = await vendor(faults=(Fault("create", "drop_before", nth=(2,)),))
    vendor.service.batches["msgbatch_x"] = other = AnthropicBatch("msgbatch_x", [], vendor.service.clock())
    other.requests = [{"custom_id": f"of-others-{number}", "params": requests(1)[0]} for number in range(20)]
    result = await vendor.submit(requests(60), send="max_in_flight = 1")
    assert counts(result) == (60, 0, 0, 0, 0)
    assert vendor.created()["0"] == 1 + 20  # theirs have no other number
    assert len(vendor.service.batches) == 4


async def test_as_long_as_a_batch_may_be_ours_nothing_is_sent_again(vendor, monkeypatch):
    monkeypatch.setattr(recovery, "FIRST_QUESTION_SECONDS", 0.001)
    monkeypatch.setattr(recovery, "LONGEST_PAUSE_SECONDS", 0.01)
    lost = (Fault("create", "drop_after", nth=(2,)),)
    vendor = await vendor(switches=AnthropicSwitches(held=(2,)), faults=lost, records=5)
    result = await vendor.submit(requests(10), send="max_in_flight = 1")
    assert (counts(result), result.exit_code) == ((5, 0, 0, 5, 0), Exit.SOME_UNCERTAIN)
    vendor.service.switch(AnthropicSwitches())
    result = await vendor.resume()
    assert counts(result) == (10, 0, 0, 0, 0)
    assert vendor.created() == once(range(10))
    assert len(vendor.service.batches) == 2


async def test_an_overload_did_nothing_and_is_waited_out(vendor):
    vendor = await vendor(faults=(Fault("create", "refuse", nth=(1, 3), status=529),))
    quick = '[[service.rules]]\nstatus = [529]\nmeans = "pause"\nseconds = 0.05\n'
    result = await vendor.submit(requests(60), send="max_in_flight = 1", more=quick)
    assert counts(result) == (60, 0, 0, 0, 0)
    assert vendor.created() == once(range(60))


async def test_requests_that_were_not_made_before_the_end_say_so(vendor):
    vendor = await vendor(switches=AnthropicSwitches(line_seconds=0.05, window_seconds=0.26))
    result = await vendor.submit(requests(10))
    assert result.tally.created + result.tally.failed == 10
    assert result.tally.created == len(vendor.created()) > 0
    assert set(reasons(result).values()) == {"expired"}


async def test_a_job_that_is_canceled_has_its_batches_canceled(vendor):
    vendor = await vendor(switches=AnthropicSwitches(line_seconds=0.5))
    await vendor.submit_a_part(requests(40), 2)
    result = await vendor.cancel()
    assert result.tally.created == len(vendor.created()) < 40
    assert all(batch.counts["canceled"] for batch in vendor.service.batches.values())


async def test_a_run_that_is_stopped_is_resumed(vendor):
    vendor = await vendor(switches=AnthropicSwitches(line_seconds=0.002))
    await is_resumed(vendor, requests(160))


async def test_check_tells_the_promise_and_whether_the_key_holds(vendor, monkeypatch):
    await is_checked(await vendor(), requests(3), "it is searched for by our mark", monkeypatch)
