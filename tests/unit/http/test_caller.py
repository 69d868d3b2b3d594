"""The loop of `HttpCaller` over a scripted wire, in made-up time."""

from __future__ import annotations

import random
from io import BytesIO
from itertools import pairwise
from typing import Any

import anyio
import pytest
from msgspec.structs import replace
from multidict import CIMultiDict

from engine.adaptive.shared_limits import FlightReport, SharedLimits
from engine.http.caller import HttpCaller
from engine.http.classify import Loss
from engine.http.client import Lost
from engine.http.share import Share
from engine.model.error_hints import Blame, Carries, Pause, Refusal
from engine.model.errors import (
    ConfigError,
    Exit,
    LedgerError,
    PossiblyApplied,
    Refused,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    WrongAddress,
)
from engine.model.settings import SecretStr, SendSettings, ServiceSettings, WindowHeaders
from engine.progress.events import CallEnded, CallRetried, CallStarted, Paused, Spaced
from engine.services.base import Answer, Call
from tests.fakes.clock import under_way

BASE = "https://api.example.com/v2"
UPLOAD = "https://bucket.s3.amazonaws.com/key?X-Amz-Signature=c0ffee"

STATUS = Call("status", "GET", f"{BASE}/batches/1.json")
CREATE = Call("create", "POST", f"{BASE}/batches.json", body=b"[]", repeatable=False)
PUT = Call("put", "PUT", UPLOAD, body=b"[]", authenticated=False, carries=Carries.BYTES)
POST = replace(CREATE, kind="post", carries=Carries.RECORDS)


def answer(status=200, body=b"", **headers):
    return Answer(status, CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items()), body)


def lost(loss, detail=""):
    return Lost(loss, detail)


class ScriptedWire:
    """Answers as scripted: one after the other, or by a function of call and time."""

    def __init__(self, clock, script, *, seconds=0.0) -> None:
        self.clock, self.script, self.seconds = clock, script, seconds
        self.requests = []
        self.times = []
        self.in_flight = self.most_in_flight = 0

    async def send(self, request):
        self.requests.append(request)
        self.times.append(self.clock.monotonic())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.clock.sleep(self.seconds)
            return self.script(request.call, self.clock.monotonic()) if callable(self.script) else self.script.pop(0)
        finally:
            self.in_flight -= 1


class Service(ServiceSettings):
    """One that words its errors as a test says."""

    hint: Any = None
    speech: Any = None

    def secret_headers(self):
        return {"X-Token": SecretStr("t0ken-of-ours")}

    def secret_query(self):
        return {"access_key": SecretStr("s3cr3t/key")}

    def allowed_upload_hosts(self):
        return ("*.amazonaws.com",)

    def error_hint(self, status, body):
        return self.hint and self.hint(status, body)

    def speaks(self, body):
        return self.speech is None or self.speech(body)


@pytest.fixture
def make(clock):
    def build(*script, seconds=0.0, base_url=BASE, error_hint=None, speech=None, **settings):
        wire = ScriptedWire(clock, script[0] if callable(script[0]) else list(script), seconds=seconds)
        events = []
        service = Service(kind="test", base_url=base_url, hint=error_hint, speech=speech)
        draw = random.Random(7).random
        caller = HttpCaller(wire, service, SendSettings(**settings), clock=clock, draw=draw, emit=events.append)
        return caller, wire, events

    return build


async def test_a_call_waits_for_a_grant_of_the_limits_that_are_shared(clock):
    share, limits, wire = Share("w"), SharedLimits(), ScriptedWire(clock, [answer()])
    asked = anyio.Event()
    share.on_ask = asked.set
    caller = HttpCaller(wire, Service(kind="test", base_url=BASE), SendSettings(), clock=clock, share=share)

    async def sync_when_asked():
        for _ in range(2):  # once to be there, and once with a call that waits
            await asked.wait()
            report = share.report(clock.monotonic(), FlightReport())
            await clock.sleep(1.0)
            share.grant(report, limits.sync(report, clock.now()), clock.monotonic() - 1.0, clock.monotonic())

    async with under_way(sync_when_asked()):
        assert (await caller.call(STATUS)).status == 200
    assert wire.times == [2.0]
    assert limits.window.unanswered == 1


async def test_an_answer_is_handed_back_and_told_to_listeners(make):
    caller, _, events = make(answer(201, b"made"), seconds=2)
    assert (await caller.call(CREATE)).body == b"made"
    assert events == [CallStarted("create"), CallEnded("create", 2.0, 2, 201)]


ASKING = {"Accept": "application/json", "Cache-Control": "no-cache"}


async def test_json_is_asked_for_and_of_a_question_a_fresh_answer(make):
    caller, wire, _ = make(lambda call, now: answer())
    for call in (STATUS, CREATE, PUT, replace(STATUS, headers={"Accept": "text/plain"})):
        await caller.call(call)
    headers = [{name: one.headers.get(name) for name in ASKING if name in one.headers} for one in wire.requests]
    assert headers == [ASKING, {"Accept": "application/json"}, {}, {**ASKING, "Accept": "text/plain"}]


async def test_credentials_go_with_calls_to_the_service_and_are_no_part_of_the_call(make):
    caller, wire, _ = make(answer())
    await caller.call(Call("list", "GET", f"{BASE}/x?page=2", {"project": "a/b c"}, {"Accept": "application/json"}))
    request = wire.requests[0]
    assert dict(request.url.query) == {"page": "2", "project": "a/b c", "access_key": "s3cr3t/key"}
    assert request.headers == {**ASKING, "X-Token": "t0ken-of-ours"}
    assert "s3cr3t" not in repr(request)
    assert "t0ken" not in repr(request)


