"""One step: values in, a call out; an answer in, what it takes out. And the pages of a list."""

import orjson
import pytest
from multidict import CIMultiDict

from engine.model.errors import UnexpectedAnswer
from engine.model.settings import SecretTree
from engine.services.base import Answer
from engine.services.described.settings import PagesTable, StepTable
from engine.services.described.steps import PageWalk, Step, joined, linked

from .served import read

PLAIN = '[release]\ncall = "POST /items"\npayload = true\n'
BASE = "https://api.example.com/v1"


def step(call, *, settings="", **keys):
    for name in ("query", "headers", "json", "form"):
        if name in keys:
            keys[name] = SecretTree(keys[name])
    return Step("step", StepTable(call=call, **keys), read(f'base_url = "{BASE}"\n{settings}{PLAIN}'))


def answer(body=b"", **headers):
    body = body if isinstance(body, bytes) else orjson.dumps(body)
    return Answer(200, CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}), body)


class TestCalls:
    def test_a_path_goes_on_from_the_base_url(self):
        call = step("POST /jobs/${id}/start").call({"id": "7"})
        assert (call.kind, call.method, call.url, call.body) == ("step", "POST", f"{BASE}/jobs/7/start", None)

    @pytest.mark.parametrize(
        ("value", "path"),
        [
            ("a/b", "a%2Fb"),
            ("a?b=c", "a%3Fb%3Dc"),
            ("a b", "a%20b"),
            ("../x", "..%2Fx"),
            ("ö", "%C3%B6"),
            ("a#b", "a%23b"),
        ],
    )
    def test_a_value_is_one_part_of_it(self, value, path):
        assert step("GET /jobs/${id}").call({"id": value}).url == f"{BASE}/jobs/{path}"

    @pytest.mark.parametrize("value", ["", ".", ".."])
    def test_a_value_that_would_lead_elsewhere_is_no_name(self, value):
        with pytest.raises(UnexpectedAnswer):
            step("GET /jobs/${id}").call({"id": value})

    @pytest.mark.parametrize(
        ("value", "url"),
        [
            ("https://store.example.com/x?sign=a%2Fb", "https://store.example.com/x?sign=a%2Fb"),
            ("/v1/jobs/7/batches", f"{BASE}/jobs/7/batches"),
            ("jobs/7/batches", f"{BASE}/jobs/7/batches"),
        ],
    )
    def test_a_value_at_the_beginning_is_the_address_itself(self, value, url):
        assert step("PUT ${where}", without_credentials=True).call({"where": value}).url == url

    def test_json_form_query_and_headers_are_filled(self):
        values = {"id": "a b", "mark": "m"}
        made = step("POST /x", json={"file": "${id}", "n": [1, "${mark}"]}, query={"q": "${id}", "on": True}).call(
            values
        )
        assert orjson.loads(made.body) == {"file": "a b", "n": [1, "m"]}
        assert made.query == {"q": "a b", "on": "true"}
        assert made.headers == {"Content-Type": "application/json"}
        made = step("POST /x", form={"file": "${id}"}, headers={"content-type": "x/y", "X-Mark": "${mark}"}).call(
            values
        )
        assert made.body == b"file=a+b"
        assert made.headers == {"content-type": "x/y", "X-Mark": "m"}

    def test_headers_of_every_call_go_to_the_service_only(self):
        settings = 'headers = { api-version = "1", x = "1" }\n'
        assert step("GET /x", settings=settings, headers={"X": "2"}).call({}).headers == {"api-version": "1", "X": "2"}
        assert step("GET /x", settings=settings, without_credentials=True).call({}).headers == {}

    def test_a_header_ends_where_it_ends(self):
        with pytest.raises(UnexpectedAnswer):
            step("GET /x", headers={"X": "${id}"}).call({"id": "a\r\nB: c"})

    def test_a_value_that_nobody_has_brought_is_said(self):
        with pytest.raises(UnexpectedAnswer, match=r"needs \$\{output\}"):
            step("GET /files/${output}").call({})

    def test_what_it_needs_and_takes_is_known(self):
        made = step("PUT ${where}/${id}", headers={"X": "${mark}"}, take={"next": "a.b"})
        assert (made.needs, made.takes) == ({"where", "id", "mark"}, {"next"})


