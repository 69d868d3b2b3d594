import re
from urllib.parse import parse_qs

import orjson
import pytest

from engine.commands.configuration import check, expand_secret, hide_secret
from engine.model.error_hints import Blame
from engine.model.errors import ConfigError
from engine.model.settings import SecretStr, WindowHeaders
from engine.services.described.settings import DescribedSettings
from engine.services.described.texts import clear

RELEASE = {"call": "POST /tasks", "payload": True}
STAGED = {
    "stage": {"call": "POST /jobs", "take": {"id": "id"}},
    "release": {"call": "POST /jobs/${id}/start", "payload": True},
}
UPLOADED = {
    "stage": {"call": "POST /jobs", "take": {"id": "id"}},
    "upload": {"call": "PUT /jobs/${id}", "payload": True},
    "release": {"call": "POST /jobs/${id}/start"},
}
STATUS = {"call": "GET /jobs/${id}", "state": "state", "waiting": ["open"], "finished": ["done"]}
KEY = "${job}-${token}-${index}"


def read(expand=hide_secret, **tables):
    base = {"kind": "http", "base_url": "https://api.example.com/v1", "release": RELEASE}
    return check(DescribedSettings, {**base, **tables}, "service", expand)


def test_the_shortest_description_is_one_call():
    settings = read()
    assert settings.release.again == "never"
    assert settings.results.match == "order"
    assert not settings.needs_token
    assert settings.place == "/tasks"
    assert settings.title == "http"


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"relaese": {}}, "service.relaese: unknown key; did you mean 'release'?"),
        ({"body": {"wiht": {}}}, "service.body.wiht: unknown key; did you mean 'with'?"),
        ({"window": {"remainin": "X"}}, "service.window.remainin: unknown key; did you mean 'remaining'?"),
        ({"release": {**RELEASE, "again": "save"}}, "service.release.again: must be 'ask', 'exists', 'key'"),
        (
            {"results": {"fetch": [{"cal": "GET /x"}]}},
            "service.results.fetch[0].cal: unknown key; did you mean 'call'?",
        ),
        ({"rules": [{"status": [429]}]}, "service.rules[0].means: missing"),
        ({"limit": {"records": 0}}, "service.limit.records: must be a whole number from 1 on"),
        # who we are
        ({"auth": {"kind": "bearer"}}, 'auth.secret: missing, and auth.kind is "bearer"'),
        ({"auth": {"kind": "bearer", "secret": "abc"}}, "auth.secret: a secret does not belong into the file"),
        ({"auth": {"secret": "${env:X}"}}, "auth.kind: missing"),
        ({"auth": {"kind": "query", "secret": "${env:X}"}}, "auth.name: missing"),
        ({"auth": {"kind": "exchange", "secret": "${env:X}"}}, "auth.exchange: kind = "),
        (
            {
                "auth": {
                    "kind": "exchange",
                    "secret": "${env:X}",
                    "exchange": {"call": "POST /t", "form": {"a": "${token}"}},
                }
            },
            "auth.exchange.form.a: ${token}: nothing fills it; known here: secret",
        ),
        ({"window": {"remaining": "X-Left"}}, "window.every: missing"),
        ({"headers": {"a": "${id}"}}, "service.headers.a: ${id}: nothing fills it"),
        ({"headers": ["a"]}, "service.headers: must be a table"),
        ({"headers": {"X": {"a": "b"}}}, "service.headers.X: must be a single value"),
        ({"headers": {"X Y": "a"}}, "service.headers.X Y: 'X Y' is no name of a header"),
        ({"headers": {"X": "a\nb"}}, "service.headers.X: must be plain text without line breaks"),
        ({"release": {**RELEASE, "query": {"q": ["a"]}}}, "release.query.q: must be a single value"),
        (
            {"auth": {"kind": "header", "name": "A\nB", "secret": "${env:X}"}},
            "auth.name: 'A\\nB' is no name of a header",
        ),
        ({"results": {"missing": "create"}}, "results.missing: 'create' would be told as the reason"),
        ({"uploads_to": ["https://x.example"]}, "uploads_to: 'https://x.example' is no host"),
        ({"task_page": "x/${id}"}, "task_page: must be a whole URL"),
        ({"task_page": "/x/${key}"}, "task_page: ${key}: nothing fills it"),
        ({"base_url": "https://${site}.example.com"}, "base_url: ${site} is not filled in here"),
        ({"values": {"index": "x"}}, "values.index: no name for a value of your own"),
        ({"values": {"project": ""}}, "values.project: must be filled in"),
        # calls
        ({"release": {**RELEASE, "call": "/tasks"}}, "release.call: '/tasks' is no call; write"),
        ({"release": {**RELEASE, "call": "POST tasks"}}, "release.call: 'POST tasks' is no call"),
        ({"release": {**RELEASE, "call": "FETCH /tasks"}}, "release.call: 'FETCH /tasks' is no call"),
        (
            {"release": {**RELEASE, "call": "POST http://x.example/"}},
            "release.call: plain http is for this machine only",
        ),
        (
            {"release": {**RELEASE, "call": "POST https://x.example/"}},
            "release.call: x.example is not the host of base_url",
        ),
        (
            {"release": {**RELEASE, "call": "POST https://x.example/", "without_credentials": True}},
            "release.call: it may lead to any host; name those",
        ),
        ({"release": {**RELEASE, "call": "GET /tasks"}}, "release.call: a GET carries no body"),
        ({"release": {**RELEASE, "json": {"a": 1}}}, "release.json: a call has one body"),
        ({"release": {**RELEASE, "query": "a=b"}}, "release.query: must be a table"),
        (
            {"release": {**RELEASE, "again": "safe", "key_header": "Idempotency-Key"}},
            'release.key_header: an idempotency key makes a repeat harmless; write again = "key", not "safe"',
        ),
        (
            {"release": {"call": "POST /tasks"}},
            "release.payload: no step carries the records; set payload = true in release",
        ),
        (
            {**STAGED, "stage": {**STAGED["stage"], "payload": True}},
            "release.payload: stage carries the records already",
        ),
        (STAGED, "release.payload: what was staged is released by a call without records; put payload = true into"),
        ({"look": {"call": "GET /x", "query": {"a": "${mark}"}}}, "look.query.a: ${mark}: there is no batch yet"),
        ({"upload": {"call": "PUT /x"}}, "upload: there is nothing that it brings records to"),
        ({"status": {**STATUS, "payload": True}, **STAGED}, "service.status.payload: only stage, upload or release"),
        # names that steps take
        ({**STAGED, "stage": {"call": "POST /jobs"}}, "stage.take.id: missing"),
        (
            {**STAGED, "stage": {"call": "POST /jobs/${id}", "take": {"id": "id"}}},
            "stage.call: ${id}: stage takes it, ",
        ),
        (
            {"release": {**RELEASE, "call": "POST /${ib}"}},
            "release.call: ${ib}: nothing fills it; known here: batch, job",
        ),
        ({"release": {**RELEASE, "call": "POST /${index}"}}, "release.call: ${index}: it is different for each record"),
        (
            {
                "stage": {"call": "POST /a", "take": {"id": "id", "x": "x"}},
                "release": {**RELEASE, "call": "POST /${x}"},
            },
            "release.call: ${x}: it is not known any more after a restart",
        ),
        (
            {**STAGED, "stage": {"call": "POST /a", "take": {"id": "id", "x": "x"}}, "cancel": {"call": "POST /${x}"}},
            "cancel.call: ${x}: it is not known any more after a restart, where id alone is; take",
        ),
        (
            {**STAGED, "stage": {"call": "POST /a", "take": {"id": "id?"}}},
            "stage.take.id: a batch without a name is lost",
        ),
        ({**STAGED, "stage": {"call": "POST /a", "take": {"id": "a..b"}}}, "stage.take.id: 'a..b' is no path"),
        (
            {**STAGED, "stage": {"call": "POST /a", "take": {"id": "id", "key": "k"}}},
            "stage.take.key: no name for what",
        ),
        ({"cancel": {"call": "POST /cancel"}}, "cancel.call: a batch has no name to be asked about"),
        # records and the body
        ({"record": {"key": "${job}-${token}"}}, "record.key: it is the same for every record"),
        ({"record": {"key": "${task}"}}, "record.key: a whole task is no key"),
        ({"record": {"key": "${batch}-${index}"}}, "record.key: ${batch}: another batch may carry the record later"),
        ({"record": {"key": "${idx}"}}, "record.key: ${idx}: nothing fills it; did you mean ${index}?"),
        ({"record": {"template": {"a": "${key}"}}}, "record.template.a: ${key}: records have no key; set record.key"),
        ({"record": {"template": {"a": "${id}"}}}, "record.template.a: ${id}: the batch has no name yet"),
        ({"record": {"add": {"a": "${task}"}}}, "record.add: ${task} cannot be put into itself"),
        ({"record": {"head": {"a": 1}}}, 'record.head: goes with body.framing = "ndjson" only'),
        ({"body": {"columns": ["a"]}}, 'body.columns: goes with body.framing = "csv" only'),
        ({"body": {"framing": "csv", "columns": ["a", "a"]}}, "body.columns: a column stands there twice"),
        ({"body": {"framing": "ndjson", "delimiter": ";"}}, 'body.delimiter: goes with body.framing = "csv" only'),
        ({"body": {"framing": "csv", "under": "a"}}, "body.under: an object around the records goes with"),
        ({"body": {"with": {"a": 1}}}, "body.under: missing"),
        ({"body": {"under": "a", "with": {"a": 1}}}, "body.with: it has a already, which body.under fills"),
        ({"body": {"under": "a.b", "with": {"a": 1}}}, "body.with: a is no table, and body.under goes through it"),
        ({"body": {"fields": {"a": "b"}}}, "body.part: missing"),
        ({"body": {"framing": "single"}, "limit": {"records": 2}}, "limit.records: must be 1, since body.framing"),
        *(
            (
                {
                    "release": {**RELEASE, "again": again},
                    "results": {"exists": {"a": 1}},
                    "record": {"key": "r${index}"},
                },
                "record.key: another job's records, or those of a retry, would have the same keys",
            )
            for again in ("safe", "exists")
        ),
        (
            {
                "release": {**RELEASE, "again": "search", "take": {"id": "id"}},
                "status": STATUS,
                "search": {"call": "GET /jobs", "by_results": True},
                "record": {"key": "${task.id}"},
                "results": {"of": "fetch", "match": "key", "key": "k", "fetch": [{"call": "GET /jobs/${id}/results"}]},
            },
            "record.key: with search.by_results a batch is ours if its results name a key of ours",
        ),
        # safe after a lost answer
        ({"release": {**RELEASE, "again": "ask"}}, 'release.again: "ask" asks whether a batch that was staged'),
        ({**STAGED, "release": {**STAGED["release"], "again": "ask"}}, 'release.again: "ask" needs [service.status]'),
        (
            {**STAGED, "release": {**STAGED["release"], "again": "ask", "take": {"id": "id"}}},
            'release.take.id: with again = "ask" a batch is asked about by the name that stage took',
        ),
        ({"release": {**RELEASE, "again": "search"}}, 'release.again: "search" needs [service.search]'),
        (
            {"release": {**RELEASE, "again": "search"}, "search": {"call": "GET /x"}},
            "search.mark: missing; say which member of each task carries ${mark}",
        ),
        (
            {"release": {**RELEASE, "again": "search"}, "search": {"call": "GET /x", "mark": "m"}},
            "search.key: missing; say where a task that is found carries record.key",
        ),
        ({"search": {"call": "GET /x", "mark": "a.b.c"}}, "search.mark: 'a.b.c' must be a member of the task"),
        ({"search": {"call": "GET /x", "where": {"a": "${x}"}}}, "search.where.a: ${x}: nothing fills it"),
        ({"release": {**RELEASE, "again": "key"}}, "release.key_header: missing"),
        ({"release": {**RELEASE, "key_header": "I"}}, "release.key_header: an idempotency key makes a repeat harmless"),
        ({"release": {**RELEASE, "again": "exists"}}, "results.exists: missing"),
        # status and results
        ({**STAGED, "status": {**STATUS, "finished": []}}, "status.finished: missing"),
        (
            {**STAGED, "status": {**STATUS, "failed": ["done"]}},
            "status.failed: 'done' stands under status.finished, too",
        ),
        ({**STAGED, "status": {**STATUS, "state": "a..b"}}, "status.state: 'a..b' is no path"),
        ({"results": {"of": "status"}}, 'results.of: "status" needs [service.status]'),
        ({"results": {"of": "fetch"}}, 'results.of: "fetch" needs [[service.results.fetch]]'),
        ({"results": {"of": "fetch", "fetch": [{"call": "GET /x"}]}}, 'results.of: "fetch" needs [service.status]'),
        ({"results": {"fetch": [{"call": "GET /x"}]}}, 'results.fetch: is called only with results.of = "fetch"'),
        ({"results": {"pages": {"next": "next"}}}, "results.pages: only what is fetched has pages"),
        ({"results": {"match": "key"}}, "results.key: missing"),
        ({"results": {"match": "key", "key": "k"}}, "record.key: missing"),
        ({"results": {"id": []}}, "results.id: empty, so the record's key is its id"),
        ({"results": {"format": "ids", "match": "index", "index": "i"}}, "results.match: goes with items only"),
        ({"results": {"format": "count"}}, "results.items: missing; it is the path of the number"),
        ({"results": {"format": "count", "items": "n"}}, "record.key: missing; with results.format = "),
        ({"results": {"missing": "created"}}, "record.key: missing; with results.missing = "),
        ({"results": {"ok": {"a..b": 1}}}, "results.ok: 'a..b' is no path"),
        ({"results": {"failures": {"items": "errors"}}}, "results.failures.key: missing"),
        (
            {"results": {"failures": {"items": "errors", "key": "k"}}},
            "record.key: missing; results.failures.key names it",
        ),
        ({"search": {"call": "GET /x", "pages": {}}}, "search.pages: a further page is asked for by one of"),
        ({"search": {"call": "GET /x", "pages": {"next": "n", "page": "p"}}}, "it has next and page"),
        ({"search": {"call": "GET /x", "pages": {"cursor": "c"}}}, "search.pages.cursor_query: a cursor needs"),
        # rules
        ({"rules": [{"means": "pause"}]}, "rules[0].status: missing"),
        ({"rules": [{"means": "pause", "status": [429], "equals": ["x"]}]}, "rules[0].path: missing"),
        ({"rules": [{"means": "by_index", "status": [400]}]}, "rules[0].at: missing"),
        ({"rules": [{"means": "whole", "status": [400], "at": "errors"}]}, "rules[0].at: goes with means"),
        ({"rules": [{"means": "whole", "status": [200]}]}, "rules[0].path: missing; a success that is none"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_key(tables, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read(**tables)


def test_a_single_value_stands_for_a_list_of_one():
    settings = read(**UPLOADED, status={**STATUS, "finished": "done", "error": "why"}, results={"id": "task"})
    assert settings.status.finished == ("done",)
    assert settings.status.error == ("why",)
    assert settings.results.id == ("task",)
    assert read(rules=[{"status": 429, "means": "pause"}]).rules[0].status == (429,)


@pytest.mark.parametrize(
    "tables",
    [
        {"record": {"key": KEY}},
        {"release": {**RELEASE, "query": {"op": "${mark}"}}},
        {"release": {**RELEASE, "again": "key", "key_header": "Idempotency-Key"}},
        {"search": {"call": "GET /x", "mark": "m"}},
        {"body": {"under": "a", "with": {"b": ["${token}"]}}},
    ],
)
def test_a_token_is_needed_where_something_that_is_sent_holds_it(tables):
    assert read(**tables).needs_token
    assert not read(record={"key": "${task.id}", "template": {"at": "${batch}"}}).needs_token


def test_an_idempotency_key_may_stand_in_the_call():
    assert read(release={**RELEASE, "again": "key", "query": {"operation_id": "${mark}"}}).release.key_seconds == 86_400
    assert read(release={**RELEASE, "again": "key", "query": {"id": "${token}.${batch}"}})


def test_what_the_status_took_is_known_when_results_are_fetched():
    results = {"of": "fetch", "fetch": [{"call": "GET /files/${out}"}]}
    settings = read(**UPLOADED, status={**STATUS, "take": {"out": "output?"}}, results=results)
    assert settings.results.fetch[0].call == "GET /files/${out}"
    with pytest.raises(ConfigError, match=r"results\.fetch\[0\]\.call: \$\{out\}: nothing fills it"):
        read(**STAGED, status=STATUS, results=results)


# References to secrets


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"name": "${env:SECRET}"}, "name"),
        ({"release": {**RELEASE, "call": "POST /${env:SECRET}/tasks"}}, "release.call"),
        ({"release": {**RELEASE, "call": "POST /${file:/secret}"}}, "release.call"),
        ({"release": {**RELEASE, "take": {"more": "${env:SECRET}"}}}, "release.take.more"),
        ({"record": {"key": "${index}-${env:SECRET}"}}, "record.key"),
        ({"record": {"add": {"a": [{"b": "${env:SECRET}"}]}}}, "record.add.a[0].b"),
        ({"record": {"template": {"a": {"b": "x ${env:SECRET}"}}}}, "record.template.a.b"),
        ({"auth": {"kind": "header", "secret": "${env:SECRET}", "prefix": "${env:SECRET}"}}, "auth.prefix"),
        ({"uploads_to": ["a.example", "${env:SECRET}"]}, "uploads_to[1]"),
        ({"rules": [{"status": [400], "means": "stop", "path": "${env:SECRET}"}]}, "rules[0].path"),
        ({"results": {"fetch": [{"call": "GET /${env:SECRET}"}]}}, "results.fetch[0].call"),
    ],
)
@pytest.mark.parametrize("expand", [expand_secret, hide_secret])
def test_a_reference_is_refused_in_a_text_that_is_shown(secret, tables, key, expand):
    with pytest.raises(ConfigError) as refused:
        read(expand, **tables)
    said = str(refused.value)
    assert said.startswith(f"service.{key}: ${{")
    assert "secrets may stand in auth.secret, auth.user, auth.exchange, headers, query, json, form, body" in said
    assert "s3cret" not in said


