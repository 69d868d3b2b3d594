"""Who sees the dashboard, and what a page of somebody else's cannot do with it."""

import asyncio
import socket

import pytest

from engine.dashboard.guard import HEADERS
from engine.dashboard.server import PORT, DashboardOptions, _listen, serving
from engine.model.errors import ConfigError, LedgerError

from .conftest import OWN, WORDS


async def test_without_a_session_nothing_is_shown_but_how_to_begin_one(browse):
    browser = await browse()
    for path in ("/", "/jobs/j", "/session", "/search?q=x", "/no-such-page"):
        answer = await browser.get(path)
        assert answer.status == 401, path
        assert "ledger.db" not in answer.words
    assert (await browser.post("/links", **OWN)).status == 401
    assert (await browser.get("/static/dashboard.css")).status == 200


async def test_a_token_works_once_and_gives_a_cookie_that_no_script_and_no_other_site_gets(browse):
    browser = await browse()
    token = browser.dashboard.sessions.new_token()
    answer = await browser.get(f"/sign-in?token={token}")
    assert answer.status == 200
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert token not in cookie
    assert "Max-Age=43200" in cookie
    assert 'http-equiv="refresh" content="0; url=/"' in answer.words
    assert (await browser.get("/")).status == 200

    stranger = await browse()  # another dashboard, another port: neither token nor cookie is good there
    assert (await stranger.get(f"/sign-in?token={token}")).status == 403
    assert (await stranger.get("/", Cookie=cookie.partition(";")[0])).status == 401


async def test_a_token_that_was_used_opens_nothing_for_whoever_finds_it(browse):
    browser = await browse()
    token = browser.dashboard.sessions.new_token()
    await browser.get(f"/sign-in?token={token}")
    await browser.post("/sign-out", **OWN)
    for wrong in (token, "", "x", "%00", "a" * 2000):
        answer = await browser.get(f"/sign-in?token={wrong}")
        assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)
    assert (await browser.get("/")).status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.2:{port}x"]
)
async def test_a_request_by_a_name_that_is_not_ours_is_refused(browse, host):
    browser = await browse()
    await browser.sign_in()
    port = browser.url.rpartition(":")[2]
    for path in ("/", "/static/dashboard.css", f"/sign-in?token={browser.dashboard.sessions.new_token()}"):
        assert (await browser.get(path, Host=host.format(port=port))).status == 403


async def test_this_machine_has_several_names_and_a_proxy_the_one_that_was_allowed(browse):
    browser = await browse(allowed_hosts=("jobs.example.com",))
    await browser.sign_in()
    port = browser.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "jobs.example.com", "jobs.example.com:443"):
        assert (await browser.get("/", Host=host)).status == 200, host
    token = browser.dashboard.sessions.new_token()
    answer = await browser.get(f"/sign-in?token={token}", Host="jobs.example.com")
    assert "Secure" in answer.headers["Set-Cookie"]


async def test_what_changes_something_must_come_from_a_page_of_ours(browse):
    browser = await browse()
    await browser.sign_in()
    for headers in (
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": browser.url},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:1"},
    ):
        assert (await browser.post("/links", **headers)).status == 403, headers
    assert (await browser.post("/links", Origin=browser.url)).status == 200
    assert (await browser.post("/links", **OWN)).status == 200


async def test_each_answer_forbids_what_a_page_of_ours_does_not_need(browse):
    browser = await browse()
    refused = await browser.get("/")
    signed_in = await browser.sign_in()
    paths = ("/", "/no-such-page", "/jobs/none", "/static/dashboard.js", "/static/../server.py")
    answers = [refused, signed_in, *[await browser.get(path) for path in paths]]
    answers += [await browser.get("/", Host="evil.example"), await browser.post("/", **OWN)]
    async with browser.listening("/") as stream:
        answers.append(stream)
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (answer.url, name)
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Server" not in answer.headers
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'none'")


async def test_a_link_for_another_device_works_once(browse):
    browser = await browse()
    await browser.sign_in()
    made = await browser.post("/links", **OWN)
    link = made.words.partition("/sign-in?token=")[2].partition("<")[0]
    await browser.post("/sign-out", **OWN)
    assert (await browser.get(f"/sign-in?token={link}")).status == 200
    assert (await browser.get("/")).status == 200


async def test_without_leave_there_are_no_actions_and_with_it_each_is_a_post(browse):
    browser = await browse()
    await browser.sign_in()
    assert (await browser.get("/jobs/j/actions/cancel")).status == 404
    assert (await browser.post("/jobs/j/actions/cancel", **OWN)).status == 404
    acting = await browse(allow_actions=True)
    await acting.sign_in()
    assert (await acting.post("/jobs/j/actions/cancel", Sec_Fetch_Site="cross-site")).status == 403
    assert (await acting.get("/jobs/j/actions/remove")).status == 404


def test_a_port_in_use_is_told_with_one_that_is_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port}: process \d+ \(.*: --port \d+"):
            _listen("127.0.0.1", port)


def test_without_a_port_the_next_free_one_is_taken(monkeypatch):
    monkeypatch.setattr("engine.dashboard.server.PORT", 38801)
    first = _listen("127.0.0.1", None)
    second = _listen("127.0.0.1", None)
    assert second.getsockname()[1] > first.getsockname()[1] >= 38801
    first.close()
    second.close()
    assert PORT == 8801


def test_an_address_of_another_machine_is_an_error():
    with pytest.raises(ConfigError, match="cannot listen on 192"):
        _listen("192.0.2.1", 0)


async def test_what_is_no_ledger_is_told_before_a_link_is(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"no ledger at all " * 500)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        async with serving(DashboardOptions(tmp_path / "ledger.db", port=0), WORDS):
            pass


async def test_it_ends_at_once_whoever_looks_on(tmp_path, browse):
    options = DashboardOptions(tmp_path / "ledger.db", port=0)
    browser = await browse()
    async with asyncio.timeout(20):
        async with serving(options, WORDS) as (dashboard, url):
            browser.dashboard, browser.url = dashboard, url
            await browser.sign_in()
            stream = browser.listening("/")
            answer = await stream.__aenter__()
            await answer.next_event()
            assert dashboard.streams.open == 1
        assert dashboard.streams.open == 0
        assert await answer.content.read() == b""
        await stream.__aexit__(None, None, None)
