"""Tokens that are exchanged, by the loop of `HttpCaller` over a scripted wire, in made-up time."""

import json
import random

import anyio
import pytest
from msgspec.structs import replace
from multidict import CIMultiDict

from engine.http.caller import HttpCaller
from engine.http.classify import Loss
from engine.http.losses import Lost
from engine.http.tokens import check_exchange
from engine.model.error_hints import Blame, Refusal
from engine.model.errors import ConfigError, Exit, PossiblyApplied, Refused, Unauthorized, Unavailable, WrongAddress
from engine.model.settings import SecretStr, SendSettings, ServiceSettings, TokenExchange
from engine.progress import redaction
from engine.progress.events import CallRetried
from engine.services.base import Answer, Call

BASE = "https://api.example.com/v2"
AUTH = "https://login.example.com/oauth/token"
LONG = "l0ng-lived/secret"

STATUS = Call("status", "GET", f"{BASE}/batches/1.json")
CREATE = Call("create", "POST", f"{BASE}/batches.json", body=b"[]", repeatable=False)
STORE = Call("put", "PUT", "https://bucket.s3.amazonaws.com/key", body=b"[]", authenticated=False)


def answer(status=200, body=b"", **headers):
    return Answer(status, CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items()), body)


def taken(body):
    said = json.loads(body)
    if "access_token" not in said:
        raise ValueError("no token in " + body.decode())
    return said["access_token"], said.get("expires_in")


class Exchanging(ServiceSettings):
    exchanged: TokenExchange
    hint: object = None

    def exchange(self):
        return self.exchanged

    def secret_headers(self):
        return {"X-Project-Key": SecretStr("proj3ct-key")}

    def allowed_upload_hosts(self):
        return ("*.amazonaws.com",)

    def error_hint(self, status, body):
        return self.hint and self.hint(status, body)


def exchange(**changes):
    return TokenExchange(
        **{
            "url": AUTH,
            "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            "secret_query": {"client": SecretStr("cl1ent-of-ours")},
            "body": SecretStr(f"grant_type=client_credentials&client_secret={LONG}"),
            "secrets": [SecretStr(LONG)],
            "take": taken,
            "header": lambda token: {"Authorization": f"Bearer {token}"},
            "seconds": 300.0,
            **changes,
        }
    )


class Service:
    """A service and the place where its tokens are got: each of those holds until it has ended or is revoked."""

    def __init__(self, clock, *, expires_in=None, seconds=0.0) -> None:
        self.clock, self.expires_in, self.seconds = clock, expires_in, seconds
        self.requests, self.exchanges, self.tokens = [], [], {}
        self.at_exchange = []
        """What the next exchanges are answered instead."""
        self.says = answer(200, b"done")
        self.refusal = answer(401, b'{"message":"who are you?"}')

    async def send(self, request):
        (self.exchanges if request.call.kind == "token" else self.requests).append(request)
        await self.clock.sleep(self.seconds)
        if request.call.kind == "token":
            if self.at_exchange:
                return self.at_exchange.pop(0)
            token = f"t0ken-number-{len(self.exchanges)}"
            self.tokens[token] = self.clock.monotonic() + (self.expires_in or 300.0)
            told = {} if self.expires_in is None else {"expires_in": self.expires_in}
            return answer(200, json.dumps({"access_token": token, **told}).encode())
        if not request.call.authenticated:
            return answer()
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, -1.0) < self.clock.monotonic():
            return self.refusal
        return self.says(token) if callable(self.says) else self.says

    def revoke(self):
        self.tokens.clear()


@pytest.fixture
def make(clock):
    def build(*, hint=None, exchanged=None, expires_in=None, seconds=0.0, **settings):
        service, events = Service(clock, expires_in=expires_in, seconds=seconds), []
        keys = Exchanging(kind="test", base_url=BASE, exchanged=exchanged or exchange(), hint=hint)
        draw = random.Random(7).random
        caller = HttpCaller(service, keys, SendSettings(**settings), clock=clock, draw=draw, emit=events.append)
        return caller, service, events

    return build


async def test_a_token_is_got_before_the_first_call_and_carried_by_all(make):
    caller, service, _ = make()
    for _ in range(3):
        assert (await caller.call(STATUS)).body == b"done"
    assert len(service.exchanges) == 1
    assert {request.headers["Authorization"] for request in service.requests} == {"Bearer t0ken-number-1"}
    assert {request.headers["X-Project-Key"] for request in service.requests} == {"proj3ct-key"}