def test_a_reference_may_stand_where_secrets_do_and_in_three_texts_that_are_shown(secret):
    settings = read(
        expand_secret,
        base_url="https://${env:SECRET}.example.com",
        task_page="/${env:SECRET}/${id}",
        values={"project": secret},
        headers={"X-More": "${env:SECRET}"},
        body={"under": "tasks", "with": {"a": ["${env:SECRET}"]}},
        release={**RELEASE, "query": {"a": "${env:SECRET}"}, "headers": {"X-Key": "k ${env:SECRET}"}},
    )
    assert settings.base_url == "https://s3cret-of-ours.example.com"
    assert settings.values == {"project": "s3cret-of-ours"}
    assert clear(settings.body.with_) == {"a": ["s3cret-of-ours"]}


@pytest.mark.parametrize(
    ("tables", "key", "variable"),
    [
        ({"headers": {"Authorization": "Bearer abc"}}, "headers.Authorization", "AUTHORIZATION"),
        ({"headers": {"X-API-Key": "abc"}}, "headers.X-API-Key", "X_API_KEY"),
        ({"headers": {"cookie": "session=abc"}}, "headers.cookie", "COOKIE"),
        ({"headers": {"X-Shop-Access-Token": 7}}, "headers.X-Shop-Access-Token", "X_SHOP_ACCESS_TOKEN"),
        (
            {"release": {**RELEASE, "headers": {"Client-Secret": "abc"}}},
            "release.headers.Client-Secret",
            "CLIENT_SECRET",
        ),
        ({"release": {**RELEASE, "query": {"api_key": "abc"}}}, "release.query.api_key", "API_KEY"),
        ({"look": {"call": "GET /me", "query": {"access_token": "abc"}}}, "look.query.access_token", "ACCESS_TOKEN"),
        (
            {
                "auth": {
                    "kind": "exchange",
                    "secret": "${env:SECRET}",
                    "exchange": {"call": "POST /token", "headers": {"Api-Key": "abc"}},
                }
            },
            "auth.exchange.headers.Api-Key",
            "API_KEY",
        ),
    ],
)
@pytest.mark.parametrize("expand", [expand_secret, hide_secret])
def test_a_credential_is_not_written_out_as_a_header_or_parameter(secret, tables, key, variable, expand):
    words = f'{key}: a secret does not belong into the file; write "${{env:{variable}}}"'
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        read(expand, **tables)
    assert "abc" not in str(refused.value)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Authorization": "Token ${env:SECRET}"}, {"api_key": "${env:SECRET}"}),
        ({"Authorization": "Token ${env:NO_SUCH_VARIABLE}"}, {}),
        ({"Idempotency-Key": "one", "X-Idempotency-Key": "one"}, {}),
        ({"X-Project-Key": "${project}", "anthropic-version": "2023-06-01"}, {"primaryKey": "id", "tokens": 3}),
    ],
)
def test_a_reference_a_value_and_what_is_no_credential_may_stand_there(secret, headers, query):
    read(hide_secret, values={"project": "7"}, release={**RELEASE, "headers": headers, "query": query})


