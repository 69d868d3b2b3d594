import orjson
import pytest

from engine.services.sama import read_callback

FAILURE = {
    "success": False,
    "errors": [
        {
            "task_id": "5ebccdc1c49dae54721567a1",
            "type": 400,
            "message": "Invalid seeded output name(s): Bad_Output",
            "request_data": {"project_id": 1, "questions": {"x": 10}, "priority": 3},
        }
    ],
}
"""As the vendor shows it."""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (FAILURE, {"": 1}),
        ({"success": True, "tasks": [{"id": "a", "batch_id": 7}, {"id": "b", "batch_id": "7"}]}, {"7": 2}),
        ({"success": True, "tasks": [{"id": "a"}, {"id": "b"}], "batch_id": 7}, {"7": 2}),
        ({"success": True, "task": {"id": "a", "batch_id": 8}}, {"8": 1}),
        ({"tasks": [{"batch_id": 1}, {"batch_id": 2}], "errors": [{"batch_id": 1}]}, {"1": 2, "2": 1}),
        (
            {"tasks": [{"batch_id": None}, {"batch_id": True}, {"batch_id": "x" * 500}, {"batch_id": [1]}]},
            {"": 3, "True": 1},
        ),
    ],
)
def test_it_tells_of_so_many_tasks_of_batches(said, told):
    assert read_callback(orjson.dumps(said)) == told


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b"{}", b'{"tasks":{}}', b'{"tasks":[1,null]}', b"[" * 5000])
def test_what_is_no_callback_is_said_to_be_none(body):
    with pytest.raises(ValueError, match=r"not a JSON object|tells of no task"):
        read_callback(body)
