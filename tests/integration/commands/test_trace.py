"""A check and a probe with a trace: each request, its answer, what was taken; and no secret in any of it."""

import json
from urllib.parse import quote

import orjson
import pytest

import engine
from engine.sandbox.behaviour import Behaviour, JournalSettings
from engine.sandbox.server import running_sandbox

KEY = "sandbox+key/with=signs"
HEAD = '[service]\nkind = "http"\nbase_url = "{url}"\n'
SEND = "\n[send]\npoll_seconds = 0.01\nmax_poll_seconds = 0.05\nretry_base_seconds = 0.01\nsettle_seconds = 0.3\n"
SEARCHED = """
auth = { kind = "query", name = "api_key", secret = "${env:BULK_KEY}" }
record = { key = "${token}-${index}", template = { tag = "${mark}", ref = "${key}", data = "${task}" } }
release = { call = "POST /tasks", payload = true, again = "search" }
results = { items = "results", ok = { status = "accepted" }, error = ["message"], id = [] }
[service.search]
call = "GET /tasks"
query = { tag = "${mark}" }
items = "items"
key = "ref"
pages = { next = "next" }
"""
ASKED = """
[service.auth]
kind = "exchange"
secret = "${env:BULK_KEY}"
exchange = { call = "POST /token", form = { grant_type = "client_credentials", client_secret = "${secret}" } }
[service.record]
key = "${token}-${index}"
template = { name = "${task.name}", ref = "${key}" }
[service.body]
framing = "csv"
[service.stage]
call = "POST /jobs"
json = { contentType = "CSV" }
take = { id = "id", upload_url = "uploadUrl" }
[service.upload]
call = "PUT ${upload_url}"
payload = true
without_credentials = true
[service.release]
call = "POST /jobs/${id}/start"
again = "ask"
[service.status]
call = "GET /jobs/${id}"
state = "state"
waiting = ["Open"]
running = ["Queued", "InProgress"]
finished = ["Complete", "Failed", "Aborted"]
[service.results]
of = "fetch"
format = "csv"
match = "key"
key = "ref"
id = ["ask__id"]
pages = { cursor_header = "Ask-Locator", cursor_query = "locator" }
fetch = [
  { call = "GET /jobs/${id}/successfulResults" },
  { call = "GET /jobs/${id}/failedResults", error = ["ask__error"] },
]
"""


@pytest.fixture
async def traced(tmp_path, monkeypatch):
    """Check, and probe if said, what a description says, before the sandbox of its face; return the trace."""
    monkeypatch.setenv("BULK_KEY", KEY)
    source = tmp_path / "records.ndjson"
    source.write_bytes(b"".join(orjson.dumps({"name": f"n{number}"}) + b"\n" for number in range(5)))
    behaviour = Behaviour(service="bulk", journal=JournalSettings(tmp_path / "journal.ndjson"), access_keys=(KEY,))
    async with running_sandbox(behaviour) as sandbox:

        async def trace(face, text, *, probe=False, key=KEY):
            monkeypatch.setenv("BULK_KEY", key)
            config = tmp_path / "c.toml"
            config.write_text(HEAD.format(url=f"{sandbox.url.removesuffix('/v2')}/{face}") + text + SEND)
            heard, ledger = engine.Trace(), tmp_path / "ledger.db"
            report = await engine.check(config, [source], ledger, trace=heard)
            assert not report.undoable
            try:
                if probe:
                    await engine.probe(config, [source], ledger, records=report.good, trace=heard)
            finally:
                _hold_no_secret(heard, key)
            return heard

        yield trace


def _hold_no_secret(heard, key):
    kept = json.dumps([repr(one) for one in (*heard.exchanges, *heard.planned)])
    for form in (key, quote(key), quote(key, safe=""), "ask-token-"):
        assert form not in kept


async def test_without_a_probe_what_a_load_would_send_is_made_up(traced):
    heard = await traced("search", SEARCHED)
    assert [one.kind for one in heard.exchanges] == ["look"]
    assert [(one.kind, one.sent, one.status) for one in heard.planned] == [
        ("release", False, None),
        ("search", False, None),
    ]
    release, search = heard.planned
    assert release.url.endswith("/search/tasks?api_key=***")
    assert search.url.partition("?")[2] == "tag=MARK&api_key=***"
    assert json.loads(release.body)[0]["data"] == {"name": "n0"}


async def test_a_probe_shows_each_call_its_answer_and_what_was_taken(traced):
    heard = await traced("search", SEARCHED, probe=True)
    release = next(one for one in heard.exchanges if one.kind == "release")
    assert (release.status, release.method) == (202, "POST")
    assert release.url.endswith("?api_key=***")
    assert dict(release.taken) == {
        "results": "2, matched by order",
        "result 0": "created, its key is its id",
        "result 1": "created, its key is its id",
    }
    assert release.answer_headers["Content-Type"] == "application/json"
    assert "Date" not in release.answer_headers


async def test_a_job_with_a_token_a_store_and_files_is_shown_and_neither_token_nor_store_is(traced):
    heard = await traced("ask", ASKED, probe=True)
    kinds = list(dict.fromkeys(one.kind for one in heard.exchanges))
    assert kinds == ["token", "look", "stage", "upload", "release", "status", "results"]
    by_kind = {one.kind: one for one in reversed(heard.exchanges)}
    assert by_kind["token"].answer.startswith('{"access_token":"***"')
    assert dict(by_kind["token"].taken)["token"].startswith("***, for ")
    assert by_kind["stage"].headers["Authorization"] == "Bearer ***"
    assert "Authorization" not in by_kind["upload"].headers
    assert dict(by_kind["stage"].taken)["id"].startswith("job-")
    states = [dict(one.taken)["state"] for one in heard.exchanges if one.kind == "status"]
    assert states[-1] == "'Complete': finished"
    results = [dict(one.taken) for one in heard.exchanges if one.kind == "results"]
    assert results[0]["results"] == "2, matched by key"
    assert "created, id " in results[0]["result 0"]
    assert [one.kind for one in heard.planned] == [
        "token", "stage", "upload", "release", "status", "results", "results",
    ]  # fmt: skip


async def test_a_refusal_is_shown_with_its_body(traced):
    heard = await traced("search", SEARCHED, key="wrong+key/with=signs")
    (look,) = heard.exchanges
    assert (look.status, look.taken) == (401, [("rule", "none of [[service.rules]] fits: the status alone counts")])
    assert "Who are you?" in look.answer