# Who we are


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret-of-ours")
    return "${env:SECRET}"


@pytest.mark.parametrize(
    ("auth", "headers", "query"),
    [
        ({"kind": "bearer"}, {"Authorization": "Bearer s3cret-of-ours"}, {}),
        ({"kind": "header", "prefix": "ApiKey "}, {"Authorization": "ApiKey s3cret-of-ours"}, {}),
        ({"kind": "header", "name": "X-Key"}, {"X-Key": "s3cret-of-ours"}, {}),
        ({"kind": "basic", "user": "me"}, {"Authorization": "Basic bWU6czNjcmV0LW9mLW91cnM="}, {}),
        ({"kind": "basic"}, {"Authorization": "Basic czNjcmV0LW9mLW91cnM6"}, {}),
        ({"kind": "query", "name": "key"}, {}, {"key": "s3cret-of-ours"}),
    ],
)
def test_a_secret_travels_as_the_description_says(secret, auth, headers, query):
    settings = read(expand_secret, auth={**auth, "secret": secret})
    assert {name: one.get_secret_value() for name, one in settings.secret_headers().items()} == headers
    assert {name: one.get_secret_value() for name, one in settings.secret_query().items()} == query
    assert settings.other_secrets() == (SecretStr("s3cret-of-ours"),)
    assert "s3cret" not in repr(settings)


