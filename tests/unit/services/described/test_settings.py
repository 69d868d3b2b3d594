from urllib.parse import parse_qs

import orjson
import pytest

from engine.commands.configuration import expand_secret, hide_secret
from engine.model.error_hints import Blame
from engine.model.errors import ConfigError
from engine.model.settings import SecretStr, WindowHeaders
from engine.services.described.texts import clear

from .written import RELEASE, STATUS, UPLOADED, read


def test_the_shortest_description_is_one_call():
    settings = read()
    assert settings.release.again == "never"
    assert settings.results.match == "order"
    assert not settings.needs_token
    assert settings.place == "/tasks"
    assert settings.title == "http"


def test_a_single_value_stands_for_a_list_of_one():
    settings = read(**UPLOADED, status={**STATUS, "finished": "done", "error": "why"}, results={"id": "task"})
    assert settings.status.finished == ("done",)
    assert settings.status.error == ("why",)
    assert settings.results.id == ("task",)
    assert read(rules=[{"status": 429, "means": "pause"}]).rules[0].status == (429,)


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
