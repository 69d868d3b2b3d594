import asyncio
import gzip
import shutil
import socket
import ssl
import zlib

import anyio
import pytest
from aiohttp import ClientConnectorCertificateError, ClientConnectorDNSError, ClientConnectorError
from yarl import URL

from engine import __version__
from engine.http import client as wire_module
from engine.http import reading
from engine.http.classify import Loss
from engine.http.client import PublicResolver, Request, open_client
from engine.http.losses import ForbiddenAddress, Lost, loss_of
from engine.model.settings import SendSettings
from engine.services.base import Answer, Call

from .raw_server import HANG_UP, OK, RESET, hang, plain, raw_server

QUICK = SendSettings(connect_seconds=0.2, answer_seconds=0.2, call_seconds=2.0)


def request(url, method="GET", body=None, *, repeatable=True, reconcilable=False, headers=None):
    call = Call("test", method, url, body=body, repeatable=repeatable, reconcilable=reconcilable)
    return Request(call, URL(url, encoded=True), headers or {})


async def send(url, *args, settings=QUICK, **kwargs):
    async with open_client(settings, trusted_hosts=[], anywhere=True) as wire:
        return await wire.send(request(url, *args, **kwargs))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
@pytest.mark.parametrize("end", [HANG_UP, RESET], ids=["closed", "reset"])
async def test_a_connection_lost_while_idle_is_one_attempt_and_not_two(method, end):
    async with raw_server(OK, end, OK) as server, open_client(QUICK, trusted_hosts=[], anywhere=True) as wire:
        first = await wire.send(request(server.url, method, b"1"))
        second = await wire.send(request(server.url, method, b"2"))
        assert isinstance(first, Answer)
        assert second.loss is Loss.CUT
        assert [body for _, body in server.requests] == [b"1", b"2"]
        assert server.connections == 1, "or the connection was not kept, and this test shows nothing"


async def test_a_call_that_must_not_be_repeated_never_uses_a_connection_that_has_idled():
    async with raw_server(OK) as server, open_client(QUICK, trusted_hosts=[], anywhere=True) as wire:
        for _ in range(3):
            assert isinstance(await wire.send(request(server.url, "POST", repeatable=False)), Answer)
        assert server.connections == 3


async def test_a_call_that_can_be_asked_about_uses_a_connection_again_that_was_busy_a_moment_ago():
    async with raw_server(OK) as server, open_client(QUICK, trusted_hosts=[], anywhere=True) as wire:
        for _ in range(3):
            call = request(server.url, "POST", repeatable=False, reconcilable=True)
            assert isinstance(await wire.send(call), Answer)
        assert server.connections == 1


async def test_a_call_that_can_be_asked_about_uses_no_connection_that_idled_for_longer_than_servers_keep_one(
    monkeypatch,
):
    monkeypatch.setattr(wire_module, "_BUSY_SECONDS", 0.001)
    async with raw_server(OK) as server, open_client(QUICK, trusted_hosts=[], anywhere=True) as wire:
        for _ in range(3):
            call = request(server.url, "POST", repeatable=False, reconcilable=True)
            assert isinstance(await wire.send(call), Answer)
            await anyio.sleep(0.02)
        assert server.connections == 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_handed_back_and_not_followed(status):
    async with raw_server(OK) as elsewhere, raw_server(plain(status, b"", f"Location: {elsewhere.url}/x")) as server:
        answer = await send(server.url, "PUT", b"data")
        assert answer.status == status
        assert elsewhere.requests == []


HEAD = b"HTTP/1.1 200 OK\r\n"
LONG = b"x" * 100_000