def test_a_token_is_exchanged_by_a_form(secret, monkeypatch):
    monkeypatch.setenv("CLIENT", "client-7")
    exchange = {
        "call": "POST /oauth/token",
        "form": {"grant_type": "client_credentials", "client_id": "${env:CLIENT}", "client_secret": "${secret}"},
        "seconds": 600,
    }
    settings = read(expand_secret, auth={"kind": "exchange", "secret": secret, "exchange": exchange})
    assert settings.secret_headers() == {}
    made = settings.exchange()
    assert (made.url, made.method, made.seconds) == ("https://api.example.com/v1/oauth/token", "POST", 600)
    assert parse_qs(made.body.get_secret_value()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["client-7"],
        "client_secret": ["s3cret-of-ours"],
    }
    assert made.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert made.take(b'{"access_token": "t1", "expires_in": "3600"}') == ("t1", 3600.0)
    assert made.take(b'{"access_token": "t1", "expires_in": null}') == ("t1", None)
    assert made.header("t1") == {"Authorization": "Bearer t1"}
    for body in (b"{}", b'{"access_token": 7}', b"<html>", b'{"access_token": ""}'):
        with pytest.raises(ValueError):  # noqa: PT011 - of the JSON reader, too
            made.take(body)


def test_a_token_is_exchanged_by_json_elsewhere(secret):
    exchange = {
        "call": "POST https://login.example.com/token",
        "json": {"scope": ["a"], "deep": {"key": "${secret}"}},
        "user": "me",
        "headers": {"X-Key": "${secret}"},
        "take": "data.token",
    }
    auth = {"kind": "exchange", "secret": secret, "name": "X-Token", "prefix": "", "exchange": exchange}
    made = read(expand_secret, auth=auth).exchange()
    assert made.url == "https://login.example.com/token"
    assert orjson.loads(made.body.get_secret_value()) == {"scope": ["a"], "deep": {"key": "s3cret-of-ours"}}
    assert {name: one.get_secret_value() for name, one in made.secret_headers.items()} == {
        "X-Key": "s3cret-of-ours",
        "Authorization": "Basic bWU6czNjcmV0LW9mLW91cnM=",
    }
    assert made.take(b'{"data": {"token": "t"}}') == ("t", None)
    assert made.header("t") == {"X-Token": "t"}


