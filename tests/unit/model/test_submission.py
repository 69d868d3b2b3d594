"""The table of transitions: complete, and such that nothing is sent before its intent is durable."""

import re

import pytest

from engine.model import submission
from engine.model.submission import TRANSITIONS, UNSENT, State


def reachable(start, *, without=frozenset()):
    """States that steps lead to from `start`, none of them through `without`."""
    found, open_ = set(), [start]
    while open_:
        for state in TRANSITIONS[open_.pop()] - found - without:
            found.add(state)
            open_.append(state)
    return found


def test_every_state_is_in_the_table():
    assert set(TRANSITIONS) == set(State)
    assert set().union(*TRANSITIONS.values()) == set(State)


LAST = {State.SETTLED, State.SPLIT}
"""A batch ends in one of them; the parts that stand for one that is split begin anew."""


@pytest.mark.parametrize("state", sorted(LAST))
def test_nothing_leaves_the_end(state):
    assert TRANSITIONS[state] == frozenset()


@pytest.mark.parametrize("state", [state for state in State if state not in LAST])
def test_everything_can_be_settled(state):
    assert State.SETTLED in TRANSITIONS[state]


def test_every_state_is_reached_from_frozen():
    assert reachable(State.FROZEN) == set(State)


def test_nothing_is_released_without_a_durable_intent():
    assert State.RELEASED not in reachable(State.FROZEN, without={State.RELEASING, State.UNCERTAIN})


def test_only_a_batch_of_which_a_call_may_have_arrived_becomes_uncertain():
    before = {state for state in State if State.UNCERTAIN in TRANSITIONS[state]}
    halves = {State.FROZEN}  # of such a batch
    assert before == {State.STAGING, State.RELEASING, State.RELEASED} | halves


def test_what_is_released_is_never_staged_or_frozen_from_there():
    """That it is released again is for a person to say, which the table of steps sees to."""
    assert TRANSITIONS[State.RELEASED] == {State.SETTLED, State.UNCERTAIN, State.RELEASING}


def test_what_may_have_been_taken_is_not_halved():
    assert not [state for state in (State.RELEASED, State.UNCERTAIN) if State.SPLIT in TRANSITIONS[state]]


def test_what_is_uncertain_is_not_staged_anew_unless_it_is_frozen_again():
    assert not TRANSITIONS[State.UNCERTAIN] & {State.STAGING, State.STAGED}


def test_an_intent_may_be_repeated_and_a_result_may_not():
    for state in State:
        if state not in LAST:
            assert (state in TRANSITIONS[state]) == state.value.endswith("ing")


def test_the_uploader_goes_on_from_every_state_that_is_not_sent():
    assert set(State) - {State.RELEASED, State.UNCERTAIN} - LAST == UNSENT


def test_the_picture_names_every_state():
    picture = submission.__doc__
    assert set(re.findall(r"[A-Z]{5,}", picture)) >= {state.name for state in State}