async def test_the_exchange_carries_the_credentials_of_long_life_and_the_service_never_does(make):
    caller, service, _ = make()
    await caller.call(STATUS)
    service.revoke()
    await caller.call(CREATE)
    await caller.call(STORE)
    for request in service.exchanges:
        assert str(request.url) == f"{AUTH}?client=cl1ent-of-ours"
        assert LONG.encode() in request.call.body
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
        assert not {"Authorization", "X-Project-Key"} & set(request.headers)
        assert LONG not in repr(request)
    for request in service.requests:
        assert "cl1ent" not in f"{request.url} {request.headers}"
        assert LONG.encode() not in (request.call.body or b"")
    assert len(service.exchanges) == 2
    assert service.requests[-1].headers == {}, "a store gets no token either"


async def test_a_store_needs_no_token(make):
    caller, service, _ = make()
    await caller.call(STORE)
    assert service.exchanges == []


async def test_many_calls_at_once_get_one_token(make):
    caller, service, _ = make(seconds=0.5)
    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(caller.call, STATUS)
    assert len(service.exchanges) == 1


async def test_many_calls_that_are_refused_for_it_renew_it_once(make):
    caller, service, events = make(seconds=0.5)
    await caller.call(STATUS)
    service.revoke()
    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(caller.call, CREATE)
    assert len(service.exchanges) == 2
    assert len(service.requests) == 1 + 40 + 40
    assert sum("its token is renewed" in event.reason for event in events if isinstance(event, CallRetried)) == 40


@pytest.mark.parametrize(("expires_in", "renewed_after"), [(None, 240), (3600, 3540), (50, 40), (0, 240), (-1, 240)])
async def test_it_is_renewed_before_its_end(make, clock, expires_in, renewed_after):
    told = json.dumps({"access_token": "t0ken-number-1", "expires_in": expires_in}).encode()
    caller, service, _ = make()
    service.at_exchange.append(answer(200, told))
    service.tokens["t0ken-number-1"] = 1e9
    await caller.call(STATUS)
    clock.elapsed = renewed_after - 0.5
    await caller.call(STATUS)
    assert len(service.exchanges) == 1
    clock.elapsed = renewed_after + 0.5
    await caller.call(STATUS)
    assert len(service.exchanges) == 2


async def test_a_call_that_waits_for_longer_than_a_token_lives_goes_with_a_new_one(make, clock):
    caller, service, _ = make(expires_in=10, requests_per_second=0.05)
    for _ in range(4):
        await caller.call(CREATE)
    assert len(service.requests) == 4, "none was refused"
    assert len(service.exchanges) >= 4


async def test_a_token_that_is_refused_again_is_unauthorized(make):
    caller, service, _ = make()
    service.says = service.refusal
    with pytest.raises(Unauthorized) as raised:
        await caller.call(CREATE)
    assert (raised.value.call, raised.value.status, raised.value.exit_status) == ("create", 401, Exit.MEND_FIRST)
    assert (len(service.requests), len(service.exchanges)) == (2, 2)


async def test_a_hint_that_it_is_the_key_renews_it_too(make):
    def hint(status, body):
        return Refusal("status 400, data.status 401", Blame.KEY) if b"number-1" in body else None

    caller, service, _ = make(hint=hint)
    service.says = lambda token: answer(400, token.encode()) if token.endswith("1") else answer(200, b"done")
    service.refusal = answer(400, b"number-1")
    assert (await caller.call(CREATE)).body == b"done"
    assert (len(service.requests), len(service.exchanges)) == (2, 2)


async def test_an_exchange_that_fails_is_tried_again_like_any_repeatable_call(make, clock):
    caller, service, events = make()
    service.at_exchange += [answer(503), Lost(Loss.CUT), answer(429, retry_after="7")]
    await caller.call(CREATE)
    assert len(service.exchanges) == 4
    assert clock.monotonic() >= 7
    assert [event.kind for event in events if isinstance(event, CallRetried)] == ["token"] * 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_an_exchange_that_is_refused_is_unauthorized_and_says_why_without_a_secret(make, status):
    caller, service, _ = make()
    said = {"message": f"no client cl1ent-of-ours with {LONG}"}
    service.at_exchange.append(answer(status, json.dumps(said).encode()))
    with pytest.raises(Unauthorized, match=r"token \(POST login\.example\.com/oauth/token\)") as raised:
        await caller.call(CREATE)
    assert "no client *** with ***" in str(raised.value)
    assert service.requests == []


async def test_a_place_that_is_down_makes_nothing_doubtful_and_all_who_wait_end_alike(make, clock):
    caller, service, _ = make(give_up_seconds=100)
    service.at_exchange += [Lost(Loss.UNREACHABLE)] * 1000
    errors = []

    async def create():
        try:
            await caller.call(CREATE)
        except Unavailable as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(create)
    assert len(errors) == len(set(map(id, errors))) == 20
    assert clock.monotonic() <= 100, "they have waited once, and not one after the other"
    assert not any(error.earlier_lost for error in errors)
    assert service.requests == []


