import re

import pytest

from engine.commands.configuration import expand_secret, hide_secret
from engine.model.errors import ConfigError

from .written import KEY, RELEASE, STAGED, STATUS, UPLOADED, read


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
        ({"rules": [{"means": "refused", "status": [400], "id": ["id"]}]}, "rules[0].id: goes with"),
        ({"rules": [{"means": "exists", "status": [409], "at": "e", "id": ["id"]}]}, "rules[0].id: goes with"),
        ({"rules": [{"means": "whole", "status": [400], "at": "errors"}]}, "rules[0].at: goes with means"),
        ({"rules": [{"means": "whole", "status": [200]}]}, "rules[0].path: missing; a success that is none"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_key(tables, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read(**tables)


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


def test_only_a_call_that_carries_one_record_may_name_it():
    single = {"body": {"framing": "single"}, "record": {"key": "${task.id}"}}
    assert read(**single, release={**RELEASE, "call": "PUT /docs/${key}", "again": "safe"}).release.again == "safe"
    with pytest.raises(ConfigError, match=r"release\.call: \$\{key\}: it is different for each record"):
        read(release={**RELEASE, "call": "PUT /docs/${key}"}, record={"key": "${task.id}"})
    with pytest.raises(ConfigError, match=r"release\.call: \$\{key\}: "):
        read(release={**RELEASE, "call": "PUT /docs/${key}"}, body={"framing": "single"})
