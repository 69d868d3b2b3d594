"""The table of steps: every row counts somewhere, and what it says of a batch in each state."""

from dataclasses import replace
from itertools import product

import pytest

from engine.model.doubt import MOST_SILENT, MOST_TELLS, Again, Cancel, Declined, Doubt, Standing, Wish
from engine.model.next_step import TABLE, Action, StepRow, next_step
from engine.model.submission import State

QUIET_SECONDS = 120.0
YES_OR_NO = (False, True)


def doubt(state, again=Again.ASK, *, quiet=False, **known):
    """Return what is known of a batch; `quiet`: the newest reading was made at the end of the quiet time."""
    return Doubt(state, again, since=0.0, asked_at=QUIET_SECONDS if quiet else 1.0, **known)


def step(*args, **known):
    return next_step(doubt(*args, **known), QUIET_SECONDS)


# The table as a whole


def cases_of(row):
    """Yield everything that may be known where a row's columns hold, those that it leaves out being anything."""
    words = product(
        row.state or State,
        row.again or Again,
        row.standing or Standing,
        row.declined or Declined,
        row.cancel or Cancel,
        row.wish or Wish,
    )
    flags = [
        YES_OR_NO if wanted is None else (wanted,)
        for wanted in (row.quiet, row.lost, row.named, row.told_out, row.silent_out)
    ]
    for state, again, standing, declined, cancel, wish in words:
        for quiet, lost, named, told_out, silent_out in product(*flags):
            if quiet and standing is Standing.SILENT:  # a reading that was none
                continue
            tells, silent = MOST_TELLS * told_out, MOST_SILENT * silent_out
            more = {"lost": lost, "named": named, "tells": tells, "silent": silent, "cancel": cancel, "wish": wish}
            yield doubt(state, again, quiet=quiet, standing=standing, declined=declined, **more)


def first_that_fits(known):
    return next(row for row in TABLE if row.fits(known, quiet=known.is_quiet(QUIET_SECONDS)))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.action.name}: {row.reason}")
def test_each_row_counts_for_something_that_no_row_before_it_fits(row):
    assert any(first_that_fits(known) is row for known in cases_of(row))


def test_the_last_row_fits_always():
    assert TABLE[-1] == StepRow(Action.ASK, TABLE[-1].reason)


def test_a_step_is_that_of_the_first_row_that_fits_with_its_reason():
    known = doubt(State.RELEASING, standing=Standing.WAITING, quiet=True)
    row = first_that_fits(known)
    assert step(State.RELEASING, standing=Standing.WAITING, quiet=True) == next_step(known, QUIET_SECONDS)
    assert (next_step(known, QUIET_SECONDS).action, next_step(known, QUIET_SECONDS).reason) == (row.action, row.reason)


def test_what_was_accepted_is_told_again_by_a_person_only():
    tells = [row for row in TABLE if row.action is Action.TELL and State.RELEASED in row.state]
    assert [row.wish for row in tells] == [(Wish.SEND_AGAIN,)]


def test_nothing_that_may_have_arrived_is_declined_before_the_quiet_time_is_over():
    """But where it was canceled while it was staged: what is staged creates nothing."""
    for row in TABLE:
        if row.action is Action.DECLINE and {State.RELEASING, State.UNCERTAIN} & set(row.state):
            assert row.quiet or row.lost is False


# When a reading proves something


def test_a_reading_counts_from_when_its_question_was_sent():
    known = doubt(State.RELEASING)
    assert not known.heard(Standing.WAITING, QUIET_SECONDS - 0.1).is_quiet(QUIET_SECONDS)
    assert known.heard(Standing.WAITING, QUIET_SECONDS).is_quiet(QUIET_SECONDS)


def test_no_reading_is_no_proof_however_much_time_has_passed():
    assert not doubt(State.RELEASING, quiet=True).is_quiet(QUIET_SECONDS)


def test_an_answer_without_sense_leaves_what_was_said_before_and_counts():
    known = doubt(State.RELEASING).heard(Standing.WAITING, 50.0).heard(Standing.SILENT, 60.0)
    assert (known.standing, known.asked_at, known.silent) == (Standing.WAITING, 50.0, 1)
    assert known.heard(Standing.WAITING, 70.0).silent == 0


@pytest.mark.parametrize("declined", Declined)
def test_after_it_was_told_again_the_quiet_time_begins_anew(declined):
    known = doubt(State.RELEASING, standing=Standing.WAITING, quiet=True).told(200.0, declined)
    assert (known.since, known.standing, known.tells, known.declined) == (200.0, Standing.SILENT, 1, declined)
    assert not known.heard(Standing.WAITING, 200.0 + QUIET_SECONDS - 1).is_quiet(QUIET_SECONDS)