async def test_a_presigned_url_gets_no_credentials_and_is_not_touched(make):
    caller, wire, _ = make(answer())
    await caller.call(PUT)
    assert str(wire.requests[0].url) == UPLOAD
    assert wire.requests[0].headers == {}


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.com/v2",
        "http://api.example.com/v2",
        "https://api.example.com:444/v2",
        "/v2/batches",
        "https://[::1",
        "mailto:a@b",
        "https://me:pw@api.example.com/v2",
        "https://api.example.com@evil.com/v2",
    ],
)
async def test_credentials_go_nowhere_else(make, url):
    caller, wire, _ = make(answer())
    with pytest.raises(Refused, match="leads away"):
        await caller.call(Call("next", "GET", url))
    assert wire.requests == []


async def test_an_upload_url_on_a_strange_host_is_an_error_of_the_configuration(make):
    caller, wire, _ = make(answer())
    with pytest.raises(ConfigError, match=r"evil\.com"):
        await caller.call(Call("put", "PUT", "https://evil.com/k", authenticated=False))
    with pytest.raises(ConfigError, match="this machine"):
        await caller.call(Call("put", "PUT", "http://127.0.0.1/k", authenticated=False))
    assert wire.requests == []


async def test_a_local_service_may_name_a_local_upload_url(make):
    caller, wire, _ = make(answer(), base_url="http://127.0.0.1:8800/v2")
    await caller.call(Call("put", "PUT", "http://127.0.0.1:8801/k", authenticated=False))
    assert wire.requests


FAILURES = [
    (answer(400), Refused, 400),
    (answer(404), Refused, 404),
    (answer(413), Refused, 413),
    (answer(301, location="https://evil.com/x?token=abc"), Refused, 301),
    (answer(401), Unauthorized, 401),
    (answer(403), Unauthorized, 403),
    (answer(302), PossiblyApplied, 302),
    (answer(408), PossiblyApplied, 408),
    (answer(500), PossiblyApplied, 500),
    (answer(502), PossiblyApplied, 502),
    (answer(503, retry_after="1"), PossiblyApplied, 503),
    (lost(Loss.CUT), PossiblyApplied, None),
    (lost(Loss.ANSWER_TIMEOUT), PossiblyApplied, None),
    (lost(Loss.GARBLED), UnexpectedAnswer, None),
    (lost(Loss.TOO_LARGE), UnexpectedAnswer, None),
    (lost(Loss.UNTRUSTED, "self-signed certificate"), WrongAddress, None),
    (lost(Loss.FORBIDDEN, "x resolves to 10.0.0.1"), WrongAddress, None),
    (lost(Loss.TURNED_AWAY, "api.sama.com:443 by proxy p:3128"), WrongAddress, None),
]


@pytest.mark.parametrize(("ended", "error", "status"), FAILURES)
async def test_a_call_that_must_not_be_repeated_is_tried_once_and_says_how_it_ended(make, ended, error, status):
    caller, wire, _ = make(ended)
    with pytest.raises(error) as caught:
        await caller.call(CREATE)
    assert type(caught.value) is error
    assert caught.value.status == status
    assert caught.value.call == "create"
    assert "create (POST api.example.com/v2/batches.json)" in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    "ended",
    [answer(429), answer(425), lost(Loss.UNREACHABLE), lost(Loss.CONNECT_TIMEOUT)],
)
async def test_a_call_that_was_certainly_not_applied_is_repeated_even_if_it_must_happen_once(make, ended):
    caller, wire, events = make(ended, answer(200))
    assert (await caller.call(CREATE)).status == 200
    assert len(wire.requests) == 2
    assert [type(event) for event in events].count(CallRetried) == 1


@pytest.mark.parametrize(
    "ended",
    [
        *(answer(status) for status in (408, 429, 500, 502, 503, 504)),
        *(lost(loss) for loss in (Loss.CUT, Loss.ANSWER_TIMEOUT, Loss.GARBLED, Loss.UNREACHABLE)),
    ],
)
async def test_a_call_that_may_be_repeated_is(make, ended):
    caller, wire, _ = make(ended, ended, answer(200))
    await caller.call(STATUS)
    assert len(wire.requests) == 3


async def test_an_upload_turned_down_is_refused_so_that_the_batch_can_be_staged_again(make):
    expired = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    caller, _, _ = make(answer(403, expired))
    with pytest.raises(Refused, match="AccessDenied: Request has expired") as caught:
        await caller.call(PUT)
    assert type(caught.value) is Refused
    assert "c0ffee" not in str(caught.value)


async def test_an_error_repeats_the_words_of_the_service_but_not_the_secrets_in_them(make):
    body = b'{"errors":[{"type":"X","message":"bad key s3cr3t%2fkey, t0ken-of-ours, ?X-Amz-Signature=c0ffee"}]}'
    caller, _, _ = make(answer(422, body))
    with pytest.raises(Refused) as caught:
        await caller.call(CREATE)
    assert "X: bad key ***, ***, ?X-Amz-Signature=***" in str(caught.value)


async def test_a_redirect_shows_where_it_leads_without_its_query(make):
    caller, _, _ = make(answer(307, location="https://evil.com/x?token=abc"), answer(308, location="/y"), answer(301))
    for words in ("redirect to evil.com", "redirect to another path", "redirect to another path"):
        with pytest.raises(Refused, match=words) as caught:
            await caller.call(STATUS)
        assert "abc" not in str(caught.value)


async def test_retry_after_holds_every_caller(make, clock):
    def script(call, now):
        return answer(429, retry_after="30") if now < 30 else answer()

    caller, wire, events = make(script)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller.call, STATUS)
        await clock.sleep(1)
        tasks.start_soon(caller.call, CREATE)
        tasks.start_soon(caller.call, PUT)
    assert len(wire.requests) == 4
    assert all(time >= 30 for time in wire.times[1:])
    assert [event for event in events if isinstance(event, Paused)] == [
        Paused("the service asks for it (status 429)", 30)
    ]


