"""Errors that were raised in another process."""

import pickle

import pytest

from engine.model.errors import Interrupted, ReaderLost, SourceChanged, Unavailable


@pytest.mark.parametrize(
    "error", [SourceChanged("tasks.ndjson ends"), ReaderLost(), Unavailable("down", call="stage"), Interrupted(15)]
)
def test_an_error_is_the_same_in_another_process(error):
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert again.exit_status == error.exit_status
