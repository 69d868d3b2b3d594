"""The table of steps: every row counts somewhere, and what it says of a batch in each state."""

from itertools import product

import pytest
from msgspec.structs import replace

from engine.model.doubt import MOST_REPEATS, MOST_SILENT, REPEATABLE, Again, Cancel, Declined, Doubt, RemoteStatus, Wish
from engine.model.next_step import STEP_TABLE, Action, StepRow, next_step
from engine.model.submission import State

SETTLE_SECONDS = 120.0
YES_OR_NO = (False, True)


def doubt(state, again=Again.ASK, *, past_settle_time=False, **known):
    """Return what is known of a batch; `past_settle_time`: the newest reading was made at its end."""
    return Doubt(state, again, since=0.0, asked_at=SETTLE_SECONDS if past_settle_time else 1.0, **known)


def step(*args, **known):
    return next_step(doubt(*args, **known), SETTLE_SECONDS)


# The table as a whole


def cases_of(row):
    """Yield everything that may be known where a row's columns hold, those that it leaves out being anything."""
    words = product(
        row.state or State,
        row.again or Again,
        row.remote_status or RemoteStatus,
        row.declined or Declined,
        row.cancel or Cancel,
        row.wish or Wish,
    )
    flags = [
        YES_OR_NO if wanted is None else (wanted,)
        for wanted in (
            row.past_settle_time,
            row.lost,
            row.named,
            row.out_of_repeats,
            row.out_of_questions,
            row.expired,
        )
    ]
    for state, again, remote_status, declined, cancel, wish in words:
        for past_settle_time, lost, named, out_of_repeats, out_of_questions, expired in product(*flags):
            if past_settle_time and remote_status is RemoteStatus.SILENT:  # a reading that was none
                continue
            repeats, silent = MOST_REPEATS * out_of_repeats, MOST_SILENT * out_of_questions
            more = {"lost": lost, "named": named, "repeats": repeats, "silent": silent, "cancel": cancel, "wish": wish}
            more["expired"] = expired
            yield doubt(
                state, again, past_settle_time=past_settle_time, remote_status=remote_status, declined=declined, **more
            )


def first_that_fits(known):
    return next(
        row for row in STEP_TABLE if row.fits(known, past_settle_time=known.is_past_settle_time(SETTLE_SECONDS))
    )


@pytest.mark.parametrize("row", STEP_TABLE, ids=lambda row: f"{row.action.name}: {row.reason}")
def test_each_row_counts_for_something_that_no_row_before_it_fits(row):
    assert any(first_that_fits(known) is row for known in cases_of(row))


def test_the_last_row_fits_always():
    assert STEP_TABLE[-1] == StepRow(Action.ASK, STEP_TABLE[-1].reason)


def test_a_step_is_that_of_the_first_row_that_fits_with_its_reason():
    known = doubt(State.RELEASING, remote_status=RemoteStatus.WAITING, past_settle_time=True)
    row = first_that_fits(known)
    assert step(State.RELEASING, remote_status=RemoteStatus.WAITING, past_settle_time=True) == next_step(
        known, SETTLE_SECONDS
    )
    assert (next_step(known, SETTLE_SECONDS).action, next_step(known, SETTLE_SECONDS).reason) == (
        row.action,
        row.reason,
    )


def test_what_was_accepted_is_told_again_by_a_person_only():
    repeats = [row for row in STEP_TABLE if row.action is Action.RELEASE_AGAIN and State.RELEASED in row.state]
    assert [row.wish for row in repeats] == [(Wish.SEND_AGAIN,)]


def test_nothing_that_may_have_arrived_is_declined_before_the_settle_time_is_over():
    """But where it was canceled while it was staged: what is staged creates nothing."""
    for row in STEP_TABLE:
        if row.action is Action.FAIL and {State.RELEASING, State.UNCERTAIN} & set(row.state):
            repeatable = row.again and set(row.again) <= REPEATABLE  # the refusal is one of what was lost, too
            assert row.past_settle_time or row.lost is False or repeatable


# When a reading proves something


def test_a_reading_counts_from_when_its_question_was_sent():
    known = doubt(State.RELEASING)
    assert not known.with_answer(RemoteStatus.WAITING, SETTLE_SECONDS - 0.1).is_past_settle_time(SETTLE_SECONDS)
    assert known.with_answer(RemoteStatus.WAITING, SETTLE_SECONDS).is_past_settle_time(SETTLE_SECONDS)


def test_no_reading_is_no_proof_however_much_time_has_passed():
    assert not doubt(State.RELEASING, past_settle_time=True).is_past_settle_time(SETTLE_SECONDS)


