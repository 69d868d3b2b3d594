"""`open_caller` as the rest of the engine uses it: over aioresponses where HTTP is enough, over sockets where not."""

import json
import re
from io import BytesIO

import aiohttp
import anyio
import pytest
from aioresponses import aioresponses
from yarl import URL

from engine.http.caller import open_caller
from engine.http.classify import Loss
from engine.http.losses import loss_of
from engine.model.error_hints import Carries
from engine.model.errors import ConfigError, PossiblyApplied, Refused, Unauthorized, Unavailable, WrongAddress
from engine.model.settings import SecretStr, SecretText, SendSettings, ServiceSettings, TokenExchange
from engine.services.base import Call

from .raw_server import HANG_UP, OK, RESET, hang, plain, raw_server

BASE = "https://api.sama.com/v2"
KEY = "s3cr3t+key"


class Service(ServiceSettings):
    """One with a key in the query."""

    kind: str = "test"

    def secret_query(self):
        return {"access_key": SecretStr(KEY)}

    def allowed_upload_hosts(self):
        return ("*.amazonaws.com",)


@pytest.fixture
def open_service(clock):
    def opened(base_url=BASE, **settings):
        return open_caller(Service(base_url=base_url), SendSettings(**settings), clock=clock, draw=lambda: 0.5)

    return opened


async def test_a_batch_is_created(http, open_service):
    url = f"{BASE}/projects/1/batches.json"
    http.post(f"{url}?access_key=s3cr3t%2Bkey", status=202, payload={"batch_id": 7})
    async with open_service() as caller:
        answer = await caller.call(
            Call("create", "POST", url, body=b"{}", headers={"Content-Type": "application/json"})
        )
    assert answer.status == 202
    assert answer.body == b'{"batch_id": 7}'
    assert answer.headers["content-type"] == "application/json"
    ((method, called), [request]) = next(iter(http.requests.items()))
    assert method == "POST"
    assert called.query["access_key"] == KEY
    assert request.kwargs["allow_redirects"] is False


async def test_retry_after_as_a_date_is_obeyed(http, open_service, clock):
    headers = {"Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT", "Date": "Sun, 01 Mar 2026 12:00:00 GMT"}
    http.get(f"{BASE}/x?access_key=s3cr3t%2Bkey", status=429, headers=headers)
    http.get(f"{BASE}/x?access_key=s3cr3t%2Bkey")
    async with open_service() as caller:
        await caller.call(Call("status", "GET", f"{BASE}/x"))
    assert 30 <= clock.monotonic() <= 30.5


async def test_unauthorized(http, open_service):
    body = '{"errors":[{"type":401,"message":"Not authorized: s3cr3t+key"}]}'
    http.get(f"{BASE}/x?access_key=s3cr3t%2Bkey", status=401, body=body)
    async with open_service() as caller:
        with pytest.raises(Unauthorized, match=r"401: Not authorized: \*\*\*") as caught:
            await caller.call(Call("status", "GET", f"{BASE}/x"))
    assert KEY not in str(caught.value)


KEY_IN = aiohttp.client_reqrep.ConnectionKey(
    host="h", port=443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (aiohttp.ClientConnectorError(KEY_IN, ConnectionRefusedError(111, "refused")), Loss.UNREACHABLE),
        (aiohttp.ClientConnectorDNSError(KEY_IN, OSError(None, "no such name")), Loss.UNREACHABLE),
        (aiohttp.ConnectionTimeoutError(f"Connection timeout to host {BASE}?access_key={KEY}"), Loss.CONNECT_TIMEOUT),
        (aiohttp.ClientOSError(104, f"Can not write request body for {BASE}?access_key={KEY}"), Loss.CUT),
        (aiohttp.ServerDisconnectedError(), Loss.CUT),
        (aiohttp.ClientPayloadError(), Loss.CUT),
        (aiohttp.ClientConnectionResetError("Cannot write to closing transport"), Loss.CUT),
        (aiohttp.SocketTimeoutError(), Loss.ANSWER_TIMEOUT),
        (TimeoutError(), Loss.ANSWER_TIMEOUT),
        (OSError(5, "anything"), Loss.CUT),
        (aiohttp.InvalidUrlClientError(f"{BASE}?access_key={KEY}"), Loss.FORBIDDEN),
        (aiohttp.ClientResponseError(aiohttp.RequestInfo(URL(BASE), "GET", {}, URL(BASE)), ()), Loss.GARBLED),
    ],
)
def test_every_error_of_aiohttp_has_its_meaning_and_none_of_its_words(error, loss):
    lost = loss_of(error, "h:443")
    assert lost.loss is loss
    assert KEY not in repr(lost)


async def test_an_error_keeps_nothing_of_the_one_that_shows_the_url(http, open_service):
    http.post(f"{BASE}/x?access_key=s3cr3t%2Bkey", exception=aiohttp.ServerDisconnectedError())
    async with open_service() as caller:
        with pytest.raises(PossiblyApplied) as caught:
            await caller.call(Call("create", "POST", f"{BASE}/x", repeatable=False))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("end", [HANG_UP, RESET, plain(500), plain(503, b"", "Retry-After: 2")])
async def test_a_lost_answer_is_repeated_exactly_where_that_is_harmless(open_service, end):
    async with raw_server(end, OK) as server, open_service(server.url) as caller:
        await caller.call(Call("put", "PUT", f"{server.url}/k", body=b"x", authenticated=False))
        assert len(server.requests) == 2
        assert KEY.encode() not in server.requests[0][0]
    async with raw_server(end, OK) as server, open_service(server.url) as caller:
        with pytest.raises(PossiblyApplied):
            await caller.call(Call("create", "POST", f"{server.url}/k", body=b"x", repeatable=False))
        assert len(server.requests) == 1


