import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.payload import NO_TASKS, Payload, array_of

TASKS = st.lists(st.binary(min_size=2, max_size=9), max_size=5)


@given(TASKS)
def test_the_tasks_are_cut_out_of_the_array_as_they_went_in(tasks):
    payload = Payload.of(tasks)
    assert payload.array == b"[" + b",".join(tasks) + b"]"
    assert payload.tasks == tasks
    assert (list(payload.lengths), list(payload.indexes)) == ([len(task) for task in tasks], list(range(len(tasks))))


def test_the_array_is_what_is_proven():
    assert hashlib.sha256(Payload.of([b"{}", b"{}"], [4, 7]).array).digest() == hashlib.sha256(b"[{},{}]").digest()


def test_each_record_keeps_its_index_in_the_whole_input():
    assert Payload.of([b"{}", b"{}"], [4, 7]).indexes == [4, 7]
    with pytest.raises(ValueError, match="2 tasks and 1 indexes"):
        Payload.of([b"{}", b"{}"], [4])


def test_what_is_in_it_is_not_shown():
    assert repr(Payload.of([b'{"name":"Ann"}', b"{}"])) == "Payload(2 tasks, 19 bytes)"


def test_of_no_task_there_is_an_empty_array():
    assert (NO_TASKS.array, NO_TASKS.tasks, list(NO_TASKS.indexes)) == (b"[]", [], [])
    assert array_of([]) == b"[]"
