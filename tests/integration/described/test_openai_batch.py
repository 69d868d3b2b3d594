import pytest

from engine.model.errors import Exit
from engine.sandbox.behaviour import FailureRule, Fault, Reads
from engine.sandbox.vendors.openai_batch import OpenAiStandIn, OpenAiSwitches

from .desk import counts, is_checked, is_resumed, once, reasons

FILLED_IN = """
base_url = "{url}/v1"
[service.auth]
secret = "${env:VENDOR_KEY}"
"""
REFUSED = FailureRule(path="user", equals="bad", type="content_policy_violation", message="This is against our policy.")


@pytest.fixture
def vendor(desk):
    async def starting(*, switches=None, **behaviour):
        stand_in = ("openai-batch", OpenAiStandIn, FILLED_IN)
        return await desk(*stand_in, marker="metadata.id", switches=switches or OpenAiSwitches(), **behaviour)

    return starting


def requests(count, start=0, **fields):
    return [
        {"model": "m", "messages": [{"role": "user", "content": "?"}], "metadata": {"id": str(number)}, **fields}
        for number in range(start, start + count)
    ]


async def test_each_request_is_made_once_and_each_bad_one_has_its_reason(vendor):
    vendor = await vendor(failures=(REFUSED,))
    without_messages = {"model": "m", "metadata": {"id": "301"}}
    result = await vendor.submit([*requests(90), *requests(1, 300, user="bad"), without_messages, *requests(90, 90)])
    assert counts(result) == (180, 2, 0, 0, 0)
    assert vendor.created() == once(range(180))
    assert reasons(result)[90] == "This is against our policy."
    assert reasons(result)[91] == "Missing required parameter: 'messages'."
    assert {outcome.task_id[:9] for outcome in result.read_outcomes() if outcome.task_id} == {"chatcmpl-"}
    assert (await vendor.audit()).holds


@pytest.mark.parametrize("empty_id", [None, ""])
async def test_a_batch_without_errors_has_no_file_of_them(vendor, empty_id):
    vendor = await vendor(switches=OpenAiSwitches(empty_id=empty_id))
    assert counts(await vendor.submit(requests(40))) == (40, 0, 0, 0, 0)


async def test_a_lost_batch_is_found_by_its_metadata(vendor):
    lost = (
        Fault("create", "drop_after", nth=(2,)),
        Fault("create", "refuse_after", nth=(4,), status=500),
        Fault("upload", "drop_after", nth=(3,)),
        Fault("list", "drop_before", nth=(1,)),
    )
    vendor = await vendor(faults=lost, reads=Reads(list_seconds=0.1))
    result = await vendor.submit(requests(160), send="max_in_flight = 1")
    assert (counts(result), result.exit_code) == ((160, 0, 0, 0, 0), Exit.ALL_CREATED)
    assert (vendor.faults, vendor.created()) == (4, once(range(160)))
    assert len(vendor.service.batches) == 8


async def test_a_batch_that_never_arrived_is_made_after_the_settle_time(vendor):
    vendor = await vendor(faults=(Fault("create", "drop_before", nth=(2,)),))
    result = await vendor.submit(requests(80), send="max_in_flight = 1")
    assert counts(result) == (80, 0, 0, 0, 0)
    assert vendor.created() == once(range(80))


async def test_requests_that_were_not_made_before_the_end_say_so(vendor):
    vendor = await vendor(switches=OpenAiSwitches(line_seconds=0.05, window_seconds=0.26))
    result = await vendor.submit(requests(10))
    assert result.tally.created + result.tally.failed == 10
    assert result.tally.created == len(vendor.created()) > 0
    assert set(reasons(result).values()) == {"This request could not be executed before the completion window expired."}


async def test_a_job_that_is_canceled_has_its_batches_canceled(vendor):
    vendor = await vendor(switches=OpenAiSwitches(line_seconds=0.5))
    await vendor.submit_a_part(requests(40), 2)
    result = await vendor.cancel()
    assert result.tally.created == len(vendor.created()) < 40
    assert {batch.ended[0] for batch in vendor.service.batches.values()} == {"cancelled"}


async def test_a_batch_beyond_what_may_be_under_way_is_sent_again_by_a_retry(vendor):
    vendor = await vendor(switches=OpenAiSwitches(line_seconds=0.03, enqueued_requests=30))
    result = await vendor.submit(requests(40), send="max_in_flight = 1")
    assert counts(result) == (20, 20, 0, 0, 0)
    assert all("Enqueued token limit reached" in reason for reason in reasons(result).values())
    assert counts(await vendor.retry()) == (20, 0, 0, 0, 0)
    assert vendor.created() == once(range(40))


async def test_a_batch_that_fails_its_validation_fails_its_records_with_the_vendors_words(vendor):
    vendor = await vendor()
    result = await vendor.submit([*requests(20), *requests(10, 20, model="other"), *requests(10, 30)])
    assert counts(result) == (20, 20, 0, 0, 0)
    assert vendor.created() == once(range(20))
    assert all("is not that of the first line" in reason for reason in reasons(result).values())


async def test_a_run_that_is_stopped_is_resumed(vendor):
    vendor = await vendor(faults=(Fault("create", "drop_after", every=3),))
    await is_resumed(vendor, requests(160))


async def test_check_tells_the_promise_and_whether_the_key_holds(vendor, monkeypatch):
    await is_checked(await vendor(), requests(3), "it is searched for by our mark", monkeypatch)
