import json

import pytest

from engine.model.error_hints import Blame, Pause
from engine.services.described.rules import compiled_rules
from engine.services.described.settings import RuleTable

from .served import read


def judge(status, body, *rules):
    return compiled_rules(tuple(RuleTable(**rule) for rule in rules))(status, body)


def test_without_a_rule_that_fits_the_status_speaks():
    assert judge(400, b"{}") is None
    assert judge(400, b"{}", {"status": (429,), "means": "pause"}) is None
    assert judge(200, b'{"code": "X"}', {"path": "code", "means": "stop"}) is None  # an open rule is about no success


def test_a_rule_that_names_records_needs_no_path_even_of_a_success():
    table = {"means": "by_index", "status": [200], "at": "errors"}
    rule = read(f"""release = {{ call = "POST /x", payload = true }}
[[rules]]
{chr(10).join(f"{name} = {json.dumps(value)}" for name, value in table.items())}
""").rules[0]
    assert compiled_rules((rule,))(200, b'{"errors": {"1": "bad"}}').flaws == {1: "bad"}
    assert compiled_rules((rule,))(200, b'{"ids": [1, 2]}') is None


def test_the_first_rule_that_fits_counts():
    rules = [
        {"status": (403,), "path": "0.errorCode", "equals": ("LIMIT",), "means": "pause", "seconds": 900},
        {"status": (403,), "means": "unauthorized"},
    ]
    hint = judge(403, b'[{"errorCode": "LIMIT", "message": "too many"}]', *rules)
    assert isinstance(hint, Pause)
    assert (hint.seconds, hint.reason) == (900, "status 403: too many")
    assert judge(403, b"[]", *rules).blame is Blame.KEY
    assert judge(403, b"<html>", *rules).blame is Blame.KEY


@pytest.mark.parametrize(
    ("means", "blame"),
    [
        ("refused", Blame.RECORDS),
        ("unauthorized", Blame.KEY),
        ("whole", Blame.PAYLOAD),
        ("busy", Blame.NOT_NOW),
        ("stop", Blame.JOB),
        ("gone", Blame.RECORDS),
        ("exists", Blame.RECORDS),
    ],
)
def test_a_meaning_says_whose_fault_it_is(means, blame):
    hint = judge(400, b'{"error": {"message": "why\\n it is"}}', {"status": (400,), "means": means})
    assert hint.blame is blame
    assert hint.reason == "status 400: why it is"
    assert (hint.gone, hint.exists, hint.flaws) == (means == "gone", means == "exists", {})


def test_a_success_that_says_otherwise_is_none():
    rule = {"status": (200,), "path": "data.userErrors.0.message", "means": "whole", "error": ("data.userErrors",)}
    assert judge(200, b'{"data": {"userErrors": []}}', rule) is None
    assert judge(200, b'{"data": {"userErrors": [{"message": "bad"}]}}', rule).reason.startswith("status 200: [{")
    assert judge(200, b"id,name\n1,a\n", rule) is None  # a file of results


def test_words_are_found_in_any_case_of_letters():
    rule = {"path": "message", "contains": ("Batch Size",), "means": "whole"}
    assert judge(400, b'{"message": "the batch size is too large"}', rule).blame is Blame.PAYLOAD
    assert judge(400, b'{"message": "other"}', rule) is None
    assert judge(400, b'{"message": null}', rule) is None


def test_an_answer_that_is_a_text_is_searched_as_a_whole_and_has_its_own_words():
    text = b"Code: 27. DB::Exception: Cannot parse input (at row 2)\n"
    rule = {"status": (500,), "contains": ("cannot parse",), "means": "whole"}
    assert judge(500, text, rule).reason == f"status 500: {text.decode().strip()}"
    assert judge(500, b"Code: 241. Memory limit exceeded", rule) is None
    assert judge(500, b'{"detail": "Cannot parse"}', rule).reason == "status 500: Cannot parse"  # and so is JSON
    assert judge(200, text, {"contains": ("exception:",), "means": "stop"}) is None  # a rule without a status
    assert judge(200, text, {"status": (200,), "contains": ("exception:",), "means": "stop"}).blame is Blame.JOB


def test_a_page_has_no_words():
    assert judge(400, b"<html>no", {"status": (400,), "means": "whole"}).reason == "status 400"


def test_an_object_of_places_names_the_records_at_fault():
    rule = {"status": (400,), "means": "by_index", "at": "data.requests"}
    body = b'{"message": "Batch failed.", "data": {"requests": {"3": {"message": "no", "response": {}}, "0": "bad"}}}'
    hint = judge(400, body, rule)
    assert hint.flaws == {3: "no", 0: "bad"}
    assert hint.blame is Blame.RECORDS
    assert hint.reason == "status 400: Batch failed."


def test_a_list_of_errors_names_them_by_their_own_place_or_by_the_one_they_say():
    own = {"status": (422,), "means": "by_index", "at": "errors", "error": ("why",)}
    assert judge(422, b'{"errors": [null, {"why": "x"}, null, {"code": 5}]}', own).flaws == {1: "x", 3: '{"code":5}'}
    assert judge(422, b'{"errors": [{}, "bad", [], "", {"why": "x"}, {}]}', own).flaws == {1: "bad", 4: "x"}
    said = {**own, "index": "elements.0", "first_index": 1}
    assert judge(422, b'{"errors": [{"elements": [2], "why": "x"}]}', said).flaws == {1: "x"}


@pytest.mark.parametrize(
    "body", [b'{"errors": []}', b'{"errors": [null]}', b"{}", b'{"errors": {"all": "bad"}}', b'{"errors": 7}', b"x"]
)
def test_who_names_no_record_does_not_fit(body):
    rules = [{"status": (400,), "means": "by_index", "at": "errors"}, {"status": (400,), "means": "whole"}]
    assert judge(400, body, *rules).blame is Blame.PAYLOAD
