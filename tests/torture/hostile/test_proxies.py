"""The proxies of the environment: one is told what it must know, and nobody else hears of it."""

import base64
import shutil
import ssl
from urllib.parse import quote

import pytest

from engine.sandbox.server import running_sandbox

from .authority import Authority
from .command import files, port_of
from .connect_proxy import CONNECTED, connect_proxy

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates with openssl")

HOST = "api.service.test"
"""By RFC 6761 no name server ever knows it: only the proxy can lead there."""
PASSWORD = "c4nary/of=the:proxy"
LOUD = ("--log-level", "debug", "--log-format", "json")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    founded = Authority(tmp_path_factory.mktemp("authority"))
    founded.found()
    return founded


async def submitted(place, authority, answer=CONNECTED, **variables):
    tls = authority.server("service", f"DNS:{HOST}")
    async with running_sandbox() as sandbox, connect_proxy(tls, port_of(sandbox.url), answer) as proxy:
        config = place.configure(f"https://{HOST}/v2", service='mode = "inline"', give_up=0.3)
        address = f"http://robot:{quote(PASSWORD, safe='')}@127.0.0.1:{proxy.port}"
        trust = {"SSL_CERT_FILE": str(authority.certificate)}
        heard = {name: value.format(proxy=address) for name, value in variables.items()}
        arguments = ("submit", place.write_tasks(3), "--config", config, *LOUD)
        return await place.run(*arguments, **trust, **heard), proxy.heads


def told_of_the_password(place, done) -> list[str]:
    texts = {str(path): path.read_bytes() for path in files(place.folder)}
    texts |= {"out": done.out.encode(), "err": done.err.encode()}
    encoded = base64.b64encode(f"robot:{PASSWORD}".encode())[12:-4]
    secrets = [PASSWORD.encode(), quote(PASSWORD, safe="").encode(), encoded]
    return [name for name, content in texts.items() if any(secret in content for secret in secrets)]


async def test_the_way_leads_through_the_proxy_which_alone_hears_its_password_and_keys_of_tls_are_not_kept(
    place, authority
):
    keys = place.folder / "keys.txt"
    done, heads = await submitted(place, authority, HTTPS_PROXY="{proxy}", SSLKEYLOGFILE=str(keys))
    assert done.code == 0, done.err
    assert heads[0].startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n".encode())
    proof = base64.b64encode(f"robot:{PASSWORD}".encode())
    assert b"Proxy-Authorization: Basic " + proof in heads[0]
    assert all(b"sandbox-key" not in head for head in heads)
    assert told_of_the_password(place, done) == []
    assert not keys.exists() or b"CLIENT_" not in keys.read_bytes()


async def test_a_proxy_that_wants_another_password_is_a_matter_for_a_person(place, authority):
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    done, _ = await submitted(place, authority, refusal, HTTPS_PROXY="{proxy}")
    assert done.code == 9, done.err
    assert "the proxy wants a name and password" in done.err
    assert "write user name and password into HTTPS_PROXY, before the host" in done.err
    assert "***" not in done.err
    assert "not one that may be sent to" not in done.err
    assert told_of_the_password(place, done) == []


async def test_a_proxy_that_does_not_connect_is_named_at_the_first_failure(place, authority):
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    done, _ = await submitted(place, authority, refusal, HTTPS_PROXY="{proxy}")
    assert done.code == 5, done.err
    assert f"no connection: {HOST}:443 by proxy 127.0.0.1:" in done.err
    assert "the proxy does not connect (status 503)" in done.err


async def test_this_machine_is_never_reached_through_a_proxy(place):
    async with running_sandbox() as sandbox:
        config = place.configure(sandbox.url)
        nowhere = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
        done = await place.run("submit", place.write_tasks(3), "--config", config, **nowhere)
        assert done.code == 0, done.err


async def test_a_proxy_that_cannot_be_spoken_to_ends_the_command_before_there_is_a_job(place):
    config = place.configure(f"https://{HOST}/v2")
    proxy = f"socks5://robot:{quote(PASSWORD, safe='')}@127.0.0.1:9"
    done = await place.run("submit", place.write_tasks(3), "--config", config, ALL_PROXY=proxy)
    assert done.code == 2
    assert "the variable ALL_PROXY names a proxy that is not spoken to (socks5)" in done.err
    assert not (place.folder / ".bulksubmit").exists()
    assert told_of_the_password(place, done) == []


def test_the_file_of_keys_would_be_written_by_a_context_of_pythons_default(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.txt"))
    assert ssl.create_default_context().keylog_filename, "or the first test here shows nothing of keys"
