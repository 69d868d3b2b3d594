import pytest

from engine.model.errors import Exit
from engine.sandbox.behaviour import Fault, Reads
from engine.sandbox.vendors.salesforce_bulk2 import SalesforceStandIn, SalesforceSwitches

from .desk import counts, is_checked, is_resumed, once, reasons

FILLED_IN = """
base_url = "{url}"
[service.values]
client_id = "client"
object = "Contact"
key_field = "Bulksubmit_Key__c"
[service.auth]
secret = "${env:VENDOR_KEY}"
[service.record]
key = "${task.Bulksubmit_Key__c}"
[service.results]
key = "Bulksubmit_Key__c"
"""


@pytest.fixture
def vendor(desk):
    async def starting(**behaviour):
        switches = behaviour.pop("switches", SalesforceSwitches())
        stand_in = ("salesforce-bulk2", SalesforceStandIn, FILLED_IN)
        return await desk(*stand_in, marker="Bulksubmit_Key__c", switches=switches, **behaviour)

    return starting


def people(count, start=0, **fields):
    return [
        {"LastName": f"N{number}", "Email": f"c{number}@example.com", "Bulksubmit_Key__c": str(number), **fields}
        for number in range(start, start + count)
    ]


async def test_each_good_record_is_created_once_and_each_bad_one_has_its_reason(vendor):
    vendor = await vendor()
    bad = [*people(1, 300, LastName=""), *people(1, 301, Email="nobody"), *people(1, 302, LastName='O"Hara, \n Jr')]
    result = await vendor.submit([*people(90), *bad, *people(90, 90)])
    assert counts(result) == (181, 2, 0, 0, 0)
    assert vendor.created() == once([*range(180), 302])
    assert vendor.service.contacts["302"]["LastName"] == 'O"Hara, \n Jr'
    said = reasons(result)
    assert said[90].startswith("REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]")
    assert said[91].startswith("INVALID_EMAIL_ADDRESS:Email: invalid email address: nobody")
    ids = {outcome.task_id for outcome in result.read_outcomes() if outcome.task_id}
    assert ids == {record["Id"] for record in vendor.service.contacts.values()}
    assert (await vendor.audit()).holds


async def test_after_a_lost_answer_the_job_is_asked_whether_it_is_open(vendor):
    lost = (
        Fault("change", "drop_after", nth=(2,)),
        Fault("change", "drop_before", nth=(4,)),
        Fault("create", "drop_after", nth=(3,)),
        Fault("get", "drop_before", nth=(2,)),
        Fault("results", "truncate", nth=(5,)),
    )
    vendor = await vendor(faults=lost, reads=Reads(status_seconds=0.05))
    result = await vendor.submit(people(160), send="max_in_flight = 1")
    assert (counts(result), result.exit_code) == ((160, 0, 0, 0, 0), Exit.ALL_CREATED)
    assert (vendor.faults, vendor.created()) == (5, once(range(160)))


@pytest.mark.parametrize("upload_again", [False, True])
@pytest.mark.parametrize("records", [1, 20])
async def test_an_upload_whose_answer_was_lost_fails_no_record(vendor, upload_again, records):
    switches = SalesforceSwitches(upload_again=upload_again)
    lost = (Fault("upload", "drop_after", nth=(2, 4)),)
    vendor = await vendor(switches=switches, records=records, faults=lost)
    result = await vendor.submit(people(4 * records), send="max_in_flight = 1")
    assert counts(result) == (4 * records, 0, 0, 0, 0)
    assert (vendor.faults, vendor.created()) == (2, once(range(4 * records)))


async def test_a_token_that_ends_is_renewed_without_anybody(vendor):
    vendor = await vendor(switches=SalesforceSwitches(session_calls=7))
    result = await vendor.submit(people(160), send="max_in_flight = 2")
    assert counts(result) == (160, 0, 0, 0, 0)
    assert vendor.created() == once(range(160))
    assert len(vendor.service.tokens) > 3


async def test_a_client_that_is_unknown_ends_the_run_and_fails_no_record(vendor):
    vendor = await vendor(access_keys=("other",))
    result = await vendor.submit(people(20))
    assert (result.exit_code, result.tally.failed, vendor.created()) == (Exit.MEND_FIRST, 0, {})


async def test_a_job_that_fails_halfway_tells_what_was_done_before(vendor):
    vendor = await vendor(switches=SalesforceSwitches(fail_after=12))
    result = await vendor.submit(people(20))
    assert counts(result) == (12, 8, 0, 0, 0)
    assert vendor.created() == once(range(12))
    assert set(reasons(result).values()) == {"not processed: the job failed or was aborted before"}


async def test_a_column_that_is_no_field_fails_its_job(vendor):
    vendor = await vendor()
    result = await vendor.submit(people(10, Shoe__c="43"))
    assert counts(result) == (0, 10, 0, 0, 0)
    assert vendor.created() == {}


async def test_two_rows_with_one_key_are_told_apart_by_nobody(vendor):
    vendor = await vendor()
    result = await vendor.submit([*people(3), *people(1, 1)])
    assert (result.tally.created, result.tally.failed) == (2, 0)
    assert result.tally.uncertain + result.tally.unresolved == 2
    assert vendor.created() == once(range(3))


async def test_the_limit_of_calls_is_waited_out_and_ends_no_run(vendor):
    vendor = await vendor(faults=(Fault("all", "refuse", nth=(3, 9, 20), status=403),))
    quick = [
        "[[service.rules]]",
        "status = [403]",
        'path = "0.errorCode"',
        'equals = ["REQUEST_LIMIT_EXCEEDED"]',
        'means = "pause"',
        "seconds = 0.05",
    ]
    result = await vendor.submit(people(160), more="\n".join(quick))
    assert counts(result) == (160, 0, 0, 0, 0)
    assert (vendor.faults, vendor.created()) == (3, once(range(160)))


async def test_a_job_that_is_canceled_has_its_jobs_aborted(vendor):
    vendor = await vendor(switches=SalesforceSwitches(row_seconds=0.5))
    await vendor.submit_a_part(people(40), 2)
    result = await vendor.cancel()
    assert result.tally.created == len(vendor.created()) < 40
    assert {job.state for job in vendor.service.jobs.values()} <= {"Aborted", "Open"}


async def test_a_run_that_is_stopped_is_resumed(vendor):
    switches = SalesforceSwitches(row_seconds=0.001)
    vendor = await vendor(switches=switches, faults=(Fault("change", "drop_after", every=3),))
    await is_resumed(vendor, people(160))


async def test_check_tells_the_promise_and_whether_the_key_holds(vendor, monkeypatch):
    await is_checked(await vendor(), people(3), "the service is asked whether the batch was released", monkeypatch)
