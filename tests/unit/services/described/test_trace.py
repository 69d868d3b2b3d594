"""What `check --trace` says of an answer: what is taken by name, and what is not there."""

import json

import pytest

from engine.services.base import Answer, Call
from engine.services.described.service import later_calls, taken_from

from .served import BASE, read
from .test_service import BULK, FILES, JOBS

PLAIN = '[release]\ncall = "POST /items"\npayload = true\n'


def said(text, kind, body, *, status=200, url=f"{BASE}/x", headers=None):
    """Return what is taken from an answer, by name."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return dict(taken_from(Call(kind, "GET", url), Answer(status, headers or {}, body), read(text)))


def test_what_a_step_takes_is_told_by_name_and_what_is_missing_by_its_path():
    text = JOBS.replace('id = "id"', 'id = "id", place = "header.Location", more = "more?"')
    found = said(text, "stage", {"id": 7}, headers={"Location": "/7"})
    assert (found["id"], found["place"], found["more"]) == ("7", "/7", "not there, which it need not be")
    assert said(text, "stage", {"ident": 7})["id"] == "NOT TAKEN: the answer has no 'id'"
    assert said(text, "upload", b"") == {}


def test_a_word_of_a_status_is_told_with_what_it_means():
    text = FILES
    assert said(text, "status", {"status": "unheard of"})["state"] == (
        "'unheard of': in no list of [service.status], so it counts as running"
    )
    assert said(text, "status", {"status": "completed"})["state"] == "'completed': finished"
    assert said(text, "status", {})["state"] == "NOT TAKEN: the answer has nothing at 'status'"
    assert said(text, "status", b"<html>")["state"].startswith("NOT TAKEN: ")


def test_the_first_items_of_a_list_are_told():
    items = [{"id": 1}, {"error": "no title"}, {"id": None}, {"id": 4}]
    assert said(PLAIN, "release", items) == {
        "results": "4, matched by order",
        "result 0": "created, id 1",
        "result 1": "failed: no title",
        "result 2": "unclear: the service calls it done and does not name its task",
    }
    assert said(PLAIN, "release", {"items": items}) == {"results": "NOT TAKEN: the answer has no list of results in it"}


def test_items_are_told_with_the_key_by_which_they_are_matched():
    keyed = BULK + 'match = "key"\nkey = "*._id"\n'
    found = said(keyed, "release", {"items": [{"create": {"_id": "k", "status": 201}}, {"create": {"status": 429}}]})
    assert found["results"] == "2, matched by key"
    assert found["result 0"] == "key k: created, id k"
    assert found["result 1"].startswith("key NOT TAKEN, nothing stands there: busy, goes again")


def test_lists_of_failures_counts_and_files_are_told():
    failures = '[results.failures]\nitems = "bad"\nkey = "k"\n'
    text = f'{PLAIN}[record]\nkey = "${{task.id}}"\n[results]\nitems = "ok"\n{failures}'
    found = said(text, "release", {"ok": [{"id": 1}], "bad": [{"k": "a", "error": "no"}]})
    assert (found["result 0"], found["failures"]) == ("created, id 1", "1, matched by key")
    assert found["failure 0"] == "key a: failed: no"
    count = PLAIN + '[record]\nkey = "${index}"\n[results]\nformat = "count"\nitems = "done"\n'
    assert said(count, "release", {"done": 2}) == {"count": "2"}
    assert said(count, "release", {}) == {"count": "NOT TAKEN: nothing at 'done'"}
    lines = PLAIN + '[results]\nformat = "ndjson"\nok = { success = true }\nid = []\n[record]\nkey = "${index}"\n'
    assert said(lines, "release", b'{"success": true}\n{"success": false}\n') == {
        "results": "2, matched by order",
        "result 0": "created, its key is its id",
        "result 1": "failed: the service says success is false",
    }
    rows = PLAIN + '[results]\nformat = "csv"\nid = ["Id"]\n'
    assert said(rows, "release", b"Id,error\n7,\n")["result 0"] == "created, id 7"


def test_an_answer_that_names_nobody_is_told_where_that_means_that_all_are_created():
    text = PLAIN + '[record]\nkey = "${task.id}"\n[results]\nmissing = "created"\n'
    for body in (b"", {"status": "ok"}, []):
        assert said(text, "release", body) == {"results": 'none is listed, and missing = "created": all are created'}
    assert said(text, "release", [{"id": 1}])["result 0"] == "created, id 1"


def test_results_that_are_fetched_are_read_as_the_call_says_whose_path_it_is():
    text = """
        [release]
        call = "POST /a"
        payload = true
        take = { id = "id" }
        [status]
        call = "GET /a/${id}"
        state = "state"
        finished = ["done"]
        [results]
        of = "fetch"
        format = "csv"
        id = ["Id"]
        fetch = [{ call = "GET /a/${id}/good" }, { call = "GET /a/${id}/bad?x=1", error = ["=never begun"] }]
    """
    url = f"{BASE}/a/7/bad?x=1"
    assert said(text, "results", b"Id\n\n7\n", url=url)["result 0"] == "failed: never begun"
    assert said(text, "results", b"Id\n7\n", url=f"{BASE}/a/7/good")["result 0"] == "created, id 7"
    assert said(text, "results", b"Id\n7\n", url=f"{BASE}/elsewhere")["result 0"] == "created, id 7"
    assert "results" not in said(text, "release", {"id": 7})


def test_results_of_a_status_are_told_once_it_has_ended():
    text = """
        [release]
        call = "POST /a"
        payload = true
        take = { id = "id" }
        [status]
        call = "GET /a/${id}"
        state = "state"
        created = "done"
        finished = ["done"]
        [results]
        of = "status"
        items = "items"
    """
    assert said(text, "status", {"state": "at work", "done": 0})["created"] == "0"
    assert "results" not in said(text, "status", {"state": "at work"})
    assert said(text, "status", {"state": "done", "items": [{"id": 7}]})["result 0"] == "created, id 7"
    assert said(text, "status", {"state": "done"})["created"] == "NOT TAKEN: nothing at 'done'"


def test_a_rule_that_fits_is_told_with_what_it_makes_of_the_answer():
    text = (
        '[[rules]]\nstatus = [400]\nmeans = "by_index"\nat = "bad"\n[[rules]]\nstatus = [429]\nmeans = "pause"\n'
        + PLAIN
    )
    assert said(text, "release", {"message": "no", "bad": {"1": "no title"}}, status=400) == {
        "rule 1": "by_index (status 400: no); record 1: no title"
    }
    assert said(text, "release", {}, status=429) == {"rule 2": "pause for 30 s (status 429)"}
    assert said(text, "release", {}, status=500) == {"rule": "none of [[service.rules]] fits: the status alone counts"}


def test_a_search_tells_how_many_it_lists():
    text = (
        '[release]\ncall = "POST /a"\npayload = true\nagain = "search"\n[record]\nkey = "${index}"\n'
        '[search]\ncall = "GET /a"\nmark = "tag"\nitems = "found"\nkey = "k"\n'
    )
    assert said(text, "search", {"found": [{}, {}]}) == {"items": "2 at found"}
    assert said(text, "search", {})["items"].startswith("NOT TAKEN")


@pytest.mark.parametrize("kind", ["look", "cancel", "token", "status"])
def test_of_a_call_from_which_nothing_is_taken_nothing_is_told(kind):
    assert said(PLAIN, kind, {"id": 7}) == {}


def test_the_calls_that_follow_are_made_up_with_names_for_values():
    calls = [(call.kind, call.method, call.url) for call in later_calls(read(FILES))]
    assert ("status", "GET", f"{BASE}/batches/ID") in calls
    assert [kind for kind, _, _ in calls] == sorted(
        (kind for kind, _, _ in calls), key=["status", "results", "search", "cancel"].index
    )
    assert later_calls(read(PLAIN)) == []
