"""Jobs, which are asked by their names, and lists, which find records by what they carry: lags and pages."""

import pytest
from yarl import URL

from engine.sandbox.behaviour import Behaviour, CreationPace, Fault, Reads

from .api import record

ROWS = b"number,bad\n" + b"".join(b"%d,\n" % number for number in range(25))


async def test_a_job_is_opened_filled_started_and_its_results_are_pages_in_no_order(start):
    api = start(page=10)
    job = await api.opened(ROWS)
    assert await api.state(job) == "Open"
    assert api.created == {}
    assert (await api.call("POST", f"{job}/start")).status == 202
    assert await api.state(job) == "Complete"
    rows = await api.results(job)
    assert sorted(int(row["number"]) for row in rows) == list(range(25))
    assert [row["number"] for row in rows] != [str(number) for number in range(25)]
    by_number = {entry.marker: entry.task_id for entry in api.entries}
    assert {row["number"]: row["ask__id"] for row in rows} == by_number
    assert await api.results(job, "failedResults") == await api.results(job, "unprocessedRecords") == []


async def test_a_row_that_is_bad_stands_among_the_failed_ones(start):
    api = start()
    job = await api.started(b"number,bad\na,\nb,odd\n")
    status = (await api.call("GET", job)).body
    assert (status["recordsCreated"], status["recordsFailed"]) == (1, 1)
    (failed,) = await api.results(job, "failedResults")
    assert (failed["number"], failed["ask__error"]) == ("b", "The record is bad: odd.")
    assert api.created == {"a": 1}


@pytest.mark.parametrize(
    "csv", [b"number,bad\na,batch\n", b"number,bad\na,index\n", b"number\na,b\n", b'"', b"number\n", b""]
)
async def test_a_job_may_fail_as_a_whole(start, csv):
    api = start()
    job = await api.started(csv)
    status = (await api.call("GET", job)).body
    assert status["state"] == "Failed"
    assert status["errorMessage"]
    assert await api.results(job) == []
    assert api.created == {}


async def test_an_upload_needs_its_url_and_no_credentials(start):
    api = start()
    opened = (await api.call("POST", "/ask/jobs", {"contentType": "CSV"})).body
    path = URL(opened["uploadUrl"]).path
    assert (await api.call("PUT", path, ROWS)).status == 400  # with them
    assert (await api.call("PUT", path + "0", ROWS, credentials=False)).status == 403
    job = f"/ask/jobs/{opened['id']}"
    assert (await api.call("POST", f"{job}/start")).status == 400  # nothing is there
    for rows in (b"number\nx\n", ROWS):
        assert (await api.call("PUT", path, rows, credentials=False)).status == 201
    await api.call("POST", f"{job}/start")
    assert (await api.call("PUT", path, ROWS, credentials=False)).status == 409
    assert len(api.created) == 25


@pytest.mark.parametrize(
    ("again", "status", "times"), [("error", 409, 1), ("noop", 202, 1), ("duplicate", 202, 2), ("html", 409, 1)]
)
async def test_what_a_second_start_does(start, again, status, times):
    api = start(start_again=again)
    job = await api.started()
    assert (await api.call("POST", f"{job}/start")).status == status
    assert set(api.created.values()) == {times}


async def test_a_start_that_is_late_is_shown_late(start):
    api = start(Behaviour(busy_while_late=True, faults=(Fault("start", "drop_late", nth=(1,), seconds=5),)))
    job = await api.opened()
    assert await api.call("POST", f"{job}/start") is None
    assert await api.state(job) == "Open"
    assert (await api.call("POST", f"{job}/start")).status == 409  # busy
    api.clock.elapsed += 6
    assert await api.state(job) == "Complete"


async def test_a_start_that_is_swallowed_may_be_told_again(start):
    api = start(Behaviour(faults=(Fault("start", "swallow", nth=(1,)),)))
    job = await api.started()
    assert await api.state(job) == "Open"
    assert (await api.call("POST", f"{job}/start")).status == 202
    assert set(api.created.values()) == {1}


