"""What services tell of created tasks: the words of each, and what they mean for those who wait, undo or try again."""

import msgspec
import pytest

from engine.model.outcome import Later
from engine.services.created import CreatedTasks, Refreshing, TaskState, Undoing
from engine.services.sama.answers import MadeTask, work_state
from engine.services.sama.service import Sama
from engine.services.sevenbridges.service import SevenBridges


def sama_task(word):
    return msgspec.convert({"id": "1", "state": word}, MadeTask)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("new", TaskState("new", untouched=True)),
        ("in progress", TaskState("in progress")),
        ("In Progress", TaskState("In Progress")),
        ("completed", TaskState("completed", later=Later.COMPLETED)),
        ("approved", TaskState("approved", later=Later.COMPLETED)),
        ("delivered", TaskState("delivered", ended=True, later=Later.COMPLETED)),
        ("acknowledged", TaskState("acknowledged", ended=True, later=Later.COMPLETED)),
        ("a word of tomorrow", TaskState("a word of tomorrow")),
    ],
)
def test_of_sama_s_tasks_those_that_were_handed_over_have_ended_and_only_new_ones_may_be_taken_back(word, state):
    assert work_state(sama_task(word)) == state


def test_work_that_people_rejected_is_under_way_again_and_never_submitted_again():
    state = work_state(sama_task("rejected"))
    assert (state.later, state.ended, state.again, state.untouched) == (Later.REJECTED, False, False, False)
    assert "goes through their hands once more" in state.reason


@pytest.mark.parametrize(("service", "by_people"), [(Sama, True), (SevenBridges, False)])
def test_both_services_tell_of_created_tasks_and_take_them_back(service, by_people):
    one = object.__new__(service)  # nothing of it depends on a configuration
    assert isinstance(one, Refreshing)
    assert isinstance(one, Undoing)
    assert one.by_people is by_people


def test_a_question_names_the_batch_and_no_more_tasks_than_it_has():
    asked = CreatedTasks("b1", 3, ["t1", "t2"])
    assert len(asked.task_ids) <= asked.records