def test_an_answer_without_sense_leaves_what_was_said_before_and_counts():
    known = doubt(State.RELEASING).with_answer(RemoteStatus.WAITING, 50.0).with_answer(RemoteStatus.SILENT, 60.0)
    assert (known.remote_status, known.asked_at, known.silent) == (RemoteStatus.WAITING, 50.0, 1)
    assert known.with_answer(RemoteStatus.WAITING, 70.0).silent == 0


@pytest.mark.parametrize("declined", Declined)
def test_after_it_was_told_again_the_settle_time_begins_anew(declined):
    known = doubt(State.RELEASING, remote_status=RemoteStatus.WAITING, past_settle_time=True).with_repeat(
        200.0, declined
    )
    assert (known.since, known.remote_status, known.repeats, known.declined) == (
        200.0,
        RemoteStatus.SILENT,
        1,
        declined,
    )
    assert not known.with_answer(RemoteStatus.WAITING, 200.0 + SETTLE_SECONDS - 1).is_past_settle_time(SETTLE_SECONDS)


def test_a_refused_repeat_does_not_undo_that_an_earlier_one_was_lost():
    lost, refused = doubt(State.RELEASING), doubt(State.RELEASING, lost=False)
    assert lost.with_repeat(1.0, Declined.REFUSED).lost
    assert not refused.with_repeat(1.0, Declined.REFUSED).lost
    assert refused.with_repeat(1.0, Declined.NO).lost


def test_after_a_cancel_the_settle_time_begins_anew():
    known = doubt(State.RELEASING, remote_status=RemoteStatus.WAITING, past_settle_time=True).with_cancel(
        200.0, Cancel.CONFIRMED
    )
    assert (known.since, known.remote_status, known.cancel) == (200.0, RemoteStatus.SILENT, Cancel.CONFIRMED)


