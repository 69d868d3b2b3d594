import orjson
import pytest

from engine.sandbox.behaviour import BehaviourError, FailureRule, Project
from engine.sandbox.sama.rules import NotCreated, TaskRules

RULES = TaskRules(None, ())


@pytest.mark.parametrize(
    "task",
    [
        {"data": {}},
        {"data": {"a": 1}, "priority": -(2**31)},
        {"data": {}, "priority": 2**31 - 1, "reserve_for": "63d842aa26571a7ea08dff43"},
        {"data": {}, "submit": True, "duration": 12},
        {"data": {}, "submit": False, "priority": None, "reserve_for": None, "duration": None},
    ],
)
def test_what_the_vendor_allows(task):
    assert RULES.failures(task) == ()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("text", "A task must be an object."),
        ({}, "data must be an object."),
        ({"data": []}, "data must be an object."),
        ({"data": {}, "prio": 1}, "Unknown field: prio."),
        ({"data": {}, "priority": 2**31}, "priority must be a whole number from -2147483648 to 2147483647."),
        ({"data": {}, "priority": True}, "priority must be a whole number from -2147483648 to 2147483647."),
        ({"data": {}, "priority": 1.5}, "priority must be a whole number from -2147483648 to 2147483647."),
        ({"data": {}, "reserve_for": {}}, "reserve_for must be the id of an agent."),
        ({"data": {}, "submit": "true"}, "submit must be true or false."),
        ({"data": {}, "duration": 5}, "duration is only allowed with submit."),
        ({"data": {}, "submit": False, "duration": 5}, "duration is only allowed with submit."),
        ({"data": {}, "submit": True, "duration": "5"}, "duration must be a number of seconds."),
    ],
)
def test_what_the_vendor_refuses(task, message):
    assert RULES.failures(task) == (NotCreated("InvalidInputSchema", message),)


def test_every_wrong_field_is_named():
    assert len(RULES.failures({"data": 1, "priority": "x", "submit": 1})) == 3


def test_a_project_has_a_schema(tmp_path):
    path = tmp_path / "schema.json"
    path.write_bytes(
        orjson.dumps({"properties": {"data": {"required": ["sku"], "properties": {"n": {"type": "integer"}}}}})
    )
    rules = TaskRules(Project(1, path), ())
    assert rules.failures({"data": {"sku": "a", "n": 1}, "priority": None}) == ()
    assert rules.failures({"data": {"sku": "a", "n": "1"}})[0].message == '$.data.n: "1" is not of type "integer"'
    assert rules.failures({"data": {}})[0].type == "InvalidInputSchema"


@pytest.mark.parametrize("text", [None, "{", '{"type": "nonsense"}'])
def test_an_unusable_schema_is_refused(tmp_path, text):
    path = tmp_path / "schema.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BehaviourError, match=r"the schema .*schema\.json cannot be used"):
        TaskRules(Project(1, path), ())


def test_tasks_fail_by_value():
    rules = TaskRules(None, [FailureRule("data.name", equals="b", type="Gone", message="b is gone")])
    assert rules.failures({"data": {"name": "a"}}) == ()
    assert rules.failures({"data": {"name": "b"}}) == (NotCreated("Gone", "b is gone"),)


def test_tasks_fail_by_pattern():
    rules = TaskRules(None, [FailureRule("data.name", matches="^bad-")])
    assert [bool(rules.failures({"data": {"name": name}})) for name in ("bad-1", "not-bad-", 5)] == [True, False, False]


def test_a_pattern_must_be_one():
    with pytest.raises(ValueError, match="is no regular expression"):
        FailureRule("data.name", matches="(")


def _failing(seed, numbers):
    rules = TaskRules(None, [FailureRule(share=0.1, seed=seed)])
    return {number for number in numbers if rules.failures({"data": {"id": number}})}


def test_a_share_fails_whatever_the_order():
    failing = _failing(1, range(2000))
    assert 140 < len(failing) < 260
    assert _failing(1, reversed(range(2000))) == failing
    assert _failing(2, range(2000)) != failing


def test_a_share_of_those_that_match():
    rules = TaskRules(None, [FailureRule("data.kind", equals="x", share=0.5)])
    failed = sum(bool(rules.failures({"data": {"kind": "x", "n": n}})) for n in range(200))
    assert 60 < failed < 140
    assert not any(rules.failures({"data": {"kind": "y", "n": n}}) for n in range(200))
