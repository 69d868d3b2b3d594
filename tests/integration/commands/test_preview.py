"""The dry run: what it shows is what a submit sends, and nobody is called."""

import socket
from hashlib import sha256

import orjson
import pytest
from fakes.toy import install

import engine
from engine.clock import SystemClock
from engine.commands import preview as module
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import ConfigError, SourceError
from engine.services.base import no_intent
from engine.services.one_call import OneCall

from .desk import tasks

SEVENBRIDGES = """
[service]
kind = "sevenbridges"
auth_token = "${env:SB_AUTH_TOKEN}"
project = "o/p"
app = "o/p/align"
run = true

[mapping.template]
name = "align ${row.sample}"
inputs.reads = { class = "File", name = "raw/${row.r1}" }
"""
TOY = """
[service]
kind = "toy"
base_url = "https://toy.example"
api_key = "${env:TOY_KEY}"
"""


@pytest.fixture(autouse=True)
def _nobody_is_called(request, monkeypatch):
    if "desk" not in request.fixturenames:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("a name was looked up"))


@pytest.fixture
def seven(tmp_path, monkeypatch):
    monkeypatch.delenv("SB_AUTH_TOKEN", raising=False)
    config, source = tmp_path / "align.toml", tmp_path / "pairs.csv"
    config.write_text(SEVENBRIDGES)
    source.write_text("sample,r1\nS1,a.fq\nS2,b.fq\nS3,c.fq\n")
    return source, config


async def test_the_calls_and_the_bytes_are_those_of_a_submit(desk):
    desk = await desk()
    records = tasks(25, note="é \u0001")
    source, config = desk.source(records), desk.config()
    shown = await engine.preview(source, config, records=12)
    assert desk.sandbox.stats.requests.total() == 0
    assert [one.kind for one in shown.batches[0].requests] == ["create", "put", "continue"]
    assert [record.task.encode() for record in shown.records] == list(map(orjson.dumps, records[:12]))
    assert (shown.all_batches, shown.exact) == (3, True)
    await desk.submit(source, config)
    for kind in ("create", "put", "continue"):
        assert desk.calls(kind) == 3
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        for batch in shown.batches:
            sent, _ = await ledger.batch("j", batch.number)
            put = next(one for one in batch.requests if one.kind == "put")
            assert (put.sha256, put.size_bytes) == (sent.sha256.hex(), sent.size_bytes)
            assert sha256(put.body.encode()).hexdigest() == put.sha256


async def test_a_key_shows_neither_in_the_address_nor_in_a_header(seven, tmp_path, monkeypatch):
    monkeypatch.setenv("SB_AUTH_TOKEN", "do-not-show-me")
    monkeypatch.setenv("SAMA_KEY", "do-not-show-me")
    sama = tmp_path / "sama.toml"
    sama.write_text('[service]\nkind = "sama"\nproject_id = 1\naccess_key = "${env:SAMA_KEY}"\n[mapping]\nwrap="data"')
    for config in (seven[1], sama):
        shown = await engine.preview(seven[0], config)
        assert "do-not-show-me" not in repr(shown)
        assert "********" in repr(shown)


async def test_files_are_looked_up_then_the_draft_is_made_and_run(seven):
    shown = await engine.preview(*seven, record=1)
    (batch,) = shown.batches
    assert [one.kind for one in batch.requests] == ["files", "files", "files", "files", "create", "run"]
    body = orjson.loads(batch.requests[-2].body)
    assert body["inputs"] == {"reads": {"class": "File", "name": "b.fq", "path": "ID-OF-b.fq"}}
    assert body["description"].startswith("[bulksubmit align-")
    (record,) = shown.records
    assert (record.index, record.line, record.row) == (1, 3, '{"sample":"S2","r1":"b.fq"}')


async def test_a_record_that_is_not_fit_is_shown_with_its_reason(seven):
    source, config = seven
    source.write_text("sample,r1\nS1,a.fq\nS2\n")
    shown = await engine.preview(source, config)
    assert [(one.index, one.task is None) for one in shown.records] == [(0, False), (1, True)]
    assert "2" in shown.records[1].reason


