import csv
import io

import pytest

from engine.sandbox.behaviour import Reads
from engine.sandbox.vendors.salesforce_bulk2 import SalesforceStandIn, SalesforceSwitches

JOBS = "/services/data/v62.0/jobs/ingest"
GRANT = b"grant_type=client_credentials&client_id=client&client_secret=sandbox-key"
ORDER = {"object": "Contact", "operation": "upsert", "externalIdFieldName": "Bulksubmit_Key__c", "contentType": "CSV"}
HEAD = "LastName,Email,Bulksubmit_Key__c\n"


async def signed_in(vendor, *switches, **behaviour):
    vendor = vendor(SalesforceStandIn, *switches, marker="Bulksubmit_Key__c", headers={}, **behaviour)
    _, token, _ = await vendor.call("POST", "/services/oauth2/token", GRANT)
    vendor.headers = {"Authorization": f"Bearer {token['access_token']}"}
    return vendor


async def opened(vendor, rows, **order):
    """Open a job, upload its rows; return its place."""
    _, job, _ = await vendor.call("POST", JOBS, {**ORDER, **order})
    place = f"{JOBS}/{job['id']}"
    assert job["state"] == "Open"
    assert (await vendor.call("PUT", f"{place}/batches", (HEAD + rows).encode(), Content_Type="text/csv"))[0] == 201
    return place


async def close(vendor, place):
    return await vendor.call("PATCH", place, {"state": "UploadComplete"})


async def table(vendor, place, name):
    status, text, _ = await vendor.call("GET", f"{place}/{name}")
    assert status == 200
    return list(csv.DictReader(io.StringIO(text.decode())))


async def test_a_job_goes_from_open_to_three_tables(vendor):
    vendor = await signed_in(vendor)
    place = await opened(vendor, 'A,a@x.org,1\n,b@x.org,2\nC,nobody,3\nD,,\nE,"e@x.org",1\n')
    assert (await close(vendor, place))[1]["state"] == "UploadComplete"
    _, job, _ = await vendor.call("GET", place)
    assert (job["state"], job["numberRecordsProcessed"], job["numberRecordsFailed"]) == ("JobComplete", 5, 4)
    (created,) = await table(vendor, place, "successfulResults")
    assert (created["sf__Created"], created["LastName"], created["Bulksubmit_Key__c"]) == ("true", "A", "1")
    errors = {
        row["LastName"]: row["sf__Error"].partition(":")[0] for row in await table(vendor, place, "failedResults")
    }
    assert errors == {
        "": "REQUIRED_FIELD_MISSING",
        "C": "INVALID_EMAIL_ADDRESS",
        "D": "MISSING_ARGUMENT",
        "E": "DUPLICATE_VALUE",
    }
    assert await table(vendor, place, "unprocessedrecords") == []
    assert vendor.written() == ["1"]


async def test_an_upsert_writes_over(vendor):
    vendor = await signed_in(vendor)
    for name in ("A", "B"):
        place = await opened(vendor, f"{name},,1\n")
        await close(vendor, place)
        (row,) = await table(vendor, place, "successfulResults")
        assert row["sf__Created"] == ("true" if name == "A" else "false")
    assert (vendor.written(), vendor.written("run")) == (["1"], ["1"])
    assert vendor.service.contacts["1"]["LastName"] == "B"


@pytest.mark.parametrize("upload_again", [False, True])
async def test_a_job_takes_one_upload_while_it_is_open(vendor, upload_again):
    vendor = await signed_in(vendor, SalesforceSwitches(upload_again=upload_again))
    place = await opened(vendor, "A,,1\n")
    again = await vendor.call("PUT", f"{place}/batches", (HEAD + "B,,2\n").encode(), Content_Type="text/csv")
    assert again[0] == (201 if upload_again else 400)
    await close(vendor, place)
    assert vendor.written() == (["2"] if upload_again else ["1"])
    assert (await vendor.call("PUT", f"{place}/batches", HEAD.encode(), Content_Type="text/csv"))[0] == 400
    status, body, _ = await close(vendor, place)
    assert (status, body[0]["errorCode"]) == (400, "INVALIDJOBSTATE")


async def test_an_aborted_job_processes_no_more(vendor):
    vendor = await signed_in(vendor, SalesforceSwitches(queue_seconds=5, row_seconds=10))
    place = await opened(vendor, "A,,1\nB,,2\nC,,3\n")
    await close(vendor, place)
    assert (await vendor.call("GET", place))[1]["state"] == "UploadComplete"
    await vendor.clock.sleep(16)
    assert (await vendor.call("GET", place))[1]["state"] == "InProgress"
    assert (await vendor.call("PATCH", place, {"state": "Aborted"}))[1]["state"] == "Aborted"
    await vendor.clock.sleep(60)
    assert [row["LastName"] for row in await table(vendor, place, "successfulResults")] == ["A"]
    assert [row["LastName"] for row in await table(vendor, place, "unprocessedrecords")] == ["B", "C"]


async def test_a_job_may_fail_as_a_whole_or_halfway(vendor):
    vendor = await signed_in(vendor, SalesforceSwitches(fail_after=1))
    place = await opened(vendor, "A,,1\nB,,2\n")
    await close(vendor, place)
    assert (await vendor.call("GET", place))[1]["state"] == "Failed"
    _, job, _ = await vendor.call("POST", JOBS, ORDER)
    place = f"{JOBS}/{job['id']}"
    await vendor.call("PUT", f"{place}/batches", b"Shoe__c\n43\n", Content_Type="text/csv")
    await close(vendor, place)
    assert (await vendor.call("GET", place))[1]["errorMessage"] == "InvalidBatch : Field name not found : Shoe__c"


async def test_a_status_may_lag(vendor):
    vendor = await signed_in(vendor, reads=Reads(status_seconds=10))
    place = await opened(vendor, "A,,1\n")
    await close(vendor, place)
    assert (await vendor.call("GET", place))[1]["state"] == "Open"
    await vendor.clock.sleep(11)
    assert (await vendor.call("GET", place))[1]["state"] == "JobComplete"


async def test_a_token_holds_for_a_time_and_so_many_calls(vendor):
    vendor = await signed_in(vendor, SalesforceSwitches(session_seconds=100, session_calls=2))
    assert [(await vendor.call("GET", "/services/data/v62.0/limits"))[0] for _ in range(3)] == [200, 200, 401]
    _, token, _ = await vendor.call("POST", "/services/oauth2/token", GRANT)
    vendor.headers = {"Authorization": f"Bearer {token['access_token']}"}
    await vendor.clock.sleep(101)
    status, body, _ = await vendor.call("GET", "/services/data/v62.0/limits")
    assert (status, body[0]["errorCode"]) == (401, "INVALID_SESSION_ID")
    assert (await vendor.call("POST", "/services/oauth2/token", GRANT.replace(b"sandbox-key", b"x")))[0] == 401
    assert (await vendor.call("POST", "/services/oauth2/token", b"grant_type=password"))[0] == 400


async def test_what_is_wrong_is_told_off(vendor):
    vendor = await signed_in(vendor)
    assert (await vendor.call("POST", JOBS, {"object": "Contact", "operation": "upsert"}))[0] == 400
    assert (await vendor.call("POST", JOBS, {"object": "Contact"}))[0] == 400
    assert (await vendor.call("GET", f"{JOBS}/750x"))[0] == 404
    place = await opened(vendor, "A,,1\n")
    assert (await vendor.call("GET", f"{place}/failedResults"))[0] == 400
