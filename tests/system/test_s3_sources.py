"""Sources at `s3://`, against a real S3 server: SeaweedFS."""

import gzip
import json
import random

import pytest

import engine
from engine.http.remote import download
from engine.http.s3_file import S3File
from engine.model.errors import AlreadyTaken, SourceError
from engine.sandbox.behaviour import Behaviour, JournalSettings
from engine.sandbox.journal import count_markers
from engine.sandbox.seaweed import seaweed_uploads
from engine.sandbox.server import running_sandbox

pytestmark = pytest.mark.slow

CONTENT = random.Random(16).randbytes(3_000_000)
CONFIG = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[send]
poll_seconds = 0.01
polls_per_second = 1000
"""


@pytest.fixture
async def put(monkeypatch):
    """Start a store and return what puts an object into its bucket `uploads`."""
    async with seaweed_uploads() as store:
        keys = store._client._request_signer._credentials
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys.secret_key)
        monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", store._client.meta.endpoint_url)
        yield lambda key, content: store._client.put_object(Bucket="uploads", Key=key, Body=content)


async def fetched(url, path):
    async def sleep(seconds):
        raise AssertionError(f"it was to be tried again after {seconds} s")

    return await download(S3File(url, ()), path, sleep, lambda event: None)


async def test_an_object_is_a_source(put, tmp_path, monkeypatch):
    """One start of the server, all that it is asked for: it takes seconds."""
    put("deep/tasks.bin", CONTENT)
    tag = await fetched("s3://uploads/deep/tasks.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert tag == await S3File("s3://uploads/deep/tasks.bin", ()).version() != ""

    # broken off: the rest is fetched, as long as it is the same version
    note = tmp_path / "copy.note"
    whole = json.loads(note.read_bytes())
    note.write_text(json.dumps(whole | {"synced_bytes": 1_000_000}))
    (tmp_path / "copy").write_bytes(CONTENT[:1_000_000] + b"not on disk for good")
    assert await fetched("s3://uploads/deep/tasks.bin", tmp_path / "copy") == tag
    assert (tmp_path / "copy").read_bytes() == CONTENT

    async with S3File("s3://uploads/deep/tasks.bin", ()).read(2_999_990, tag) as part:
        assert (part.start, part.size_bytes) == (2_999_990, 3_000_000)
        assert b"".join([block async for block in part.blocks]) == CONTENT[-10:]

    put("deep/tasks.bin", CONTENT[::-1])
    with pytest.raises(AssertionError, match="tried again"):  # from the start
        await fetched("s3://uploads/deep/tasks.bin", tmp_path / "copy")
    assert await fetched("s3://uploads/deep/tasks.bin", tmp_path / "copy") != tag
    assert (tmp_path / "copy").read_bytes() == CONTENT[::-1]

    with pytest.raises(SourceError, match="s3://uploads/missing does not exist"):
        await fetched("s3://uploads/missing", tmp_path / "other")

    # a whole job of it
    put("tasks.ndjson.gz", gzip.compress(b"".join(b'{"data":{"id":"%d"}}\n' % number for number in range(500))))
    journal = tmp_path / "journal"
    async with running_sandbox(Behaviour(journal=JournalSettings(journal))) as sandbox:
        config = tmp_path / "config.toml"
        config.write_text(CONFIG.format(url=sandbox.url))
        result = await engine.submit("s3://uploads/tasks.ndjson.gz", config, tmp_path / "ledger.db", job="j")
        assert (result.tally.created, result.exit_code) == (500, 0)
        assert (await engine.audit("j", tmp_path / "ledger.db")).holds
        with pytest.raises(AlreadyTaken):
            await engine.submit("s3://uploads/tasks.ndjson.gz", config, tmp_path / "ledger.db", job="again")
    assert set(count_markers(journal).values()) == {1}
    with result.outcomes.open() as lines:
        assert json.loads(next(lines))["source"] == "s3://uploads/tasks.ndjson.gz"

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SourceError, match="may not be read: check AWS_ACCESS_KEY_ID"):
        await fetched("s3://uploads/tasks.ndjson.gz", tmp_path / "other")


def test_a_store_by_http_is_this_machine_or_named(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    with pytest.raises(SourceError, match=r'plain_http_hosts = \["store\.example"\]'):
        S3File("s3://bucket/key", ())
    assert S3File("s3://bucket/a/b.csv.gz", ["store.example"]).file_name == "b.csv.gz"