async def test_a_redirect_of_an_upload_takes_the_data_nowhere(open_service):
    async with raw_server(OK) as elsewhere, raw_server(plain(307, b"", f"Location: {elsewhere.url}/")) as server:
        async with open_service(server.url) as caller:
            with pytest.raises(WrongAddress, match=r"redirect to 127\.0\.0\.1"):
                await caller.call(Call("put", "PUT", f"{server.url}/k", body=b"x", authenticated=False))
        assert elsewhere.requests == []


async def test_an_upload_refused_before_it_was_read_is_refused(open_service):
    said = b"<Error><Code>AccessDenied</Code></Error>"
    async with raw_server(plain(403, said)) as server, open_service(server.url) as caller:
        put = Call("put", "PUT", f"{server.url}/k?X-Amz-Signature=c0ffee", authenticated=False, carries=Carries.BYTES)
        with pytest.raises(Refused, match="AccessDenied") as caught:
            await caller.call(put)
    assert "c0ffee" not in str(caught.value)


async def test_a_service_that_hangs_is_waited_for_until_patience_ends(open_service):
    async with raw_server(hang) as server:
        async with open_service(server.url, answer_seconds=0.05, give_up_seconds=5) as caller:
            with pytest.raises(Unavailable, match="no answer in time"):
                await caller.call(Call("status", "GET", f"{server.url}/x"))
        assert len(server.requests) > 2


async def test_cancelling_a_call_leaves_nothing_open(open_service):
    async with raw_server(hang) as server, open_service(server.url) as caller:
        with anyio.move_on_after(0.1):
            await caller.call(Call("status", "GET", f"{server.url}/x"))
        assert len(server.requests) == 1


async def test_plain_http_to_another_machine_is_not_spoken(open_service):
    with pytest.raises(ConfigError, match="https"):
        async with open_service("http://api.sama.com/v2"):
            pass


async def test_a_name_that_leads_inwards_is_not_followed(open_service, monkeypatch):
    async def resolve(self, host, port=0, family=0):
        return [{"hostname": host, "host": "169.254.169.254", "port": port, "family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)
    async with open_service() as caller:
        with pytest.raises(Unavailable, match=r"169\.254\.169\.254"):
            await caller.call(Call("put", "PUT", "https://b.s3.amazonaws.com/k?sig=1", authenticated=False))


def test_aioresponses_still_needs_mending():
    """Once this fails, upstream has caught up: take `MendedResponse` out of tests/conftest.py."""
    with aioresponses() as unmended:
        unmended.get(BASE)
        matcher = next(iter(unmended._matches.values()))
        with pytest.raises(TypeError, match="stream_writer"):
            matcher._build_response(URL(BASE))


class Exchanging(ServiceSettings):
    """One whose key is exchanged at a place of its own."""

    kind: str = "test"
    tokens_at: str = ""

    def exchange(self):
        def take(body):
            said = json.loads(body)
            return said["token"], said["seconds"]

        return TokenExchange(
            url=self.tokens_at,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=SecretText("grant_type=client_credentials&client_secret=l0ng-lived"),
            secrets=[SecretStr("l0ng-lived")],
            take=take,
            header=lambda token: {"Authorization": f"Bearer {token}"},
        )


def told(number):
    return plain(200, json.dumps({"token": f"t0ken-number-{number}", "seconds": 3600}).encode())


async def test_results_come_into_a_file_by_a_token_that_is_renewed_and_no_secret_comes_with_them(clock):
    rows = b"\n".join([b'{"sent": "t0ken-number-2", "by": "l0ng-lived", "n": %d}' % n for n in range(50_000)])
    refused = plain(401, b'{"message":"t0ken-number-1 has ended"}')
    file = BytesIO()
    async with raw_server(told(1), told(2)) as place, raw_server(refused, HANG_UP, plain(200, rows)) as server:
        service = Exchanging(base_url=server.url, tokens_at=f"{place.url}/oauth/token")
        async with open_caller(service, SendSettings(), clock=clock, draw=lambda: 0.5) as caller:
            answer = await caller.call(Call("fetch", "GET", f"{server.url}/results", into=file))
        assert (answer.status, answer.body, answer.earlier_lost) == (200, b"", True)
        assert file.getvalue() == rows.replace(b"t0ken-number-2", b"***").replace(b"l0ng-lived", b"***")
        sent = [re.search(rb"(?i)\r\nauthorization: ([^\r]*)", head)[1] for head, _ in server.requests]
        assert sent == [b"Bearer t0ken-number-1", b"Bearer t0ken-number-2", b"Bearer t0ken-number-2"]
        for head, body in place.requests:
            assert b"authorization" not in head.lower()
            assert b"\r\nContent-Type: application/x-www-form-urlencoded\r\n" in head
            assert body == b"grant_type=client_credentials&client_secret=l0ng-lived"


@pytest.mark.parametrize("url", ["http://login.example.com/token", "login.example.com/token", "/token"])
async def test_tokens_are_got_where_nobody_reads_the_secret_on_the_way(url):
    with pytest.raises(ConfigError, match=r"the url of the exchange in \[service\.auth\]"):
        async with open_caller(Exchanging(base_url=BASE, tokens_at=url), SendSettings()):
            pass