def test_a_refused_repeat_does_not_undo_that_an_earlier_one_was_lost():
    lost, refused = doubt(State.RELEASING), doubt(State.RELEASING, lost=False)
    assert lost.told(1.0, Declined.REFUSED).lost
    assert not refused.told(1.0, Declined.REFUSED).lost
    assert refused.told(1.0, Declined.NO).lost


def test_after_a_cancel_the_quiet_time_begins_anew():
    known = doubt(State.RELEASING, standing=Standing.WAITING, quiet=True).canceled(200.0, Cancel.CONFIRMED)
    assert (known.since, known.standing, known.cancel) == (200.0, Standing.SILENT, Cancel.CONFIRMED)


# Staging


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({"again": Again.SAFE}, Action.STAGE),
        ({"again": Again.SAFE, "wish": Wish.CANCEL}, Action.DECLINE),
        ({"again": Again.SAFE, "declined": Declined.REFUSED}, Action.DECLINE),
        ({}, Action.ASK),
        ({"standing": Standing.UNKNOWN}, Action.ASK),
        ({"standing": Standing.UNKNOWN, "quiet": True}, Action.STAGE),
        ({"standing": Standing.WAITING}, Action.ADOPT),
        ({"standing": Standing.WAITING, "wish": Wish.CANCEL}, Action.CANCEL),
        ({"standing": Standing.WAITING, "declined": Declined.REFUSED}, Action.CANCEL),
        ({"cancel": Cancel.CONFIRMED}, Action.DECLINE),
        ({"cancel": Cancel.DECLINED}, Action.PARK),
        ({"declined": Declined.REFUSED, "lost": False}, Action.DECLINE),
        ({"declined": Declined.REFUSED, "standing": Standing.UNKNOWN}, Action.ASK),
        ({"declined": Declined.REFUSED, "standing": Standing.UNKNOWN, "quiet": True}, Action.DECLINE),
        ({"wish": Wish.CANCEL, "standing": Standing.UNKNOWN}, Action.ASK),
        ({"wish": Wish.CANCEL, "standing": Standing.UNKNOWN, "quiet": True}, Action.DECLINE),
        ({"tells": MOST_TELLS}, Action.STOP),
        ({"silent": MOST_SILENT}, Action.STOP),
    ],
)
def test_what_was_staged_without_an_answer(known, action):
    assert step(State.STAGING, **{"again": Again.SEARCH, "named": False, **known}).action is action


# Releasing


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({}, Action.ASK),
        ({"standing": Standing.WAITING}, Action.ASK),
        ({"standing": Standing.WAITING, "quiet": True}, Action.TELL),
        ({"standing": Standing.STARTED}, Action.FOLLOW),
        ({"standing": Standing.ENDED}, Action.FOLLOW),
        ({"standing": Standing.UNKNOWN}, Action.ASK),
        ({"standing": Standing.UNKNOWN, "quiet": True}, Action.PARK),
        ({"again": Again.REFUSED}, Action.TELL),
        ({"again": Again.SEARCH, "named": False}, Action.PARK),
        ({"again": Again.NEVER, "named": False}, Action.PARK),
        ({"again": Again.NEVER, "named": False, "declined": Declined.REFUSED, "lost": False}, Action.DECLINE),
        ({"tells": MOST_TELLS}, Action.STOP),
        ({"silent": MOST_SILENT}, Action.STOP),
    ],
)
def test_a_release_without_an_answer(known, action):
    assert step(State.RELEASING, **known).action is action


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({"declined": Declined.RELEASED_BEFORE}, Action.FOLLOW),
        ({"declined": Declined.RELEASED_BEFORE, "standing": Standing.WAITING, "quiet": True}, Action.FOLLOW),
        ({"declined": Declined.REFUSED}, Action.ASK),
        ({"declined": Declined.REFUSED, "standing": Standing.WAITING}, Action.ASK),
        ({"declined": Declined.REFUSED, "standing": Standing.WAITING, "lost": False}, Action.DECLINE),
        ({"declined": Declined.REFUSED, "standing": Standing.WAITING, "quiet": True}, Action.CANCEL),
        ({"declined": Declined.REFUSED, "standing": Standing.STARTED}, Action.FOLLOW),
        ({"declined": Declined.UNKNOWN, "again": Again.REFUSED}, Action.ASK),
        ({"declined": Declined.UNKNOWN, "again": Again.REFUSED, "standing": Standing.UNKNOWN}, Action.ASK),
        ({"declined": Declined.UNKNOWN, "again": Again.REFUSED, "standing": Standing.WAITING}, Action.TELL),
        ({"declined": Declined.UNKNOWN, "standing": Standing.WAITING}, Action.ASK),
        ({"declined": Declined.UNKNOWN, "standing": Standing.WAITING, "quiet": True}, Action.TELL),
        ({"declined": Declined.UNKNOWN, "standing": Standing.UNKNOWN, "quiet": True}, Action.PARK),
        ({"declined": Declined.UNKNOWN, "standing": Standing.STARTED}, Action.FOLLOW),
        ({"declined": Declined.UNKNOWN, "tells": MOST_TELLS}, Action.STOP),
    ],
)
def test_a_release_that_was_refused(known, action):
    assert step(State.RELEASING, **known).action is action


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({"wish": Wish.CANCEL}, Action.CANCEL),
        ({"wish": Wish.CANCEL, "standing": Standing.STARTED}, Action.FOLLOW),
        ({"cancel": Cancel.CONFIRMED}, Action.ASK),
        ({"cancel": Cancel.CONFIRMED, "standing": Standing.WAITING}, Action.ASK),
        ({"cancel": Cancel.CONFIRMED, "standing": Standing.WAITING, "quiet": True}, Action.DECLINE),
        ({"cancel": Cancel.CONFIRMED, "standing": Standing.UNKNOWN, "quiet": True}, Action.DECLINE),
        ({"cancel": Cancel.CONFIRMED, "standing": Standing.ENDED, "quiet": True}, Action.DECLINE),
        ({"cancel": Cancel.CONFIRMED, "standing": Standing.STARTED, "quiet": True}, Action.FOLLOW),
        ({"cancel": Cancel.DECLINED, "standing": Standing.WAITING}, Action.ASK),
        ({"cancel": Cancel.DECLINED, "standing": Standing.WAITING, "quiet": True}, Action.PARK),
        ({"cancel": Cancel.DECLINED, "standing": Standing.STARTED}, Action.FOLLOW),
    ],
)
def test_a_release_that_was_to_be_undone(known, action):
    assert step(State.RELEASING, **known).action is action