# Staging


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({"again": Again.SAFE}, Action.STAGE),
        ({"again": Again.SAFE, "wish": Wish.CANCEL}, Action.FAIL),
        ({"again": Again.SAFE, "declined": Declined.REFUSED}, Action.FAIL),
        ({}, Action.ASK),
        ({"remote_status": RemoteStatus.NOT_THERE}, Action.ASK),
        ({"remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True}, Action.STAGE),
        ({"remote_status": RemoteStatus.WAITING}, Action.ADOPT),
        ({"remote_status": RemoteStatus.WAITING, "wish": Wish.CANCEL}, Action.CANCEL),
        ({"remote_status": RemoteStatus.WAITING, "declined": Declined.REFUSED}, Action.CANCEL),
        ({"cancel": Cancel.CONFIRMED}, Action.FAIL),
        ({"cancel": Cancel.DECLINED}, Action.PARK),
        ({"declined": Declined.REFUSED, "lost": False}, Action.FAIL),
        ({"declined": Declined.REFUSED, "remote_status": RemoteStatus.NOT_THERE}, Action.ASK),
        (
            {"declined": Declined.REFUSED, "remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True},
            Action.FAIL,
        ),
        ({"wish": Wish.CANCEL, "remote_status": RemoteStatus.NOT_THERE}, Action.ASK),
        ({"wish": Wish.CANCEL, "remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True}, Action.FAIL),
        ({"repeats": MOST_REPEATS}, Action.STOP),
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
        ({"remote_status": RemoteStatus.WAITING}, Action.ASK),
        ({"remote_status": RemoteStatus.WAITING, "past_settle_time": True}, Action.RELEASE_AGAIN),
        ({"remote_status": RemoteStatus.STARTED}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.ENDED}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.NOT_THERE}, Action.ASK),
        ({"remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True}, Action.PARK),
        ({"again": Again.REFUSED}, Action.RELEASE_AGAIN),
        ({"again": Again.SEARCH, "named": False}, Action.PARK),
        ({"again": Again.NEVER, "named": False}, Action.PARK),
        ({"again": Again.NEVER, "named": False, "declined": Declined.REFUSED, "lost": False}, Action.FAIL),
        ({"repeats": MOST_REPEATS}, Action.STOP),
        ({"silent": MOST_SILENT}, Action.STOP),
    ],
)
def test_a_release_without_an_answer(known, action):
    assert step(State.RELEASING, **known).action is action


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({"declined": Declined.RELEASED_BEFORE}, Action.FOLLOW),
        (
            {"declined": Declined.RELEASED_BEFORE, "remote_status": RemoteStatus.WAITING, "past_settle_time": True},
            Action.FOLLOW,
        ),
        ({"declined": Declined.REFUSED}, Action.ASK),
        ({"declined": Declined.REFUSED, "remote_status": RemoteStatus.WAITING}, Action.ASK),
        ({"declined": Declined.REFUSED, "remote_status": RemoteStatus.WAITING, "lost": False}, Action.FAIL),
        (
            {"declined": Declined.REFUSED, "remote_status": RemoteStatus.WAITING, "past_settle_time": True},
            Action.CANCEL,
        ),
        ({"declined": Declined.REFUSED, "remote_status": RemoteStatus.STARTED}, Action.FOLLOW),
        ({"declined": Declined.NOT_THERE, "again": Again.REFUSED}, Action.ASK),
        ({"declined": Declined.NOT_THERE, "again": Again.REFUSED, "remote_status": RemoteStatus.NOT_THERE}, Action.ASK),
        (
            {"declined": Declined.NOT_THERE, "again": Again.REFUSED, "remote_status": RemoteStatus.WAITING},
            Action.RELEASE_AGAIN,
        ),
        ({"declined": Declined.NOT_THERE, "remote_status": RemoteStatus.WAITING}, Action.ASK),
        (
            {"declined": Declined.NOT_THERE, "remote_status": RemoteStatus.WAITING, "past_settle_time": True},
            Action.RELEASE_AGAIN,
        ),
        (
            {"declined": Declined.NOT_THERE, "remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True},
            Action.PARK,
        ),
        ({"declined": Declined.NOT_THERE, "remote_status": RemoteStatus.STARTED}, Action.FOLLOW),
        ({"declined": Declined.NOT_THERE, "repeats": MOST_REPEATS}, Action.STOP),
    ],
)
def test_a_release_that_was_refused(known, action):
    assert step(State.RELEASING, **known).action is action


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({"wish": Wish.CANCEL}, Action.CANCEL),
        ({"wish": Wish.CANCEL, "remote_status": RemoteStatus.STARTED}, Action.FOLLOW),
        ({"cancel": Cancel.CONFIRMED}, Action.ASK),
        ({"cancel": Cancel.CONFIRMED, "remote_status": RemoteStatus.WAITING}, Action.ASK),
        ({"cancel": Cancel.CONFIRMED, "remote_status": RemoteStatus.WAITING, "past_settle_time": True}, Action.FAIL),
        ({"cancel": Cancel.CONFIRMED, "remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True}, Action.FAIL),
        ({"cancel": Cancel.CONFIRMED, "remote_status": RemoteStatus.ENDED, "past_settle_time": True}, Action.FAIL),
        ({"cancel": Cancel.CONFIRMED, "remote_status": RemoteStatus.STARTED, "past_settle_time": True}, Action.FOLLOW),
        ({"cancel": Cancel.DECLINED, "remote_status": RemoteStatus.WAITING}, Action.ASK),
        ({"cancel": Cancel.DECLINED, "remote_status": RemoteStatus.WAITING, "past_settle_time": True}, Action.PARK),
        ({"cancel": Cancel.DECLINED, "remote_status": RemoteStatus.STARTED}, Action.FOLLOW),
    ],
)
def test_a_release_that_was_to_be_undone(known, action):
    assert step(State.RELEASING, **known).action is action


# Releases that may be repeated


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({}, Action.RELEASE_AGAIN),
        ({"past_settle_time": True}, Action.RELEASE_AGAIN),
        ({"declined": Declined.REFUSED}, Action.FAIL),
        ({"declined": Declined.REFUSED, "lost": False}, Action.FAIL),
        ({"declined": Declined.SUSPECT}, Action.RELEASE_AGAIN),
        ({"declined": Declined.SUSPECT, "repeats": MOST_REPEATS}, Action.PARK),
        ({"declined": Declined.BY_PROXY}, Action.RELEASE_AGAIN),
        ({"declined": Declined.BY_PROXY, "repeats": MOST_REPEATS}, Action.STOP),
        ({"declined": Declined.RELEASED_BEFORE}, Action.RELEASE_AGAIN),
        ({"declined": Declined.RELEASED_BEFORE, "lost": False}, Action.FAIL),
        ({"repeats": MOST_REPEATS}, Action.STOP),
        ({"wish": Wish.CANCEL}, Action.PARK),
        ({"wish": Wish.SEND_AGAIN}, Action.RELEASE_AGAIN),
    ],
)
@pytest.mark.parametrize("again", sorted(REPEATABLE))
@pytest.mark.parametrize("named", YES_OR_NO)
def test_a_release_that_may_be_repeated(again, named, known, action):
    assert step(State.RELEASING, again, named=named, **known).action is action


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({}, Action.PARK),
        ({"declined": Declined.SUSPECT}, Action.PARK),
        ({"declined": Declined.RELEASED_BEFORE}, Action.PARK),
        ({"declined": Declined.REFUSED}, Action.FAIL),
        ({"declined": Declined.NOT_THERE, "lost": False}, Action.SEND),
        ({"repeats": MOST_REPEATS}, Action.PARK),
    ],
)
def test_a_key_that_is_too_old_makes_no_repeat_safe(known, action):
    assert step(State.RELEASING, Again.KEY, expired=True, **known).action is action


