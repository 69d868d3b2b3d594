import pytest

from engine.model.errors import Exit
from engine.sandbox.behaviour import Fault, RateLimit
from engine.sandbox.vendors.anthropic_batches import AnthropicStandIn, AnthropicSwitches

from .desk import counts, once, reasons

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


async def test_a_lost_answer_leaves_its_batch_uncertain_and_nothing_is_sent_twice(vendor):
    vendor = await vendor(faults=(Fault("create", "drop_after", nth=(2,)), Fault("create", "drop_before", nth=(4,))))
    result = await vendor.submit(requests(100), send="max_in_flight = 1")
    assert (counts(result), result.exit_code) == ((60, 0, 0, 40, 0), Exit.SOME_UNCERTAIN)
    assert (vendor.faults, vendor.created()) == (2, once([*range(60), *range(80, 100)]))
    assert (await vendor.resume()).exit_code == Exit.SOME_UNCERTAIN
    assert len(vendor.service.batches) == 4


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
    vendor.stop_at = 2
    assert (await vendor.submit(requests(40), send="max_in_flight = 1")).state == "open"
    vendor.stop_at = None
    result = await vendor.cancel()
    assert result.tally.created == len(vendor.created()) < 40
    assert all(batch.counts["canceled"] for batch in vendor.service.batches.values())


async def test_a_run_that_is_stopped_is_resumed(vendor):
    vendor = await vendor(switches=AnthropicSwitches(line_seconds=0.002))
    vendor.stop_at = 3
    assert (await vendor.submit(requests(160), send="max_in_flight = 1")).state == "open"
    vendor.stop_at = None
    result = await vendor.resume()
    assert counts(result) == (160, 0, 0, 0, 0)
    assert vendor.created() == once(range(160))
    assert (await vendor.audit()).holds


async def test_check_tells_the_promise_and_whether_the_key_holds(vendor, monkeypatch):
    vendor = await vendor()
    told = await vendor.check(requests(3))
    assert told["key"][0] == "ok"
    assert "its records are uncertain" in told["lost answers"][1]
    monkeypatch.setenv("VENDOR_KEY", "another")
    assert (await vendor.check(requests(3)))["key"][0] == "failed"
    assert vendor.created() == {}