async def test_an_exchange_whose_call_is_canceled_is_made_by_the_next_one(make, clock):
    caller, service, _ = make(seconds=2)
    async with anyio.create_task_group() as tasks:
        canceled = anyio.CancelScope()

        async def first():
            with canceled:
                await caller.call(STATUS)

        tasks.start_soon(first)
        await clock.sleep(1)
        tasks.start_soon(caller.call, STATUS)
        await clock.sleep(0.5)
        canceled.cancel()
    assert (len(service.exchanges), len(service.requests)) == (2, 1)


async def test_an_answer_that_is_too_large_is_not_taken_for_a_lost_call(make):
    caller, service, _ = make()
    service.at_exchange.append(Lost(Loss.TOO_LARGE))
    with pytest.raises(WrongAddress) as raised:
        await caller.call(CREATE)
    assert not isinstance(raised.value, PossiblyApplied)


@pytest.mark.parametrize(
    "body",
    [
        b'{"refresh_token":"sh0uld-not-show"}',
        b'{"access_token":""}',
        b'{"access_token":"sh0uld-not\\r\\nX-Show: 1"}',
        b'{"access_token":"sh0uld-not-sh\xc3\xb6w"}',
        b"sh0uld-not-show",
    ],
)
async def test_an_answer_without_a_token_is_an_error_that_shows_nothing_of_it(make, body):
    caller, service, _ = make()
    service.at_exchange.append(answer(200, body))
    with pytest.raises(Unauthorized, match="no token where one should be") as raised:
        await caller.call(CREATE)
    assert "sh0uld" not in f"{raised.value} {raised.value.__cause__} {raised.value.__context__}"
    assert service.requests == []


async def test_a_page_in_the_place_of_a_token_is_not_the_service(make):
    caller, service, _ = make()
    service.at_exchange.append(answer(200, b" <!DOCTYPE html><html></html>"))
    with pytest.raises(Unavailable, match="a page, not with a token"):
        await caller.call(CREATE)
    assert service.requests == []


async def test_a_token_is_hidden_wherever_the_service_repeats_it(make):
    caller, service, _ = make()
    service.says = lambda token: answer(200, f"you sent {token}, for {LONG}".encode())
    assert (await caller.call(STATUS)).body == b"you sent ***, for ***"
    service.says = lambda token: answer(422, json.dumps({"message": f"{token} and {LONG}"}).encode())
    with pytest.raises(Refused, match=r"\*\*\* and \*\*\*"):
        await caller.call(CREATE)
    assert redaction.redactor({})("t0ken-number-1") == "***"


async def test_tokens_that_have_ended_are_not_kept(make, clock):
    caller, service, _ = make()
    before = len(redaction._remembered)
    for _ in range(20):
        await caller.call(STATUS)
        clock.elapsed += 250
    assert len(service.exchanges) == 20
    assert len(redaction._remembered) <= before + 2


async def test_a_token_that_is_given_again_stays_hidden(make, clock):
    caller, service, _ = make()
    service.tokens["t0ken-given-again"] = 1e9
    for number in range(5):
        service.at_exchange.append(answer(200, b'{"access_token":"t0ken-given-again"}'))
        await caller.call(STATUS)
        assert redaction.redactor({})("t0ken-given-again") == "***", number
        clock.elapsed += 250
    assert len(service.exchanges) == 5


async def test_a_token_is_taken_as_it_is_even_if_it_holds_what_is_hidden(make):
    caller, service, _ = make()
    token = f"t0ken-{LONG}-of-ours"
    service.tokens[token] = 1e9
    service.at_exchange.append(answer(200, json.dumps({"access_token": token}).encode()))
    await caller.call(STATUS)
    assert service.requests[0].headers["Authorization"] == f"Bearer {token}"


async def test_the_loss_of_an_earlier_attempt_is_told_though_the_token_is_what_fails(make, clock):
    caller, service, _ = make()
    losses = [Lost(Loss.CUT), answer(401)]

    def says(token):
        service.at_exchange.append(answer(400, b'{"message":"no"}'))
        return losses.pop(0)

    service.says = says
    with pytest.raises(Unauthorized) as raised:
        await caller.call(replace(CREATE, repeatable=True))
    assert (raised.value.call, raised.value.earlier_lost) == ("token", True)


@pytest.mark.parametrize(
    "url", ["http://login.example.com/token", "/oauth/token", "https://me:pass@login.example.com/"]
)
def test_a_place_where_a_secret_could_be_read_on_the_way_is_refused(url):
    with pytest.raises(ConfigError, match="exchange"):
        check_exchange(exchange(url=url))
    check_exchange(exchange(url="http://127.0.0.1:8800/token"))
    check_exchange(exchange())


def test_an_exchange_shows_no_secret():
    assert repr(exchange()) == f"TokenExchange(POST {AUTH})"