# Uncertain


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({}, Action.ASK),
        ({"standing": Standing.STARTED}, Action.FOLLOW),
        ({"standing": Standing.ENDED}, Action.FOLLOW),
        ({"standing": Standing.WAITING, "quiet": True}, Action.PARK),
        ({"standing": Standing.UNKNOWN}, Action.PARK),
        ({"standing": Standing.WAITING, "wish": Wish.SEND_AGAIN}, Action.TELL),
        ({"standing": Standing.UNKNOWN, "wish": Wish.SEND_AGAIN}, Action.SEND),
        ({"silent": MOST_SILENT}, Action.PARK),
    ],
)
def test_an_uncertain_batch_that_has_a_name(known, action):
    assert step(State.UNCERTAIN, **known).action is action


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({"again": Again.NEVER}, Action.PARK),
        ({"again": Again.NEVER, "wish": Wish.SEND_AGAIN}, Action.SEND),
        ({}, Action.ASK),
        ({"standing": Standing.UNKNOWN}, Action.ASK),
        ({"standing": Standing.UNKNOWN, "quiet": True}, Action.SEND),
        ({"standing": Standing.UNKNOWN, "quiet": True, "wish": Wish.CANCEL}, Action.DECLINE),
        ({"standing": Standing.STARTED}, Action.FOLLOW),
        ({"wish": Wish.SEND_AGAIN}, Action.SEND),
    ],
)
def test_an_uncertain_batch_that_has_none(known, action):
    assert step(State.UNCERTAIN, **{"again": Again.SEARCH, "named": False, **known}).action is action


# Released, and what a canceled job holds


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({}, Action.ASK),
        ({"standing": Standing.WAITING, "quiet": True}, Action.FOLLOW),
        ({"standing": Standing.STARTED, "quiet": True}, Action.FOLLOW),
        ({"standing": Standing.UNKNOWN}, Action.ASK),
        ({"standing": Standing.UNKNOWN, "quiet": True}, Action.PARK),
        ({"silent": MOST_SILENT - 1}, Action.ASK),
        ({"silent": MOST_SILENT}, Action.PARK),
        ({"standing": Standing.WAITING, "wish": Wish.SEND_AGAIN}, Action.TELL),
        ({"standing": Standing.STARTED, "wish": Wish.SEND_AGAIN}, Action.FOLLOW),
        ({"wish": Wish.CANCEL}, Action.CANCEL),
        ({"wish": Wish.CANCEL, "cancel": Cancel.CONFIRMED}, Action.FOLLOW),
        ({"wish": Wish.CANCEL, "cancel": Cancel.DECLINED}, Action.FOLLOW),
    ],
)
def test_a_batch_that_the_service_has_accepted(known, action):
    assert step(State.RELEASED, **known).action is action


def test_a_canceled_job_sends_nothing_and_leaves_nothing_staged():
    assert step(State.FROZEN, wish=Wish.CANCEL).action is Action.DECLINE
    staged = doubt(State.STAGED, wish=Wish.CANCEL)
    assert next_step(staged, QUIET_SECONDS).action is Action.CANCEL
    for cancel in (Cancel.CONFIRMED, Cancel.DECLINED):
        assert next_step(replace(staged, cancel=cancel), QUIET_SECONDS).action is Action.DECLINE