@pytest.mark.parametrize(
    ("script", "loss", "words"),
    [
        (HANG_UP, Loss.CUT, "the server closed it"),
        (RESET, Loss.CUT, "it was reset"),
        (HEAD + b"Content-Length: 100\r\n\r\ntruncated", Loss.CUT, "it ended early"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\ntrunc", Loss.CUT, "it ended early"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", Loss.GARBLED, "Invalid character in chunk size"),
        (plain(200, b"none", "Content-Encoding: gzip", "Connection: close"), Loss.GARBLED, "it says gzip and is not"),
        (plain(200, b"\xff\xff", "Content-Encoding: deflate"), Loss.GARBLED, "it says deflate and is not"),
        (plain(200, b"?", "Content-Encoding: br"), Loss.GARBLED, "it says brotli, which was not asked for"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Loss.GARBLED, "it is not HTTP"),
        (b"HTTP/1.1 two hundred\r\n\r\n", Loss.GARBLED, "it is not HTTP"),
        (HEAD + b"X: " + LONG + b"\r\n\r\n", Loss.GARBLED, "a header field is longer than 64 KB"),
        (HEAD + b"X: x\r\n" * 1000 + b"\r\n", Loss.GARBLED, "Too many headers received"),
        (HEAD + b"X: a\0b\r\n\r\n", Loss.GARBLED, "a header field holds what none may"),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk", Loss.GARBLED, "Duplicate Content-Length"),
        (HEAD + b"Content-Length: -2\r\n\r\nok", Loss.GARBLED, "Invalid character in Content-Length"),
        (hang, Loss.ANSWER_TIMEOUT, ""),
    ],
    ids=lambda value: value.name if isinstance(value, Loss) else value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_an_answer_that_does_not_come_whole_is_lost_and_named_for_what_it_is(method, script, loss, words):
    async with raw_server(script) as server:
        assert await send(server.url, method, b"x", repeatable=False) == Lost(loss, words)


async def test_a_header_field_may_have_64_kb():
    policy = "default-src https://cdn.example.com; " * 1700
    async with raw_server(plain(200, b"ok", f"Content-Security-Policy: {policy}")) as server:
        assert (await send(server.url)).headers["Content-Security-Policy"] == policy.strip()


async def test_a_hang_within_the_answer_is_a_time_out_too():
    async def begin_and_hang(server, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
        await hang(server, writer)

    async with raw_server(begin_and_hang) as server:
        assert await send(server.url) == Lost(Loss.ANSWER_TIMEOUT)


async def test_an_answer_that_trickles_for_ever_ends_with_the_call_deadline():
    async def trickle(server, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not server.silence.is_set():
            writer.write(b".")
            await anyio.sleep(0.02)

    async with raw_server(trickle) as server:
        for bound in ({"call_seconds": 0.2}, {"give_up_seconds": 0.2}):
            settings = SendSettings(connect_seconds=1, answer_seconds=0.2, **bound)
            assert await send(server.url, settings=settings) == Lost(Loss.ANSWER_TIMEOUT)


async def test_no_connection_means_not_sent():
    async with raw_server(OK) as server:
        url = server.url
    lost = await send(url)
    assert lost.loss.unsent
    assert lost.words == f"no connection: {url.partition('//')[2]}: Connection refused"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "no such host: h:443: DNS knows no address of it; check how"),
        (socket.gaierror(socket.EAI_AGAIN, "Try again"), "no connection: h:443: DNS does not answer (Try again)"),
        (ssl.SSLError(1, "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] x"), "no connection: h:443: TLS failed (SSLError)"),
        (OSError(113, "Connect call failed ('10.0.0.1', 443)"), "no connection: h:443: No route to host"),
        (OSError(None, "https://h/?access_key=secret"), "no connection: h:443: OSError"),
    ],
)
def test_no_connection_says_host_port_and_cause(error, words):
    lost = loss_of(ClientConnectorError(None, error), "h:443")
    assert lost.loss.unsent
    assert lost.words.startswith(words)


async def test_a_connection_that_does_not_come_about_in_time_means_not_sent(monkeypatch):
    async def never(*_, **__):
        await anyio.sleep_forever()

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", never)
    assert await send("http://127.0.0.1:9/") == Lost(Loss.CONNECT_TIMEOUT, "127.0.0.1:9")