class TestTaking:
    def test_values_come_from_body_and_headers(self):
        taking = step("GET /x", take={"id": "job.id", "n": "items.0.n", "where": "header.Location", "no": "none?"})
        found = taking.taken(answer({"job": {"id": "j"}, "items": [{"n": 7}]}, Location="/x/7"))
        assert found == {"id": "j", "n": "7", "where": "/x/7"}

    @pytest.mark.parametrize(
        "body", [{}, {"id": None}, {"id": ""}, {"id": {}}, {"id": ["a"]}, {"id": "x" * 201}, {"id": "a\n"}]
    )
    def test_one_that_is_not_there_or_no_single_value_is_an_error(self, body):
        with pytest.raises(UnexpectedAnswer):
            step("GET /x", take={"id": "id"}).taken(answer(body))

    @pytest.mark.parametrize(("body", "taken"), [(b"HnCi86\n", "HnCi86"), (b"1e5", "1e5"), (b'"a b"', "a b")])
    def test_the_empty_path_is_the_whole_answer_also_of_a_text(self, body, taken):
        assert step("POST /files", take={"id": ""}).taken(answer(body)) == {"id": taken}

    def test_an_empty_answer_has_none(self):
        with pytest.raises(UnexpectedAnswer):
            step("POST /files", take={"id": ""}).taken(answer(b" \n"))

    def test_where_headers_alone_are_taken_the_body_may_be_anything(self):
        assert step("GET /x", take={"id": "header.X-Id"}).taken(answer(b"<html>", X_Id="7")) == {"id": "7"}


def walk(**table):
    return PageWalk(PagesTable(**table), step("GET /list", query={"a": "b"}).call({}), BASE)


class TestPages:
    def test_without_pages_there_is_one(self):
        walked = PageWalk(None, step("GET /list").call({}), BASE)
        assert walked.next_call(answer(), {}, 9) is None

    def test_by_a_link_in_the_body(self):
        walked = walk(next="links.next")
        assert walked.next_call(answer(), {"links": {"next": "/v1/list?page=2"}}, 9).url == f"{BASE}/list?page=2"
        assert walked.next_call(answer(), {"links": {"next": None}}, 9) is None

    def test_by_a_link_header(self):
        walked = walk(next_header="Link")
        link = f'<{BASE}/list?page=1>; rel="prev", <{BASE}/list?page=3>; rel="next"'
        made = walked.next_call(answer(Link=link), None, 9)
        assert (made.url, made.query) == (f"{BASE}/list?page=3", {})
        assert walked.next_call(answer(Link='<x>; rel="last"'), None, 9) is None

    def test_by_number(self):
        walked = walk(page="p", size=2)
        assert walked.first.query == {"a": "b", "p": "1"}
        assert walked.next_call(answer(), [], 2).query == {"a": "b", "p": "2"}
        assert walked.next_call(answer(), [], 1) is None

    def test_by_offset(self):
        walked = walk(offset="skip")
        assert walked.first.query["skip"] == "0"
        assert walked.next_call(answer(), [], 7).query["skip"] == "7"
        assert walked.next_call(answer(), [], 5).query["skip"] == "12"
        assert walked.next_call(answer(), [], 0) is None

    def test_by_cursor(self):
        walked = walk(cursor="after", cursor_query="after", more="more")
        assert walked.next_call(answer(), {"after": "x", "more": True}, 7).query == {"a": "b", "after": "x"}
        assert walked.next_call(answer(), {"after": "y", "more": False}, 7) is None
        assert walk(cursor="after", cursor_query="after").next_call(answer(), {}, 7) is None

    def test_by_a_header(self):
        walked = walk(cursor_header="Sforce-Locator", cursor_query="locator")
        assert walked.next_call(answer(Sforce_Locator="MTA"), None, 7).query["locator"] == "MTA"
        assert walked.next_call(answer(Sforce_Locator="null"), None, 7) is None

    def test_one_that_leads_back_has_no_end(self):
        walked = walk(cursor="after", cursor_query="after")
        walked.next_call(answer(), {"after": "x"}, 7)
        with pytest.raises(UnexpectedAnswer):
            walked.next_call(answer(), {"after": "x"}, 7)
        assert walked.next_call(answer(), {"after": "x"}, 0) is None
        linked_walk = walk(next="next")
        linked_walk.next_call(answer(), {"next": "/a"}, 7)
        with pytest.raises(UnexpectedAnswer):
            linked_walk.next_call(answer(), {"next": "/a"}, 7)

    def test_a_circle_of_two_has_no_end_either(self):
        for table, name in (({"next": "next"}, "next"), ({"cursor": "after", "cursor_query": "after"}, "after")):
            walked = walk(**table)
            for place in ("/a", "/b"):
                walked.next_call(answer(), {name: place}, 7)
            with pytest.raises(UnexpectedAnswer):
                walked.next_call(answer(), {name: "/a"}, 7)


def test_addresses():
    assert joined(BASE, "") == BASE
    assert joined(BASE, "/v1/x") == f"{BASE}/v1/x"
    assert linked(BASE, "/v1/x") == f"{BASE}/x"
    assert linked("https://api.example.com", "/v1/x") == f"{BASE}/x"
    assert linked(BASE, "https://other.example.com/x") == "https://other.example.com/x"