async def test_a_push_back_that_comes_while_we_queue_is_obeyed_too(make, clock):
    caller, wire, _ = make(
        lambda call, now: answer(429, retry_after="60") if now < 1 else answer(), requests_per_second=1
    )
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(caller.call, STATUS)
    assert wire.times[0] == 0
    assert min(wire.times[1:]) >= 60
    assert all(later - sooner >= 1 - 1e-6 for sooner, later in pairwise(wire.times[1:]))


async def test_a_longer_pause_than_we_have_patience_for_stops_all_callers_at_once(make, clock):
    caller, wire, _ = make(lambda call, now: answer(429, retry_after="3600"))
    with pytest.raises(Unavailable, match="3600 s"):
        await caller.call(STATUS)
    with pytest.raises(Unavailable, match="not to be called"):
        await caller.call(CREATE)
    assert clock.monotonic() == 0
    assert len(wire.requests) == 1


async def test_an_allowance_that_is_used_up_is_not_overdrawn(make, clock):
    caller, wire, _ = make(lambda call, now: answer(200, x_ratelimit_remaining="0", x_ratelimit_reset="40"))
    await caller.call(STATUS)
    await caller.call(STATUS)
    assert wire.times == [0, 40]


async def test_calls_keep_the_pace_of_the_configuration(make):
    caller, wire, _ = make(lambda call, now: answer(), requests_per_second=4, max_in_flight=50)
    async with anyio.create_task_group() as tasks:
        for _ in range(9):
            tasks.start_soon(caller.call, STATUS)
    assert [round(time, 6) for time in wire.times] == [n / 4 for n in range(9)]


def windows(call, now):
    return answer(200, x_ratelimit_limit="1", x_ratelimit_remaining="0", x_ratelimit_reset="40")


def never_twice_in_ten_seconds():
    let_in = [-10.0]

    def script(call, now):
        if now - let_in[-1] < 10:
            return answer(429)
        let_in.append(now)
        return answer()

    return script


@pytest.mark.parametrize(
    ("script", "settings", "kind", "reason"),
    [
        (windows, {}, Paused, "the request budget of this window is used up"),
        (
            lambda call, now: answer() if now > 30 else answer(429, retry_after="30"),
            {},
            Paused,
            "the service asks for it (status 429)",
        ),
        (
            lambda call, now: answer() if now > 60 else answer(500),
            {},
            Paused,
            "the service does not answer; one call at a time tries",
        ),
        (lambda call, now: answer(), {"requests_per_second": 0.5}, Spaced, "requests_per_second is 0.5"),
        (
            never_twice_in_ten_seconds(),
            {},
            Spaced,
            "the service takes no more calls a second than now, by its refusals",
        ),
    ],
    ids=["window", "push-back", "outage", "configured pace", "learned pace"],
)
async def test_the_reason_of_each_wait_over_a_second_is_told(make, clock, script, settings, kind, reason):
    caller, _, events = make(script, seconds=0.1, **settings)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller.call, STATUS)
        await clock.sleep(0.2)
        for _ in range(24):
            tasks.start_soon(caller.call, STATUS)
    told = [event for event in events if isinstance(event, Paused | Spaced) and event.reason == reason]
    assert {type(event) for event in told} == {kind}
    assert max(event.wait_seconds for event in told) > 1


async def test_a_long_wait_for_a_place_among_the_requests_under_way_is_told(make):
    caller, _, events = make(lambda call, now: answer(), seconds=5, max_in_flight=1, polls_in_flight=1)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(caller.call, STATUS)
    reason = "as many requests are under way as max_in_flight and polls_in_flight allow"
    assert [event for event in events if isinstance(event, Spaced)] == [Spaced(reason, 5.0)] * 2


async def test_no_more_requests_are_in_flight_than_configured(make):
    caller, wire, _ = make(lambda call, now: answer(), seconds=1, max_in_flight=3, polls_in_flight=2)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(caller.call, STATUS)
    assert wire.most_in_flight == 5


def down(call, now):
    """A service that answers once and is gone."""
    return lost(Loss.UNREACHABLE, "Connection refused") if now else answer()


async def test_a_call_gives_up_after_give_up_seconds_and_says_why(make, clock):
    caller, wire, _ = make(down, give_up_seconds=100)
    await caller.call(CREATE)
    await clock.sleep(1)
    with pytest.raises(Unavailable) as caught:
        await caller.call(CREATE)
    assert "no connection: Connection refused (not tried again" in str(caught.value)
    assert 101 <= clock.monotonic() <= 121
    assert len(wire.requests) < 40


@pytest.mark.parametrize(
    ("loss", "code"),
    [
        (Loss.UNREACHABLE, Exit.STOPPED_EARLY),
        (Loss.CONNECT_TIMEOUT, Exit.STOPPED_EARLY),
        (Loss.CUT, Exit.STOPPED_EARLY),
        (Loss.UNKNOWN_HOST, Exit.MEND_FIRST),
    ],
)
async def test_where_nothing_has_ever_answered_a_run_gives_up_after_a_minute_as_the_cause_says(make, clock, loss, code):
    caller, _, events = make(lambda call, now: lost(loss, "h:443: why"))
    with pytest.raises(Unavailable, match=r"h:443: why .*nothing has ever answered in this run") as caught:
        await caller.call(STATUS)
    assert caught.value.exit_code is code
    assert 60 <= clock.monotonic() <= 90
    first = next(event for event in events if isinstance(event, CallRetried))
    assert "h:443: why" in first.reason, "the cause is said at the first failure"
    assert first.left_seconds == 60


