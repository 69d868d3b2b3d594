import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batch.reference import reference_bytes, with_reference
from engine.model.batch import ClientReference

MARK = ClientReference("data", "client_batch_id", 'job "a"-1f-7.1')
MEMBER = orjson.dumps({"client_batch_id": MARK.value})[1:-1]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (b'{"data":{"a":1}}', b'{"data":{%b,"a":1}}'),
        (b' { "data" : { "a":1 } , "priority":2}', b' { "data" : {%b, "a":1 } , "priority":2}'),
        (b'{"data":{}}', b'{"data":{%b}}'),
        (b'{"data":{ }}', b'{"data":{%b }}'),
        (b'{"priority":1,"data":{"a":1.0E+2}}', b'{"priority":1,"data":{%b,"a":1.0E+2}}'),
        (b'{"priority":1,"data":{}}', b'{"priority":1,"data":{%b}}'),
        (b'{"data":{"n":123456789012345678901234567890}}', b'{"data":{%b,"n":123456789012345678901234567890}}'),
        (b'{"data":{"a":"client_batch_id"}}', b'{"data":{%b,"a":"client_batch_id"}}'),
    ],
)
def test_a_task_gets_the_mark_and_keeps_its_text(task, expected):
    assert with_reference([task], MARK) == [expected.replace(b"%b", MEMBER)]


@pytest.mark.parametrize(
    "task",
    [b'{"data":{"client_batch_id":"mine"}}', b'{"priority":1,"data":{"a":1,"client_batch_id":null}}'],
)
def test_a_task_keeps_a_mark_of_its_own(task):
    assert with_reference([task], MARK) == [task]


def test_without_a_mark_nothing_changes():
    tasks = [b'{"data":{}}']
    assert with_reference(tasks, None) is tasks
    assert reference_bytes(None) == 0


@given(st.dictionaries(st.text(), st.none() | st.integers(0, 9) | st.text()), st.booleans(), st.booleans())
def test_a_marked_task_is_the_task_with_one_more_input_and_no_longer_than_told(data, priority, indented):
    task = {"priority": 1, "data": data} if priority else {"data": data}
    text = orjson.dumps(task, option=orjson.OPT_INDENT_2 if indented else 0)
    (done,) = with_reference([text], MARK)
    assert orjson.loads(done) == {**task, "data": {**data, "client_batch_id": MARK.value}}
    assert len(done) <= len(text) + reference_bytes(MARK)
