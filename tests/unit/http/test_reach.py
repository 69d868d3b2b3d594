"""The steps of the way to a server, over a proxy too; a server of TLS has certificates of an authority of the tests."""

import asyncio
import shutil

import pytest
from torture.hostile.authority import Authority
from torture.hostile.connect_proxy import connect_proxy
from yarl import URL

from engine.http import reach
from engine.http.client import tls_context
from engine.model.errors import Unavailable
from unit.http.raw_server import plain, raw_server

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates with openssl")
NAMED = URL("https://service.invalid/v2")
"""No name server knows it: only a proxy leads there."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    founded = Authority(tmp_path_factory.mktemp("authority"))
    founded.found()
    return founded


@pytest.fixture(autouse=True)
def _trusting(authority, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    tls_context.cache_clear()
    yield
    tls_context.cache_clear()


async def test_by_a_proxy_the_server_itself_proves_who_it_is_and_answers(authority, monkeypatch):
    tls = authority.server("service", "DNS:service.invalid")
    async with (
        raw_server(plain(404)) as server,
        connect_proxy(tls, URL(server.url).port) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:hunter2@127.0.0.1:{proxy.port}")
        way = reach.way_to(NAMED)
        assert await reach.addresses_of(way) == ["127.0.0.1"]
        async with reach.connected(way, tls=False):
            pass
        assert (await reach.certificate_of(way)).issuer == "nobody"
        status, _ = await reach.answer_of(way)
        assert status == 404
        assert b"CONNECT service.invalid:443" in proxy.heads[0]
        assert b"Proxy-Authorization: Basic" in proxy.heads[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "write user name and password into HTTPS_PROXY"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "the proxy does not connect (status 502)"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer as a proxy"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_told_apart(authority, monkeypatch, answer, words):
    async with connect_proxy(authority.server("other", "DNS:service.invalid"), 9, answer) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:hunter2@127.0.0.1:{proxy.port}")
        with pytest.raises(Unavailable) as told:
            await reach.certificate_of(reach.way_to(NAMED))
    assert words in str(told.value)
    assert "hunter2" not in str(told.value)


async def test_a_server_that_hangs_up_has_no_answer(authority):
    async def hang_up(_, writer):
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v2")
        with pytest.raises(Unavailable, match="does not speak HTTP"):
            await reach.answer_of(reach.way_to(url))
