import pytest

from engine.sandbox.behaviour import RateLimit
from engine.sandbox.vendors.hubspot import HubSpotStandIn, HubSpotSwitches

PLACE = "/crm/v3/objects/contacts/batch/upsert"
PROPERTIES = {"email": "email", "name": "", "stage": "lead;customer"}


def item(key, *, trace=True, by="bulksubmit_key", **properties):
    traced = {"objectWriteTraceId": f"t{key}"} if trace else {}
    return {"idProperty": by, "id": key, "properties": properties, **traced}


async def upsert(vendor, *inputs):
    return await vendor.call("POST", PLACE, {"inputs": inputs})


async def test_what_is_new_is_created_and_what_is_known_is_written_over(vendor):
    vendor = vendor(HubSpotStandIn, HubSpotSwitches(properties=PROPERTIES), marker="name")
    status, body, _ = await upsert(vendor, item("a", name="A"), item("b", name="B"))
    assert (status, [one["new"] for one in body["results"]]) == (200, [True, True])
    status, body, _ = await upsert(vendor, item("a", name="C"))
    assert (body["results"][0]["new"], body["results"][0]["objectWriteTraceId"]) == (False, "ta")
    assert (vendor.written(), vendor.written("run")) == (["A", "B"], ["C"])
    assert vendor.service.records["contacts", "a"]["properties"] == {"name": "C", "bulksubmit_key": "a"}


@pytest.mark.parametrize("joined", [False, True])
async def test_bad_ones_fail_alone_where_each_has_a_trace(vendor, joined):
    vendor = vendor(HubSpotStandIn, HubSpotSwitches(properties=PROPERTIES, joined=joined))
    bad = [item("b", shoe="1"), item("c", shoe="1"), item("d", email="x"), item("e", stage="asleep")]
    status, body, _ = await upsert(vendor, item("a", name="A"), *bad)
    assert (status, body["numErrors"], [one["objectWriteTraceId"] for one in body["results"]]) == (207, 4, ["ta"])
    traces = [one["context"]["objectWriteTraceId"] for one in body["errors"]]
    assert traces == ([["tb", "tc"], ["td"], ["te"]] if joined else [["tb"], ["tc"], ["td"], ["te"]])
    assert "PROPERTY_DOESNT_EXIST" in body["errors"][0]["message"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([item("a", trace=False, shoe="1"), item("b")], "PROPERTY_DOESNT_EXIST"),
        ([item("a"), item("a")], "Duplicate IDs"),
        ([item("a", by="name")], "non-unique"),
        ([item(str(number)) for number in range(101)], "maximum number of inputs"),
        ([], "inputs"),
    ],
)
async def test_a_batch_may_be_refused_as_a_whole(vendor, inputs, words):
    vendor = vendor(HubSpotStandIn, HubSpotSwitches(properties=PROPERTIES))
    status, body, _ = await upsert(vendor, *inputs)
    assert (status, body["status"], body["category"]) == (400, "error", "VALIDATION_ERROR")
    assert words in body["message"]
    assert vendor.service.records == {}


async def test_headers_tell_of_the_window_and_a_policy_of_its_end(vendor):
    vendor = vendor(HubSpotStandIn, rate_limits=(RateLimit(1, 10.0),))
    _, _, headers = await upsert(vendor, item("a"))
    assert headers["X-HubSpot-RateLimit-Remaining"] == "0"
    assert headers["X-HubSpot-RateLimit-Interval-Milliseconds"] == "10000"
    status, body, _ = await upsert(vendor, item("b"))
    assert (status, body["policyName"]) == (429, "TEN_SECONDLY_ROLLING")
    vendor.service.switch(HubSpotSwitches(daily=True))
    assert (await upsert(vendor, item("b")))[1]["policyName"] == "DAILY"


async def test_it_may_be_locked_and_a_token_expires(vendor):
    vendor = vendor(HubSpotStandIn, HubSpotSwitches(locked_every=2, expired_after=3))
    assert [(await upsert(vendor, item("a")))[0] for _ in range(4)] == [200, 423, 200, 401]
    assert (await upsert(vendor, item("a")))[1]["category"] == "EXPIRED_AUTHENTICATION"
    vendor.service.switch(HubSpotSwitches())
    assert (await upsert(vendor, item("a")))[0] == 200
    assert (await vendor.call("GET", "/crm/v3/objects/contacts"))[1]["results"][0]["id"]
    vendor.headers = {}
    assert (await upsert(vendor, item("a")))[0] == 401
