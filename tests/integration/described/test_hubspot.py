import pytest

from engine.model.errors import Exit
from engine.sandbox.behaviour import Fault, RateLimit
from engine.sandbox.vendors.hubspot import HubSpotStandIn, HubSpotSwitches

from .desk import counts, is_checked, is_resumed, once, reasons

FILLED_IN = """
base_url = "{url}/crm/v3/objects"
[service.values]
object = "contacts"
[service.auth]
secret = "${env:VENDOR_KEY}"
[service.limit]
requests_per_second = 1000
"""
PROPERTIES = {"email": "email", "firstname": "", "lifecyclestage": "lead;customer"}


@pytest.fixture
def vendor(desk):
    async def starting(*, filled_in=FILLED_IN, records=20, switches=None, **behaviour):
        switches = switches or HubSpotSwitches(properties=PROPERTIES)
        return await desk(
            "hubspot", HubSpotStandIn, filled_in, marker="firstname", switches=switches, records=records, **behaviour
        )

    return starting


def contacts(count, start=0, **properties):
    numbers = range(start, start + count)
    return [{"email": f"c{number}@example.com", "firstname": str(number), **properties} for number in numbers]


BAD = [
    *contacts(1, 300, email="nobody"),
    *contacts(1, 301, shoesize="43"),
    *contacts(1, 302, lifecyclestage="asleep"),
    *contacts(1, 303, shoesize="44"),
]


def _check(result):
    assert counts(result) == (200, 4, 0, 0, 0)
    said = reasons(result)
    assert "INVALID_EMAIL" in said[100]
    assert "PROPERTY_DOESNT_EXIST" in said[101]
    assert "PROPERTY_DOESNT_EXIST" in said[103]
    assert "INVALID_OPTION" in said[102]


@pytest.mark.parametrize("joined", [False, True])
async def test_each_good_record_is_created_once_and_each_bad_one_has_its_reason(vendor, joined):
    vendor = await vendor(records=100, switches=HubSpotSwitches(properties=PROPERTIES, joined=joined))
    result = await vendor.submit([*contacts(100), *BAD, *contacts(100, 100)])
    _check(result)
    assert vendor.created() == once(range(200))
    assert (await vendor.audit()).holds


async def test_an_account_without_multi_status_refuses_whole_batches_which_are_halved(vendor):
    vendor = await vendor(switches=HubSpotSwitches(properties=PROPERTIES, multi_status=False))
    result = await vendor.submit([*contacts(100), *BAD, *contacts(100, 100)])
    _check(result)
    assert vendor.created() == once(range(200))


async def test_a_lost_answer_is_repeated_and_changes_nothing(vendor):
    vendor = await vendor(
        faults=(Fault("upsert", "drop_after", nth=(1, 4)), Fault("upsert", "refuse_after", nth=(6,), status=502))
    )
    result = await vendor.submit(contacts(200), send="max_in_flight = 1")
    assert counts(result) == (200, 0, 0, 0, 0)
    assert (vendor.faults, vendor.created()) == (3, once(range(200)))
    ids = {outcome.task_id for outcome in result.read_outcomes()}
    assert ids == {record["id"] for record in vendor.service.records.values()}


async def test_two_records_with_one_key_are_one_record_there_and_both_are_told(vendor):
    own = FILLED_IN + '[service.record]\nkey = "${task.email}"\n'
    vendor = await vendor(filled_in=own.replace('object = "contacts"', 'object = "contacts"\nproperty = "email"'))
    twins = [*contacts(1, 0), *contacts(1, 1), *contacts(1, 2), {**contacts(1, 1)[0], "firstname": "again"}]
    result = await vendor.submit(twins)
    assert result.tally.created + result.tally.failed + result.tally.uncertain == 4
    assert vendor.created() == once(range(3))


async def test_a_property_that_is_not_unique_ends_the_run_and_fails_no_record(vendor):
    vendor = await vendor(
        filled_in=FILLED_IN.replace('object = "contacts"', 'object = "contacts"\nproperty = "firstname"')
    )
    result = await vendor.submit(contacts(40))
    assert (result.exit_code, result.tally.failed, vendor.created()) == (Exit.MEND_FIRST, 0, {})
    assert "non-unique" in result.message


async def test_a_token_that_expires_ends_the_run_and_fails_no_record(vendor):
    vendor = await vendor(switches=HubSpotSwitches(properties=PROPERTIES, expired_after=4))
    result = await vendor.submit(contacts(200), send="max_in_flight = 1")
    assert result.exit_code == Exit.MEND_FIRST
    assert result.tally.failed == 0
    vendor.service.switch(HubSpotSwitches(properties=PROPERTIES))
    result = await vendor.resume()
    assert counts(result) == (200, 0, 0, 0, 0)
    assert vendor.created() == once(range(200))


async def test_the_window_that_headers_tell_of_is_kept(vendor):
    vendor = await vendor(rate_limits=(RateLimit(5, 0.3),))
    result = await vendor.submit(contacts(400), more="[service.window]\nevery = 0.3\n")
    assert counts(result) == (400, 0, 0, 0, 0)
    assert vendor.created() == once(range(400))
    assert vendor.service.traffic.stats.rate_limited <= 8  # the first calls go out before there is a header


async def test_what_is_locked_for_a_moment_is_waited_for(vendor):
    vendor = await vendor(switches=HubSpotSwitches(properties=PROPERTIES, locked_every=3))
    quick = '[[service.rules]]\nstatus = [423, 477]\nmeans = "pause"\nseconds = 0.05\n'
    result = await vendor.submit(contacts(200), more=quick)
    assert counts(result) == (200, 0, 0, 0, 0)
    assert vendor.created() == once(range(200))


async def test_a_run_that_is_stopped_is_resumed(vendor):
    vendor = await vendor(faults=(Fault("upsert", "drop_after", every=3),))
    await is_resumed(vendor, contacts(200))


async def test_check_tells_the_promise_and_whether_the_key_holds(vendor, monkeypatch):
    await is_checked(await vendor(), contacts(3), "an upsert", monkeypatch)
