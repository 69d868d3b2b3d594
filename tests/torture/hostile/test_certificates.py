"""Servers that cannot prove who they are, as the service and as the store of uploads: nothing is sent to them."""

import json
import os
import shutil
from contextlib import asynccontextmanager
from itertools import count
from urllib.parse import urlsplit

import pytest
from unit.http.raw_server import plain, raw_server

from engine.sandbox.server import running_sandbox
from torture.faults.catalogue import sama_kind
from torture.faults.proxy import Fault, Strike, Work, fault_proxy, made_up

from .authority import Authority
from .command import port_of

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates with openssl")

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
GOOD = "DNS:localhost,IP:127.0.0.1"
BAD = {
    "expired": (("DNS:localhost", {"days": -1}), "certificate has expired; the server's owner must renew it"),
    "self-signed": (("DNS:localhost", {"signed": False}), "self-signed certificate; if you trust who signed it"),
    "wrong host": (("DNS:elsewhere.example", {}), "Hostname mismatch, certificate is not valid for 'localhost'"),
    "wrong address": (("IP:192.0.2.1", {}), "Hostname mismatch"),
}
STRANGER = "unable to get local issuer certificate; if you trust who signed it, name the file of that CA"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    founded = Authority(tmp_path_factory.mktemp("authority"))
    founded.found()
    return founded


@asynccontextmanager
async def service_naming(upload_url: str):
    """Serve a sandbox that names `upload_url` for every upload."""
    named = made_up(200, json.dumps({"batch_id": 1, "tasks_put_url": upload_url}).encode())

    async def act(exchange) -> bool:
        await exchange.say(named.wire)
        return True

    strike = Strike("create", Fault("names", act), Work.NEVER, lambda number: True)
    async with running_sandbox() as sandbox, fault_proxy(port_of(sandbox.url), sama_kind, [strike]) as proxy:
        yield f"http://127.0.0.1:{proxy.port}/v2"


NUMBERS = count()


async def submitted(place, url, **trust):
    job = f"j{next(NUMBERS)}"  # two in the same second would have the same name
    config = place.configure(url)
    return await place.run("submit", place.write_tasks(3), "--config", config, "--job", job, "--json", **trust)


def refusal(done, call: str, server) -> str:
    """Return what a command said that stopped before it sent anything to the server."""
    assert done.code == 9, done.err
    assert (server.connections, server.requests) == (0, []), "it was spoken to"
    message = done.json["message"]
    assert message.startswith(f"{call} localhost:{urlsplit(server.url).port}/")
    assert "cannot be made: the TLS certificate is not trusted" in message
    return message


@pytest.mark.parametrize("name", BAD if TORTURE else [name for name in BAD if name != "wrong address"])
async def test_a_service_that_cannot_prove_itself_gets_nothing(place, authority, name):
    (host, how), reason = BAD[name]
    async with raw_server(plain(500), tls=authority.server("service", host, **how)) as server:
        url = server.url.replace("127.0.0.1", "localhost") + "/v2"
        done = await submitted(place, url, SSL_CERT_FILE=str(authority.certificate))
        assert reason in refusal(done, "create (POST", server)


@pytest.mark.parametrize("name", BAD if TORTURE else ["expired", "wrong host"])
async def test_a_store_that_cannot_prove_itself_gets_nothing(place, authority, name):
    (host, how), reason = BAD[name]
    async with raw_server(plain(500), tls=authority.server("store", host, **how)) as server:
        upload = server.url.replace("127.0.0.1", "localhost") + "/bucket/key?X-Amz-Signature=c0ffee"
        async with service_naming(upload) as url:
            done = await submitted(place, url, SSL_CERT_FILE=str(authority.certificate))
        assert reason in refusal(done, "put (PUT", server)


async def test_an_authority_is_trusted_only_where_it_is_named(place, authority):
    async with raw_server(plain(401), tls=authority.server("good", GOOD)) as server:
        url = server.url.replace("127.0.0.1", "localhost") + "/v2"
        assert STRANGER in refusal(await submitted(place, url), "create (POST", server)
        done = await submitted(place, url, SSL_CERT_FILE=str(authority.certificate))
        assert "status 401" in done.json["message"]
        assert len(server.requests) == 1
