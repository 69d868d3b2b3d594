"""The rule that the engine followed before, and the six stories that it told: by them the explorer shows its worth."""

from __future__ import annotations

from dataclasses import dataclass

from engine.model.doubt import Again, Declined, RemoteStatus
from engine.model.next_step import Action, NextStep
from engine.model.submission import State

from .worlds import Manner


def old_rule(doubt, settle_seconds):
    """Return what was done before: one early *waiting* was proof, and a refused repeat refused the records."""
    del settle_seconds
    return NextStep(_old_action(doubt), "the old rule")


def _old_action(doubt):
    if doubt.state is State.STAGING:
        return _staged_before(doubt)
    if doubt.again in {Again.SEARCH, Again.NEVER} and not doubt.named:
        return Action.PARK
    match doubt.remote_status:
        case RemoteStatus.SILENT:
            return Action.ASK
        case RemoteStatus.STARTED | RemoteStatus.ENDED:
            return Action.FOLLOW
        case RemoteStatus.NOT_THERE:
            return Action.PARK
    return Action.RELEASE_AGAIN if doubt.declined is Declined.NO else Action.FAIL


def _staged_before(doubt):
    if doubt.again is Again.SAFE:
        return Action.STAGE
    if doubt.remote_status is RemoteStatus.WAITING:
        return Action.ADOPT
    return Action.STAGE if doubt.remote_status is RemoteStatus.NOT_THERE else Action.ASK


@dataclass(frozen=True)
class Story:
    """What happened once, and by which words the explorer tells of it."""

    name: str
    manner: Manner
    ends: str
    ends_waiting: bool = True


TWICE = "CREATED TWICE"
FAILED = "IS CALLED FAILED"

STORIES = [
    Story("a status behind, a refused repeat, a cancel that is accepted", Manner(Again.ASK, lag=4), FAILED),
    Story("a status behind, and a repeat that is obeyed", Manner(Again.ASK, lag=3, repeat="obey"), TWICE),
    Story("done late, and meanwhile everything is refused", Manner(Again.ASK, busy=True, cancel="refuse"), FAILED),
    Story("done late, and each further release is obeyed", Manner(Again.ASK, repeat="obey"), TWICE),
    Story("a second run refused with 7010, a GET behind", Manner(Again.REFUSED, Again.SEARCH, lag=3), FAILED),
    Story("answered 202, and nothing done", Manner(Again.ASK), "IT NEVER ENDS", ends_waiting=False),
]