async def test_a_call_that_is_made_again_tells_what_was_called_and_what_the_service_said(make):
    full = answer(503, b'{"message": "the queue is full"}')
    caller, _, events = make(full, answer())
    await caller.call(STATUS)
    (retried,) = [event for event in events if isinstance(event, CallRetried)]
    assert retried.failure.startswith(
        "status (GET api.example.com/v2/batches/1.json) did not succeed: status 503: the q"
    )
    assert "batches" not in retried.reason, "it counts calls that fail alike"
    assert "jitter" not in retried.reason


async def test_callers_that_wait_together_for_a_service_that_never_answered_all_end_after_a_minute(make, clock):
    caller, _, _ = make(lambda call, now: lost(Loss.UNREACHABLE))

    async def ask_together():
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(caller.call, CREATE)

    with pytest.raises(ExceptionGroup):
        await ask_together()
    assert clock.monotonic() <= 90


FEW_TRIES = replace(PUT, few_tries=True)


async def test_a_call_with_few_tries_is_handed_back_once_it_has_timed_out_twice(make):
    caller, wire, _ = make(lost(Loss.ANSWER_TIMEOUT), lost(Loss.UNREACHABLE), answer(504))
    with pytest.raises(Unavailable, match="lost on the way again and again") as raised:
        await caller.call(FEW_TRIES)
    assert (raised.value.timed_out, raised.value.reset) == (True, False)
    assert len(wire.requests) == 3


async def test_a_call_with_few_tries_is_handed_back_once_its_connection_has_broken_four_times(make):
    caller, wire, _ = make(*[lost(Loss.CUT)] * 4)
    with pytest.raises(Unavailable) as raised:
        await caller.call(FEW_TRIES)
    assert (raised.value.timed_out, raised.value.reset) == (False, True)
    assert len(wire.requests) == 4


async def test_a_call_with_few_tries_is_handed_back_once_something_in_between_has_turned_it_away_twice(make):
    caller, wire, _ = make(*[answer(406, PAGE)] * 2)
    with pytest.raises(Unavailable, match="turned away again") as raised:
        await caller.call(FEW_TRIES)
    assert raised.value.by_proxy
    assert len(wire.requests) == 2


@pytest.mark.parametrize("ended", [lost(Loss.CONNECT_TIMEOUT), lost(Loss.UNREACHABLE), answer(503)])
async def test_a_service_that_is_not_there_is_no_fault_of_what_a_call_carries(make, ended):
    caller, wire, _ = make(*[ended] * 5, answer())
    await caller.call(FEW_TRIES)
    assert len(wire.requests) == 6


@pytest.mark.parametrize("loss", [Loss.ANSWER_TIMEOUT, Loss.CUT])
async def test_any_other_call_that_may_be_repeated_is_until_it_gets_through(make, loss):
    caller, wire, _ = make(*[lost(loss)] * 5, answer())
    await caller.call(PUT)
    assert len(wire.requests) == 6


def store_says(code, status=400):
    return answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>".encode())


@pytest.mark.parametrize(
    ("ended", "blame", "too_large"),
    [
        (answer(413), Blame.PAYLOAD, True),
        (store_says("EntityTooLarge"), Blame.PAYLOAD, True),
        (store_says("InvalidArgument"), Blame.URL, False),
        (store_says("AccessDenied", 403), Blame.URL, False),
    ],
)
async def test_a_refusal_of_the_store_says_whose_fault_it_is(make, ended, blame, too_large):
    caller, _, _ = make(ended)
    with pytest.raises(Refused) as raised:
        await caller.call(PUT)
    assert (raised.value.blame, raised.value.too_large) == (blame, too_large)


@pytest.mark.parametrize(
    "ended",
    [
        store_says("RequestTimeout"),
        store_says("OperationAborted", 409),
        store_says("TemporaryRedirect", 307),
        store_says("SlowDown", 503),
        store_says("InternalError", 500),
        answer(404, b"<html><title>404</title></html>"),
    ],
)
async def test_what_a_store_says_of_the_moment_is_tried_again(make, ended):
    caller, wire, _ = make(ended, ended, ended, answer())
    await caller.call(PUT)
    assert len(wire.requests) == 4


# Answers in nobody's words


PAGE = b"<html><head><title>404 Not Found</title></head><body>nginx</body></html>"


def speech(body):
    return body.startswith(b"{")


async def test_a_page_in_the_place_of_the_services_own_words_is_tried_again(make):
    caller, wire, _ = make(answer(404, PAGE), answer(404, PAGE), answer(202), speech=speech)
    assert (await caller.call(CREATE)).status == 202
    assert len(wire.requests) == 3


async def test_where_the_service_was_never_heard_the_address_is_taken_for_wrong_after_a_minute(make, clock):
    caller, _, _ = make(lambda call, now: answer(404, PAGE), speech=speech)
    with pytest.raises(WrongAddress, match=r"404 Not Found.*check the address") as raised:
        await caller.call(CREATE)
    assert raised.value.exit_code == Exit.MEND_FIRST
    assert 60 <= clock.monotonic() <= 100


async def test_where_the_service_was_heard_a_page_is_trouble_like_any_other(make, clock):
    caller, _, _ = make(lambda call, now: answer(404, PAGE) if now else answer(200), speech=speech, seconds=0.1)
    caller._client.script = lambda call, now: answer() if call is STATUS else answer(404, PAGE)
    await caller.call(STATUS)
    with pytest.raises(Unavailable) as raised:
        await caller.call(CREATE)
    assert type(raised.value) is Unavailable
    assert raised.value.exit_code == Exit.STOPPED_EARLY
    assert clock.monotonic() >= 900


async def test_a_page_that_forbids_what_carries_no_record_ends_by_itself_no_more_than_a_wrong_address(make, clock):
    caller, _, _ = make(lambda call, now: answer() if call is STATUS else answer(403, PAGE), speech=speech)
    await caller.call(STATUS)
    with pytest.raises(WrongAddress, match="403"):
        await caller.call(CREATE)
    assert clock.monotonic() <= 100