def test_references_stand_in_any_text_of_a_free_form_table(secret):
    settings = read(
        expand_secret,
        headers={"X-All": f"v1 {secret}"},
        release={**RELEASE, "query": {"key": secret}, "headers": {"X": secret}},
        body={"under": "tasks", "with": {"auth": {"keys": [secret]}}, "part": "file", "fields": {"a": secret}},
    )
    assert clear(settings.headers) == {"X-All": "v1 s3cret-of-ours"}
    assert clear(settings.release.query) == {"key": "s3cret-of-ours"}
    assert clear(settings.body.with_) == {"auth": {"keys": ["s3cret-of-ours"]}}
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.place


# What the engine asks of it


def test_the_place_is_the_path_of_the_first_step_and_the_users_own_values():
    settings = read(
        values={"object": "Contact", "ix": "t"},
        stage={"call": "POST /${ix}/jobs", "json": {"object": "${object}"}, "take": {"id": "id"}},
        upload=UPLOADED["upload"],
        release=UPLOADED["release"],
    )
    assert settings.place == "/t/jobs object=Contact"


def test_limits_windows_and_rules_are_said_to_the_caller():
    settings = read(
        limit={"requests_per_second": 5},
        window={"remaining": "X-Left", "every": 10},
        rules=[{"status": [400], "means": "whole"}],
        uploads_to="*.amazonaws.com",
    )
    assert settings.most_requests_per_second == 5
    assert settings.window() == WindowHeaders("X-Left", "", "", 10.0)
    assert settings.error_hint(400, b"{}").blame is Blame.PAYLOAD
    assert settings.error_hint(404, b"{}") is None
    assert settings.allowed_upload_hosts() == ("*.amazonaws.com",)
    assert settings.RULES_ON_SUCCESS
    assert read().window() is None
    assert settings.speaks(b"[]")
    assert not settings.speaks(b"<html>")


def test_the_answer_to_a_call_with_one_record_is_its_item():
    assert read(body={"framing": "single"}).results.single is True
    assert read(body={"framing": "form"}).results.single is True
    assert read().results.single is False
    assert read(body={"framing": "single"}, results={"single": False}).results.single is False


def test_only_a_call_that_carries_one_record_may_name_it():
    single = {"body": {"framing": "single"}, "record": {"key": "${task.id}"}}
    assert read(**single, release={**RELEASE, "call": "PUT /docs/${key}", "again": "safe"}).release.again == "safe"
    with pytest.raises(ConfigError, match=r"release\.call: \$\{key\}: it is different for each record"):
        read(release={**RELEASE, "call": "PUT /docs/${key}"}, record={"key": "${task.id}"})
    with pytest.raises(ConfigError, match=r"release\.call: \$\{key\}: "):
        read(release={**RELEASE, "call": "PUT /docs/${key}"}, body={"framing": "single"})
