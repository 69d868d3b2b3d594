import pytest

from .scripted import service


@pytest.mark.parametrize(
    "task",
    [
        {"data": {}},
        {"data": {"name": "x"}, "priority": 0},
        {"data": {}, "priority": 2**31 - 1},
        {"data": {}, "priority": -(2**31)},
        {"data": {}, "reserve_for": "agent-7"},
        {"data": {}, "reserve_for": 7},
        {"data": {}, "submit": True},
        {"data": {}, "submit": False},
        {"data": {}, "submit": True, "duration": 0},
        {"data": {}, "submit": True, "duration": 12.5},
    ],
)
def test_a_task_that_sama_takes_passes(task):
    assert service().check(task) is None


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ({}, 'data: missing; a task is {"data": {…}} (mapping.wrap = "data" wraps plain rows)'),
        ({"data": None}, "data: must be an object of inputs"),
        ({"data": []}, "data: must be an object of inputs"),
        ({"data": "x"}, "data: must be an object of inputs"),
        ({"data": {}, "priority": 2**31}, "priority: 2147483648 is not an integer from -2147483648 to 2147483647"),
        ({"data": {}, "priority": -(2**31) - 1}, "priority: -2147483649 is not"),
        ({"data": {}, "priority": True}, "priority: true is not an integer"),
        ({"data": {}, "priority": 1.0}, "priority: 1.0 is not an integer"),
        ({"data": {}, "priority": "1"}, 'priority: "1" is not an integer'),
        ({"data": {}, "priority": None}, "priority: null is not an integer"),
        ({"data": {}, "reserve_for": True}, "reserve_for: true is not the id of an agent"),
        ({"data": {}, "reserve_for": []}, "reserve_for: [] is not the id of an agent"),
        ({"data": {}, "submit": 1}, "submit: 1 is neither true nor false"),
        ({"data": {}, "submit": "true"}, 'submit: "true" is neither true nor false'),
        ({"data": {}, "duration": 5}, "duration: only goes with submit = true"),
        ({"data": {}, "submit": False, "duration": 5}, "duration: only goes with submit = true"),
        ({"data": {}, "submit": True, "duration": -1}, "duration: -1 is not a number of seconds"),
        ({"data": {}, "submit": True, "duration": True}, "duration: true is not a number of seconds"),
        ({"data": {}, "submit": True, "duration": "5"}, 'duration: "5" is not a number of seconds'),
        ({"data": {}, "priorty": 1}, "priorty: not a key of a task; did you mean 'priority'?"),
        ({"name": "x"}, 'name: not a key of a task; inputs belong under "data" (mapping.wrap = "data" does it)'),
    ],
)
def test_a_task_that_sama_would_not_take_is_told_with_its_field(task, reason):
    assert service().check(task).startswith(reason)