@pytest.mark.parametrize(
    ("again", "lost", "action"),
    [
        (Again.SAFE, True, Action.SEND),
        (Again.EXISTS, True, Action.SEND),
        (Again.KEY, True, Action.PARK),
        (Again.KEY, False, Action.SEND),
        (Again.SEARCH, True, Action.PARK),
        (Again.SEARCH, False, Action.SEND),
        (Again.NEVER, False, Action.SEND),
    ],
)
def test_what_was_staged_and_is_gone_is_staged_anew_where_that_is_safe(again, lost, action):
    assert step(State.RELEASING, again, declined=Declined.NOT_THERE, lost=lost).action is action
    if not lost:
        stopped = step(State.RELEASING, again, declined=Declined.NOT_THERE, lost=lost, repeats=MOST_REPEATS)
        assert stopped.action is Action.STOP


@pytest.mark.parametrize("again", sorted(REPEATABLE))
@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({}, Action.SEND),
        ({"wish": Wish.CANCEL}, Action.PARK),
        ({"wish": Wish.SEND_AGAIN}, Action.SEND),
        ({"wish": Wish.SEND_AGAIN, "expired": True}, Action.SEND),
    ],
)
def test_an_uncertain_batch_that_may_be_repeated(again, known, action):
    assert step(State.UNCERTAIN, again, named=False, **known).action is action


def test_an_uncertain_batch_whose_key_is_too_old_is_left_to_a_person():
    assert step(State.UNCERTAIN, Again.KEY, named=False, expired=True).action is Action.PARK


# Uncertain


@pytest.mark.parametrize(
    ("known", "action"),
    [
        ({}, Action.ASK),
        ({"remote_status": RemoteStatus.STARTED}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.ENDED}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.WAITING, "past_settle_time": True}, Action.PARK),
        ({"remote_status": RemoteStatus.NOT_THERE}, Action.PARK),
        ({"remote_status": RemoteStatus.WAITING, "wish": Wish.SEND_AGAIN}, Action.RELEASE_AGAIN),
        ({"remote_status": RemoteStatus.NOT_THERE, "wish": Wish.SEND_AGAIN}, Action.SEND),
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
        ({"remote_status": RemoteStatus.NOT_THERE}, Action.ASK),
        ({"remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True}, Action.SEND),
        ({"remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True, "wish": Wish.CANCEL}, Action.FAIL),
        ({"remote_status": RemoteStatus.STARTED}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.PARTLY}, Action.ASK),
        ({"remote_status": RemoteStatus.PARTLY, "past_settle_time": True}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.PARTLY, "past_settle_time": True, "wish": Wish.CANCEL}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.UNPROVEN, "past_settle_time": True}, Action.PARK),
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
        ({"remote_status": RemoteStatus.WAITING, "past_settle_time": True}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.STARTED, "past_settle_time": True}, Action.FOLLOW),
        ({"remote_status": RemoteStatus.NOT_THERE}, Action.ASK),
        ({"remote_status": RemoteStatus.NOT_THERE, "past_settle_time": True}, Action.PARK),
        ({"silent": MOST_SILENT - 1}, Action.ASK),
        ({"silent": MOST_SILENT}, Action.PARK),
        ({"remote_status": RemoteStatus.WAITING, "wish": Wish.SEND_AGAIN}, Action.RELEASE_AGAIN),
        ({"remote_status": RemoteStatus.STARTED, "wish": Wish.SEND_AGAIN}, Action.FOLLOW),
        ({"wish": Wish.CANCEL}, Action.CANCEL),
        ({"wish": Wish.CANCEL, "cancel": Cancel.CONFIRMED}, Action.FOLLOW),
        ({"wish": Wish.CANCEL, "cancel": Cancel.DECLINED}, Action.FOLLOW),
    ],
)
def test_a_batch_that_the_service_has_accepted(known, action):
    assert step(State.RELEASED, **known).action is action


def test_a_canceled_job_sends_nothing_and_leaves_nothing_staged():
    assert step(State.FROZEN, wish=Wish.CANCEL).action is Action.FAIL
    staged = doubt(State.STAGED, wish=Wish.CANCEL)
    assert next_step(staged, SETTLE_SECONDS).action is Action.CANCEL
    for cancel in (Cancel.CONFIRMED, Cancel.DECLINED):
        assert next_step(replace(staged, cancel=cancel), SETTLE_SECONDS).action is Action.FAIL