async def test_a_page_that_turns_a_release_away_is_handed_back_after_two_tries(make):
    caller, wire, _ = make(answer(409, PAGE), answer(409, PAGE), speech=speech)
    with pytest.raises(Unavailable, match="can be asked") as raised:
        await caller.call(replace(CREATE, carries=Carries.RELEASE))
    assert raised.value.by_proxy
    assert len(wire.requests) == 2


@pytest.mark.parametrize("status", [404, 410])
async def test_a_poll_is_handed_back_once_a_page_has_said_twice_that_what_it_names_is_not_there(make, status):
    caller, wire, _ = make(*[answer(status, PAGE)] * 2, speech=speech)
    with pytest.raises(Unavailable, match="about what was asked for alone") as raised:
        await caller.call(replace(STATUS, yielding=True))
    assert raised.value.by_proxy
    assert len(wire.requests) == 2


@pytest.mark.parametrize("other", [{"yielding": False}, {"method": "POST"}])
async def test_any_other_call_is_made_again_until_no_page_comes_in_between(make, other):
    caller, wire, _ = make(*[answer(404, PAGE)] * 4, answer(), speech=speech)
    await caller.call(replace(STATUS, **{"yielding": True, **other}))
    assert len(wire.requests) == 5


async def test_a_page_that_turns_records_away_is_handed_back_at_once(make):
    caller, wire, _ = make(answer(403, PAGE), speech=speech)
    with pytest.raises(Refused) as raised:
        await caller.call(POST)
    assert (type(raised.value), raised.value.blame, raised.value.by_proxy) == (Refused, Blame.SUSPECT, True)
    assert len(wire.requests) == 1


async def test_the_time_that_a_service_was_down_does_not_count_against_a_page(make, clock):
    def script(call, now):
        if now < 300:
            return lost(Loss.UNREACHABLE)
        return answer(404, PAGE) if now < 330 else answer(202)

    caller, _, _ = make(lambda call, now: script(call, now) if now else answer(202), speech=speech)
    await caller.call(CREATE)
    await clock.sleep(1)
    assert (await caller.call(CREATE)).status == 202


# Limits on one kind of call


LISTED = replace(STATUS, kind="tasks", lane="tasks")


async def test_a_push_back_on_one_kind_of_call_holds_that_kind_only(make, clock):
    def script(call, now):
        return answer(429, retry_after="30") if call.lane and now < 30 else answer()

    caller, wire, events = make(script)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller.call, LISTED)
        await clock.sleep(1)
        tasks.start_soon(caller.call, CREATE)
        tasks.start_soon(caller.call, STATUS)
        tasks.start_soon(caller.call, LISTED)
    assert [time >= 30 for time in wire.times] == [False, False, False, True, True]
    assert [event for event in events if isinstance(event, Paused)] == [
        Paused("the service asks for it (status 429)", 30)
    ]


async def test_a_push_back_on_the_service_holds_every_kind(make, clock):
    caller, wire, _ = make(lambda call, now: answer(429, retry_after="30") if now < 30 else answer())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller.call, CREATE)
        await clock.sleep(1)
        tasks.start_soon(caller.call, LISTED)
    assert all(time >= 30 for time in wire.times[1:])


async def test_the_rate_of_one_kind_is_found_out_for_itself(make, clock):
    """One call a second is what Sama documents for the list of tasks."""
    let_in = []

    def script(call, now):
        if call.lane and let_in and now - let_in[-1] < 1:
            return answer(429)
        if call.lane:
            let_in.append(now)
        return answer()

    caller, wire, _ = make(script, seconds=0.01)
    for _ in range(30):
        await caller.call(LISTED)
    listed = clock.monotonic()
    for _ in range(100):
        await caller.call(STATUS)
    assert listed < 120
    assert clock.monotonic() - listed < 2
    assert len([request for request in wire.requests if request.call.lane]) < 60


async def test_a_window_told_with_a_push_back_on_one_kind_is_none_of_the_service(make, clock):
    refused = answer(429, x_ratelimit_remaining="0", x_ratelimit_reset="40", retry_after="40")
    caller, _, _ = make(refused, answer(), answer())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller.call, LISTED)
        await clock.sleep(1)
        await caller.call(STATUS)
        assert clock.monotonic() < 2


@pytest.mark.parametrize(("ended", "timed_out"), [(lost(Loss.ANSWER_TIMEOUT), True), (lost(Loss.CUT), False)])
async def test_of_a_call_that_is_not_repeated_it_is_known_whether_it_timed_out(make, ended, timed_out):
    caller, _, _ = make(ended)
    with pytest.raises(PossiblyApplied) as raised:
        await caller.call(CREATE)
    assert raised.value.timed_out is timed_out


# What a call leaves behind


async def test_the_intent_is_durable_each_time_before_the_call_goes_out(make, clock):
    caller, wire, _ = make(answer(429, retry_after="40"), lost(Loss.UNREACHABLE), answer(), seconds=2)
    stamps = []

    async def intent():
        await clock.sleep(1)  # a ledger takes its time
        stamps.append(clock.monotonic())

    await caller.call(replace(CREATE, intent=intent))
    assert len(stamps) == 3
    assert stamps == wire.times


async def test_a_call_that_waits_for_its_turn_tells_its_intent_when_that_has_come(make, clock):
    caller, wire, _ = make(lambda call, now: answer(), requests_per_second=1.0)
    stamps = []

    async def intent():
        stamps.append(clock.monotonic())

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(caller.call, replace(CREATE, intent=intent))
    assert stamps == wire.times == [0.0, 1.0, 2.0, 3.0]