async def test_a_server_without_tls_is_not_waited_for():
    async def speak_plainly(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak_plainly, "127.0.0.1", 0) as server:
        lost = await send(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert lost.loss is Loss.UNTRUSTED
    assert "does not speak TLS" in lost.detail


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl")
async def test_a_certificate_that_nobody_vouches_for_ends_the_attempt_before_anything_is_sent(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    await anyio.run_process([*make.split(), "-keyout", str(key), "-out", str(certificate)])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with raw_server(OK, tls=context) as server:
        lost = await send(server.url, "PUT", b"secret")
        assert lost.loss is Loss.UNTRUSTED
        assert "self-signed" in lost.detail or "self signed" in lost.detail
        assert server.requests == []


def test_certificate_errors_are_known_though_they_derive_from_connection_errors():
    error = ClientConnectorCertificateError(None, ssl.SSLCertVerificationError())
    assert loss_of(error, "h:443").loss is Loss.UNTRUSTED


def test_a_forbidden_address_is_known_behind_the_dns_error():
    error = ClientConnectorDNSError(None, ForbiddenAddress(None, "x resolves to 10.0.0.1"))
    lost = loss_of(error, "x:443")
    assert lost.loss is Loss.FORBIDDEN
    assert "10.0.0.1" in lost.detail


async def test_hosts_that_nobody_named_may_not_lead_to_this_machine():
    async with raw_server(OK) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        async with open_client(QUICK, trusted_hosts=[], anywhere=False) as wire:
            assert (await wire.send(request(url))).loss is Loss.FORBIDDEN
        async with open_client(QUICK, trusted_hosts=["localhost"], anywhere=False) as wire:
            assert isinstance(await wire.send(request(url)), Answer)


async def test_a_large_body_goes_up_whole_with_its_length_and_without_a_warning():
    body = bytes(range(256)) * 20_000
    async with raw_server(OK) as server:
        assert isinstance(await send(server.url, "PUT", body), Answer)
        head, received = server.requests[0]
        assert received == body
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"chunked" not in head


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1])
async def test_a_body_goes_up_once_with_its_length_and_no_type_that_nobody_gave_it(size):
    body = b"x" * size
    async with raw_server(OK) as server:
        for pieces in (body, (body[:1], body[1:])):
            assert isinstance(await send(server.url, "POST", pieces), Answer)
        assert isinstance(await send(server.url, "POST", b"next"), Answer)
        assert [received for _, received in server.requests] == [body, body, b"next"]
        assert all(b"\r\nContent-Length: %d\r\n" % len(received) in head for head, received in server.requests)
        assert not any(b"Content-Type" in head or b"chunked" in head for head, _ in server.requests)


async def test_the_request_carries_our_name_and_nothing_that_nobody_asked_for():
    async with raw_server(plain(200, b"", "Set-Cookie: id=1; Path=/")) as server:
        url = server.url.replace("127.0.0.1", "localhost")  # cookie jars take none from an address
        async with open_client(QUICK, trusted_hosts=[], anywhere=True) as wire:
            for _ in range(2):
                await wire.send(request(url + "/a%2fb?x=%7e+1", "PUT", b"x", headers={"X-Own": "1"}))
        head = server.requests[1][0].decode()
        assert head.startswith("PUT /a%2fb?x=%7e+1 HTTP/1.1\r\n")
        assert f"User-Agent: bulksubmit/{__version__}\r\n" in head
        assert "X-Own: 1" in head
        assert "Cookie" not in head
        assert "Content-Type" not in head


async def test_an_empty_post_says_so():
    async with raw_server(OK) as server:
        await send(server.url, "POST")
        assert b"Content-Length: 0\r\n" in server.requests[0][0]


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    async with raw_server(OK) as proxy, raw_server(OK) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        await send(server.url)
        assert not proxy.requests
        assert server.requests


async def test_a_compressed_answer_is_read():
    async with raw_server(plain(200, gzip.compress(b"hello"), "Content-Encoding: gzip")) as server:
        assert (await send(server.url)).body == b"hello"


async def test_an_answer_larger_than_allowed_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(reading, "MAX_ANSWER_BYTES", 1_000_000)
    bomb = zlib.compress(bytes(50_000_000), 9)
    async with raw_server(plain(200, bomb, "Content-Encoding: deflate")) as server:
        assert (await send(server.url)).loss is Loss.TOO_LARGE
    async with raw_server(plain(200, bytes(1_000_000))) as server:
        assert len((await send(server.url)).body) == 1_000_000


# The addresses of a name


class Answers:
    """A resolver that says what it is told, each time the next."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        return [{"host": address} for address in self.answers.pop(0)]

    async def close(self) -> None:
        self.answers = None


async def test_a_name_that_begins_to_point_inwards_is_refused_at_that_moment():
    resolver = PublicResolver(Answers(["52.216.0.1"], ["52.216.0.1", "10.0.0.1"]), trusted_hosts=["api.example.com"])
    assert await resolver.resolve("s3.amazonaws.com")
    with pytest.raises(ForbiddenAddress) as caught:
        await resolver.resolve("s3.amazonaws.com")
    assert "10.0.0.1" in caught.value.strerror
    await resolver.close()


async def test_a_host_that_the_user_named_may_be_anywhere():
    resolver = PublicResolver(Answers(["10.0.0.1"]), trusted_hosts=["API.example.com"])
    assert await resolver.resolve("api.example.com")
