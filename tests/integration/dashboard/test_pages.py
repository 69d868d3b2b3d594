"""What the pages tell of real jobs, how they are kept up to date, and what can be started from them."""

import asyncio
import json
import os
import re
from urllib.parse import urlencode

import pytest

import engine
from engine.clock import SystemClock
from engine.dashboard.actions import Actions
from engine.dashboard.stream import MOST_STREAMS
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import Exit
from engine.sandbox.behaviour import FailureRule
from integration.commands.desk import tasks

from .conftest import OWN, WORDS

HOSTILE = FailureRule(path="data.status", equals="broken", message="must be <b onload=x>\u202ereachable</b>")


@pytest.fixture
async def browser(desk, browse):
    """Before the dashboard of a job of 23 good records, 3 that the service refuses, and one that is none."""
    at = await desk(failures=(HOSTILE,))
    await at.submit(at.source([*tasks(23), *tasks(3, start=23, status="broken"), {"input": 1}]))
    before = await browse(at.ledger)
    before.desk = at
    await before.sign_in()
    return before


def words(answer):
    """Return the text of a page, without its elements."""
    assert answer.status == 200, answer.words
    return " ".join(re.sub(r"<[^>]*>", " ", answer.words).split())


async def _shown(browser, path, *parts):
    answer = await browser.get(path)
    text = words(answer)
    for part in parts:
        assert part in text, (path, part, text)
    return answer


async def test_from_the_list_of_jobs_down_to_a_record(browser):
    page = await _shown(browser, "/", "1 job, 0 running.", "finished", "100 %")
    assert 'href="/jobs/j"' in page.words
    page = await _shown(browser, "/jobs/j", "4 failed or rejected", "audit j", "settled 3", "must be", "exit 3")
    assert "<b onload" not in page.words
    assert "\u202e" not in page.words
    assert 'href="/jobs/j/batches?state=settled"' in page.words
    page = await _shown(browser, "/jobs/j/batches?state=settled", "10 to 19", "20 to 26")
    assert 'href="/jobs/j/batches/2"' in page.words
    page = await _shown(browser, "/jobs/j/batches/2?fate=failed", "all 7", "3 failed", "must be", "sha256")
    assert 'href="/jobs/j/records/23"' in page.words
    page = await _shown(
        browser, "/jobs/j/records/23", "Record 23 of job j", "failed", "line 24", "must be", "All attempts"
    )
    page = await _shown(browser, "/jobs/j/records/3", "created")
    assert re.search(r'href="https://[^"]+" rel="noopener noreferrer">[0-9a-f]{24}<', page.words)
    await _shown(browser, "/jobs/j/records/26", "rejected")


async def test_no_page_shows_what_a_record_holds(browser):
    for path in ("/jobs/j", "/jobs/j/batches/2", "/jobs/j/records/23", "/jobs/j/search?q=broken"):
        assert "broken" not in (await browser.get(path)).words.replace('value="broken"', "")


async def test_a_long_list_of_jobs_has_pages(browser, monkeypatch):
    at = browser.desk
    await at.submit(at.source(tasks(1, start=100), name="more.ndjson"), job="other")
    monkeypatch.setattr("engine.dashboard.jobs.JOBS_SHOWN", 1)
    await asyncio.sleep(1)  # what was read a second ago may be shown again
    await _shown(browser, "/?page=2", "Previous page Page 2 of 2")
    await _shown(browser, "/?page=" + "9" * 24, "Page 2 of 2")


async def test_what_is_not_there_is_said_in_words(browser):
    for path, said in (
        ("/jobs/k", "there is no job"),
        ("/jobs/..%2f", "cannot be used"),
        ("/jobs/j/batches/99", "has no batch 99"),
        (f"/jobs/j/batches/{'9' * 24}", "has no batch"),
        ("/jobs/j/records/99", "has no record 99"),
        ("/jobs/j/nothing", "no such page"),
    ):
        answer = await browser.get(path)
        assert (answer.status, said in answer.words) == (404, True), (path, answer.words)


async def test_a_record_is_found_by_index_task_batch_key_and_error(browser):
    outcomes = list(map(json.loads, (browser.desk.ledger.parent / "j" / "outcomes.ndjson").read_text().splitlines()))
    created = outcomes[4]
    for query, way, record in (
        ("4", "index", 4),
        (created["task_id"], "", 4),
        (created["task_id"], "task", 4),
        (created["batch_id"], "task", 0),
        ("data.id=4", "key", 4),
        ("must be <b", "error", 23),
        ("MUST BE", "", 23),
        ("input", "error", 26),
    ):
        page = await browser.get(f"/jobs/j/search?{urlencode({'q': query, 'by': way})}")
        assert f'href="/jobs/j/records/{record}"' in page.words, (query, page.words)
    await _shown(browser, "/jobs/j/search?q=nowhere", "Nothing found.")
    await _shown(browser, "/jobs/j/search?q=%25&by=error", "Nothing found.")
    page = await browser.get(f"/search?{urlencode({'q': created['task_id']})}")
    assert 'href="/jobs/j/records/4"' in page.words
    assert 'href="/jobs/j"' in (await browser.get("/search?q=J")).words