async def test_a_call_whose_intent_cannot_be_kept_is_not_made(make):
    caller, wire, _ = make(answer())

    async def intent():
        raise LedgerError

    with pytest.raises(LedgerError):
        await caller.call(replace(CREATE, intent=intent))
    assert wire.requests == []
    assert (await caller.call(CREATE)).status == 200, "and it has left its place to others"


@pytest.mark.parametrize(
    ("before", "lost_before"),
    [
        ([], False),
        ([answer(429)], False),
        ([lost(Loss.UNREACHABLE)], False),
        ([answer(502)], True),
        ([lost(Loss.CUT)], True),
        ([lost(Loss.ANSWER_TIMEOUT), answer(429)], True),
    ],
)
async def test_a_refusal_tells_whether_an_earlier_attempt_of_the_call_may_have_arrived(make, before, lost_before):
    caller, _, _ = make(*before, answer(400, b'{"code":7007,"message":"not a draft"}'))
    with pytest.raises(Refused) as raised:
        await caller.call(replace(CREATE, repeatable=True))
    assert (raised.value.earlier_lost, raised.value.code) == (lost_before, "7007")


async def test_a_refusal_for_the_credentials_tells_it_too(make):
    caller, _, _ = make(answer(504), answer(401))
    with pytest.raises(Unauthorized) as raised:
        await caller.call(replace(CREATE, repeatable=True))
    assert raised.value.earlier_lost


async def test_a_canceled_call_ends_for_the_listeners_too(make):
    caller, _, events = make(answer(), seconds=60)
    with anyio.move_on_after(0):
        await caller.call(STATUS)
    assert events in ([], [CallStarted("status"), CallEnded("status", 0.0, 0, None)])


async def load(caller, clock, calls, *, workers, until=None):
    """Make calls from many workers; return when each succeeded."""
    done = []

    async def work():
        while until is None or clock.monotonic() < until:
            if until is None and not calls:
                return
            call = calls.pop() if until is None else calls
            await caller.call(call)
            done.append(clock.monotonic())

    async with anyio.create_task_group() as tasks:
        for _ in range(workers):
            tasks.start_soon(work)
    return done


@pytest.mark.parametrize("ended", [answer(500), lost(Loss.UNREACHABLE), lost(Loss.CUT)], ids=["500", "refused", "cut"])
@pytest.mark.parametrize("workers", [2, 40])
async def test_an_outage_of_ten_minutes_costs_little_and_its_end_is_noticed_soon(make, clock, ended, workers):
    begin, end = 60.0, 660.0

    def script(call, now):
        return ended if begin < now <= end else answer()

    caller, wire, events = make(script, seconds=0.5, max_in_flight=workers)
    done = await load(caller, clock, STATUS, workers=workers, until=750.0)
    # Time does not stand still while a request is under way, so the last success may be a moment late.
    recovered = min(time for time in done if time > end)
    assert recovered - end <= 30
    assert len([time for time in done if time > end]) > 100 * workers, "afterwards all workers are back"
    wasted = len(wire.requests) - len(done)
    # 100 retries is what the budget holds; then a probe every 10 to 20 s.
    assert wasted <= 100 + workers + 75
    assert len(wire.requests) <= 1.1 * len(done) or workers == 2
    assert any(isinstance(event, Paused) for event in events) or workers == 2


async def test_while_the_budget_is_spent_one_call_at_a_time_tries(make, clock):
    caller, wire, _ = make(lambda call, now: answer(500), seconds=0.5, max_in_flight=30, give_up_seconds=400)
    with pytest.raises(BaseExceptionGroup) as caught:
        await load(caller, clock, STATUS, workers=30, until=1e9)
    assert caught.group_contains(Unavailable)
    late = [time for time in wire.times if time > 150]
    assert len(late) > 10
    assert all(later - sooner >= 10 for sooner, later in pairwise(late))
    assert 400 <= clock.monotonic() <= 450


async def test_calls_that_must_not_be_repeated_do_not_pile_up_unknown_fates_in_an_outage(make, clock):
    """Each of these calls is a batch nobody knows the fate of; 8 are under way when the outage begins."""
    fates = {"applied": 0, "unknown": 0}
    caller, _, _ = make(lambda call, now: answer(500) if 60 < now <= 660 else answer(), seconds=0.5)

    async def work():
        while clock.monotonic() < 700:
            try:
                await caller.call(CREATE)
                fates["applied"] += 1
            except PossiblyApplied:
                fates["unknown"] += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(work)
    assert fates["unknown"] <= 8 + 60
    assert fates["applied"] > 1000


async def test_and_the_job_stops_when_none_of_them_gets_through(make, clock):
    caller, wire, _ = make(lambda call, now: answer(500), give_up_seconds=900)
    errors = []
    while not errors or isinstance(errors[-1], PossiblyApplied):
        with pytest.raises((PossiblyApplied, Unavailable)) as caught:
            await caller.call(CREATE)
        errors.append(caught.value)
    assert "nothing has got through" in str(errors[-1])
    assert 900 <= clock.monotonic() <= 925
    assert len(wire.requests) <= 100
    await clock.sleep(3600)
    with pytest.raises(PossiblyApplied):
        await caller.call(CREATE)


async def test_polls_that_get_through_do_not_open_the_gate_for_calls_that_do_not(make, clock):
    caller, _, _ = make(lambda call, now: answer(500) if call is CREATE else answer())
    for _ in range(10):
        with pytest.raises(PossiblyApplied):
            await caller.call(CREATE)
        await caller.call(STATUS)
    assert clock.monotonic() > 50, "nine spacings that double up to 20 s, each at least half of it"