async def test_a_status_lags_and_may_not_know_what_is_new(start):
    api = start(Behaviour(reads=Reads(status_seconds=10)))
    job = await api.started()
    assert await api.state(job) == "Open"
    assert (await api.call("GET", f"{job}/successfulResults")).status == 400
    api.clock.elapsed += 10
    assert await api.state(job) == "Complete"
    api = start(Behaviour(reads=Reads(status_seconds=10, new_are_unknown=True)))
    assert (await api.call("GET", await api.opened())).status == 404
    assert (await api.call("GET", "/ask/jobs/none")).status == 404


async def test_rows_are_created_by_the_clock_until_the_job_is_aborted(start):
    api = start(Behaviour(creation=CreationPace(tasks_per_second=1, delay_seconds=5)))
    job = await api.started(ROWS)
    assert await api.state(job) == "Queued"
    api.clock.elapsed += 8.5
    assert await api.state(job) == "InProgress"
    assert len(api.created) == 3
    assert (await api.call("POST", f"{job}/abort")).status == 202
    api.clock.elapsed += 100
    assert await api.state(job) == "Aborted"
    assert len(await api.results(job)) == len(api.created) == 3
    assert len(await api.results(job, "unprocessedRecords")) == 22


@pytest.mark.parametrize(("cancel", "status"), [("accept", 202), ("refuse", 409), ("lie", 202)])
async def test_a_job_that_was_not_started_may_be_aborted(start, cancel, status):
    api = start(Behaviour(cancel=cancel))
    job = await api.opened()
    assert (await api.call("POST", f"{job}/abort")).status == status
    assert (await api.call("POST", f"{job}/start")).status == (202 if cancel == "refuse" else 409)
    assert (await api.call("POST", f"{job}/abort")).status == (409 if cancel == "refuse" else 202)


async def test_a_job_that_waits_too_long_is_aborted(start):
    api = start(Behaviour(waiting_seconds=100))
    job = await api.opened()
    api.clock.elapsed += 101
    assert await api.state(job) == "Aborted"


async def test_a_token_is_exchanged_for_the_key_and_ends(start):
    api = start(token_seconds=60)
    form = "grant_type=client_credentials&client_id=me&client_secret="
    assert (await api.call("POST", "/ask/token", b"grant_type=x", credentials=False)).status == 400
    assert (await api.call("POST", "/ask/token", (form + "other").encode(), credentials=False)).status == 401
    answer = await api.call("POST", "/ask/token", (form + "sandbox-key").encode(), credentials=False)
    assert answer.body["expires_in"] == 60
    headers = {"Authorization": f"Bearer {answer.body['access_token']}"}
    assert (await api.call("GET", "/ask", credentials=False, headers=headers)).status == 200
    api.clock.elapsed += 61
    assert (await api.call("GET", "/ask", credentials=False, headers=headers)).status == 401


async def test_words_of_states_may_be_other_ones(start):
    api = start(unwritten={"words": {"Complete": "Ready"}})
    assert await api.state(await api.started()) == "Ready"


async def test_a_list_finds_records_by_their_tag_late_and_in_pages(start):
    api = start(Behaviour(reads=Reads(list_seconds=10)), page=2)
    answer = await api.post(*[record(str(number)) for number in range(5)])
    assert (answer.status, answer.body) == (202, {"accepted": 5, "results": [{"status": "accepted"}] * 5})
    await api.post(record("other"), tag="u")
    assert await api.listed(tag="t") == []
    api.clock.elapsed += 10
    rows = await api.listed(tag="t")
    assert [row["data"]["number"] for row in rows] == ["4", "3", "2", "1", "0"]
    assert [row["ref"] for row in rows[::-1]] == [entry.task_id for entry in api.entries][:5]
    assert len({row["id"] for row in rows}) == 5
    assert len(await api.listed()) == 6
    assert [row["ref"] for row in await api.listed(ref="3")] == ["3"]


async def test_a_list_may_lie(start):
    api = start(unwritten={"omits_every": 2, "strangers": True})
    await api.post(*[record(str(number)) for number in range(4)])
    rows = await api.listed(tag="t")
    assert len(rows) == 3
    assert "ref" not in rows[-1]