async def test_jobs_are_chosen_by_name_and_by_state(browser):
    at = browser.desk
    await at.submit(at.source(tasks(1, start=100), name="more.ndjson"), job="other")
    async with SqliteLedger.open(at.ledger, SystemClock()) as ledger:
        with ledger.lock("other"):
            await asyncio.sleep(1)  # what was read a second ago may be shown again
            await _shown(browser, "/", "2 jobs, 1 running.", "running")
            listed = await browser.get("/?state=running")
            assert ("/jobs/other" in listed.words, 'href="/jobs/j"' in listed.words) == (True, False)
    listed = await browser.get("/?name=J&state=finished")
    assert ("/jobs/other" in listed.words, 'href="/jobs/j"' in listed.words) == (False, True)
    await _shown(browser, "/?name=nobody", "No job is like that.")


async def test_a_page_is_sent_whole_then_whenever_it_has_changed(browser):
    async with browser.listening("/jobs/j") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        first, data = await stream.next_event()
        assert "Job j is finished" in json.loads(data)["said"]
        async with SqliteLedger.open(browser.desk.ledger, SystemClock()) as ledger:
            with ledger.lock("j"):
                second, data = await stream.next_event()
                assert "Job j is running" in json.loads(data)["html"]
        third, _ = await stream.next_event()
        assert len({first, second}) == 2
    async with browser.listening("/jobs/j", Last_Event_ID=third) as stream:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.next_event(), 0.2)
    async with browser.listening("/jobs/j", Last_Event_ID="of another page") as stream:
        assert (await stream.next_event())[0] == third


async def test_a_stream_ends_with_its_session_and_there_are_not_too_many(browser):
    streams = browser.dashboard.streams
    async with browser.listening("/") as stream:
        await stream.next_event()
        await browser.post("/sign-out", **OWN)
        assert await asyncio.wait_for(stream.content.read(), 10) == b""
    await browser.sign_in()
    streams.open = MOST_STREAMS
    async with browser.listening("/") as refused:
        assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    streams.open = 0


async def test_many_who_look_have_the_ledger_read_once(browser, monkeypatch):
    opened = []
    real = SqliteLedger.open

    def counted(*args, **options):
        opened.append(1)
        return real(*args, **options)

    monkeypatch.setattr(SqliteLedger, "open", counted)
    await asyncio.gather(*(browser.get("/") for _ in range(20)))
    assert len(opened) <= 3
    opened.clear()
    await asyncio.sleep(1.2)
    assert not opened, "nobody looks"


async def test_between_two_looks_nothing_of_the_ledger_is_held(browser):
    ledger = browser.desk.ledger
    await browser.get("/jobs/j")
    await browser.get("/jobs/j/search?q=reach")
    await asyncio.sleep(1)
    assert not [path.name for path in ledger.parent.glob("ledger.db-*") if path.stat().st_size]
    assert (await engine.status("j", ledger))[0].tally.records == 27


async def test_a_ledger_that_is_not_there_yet_is_waited_for(browse, tmp_path):
    browser = await browse(tmp_path / "later" / "ledger.db")
    await browser.sign_in()
    await _shown(browser, "/", "There are no jobs in this ledger yet.")
    assert not (tmp_path / "later").exists()


async def test_an_action_says_what_it_will_do_asks_and_runs_the_command(browser, browse, monkeypatch):
    acting = await browse(browser.desk.ledger, allow_actions=True)
    await acting.sign_in()
    page = await acting.get("/jobs/j")
    assert 'href="/jobs/j/actions/retry"' in page.words
    assert "/actions/cancel" not in page.words
    asked = await _shown(
        acting, "/jobs/j/actions/retry", "3 failed and 1 rejected records are sent again", "Yes, retry it"
    )
    assert asked.headers["Referrer-Policy"] == "same-origin"
    await _shown(acting, "/jobs/j/actions/cancel", "Nothing to cancel: the job is finished.")
    seen = re.search(r'name="stands" value="(\w+)"', asked.words)[1]
    changed = await acting.post("/jobs/j/actions/retry", {"stands": "otherwise"}, **OWN)
    assert changed.status == 409
    assert "The job has changed" in changed.words
    begun = await acting.post("/jobs/j/actions/retry", {"stands": seen}, **OWN)
    assert (begun.status, begun.headers["Location"]) == (303, "/jobs/j")
    again = await acting.post("/jobs/j/actions/retry", {"stands": seen}, **OWN)
    assert again.status == 409, "it is at work"
    (started,) = acting.dashboard.actions.started
    code = await asyncio.to_thread(started.process.wait, 60)
    assert code == 3, started.said()
    assert {status.job.name for status in await engine.status(None, browser.desk.ledger)} == {"j", "j.retry"}
    await _shown(acting, "/jobs/j", "Retry, started here", "has ended with exit code 3")


def test_a_command_goes_on_when_the_dashboard_ends(tmp_path):
    actions = Actions(tmp_path / "ledger.db", WORDS)
    actions.start("j", "resume")
    pid = actions.started[0].process.pid
    assert os.getsid(pid) == pid, "no signal of the terminal is meant for it"
    actions.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == Exit.USAGE, "it came to its own end: no ledger"