async def test_trouble_at_the_upload_host_leaves_the_service_alone(make, clock):
    caller, _, _ = make(lambda call, now: answer(503) if call is PUT else answer(), give_up_seconds=500)
    async with anyio.create_task_group() as tasks:

        async def upload():
            with pytest.raises(Unavailable):
                await caller.call(PUT)

        for _ in range(8):
            tasks.start_soon(upload)
        await clock.sleep(100)
        before = clock.monotonic()
        await caller.call(STATUS)
        assert clock.monotonic() == before


async def test_a_service_that_fails_every_third_call_is_still_driven_at_speed(make, clock):
    dice = random.Random(3)
    caller, _, _ = make(lambda call, now: answer(500) if dice.random() < 0.33 else answer(), seconds=0.1)
    done = await load(caller, clock, [STATUS] * 2000, workers=8)
    assert len(done) == 2000
    assert clock.monotonic() < 125, "87 s are requests and their jitter, without any waiting in line"


# What the service's own code means


async def test_maintenance_pauses_all_calls_and_says_so_and_nothing_is_doubtful(make):
    pause = Pause(30.0, "the platform is under maintenance")
    caller, wire, events = make(answer(503), answer(201), error_hint=lambda status, body: pause)
    assert (await caller.call(CREATE)).status == 201
    assert wire.times == [0, pytest.approx(30, abs=1)]
    assert [event.reason for event in events if isinstance(event, Paused)] == [
        "the service asks for it (the platform is under maintenance)"
    ]


TOO_MUCH = Pause(30.0, "maintenance, or too much at once", or_too_much=True)


async def test_what_may_mean_too_much_at_once_refuses_a_call_that_could_go_in_parts_and_holds_up_nobody(make):
    caller, wire, events = make(answer(503), answer(), error_hint=lambda status, body: TOO_MUCH)
    with pytest.raises(Refused, match="status 503") as refused:
        await caller.call(replace(STATUS, few_tries=True))
    assert refused.value.status == 503
    assert (await caller.call(STATUS)).status == 200
    assert len(wire.times) == 2
    assert not any(isinstance(event, Paused) for event in events)


async def test_it_pauses_a_call_that_could_not_be_smaller(make):
    caller, wire, _ = make(answer(503), answer(), error_hint=lambda status, body: TOO_MUCH)
    assert (await caller.call(STATUS)).status == 200
    assert wire.times == [0, pytest.approx(30, abs=1)]


async def test_a_forbidden_record_is_refused_and_the_credentials_are_not_blamed(make):
    caller, _, _ = make(answer(403), error_hint=lambda status, body: Refusal("status 403, code 3001", Blame.JOB))
    with pytest.raises(Refused, match="code 3001") as refused:
        await caller.call(CREATE)
    assert not isinstance(refused.value, Unauthorized)


async def test_the_pace_that_a_service_takes_is_learned_from_its_refusals(make, clock):
    let_in, refused, store = [], [], []

    def ten_a_second(call, now):
        if not call.authenticated:
            store.append(now)
            return answer(201)
        if sum(at > now - 1 for at in let_in) >= 10:
            refused.append(now)
            return answer(429, retry_after="1")
        let_in.append(now)
        return answer()

    caller, _, _ = make(ten_a_second, seconds=0.05)
    async with anyio.create_task_group() as group:

        async def one_after_the_other(call):
            for _ in range(100):
                await caller.call(call)

        for _ in range(4):
            group.start_soon(one_after_the_other, STATUS)
        group.start_soon(one_after_the_other, PUT)
    assert len(let_in) == 400
    assert len(refused) < 40  # 400 and more where everybody just comes back when told to
    assert let_in[-1] < 60
    assert store[-1] < 30  # another host: it waits for the pauses that all obey, and not for the pace


async def test_a_window_that_is_told_is_no_reason_to_learn_a_pace(make, clock):
    told = answer(429, X_RateLimit_Limit="10", X_RateLimit_Remaining="0", X_RateLimit_Reset="1800000030")
    caller, wire, _ = make(told, *[answer() for _ in range(20)])
    for _ in range(20):
        await caller.call(STATUS)
    assert wire.times[-1] == wire.times[1]


# What a success may mean besides


def rule(status, body):
    """Read the rules of a service whose status lies."""
    if b"THROTTLED" in body:
        return Pause(30.0, "THROTTLED")
    if b"bad token" in body:
        return Refusal("bad token", Blame.KEY)
    if b"flawed" in body:
        return Refusal("two are flawed", Blame.RECORDS, flaws={0: "no name\nt0ken-of-ours", 7: "too long"}, exists=True)
    if b"no job" in body:
        return Refusal("no job", Blame.RECORDS, gone=True)
    return Refusal("later", Blame.NOT_NOW) if b"later" in body else None


@pytest.fixture
def ruled(make, monkeypatch):
    """Make a caller of a service whose rules are asked about success, too."""
    monkeypatch.setattr(Service, "RULES_ON_SUCCESS", True)
    return lambda *script, **settings: make(*script, error_hint=rule, **settings)


@pytest.mark.parametrize("status", [200, 202, 400, 503])
@pytest.mark.parametrize("call", [CREATE, STATUS], ids=["once", "repeatable"])
async def test_a_refusal_under_any_status_is_definite(ruled, call, status):
    caller, wire, _ = ruled(answer(status, b'{"errors":["flawed"]}'))
    with pytest.raises(Refused, match="two are flawed") as raised:
        await caller.call(call)
    refused = raised.value
    assert (type(refused), refused.status, refused.blame, refused.earlier_lost) == (
        Refused,
        status,
        Blame.RECORDS,
        False,
    )
    assert (refused.flaws, refused.exists, refused.batch_not_found) == ({0: "no name ***", 7: "too long"}, True, False)
    assert len(wire.requests) == 1


async def test_what_is_not_there_is_told(ruled):
    caller, _, _ = ruled(answer(200, b"no job"))
    with pytest.raises(Refused) as raised:
        await caller.call(CREATE)
    assert (raised.value.batch_not_found, raised.value.exists, raised.value.flaws) == (True, False, {})


