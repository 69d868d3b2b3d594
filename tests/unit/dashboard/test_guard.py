"""Tokens work once and sessions end; hosts and origins are read as a browser writes them."""

import pytest
from aiohttp.test_utils import make_mocked_request

from engine.dashboard.guard import MOST_SESSIONS, SESSION_SECONDS, Sessions, is_from_own_page, split_host
from unit.ledger.values import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def sessions(clock):
    return Sessions(clock.monotonic)


def test_a_token_begins_one_session(sessions):
    token = sessions.new_token()
    value = sessions.begin(token)
    assert value
    assert sessions.holds(value)
    assert sessions.begin(token) is None
    assert not sessions.holds(token), "a token is no session"


def test_a_session_ends_by_itself(sessions, clock):
    value = sessions.begin(sessions.new_token())
    clock.time += SESSION_SECONDS - 1
    assert sessions.holds(value)
    clock.time += 2
    assert not sessions.holds(value)


def test_a_link_for_another_device_ends_sooner_and_the_first_one_never(sessions, clock):
    first, link = sessions.new_token(), sessions.new_token(600)
    clock.time += 601
    assert sessions.begin(link) is None
    assert sessions.begin(first)


def test_whoever_signs_out_is_out(sessions):
    value = sessions.begin(sessions.new_token())
    sessions.end(value)
    assert not sessions.holds(value)


def test_no_more_sessions_are_kept_than_a_number(sessions):
    values = [sessions.begin(sessions.new_token()) for _ in range(MOST_SESSIONS + 1)]
    assert [sessions.holds(value) for value in values] == [False] + [True] * MOST_SESSIONS


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("127.0.0.1:8801", ("127.0.0.1", 8801)),
        ("LOCALHOST:8801", ("localhost", 8801)),
        ("[::1]:8801", ("::1", 8801)),
        ("evil.example", ("evil.example", 80)),
        ("127.0.0.1.:8801", ("127.0.0.1", 8801)),
        ("127.0.0.1:99999", ("", None)),
        ("127.0.0.1:8801@evil.example", ("", None)),
        ("127.0.0.1:8801/path", ("", None)),
        ("", ("", 80)),
    ],
)
def test_a_host_is_read_as_name_and_port(host, parts):
    assert split_host(host) == parts


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8801"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "http://127.0.0.1:8801"}, True),
        ({"Origin": "https://127.0.0.1:8801"}, True),
        ({"Origin": "http://127.0.0.1:8802"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({}, False),
    ],
)
def test_what_changes_something_comes_from_a_page_of_ours(headers, ours):
    request = make_mocked_request("POST", "/links", headers={"Host": "127.0.0.1:8801", **headers})
    assert is_from_own_page(request) is ours
