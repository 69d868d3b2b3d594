import pytest

from engine.model.errors import Exit
from engine.sandbox.behaviour import Fault, RateLimit
from engine.sandbox.vendors.elasticsearch import ElasticsearchStandIn, ElasticsearchSwitches
from engine.services.described import sending

from .desk import counts, is_checked, is_resumed, once, reasons

FILLED_IN = """
base_url = "{url}"
[service.values]
index_name = "tasks"
[service.auth]
secret = "${env:VENDOR_KEY}"
"""
MAPPING = {"id": "long", "price": "double", "title": "keyword"}


@pytest.fixture
def vendor(desk):
    async def starting(*, fields=MAPPING, strict=True, open_search=False, busy=0, tries=1, **behaviour):
        switches = ElasticsearchSwitches(
            fields=fields, strict=strict, open_search=open_search, busy_every=busy, busy_tries=tries
        )
        return await desk("elasticsearch", ElasticsearchStandIn, FILLED_IN, marker="id", switches=switches, **behaviour)

    return starting


def documents(count, start=0, **fields):
    return [{"id": number, "price": 1.5, "title": f"T{number}", **fields} for number in range(start, start + count)]


@pytest.mark.parametrize("open_search", [False, True])
async def test_each_good_document_is_created_once_and_each_bad_one_has_its_reason(vendor, open_search):
    vendor = await vendor(open_search=open_search)
    bad = [*documents(1, 300, price="cheap"), *documents(1, 301, colour="red"), *documents(1, 302, title={"de": "x"})]
    result = await vendor.submit([*documents(150), *bad, *documents(150, 150)])
    assert counts(result) == (300, 3, 0, 0, 0)
    assert vendor.created() == once(range(300))
    assert len(vendor.service.documents) == 300
    said = reasons(result)
    assert "failed to parse field [price] of type [double]" in said[150]
    assert "dynamic introduction of [colour]" in said[151]
    assert "failed to parse field [title]" in said[152]
    assert (await vendor.audit()).holds


async def test_a_lost_answer_is_repeated_and_what_is_there_then_is_ours(vendor):
    vendor = await vendor(
        faults=(
            Fault("bulk", "drop_after", nth=(2, 5)),
            Fault("bulk", "truncate", nth=(7,)),
            Fault("bulk", "refuse_after", nth=(9,), status=503),
        )
    )
    result = await vendor.submit(documents(200), send="max_in_flight = 1")
    assert (counts(result), result.exit_code) == ((200, 0, 0, 0, 0), Exit.ALL_CREATED)
    assert (vendor.faults, vendor.created()) == (4, once(range(200)))
    assert {outcome.task_id for outcome in result.read_outcomes()} == {key for _, key in vendor.service.documents}


async def test_what_arrives_late_is_ours_too(vendor):
    vendor = await vendor(faults=(Fault("bulk", "drop_late", nth=(1, 3), seconds=0.2),))
    result = await vendor.submit(documents(100), send="max_in_flight = 1")
    assert counts(result) == (100, 0, 0, 0, 0)
    assert (vendor.faults, vendor.created()) == (2, once(range(100)))


async def test_a_document_that_was_there_before_is_somebody_elses(vendor):
    vendor = await vendor()
    vendor.service.documents["tasks", "7"] = {}
    result = await vendor.submit(documents(40), more='[service.record]\nkey = "${task.id}"\n')
    assert counts(result) == (39, 1, 0, 0, 0)
    assert "there already" in reasons(result)[7]
    assert vendor.service.documents["tasks", "7"] == {}


async def test_documents_that_are_turned_away_go_again(vendor, monkeypatch):
    monkeypatch.setattr(sending, "FIRST_BUSY_SECONDS", 0.001)
    vendor = await vendor(busy=7, tries=2)
    result = await vendor.submit(documents(200))
    assert counts(result) == (200, 0, 0, 0, 0)
    assert vendor.created() == once(range(200))
    assert vendor.calls("bulk") == 10 + 2 * 10


async def test_a_document_that_is_turned_away_for_good_fails_with_the_reason(vendor, monkeypatch):
    monkeypatch.setattr(sending, "FIRST_BUSY_SECONDS", 0.0)
    vendor = await vendor(busy=20, tries=1000)
    result = await vendor.submit(documents(40))
    assert counts(result) == (38, 2, 0, 0, 0)
    assert all("rejected execution" in reason for reason in reasons(result).values())


async def test_a_cluster_that_turns_whole_requests_away_is_waited_for(vendor):
    vendor = await vendor(rate_limits=(RateLimit(4, 0.2),))
    quick = '[[service.rules]]\nstatus = [429]\nmeans = "pause"\nseconds = 0.1\n'
    result = await vendor.submit(documents(200), more=quick)
    assert counts(result) == (200, 0, 0, 0, 0)
    assert vendor.created() == once(range(200))
    assert vendor.service.traffic.stats.rate_limited > 0


async def test_a_body_that_is_too_large_is_halved(vendor):
    vendor = await vendor(max_body_bytes=1000)
    result = await vendor.submit([*documents(60), *documents(1, 60, title="x" * 2000)])
    assert counts(result) == (60, 1, 0, 0, 0)
    assert vendor.created() == once(range(60))


async def test_a_key_that_does_not_hold_fails_no_record_and_resume_goes_on(vendor, monkeypatch):
    vendor = await vendor(access_keys=("other-key",))
    result = await vendor.submit(documents(40))
    assert (result.exit_code, vendor.created()) == (Exit.MEND_FIRST, {})
    monkeypatch.setenv("VENDOR_KEY", "other-key")
    result = await vendor.resume()
    assert counts(result) == (40, 0, 0, 0, 0)
    assert vendor.created() == once(range(40))


async def test_a_run_that_is_stopped_is_resumed(vendor):
    vendor = await vendor(faults=(Fault("bulk", "drop_after", every=4),))
    await is_resumed(vendor, documents(200))


async def test_check_tells_the_promise_and_whether_the_key_holds(vendor, monkeypatch):
    await is_checked(await vendor(), documents(3), "takes no second record of the same key", monkeypatch)