async def test_a_record_that_is_not_there_is_an_error_that_says_how_many_there_are(seven):
    with pytest.raises(SourceError, match="no record 3: the sources have 3 records"):
        await engine.preview(*seven, record=3)


async def test_of_a_large_source_the_batches_are_estimated(seven, monkeypatch):
    monkeypatch.setattr(module, "COUNTED_BYTES", 0)
    source, config = seven
    source.write_text("sample,r1\n" + "".join(f"S{number:05},a{number:05}.fq\n" for number in range(40_000)))
    shown = await engine.preview(source, config, records=1)
    assert not shown.exact
    assert 36_000 < shown.all_batches < 44_000


async def test_what_only_the_service_can_answer_ends_the_preview_of_a_batch(tmp_path, monkeypatch):
    for folder in install(tmp_path):
        monkeypatch.syspath_prepend(folder)
    config, source = tmp_path / "toy.toml", tmp_path / "a.ndjson"
    config.write_text(TOY)
    source.write_text('{"title":"a"}\n{"title":"b"}\n')
    (batch,) = (await engine.preview(source, config)).batches
    assert batch.unanswered == "create"
    (request,) = batch.requests
    assert (request.url, request.body) == ("https://toy.example/items", '[{"title":"a"},{"title":"b"}]')


async def test_inline_it_says_that_the_project_s_schema_decides_over_a_reference(desk):
    desk = await desk()
    shown = await engine.preview(desk.source(tasks(3)), desk.config(service='mode = "inline"'))
    assert [one.kind for one in shown.batches[0].requests] == ["post"]
    (said,) = shown.warnings
    assert "asks the service (schema)" in said


async def test_with_the_project_s_schema_at_hand_tasks_have_their_reference(desk):
    desk = await desk()
    (desk.folder / "schema.json").write_text(
        '{"properties": {"data": {"properties": {"client_batch_id": {"type": "string"}}}}}'
    )
    config = desk.config(service='mode = "inline"\ntask_schema = "schema.json"')
    shown = await engine.preview(desk.source(tasks(3)), config)
    assert shown.warnings == []
    assert all('"client_batch_id":"engine-' in one.task for one in shown.records)
    assert shown.records[0].task in shown.batches[0].requests[0].body


async def test_a_variable_that_is_no_secret_must_be_set_and_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_PORT", raising=False)
    config, source = tmp_path / "a.toml", tmp_path / "a.ndjson"
    config.write_text(
        '[service]\nkind = "sama"\nbase_url = "http://127.0.0.1:${env:NO_SUCH_PORT}/v2"\nproject_id = 1\n'
        'access_key = "${env:SAMA_KEY}"\n'
    )
    monkeypatch.setenv("SAMA_KEY", "k")
    source.write_text('{"data":{}}\n')
    with pytest.raises(ConfigError, match="NO_SUCH_PORT is not set"):
        await engine.preview(source, config)


async def test_the_service_is_told_which_records_of_the_input_go_up(tmp_path, monkeypatch):
    for folder in install(tmp_path):
        monkeypatch.syspath_prepend(folder)
    config, source, sent = tmp_path / "toy.toml", tmp_path / "a.ndjson", []
    config.write_text(TOY + "[batch]\nmax_records = 2\n")
    source.write_text('{"title":"a"}\n{"name":"bad"}\n{"title":"b"}\nno json\n{"title":"c"}\n')
    release = OneCall.release

    async def noting(self, batch, remote_id, payload, intent=no_intent):
        sent.append((payload.tasks, list(payload.indexes)))
        return await release(self, batch, remote_id, payload, intent)

    monkeypatch.setattr(OneCall, "release", noting)
    await engine.preview(source, config)
    assert sent == [([b'{"title":"a"}', b'{"title":"b"}'], [0, 2]), ([b'{"title":"c"}'], [4])]