@pytest.mark.parametrize("status", [200, 400])
async def test_a_pause_under_any_status_is_tried_again_even_if_the_call_must_happen_once(ruled, status):
    caller, wire, events = ruled(answer(status, b"THROTTLED"), answer(201))
    assert (await caller.call(CREATE)).status == 201
    assert wire.times == [0, pytest.approx(30, abs=1)]
    assert [event.reason for event in events if isinstance(event, Paused)] == ["the service asks for it (THROTTLED)"]


async def test_a_longer_pause_that_the_headers_ask_for_is_obeyed(ruled):
    caller, wire, _ = ruled(answer(429, b"THROTTLED", retry_after="50"), answer(201))
    await caller.call(CREATE)
    assert wire.times == [0, pytest.approx(50, abs=1)]


async def test_what_may_succeed_later_is_tried_again(ruled):
    caller, wire, _ = ruled(answer(200, b"later"), answer(200, b"later"), answer(201))
    assert (await caller.call(CREATE)).status == 201
    assert len(wire.requests) == 3


async def test_a_success_may_say_that_the_credentials_do_not_hold(ruled):
    caller, _, _ = ruled(answer(200, b"bad token"))
    with pytest.raises(Unauthorized):
        await caller.call(CREATE)


async def test_a_success_that_no_rule_is_about_is_one(ruled):
    caller, _, _ = ruled(answer(200, b"fine"))
    assert (await caller.call(CREATE)).body == b"fine"


async def test_rules_are_asked_about_a_success_only_where_the_service_says_so(make):
    caller, _, _ = make(answer(200, b"flawed"), error_hint=rule)
    assert (await caller.call(CREATE)).body == b"flawed"


async def test_they_are_not_about_what_a_store_says(ruled):
    caller, _, _ = ruled(answer(200, b"flawed"), answer(403, b"bad token"))
    assert (await caller.call(PUT)).body == b"flawed"
    with pytest.raises(Refused) as raised:
        await caller.call(PUT)
    assert raised.value.blame is Blame.URL


@pytest.mark.parametrize(
    ("before", "lost_before"),
    [
        ([], False),
        ([answer(429)], False),
        ([lost(Loss.UNREACHABLE)], False),
        ([answer(502)], True),
        ([lost(Loss.CUT)], True),
    ],
)
async def test_an_answer_tells_whether_an_earlier_attempt_of_the_call_may_have_arrived(make, before, lost_before):
    caller, _, _ = make(*before, answer(200))
    assert (await caller.call(replace(CREATE, repeatable=True))).earlier_lost is lost_before


async def test_a_call_that_is_given_up_tells_whether_it_may_have_arrived(make):
    for ended, may in ((lost(Loss.UNREACHABLE), False), (lost(Loss.CUT), True)):
        caller, _, _ = make(lambda call, now, ended=ended: ended, give_up_seconds=10)
        with pytest.raises(Unavailable) as raised:
            await caller.call(replace(CREATE, repeatable=True))
        assert raised.value.earlier_lost is may


# What the service's settings say of its pace


@pytest.mark.parametrize(("configured", "documented"), [(None, 4.0), (8.0, 4.0), (4.0, 8.0)])
async def test_the_slower_of_two_paces_holds(make, monkeypatch, configured, documented):
    monkeypatch.setattr(Service, "most_requests_per_second", documented)
    caller, wire, _ = make(lambda call, now: answer(), requests_per_second=configured)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(caller.call, STATUS)
    assert [round(time, 6) for time in wire.times] == [n / 4 for n in range(5)]


HUBSPOT = WindowHeaders("X-HubSpot-RateLimit-Remaining", "X-HubSpot-RateLimit-Max", "", every=10.0)


async def test_a_fixed_window_by_other_names_is_used_up_and_never_overdrawn(make, monkeypatch, clock):
    monkeypatch.setattr(Service, "window", lambda self: HUBSPOT)
    seen, refused = [], []

    def script(call, now):
        at = now // 10 * 10
        if len([one for one in seen if one >= at]) >= 20:
            refused.append(now)
            return answer(429)
        seen.append(now)
        left = 20 - len([one for one in seen if one >= at])
        return answer(200, x_hubspot_ratelimit_remaining=str(left), x_hubspot_ratelimit_max="20")

    caller, _, _ = make(script, seconds=0.1)
    await load(caller, clock, [STATUS] * 100, workers=4)
    assert refused == []
    assert clock.monotonic() < 60


async def test_a_push_back_while_a_fixed_window_has_something_left_is_none_of_that_window(make, monkeypatch, clock):
    daily = WindowHeaders("X-Daily-Remaining", "X-Daily-Limit", "", every=86_400.0)
    monkeypatch.setattr(Service, "window", lambda self: daily)
    left = {"x_daily_remaining": "9000", "x_daily_limit": "10000"}
    caller, _, _ = make(answer(200, **left), answer(429, **left), answer(200, **left))
    for _ in range(2):
        await caller.call(STATUS)
    assert clock.monotonic() < 60


# Into a file


async def test_the_body_of_a_call_into_a_file_has_no_secret_in_it(make):
    file = BytesIO(b"older and longer than what comes")

    caller, wire, _ = make(answer(200))
    await caller.call(replace(STATUS, into=file))
    into = wire.requests[0].into
    into.begin()
    into.write(b"we sent t0ken-")
    into.write(b"of-ours")
    into.end()
    assert file.getvalue() == b"we sent ***"


async def test_rules_are_not_asked_about_what_went_into_a_file(ruled):
    caller, _, _ = ruled(answer(200, b"flawed"))
    assert (await caller.call(replace(STATUS, into=BytesIO()))).status == 200
