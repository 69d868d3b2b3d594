"""The requests of a window, against made-up headers. Time is made up, too."""

from hypothesis import given
from hypothesis import strategies as st

from engine.adaptive.window import BUSY_SECONDS, YIELDED_SHARE, Allowance, WindowBudget


def opened(limit=10, remaining=9, ends_in=5.0):
    """A budget after the first answer of a window, at time 0."""
    budget = WindowBudget()
    assert budget.take(0.0, yielding=False) == 0
    budget.answered(0.0, Allowance(limit, remaining, ends_in))
    return budget


def test_without_a_word_of_a_window_there_is_no_limit():
    budget = WindowBudget()
    assert [budget.take(0.0, yielding=False) for _ in range(1000)] == [0.0] * 1000


def test_a_window_is_used_to_its_last_request_and_the_next_one_begins_when_it_ends():
    budget = opened(limit=10, remaining=9)
    for left in range(8, -1, -1):
        assert budget.take(1.0, yielding=False) == 0
        budget.answered(1.0, Allowance(10, left, 4.0))
    assert budget.take(1.0, yielding=False) == 4.0
    assert budget.take(5.0, yielding=False) == 0


def test_calls_under_way_are_taken_off_what_the_headers_say_remains():
    budget = opened(remaining=3)
    assert [budget.take(0.0, yielding=False) for _ in range(3)] == [0, 0, 0]
    assert 0 < budget.take(0.0, yielding=False) < 1  # for a moment: an answer may show that something is left


def test_headers_may_lower_the_allowance_within_a_window_and_never_raise_it():
    budget = opened(remaining=9)
    for said in (2, 8):
        assert budget.take(0.0, yielding=False) == 0
        budget.answered(0.0, Allowance(10, said, 5.0))
    assert [budget.take(0.0, yielding=False) for _ in range(2)] == [0, 0]
    assert budget.take(0.0, yielding=False) > 0


def test_a_lost_answer_counts_as_a_request():
    budget = opened(remaining=1)
    budget.take(0.0, yielding=False)
    budget.answered(0.0, None)
    assert budget.take(0.0, yielding=False) == 5.0


def test_polls_leave_most_of_a_window_to_the_creation_of_tasks():
    budget = opened(limit=100, remaining=99)
    taken = 0
    while budget.take(0.0, yielding=True) == 0:
        taken += 1
    assert taken == YIELDED_SHARE * 100
    assert budget.take(0.0, yielding=False) == 0


def test_polls_may_use_all_of_it_once_nothing_is_created_any_more():
    budget = opened(limit=100, remaining=99)
    quiet = 2 * BUSY_SECONDS
    assert sum(budget.take(quiet, yielding=True) == 0 for _ in range(200)) == 99


def test_a_window_whose_answers_are_all_lost_does_not_block_for_ever():
    budget = opened(limit=1, remaining=0)
    for second in (5.0, 6.0, 7.0):
        assert budget.take(second, yielding=False) == 0
        budget.answered(second, None)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=300), st.integers(1, 20))
def test_a_server_with_a_fixed_window_is_never_asked_too_much(steps, limit):
    """The server counts each call as it is taken; answers come one step later, so some are always under way."""
    budget, now, ends_at, used, under_way = opened(limit, limit - 1), 0.0, 5.0, 1, []
    for seconds, yielding in steps:
        now += seconds
        if now >= ends_at:
            ends_at, used = now + 5.0, 0
        if budget.take(now, yielding=yielding) == 0:
            used += 1
            under_way.append(Allowance(limit, limit - used, ends_at - now))
            assert used <= limit
        elif under_way:
            budget.answered(now, under_way.pop(0))


def test_after_a_429_nobody_calls_for_a_moment_even_if_the_reset_has_come_by_our_clock():
    budget = opened(limit=10, remaining=5, ends_in=5.0)
    budget.take(5.0, yielding=False)
    budget.answered(5.0, Allowance(10, 0, 0.0), pushed_back=True)
    assert budget.take(5.0, yielding=False) == 1.0
    assert budget.take(6.0, yielding=False) == 0


def test_one_call_opens_a_window_and_the_others_wait_for_its_answer():
    budget = opened(limit=10, remaining=5, ends_in=5.0)
    assert budget.take(5.0, yielding=False) == 0
    assert 0 < budget.take(5.0, yielding=False) < 1
    budget.answered(5.0, Allowance(10, 9, 5.0))
    assert [budget.take(5.0, yielding=False) for _ in range(9)] == [0] * 9


def test_a_window_of_a_fixed_length_ends_so_long_after_its_first_answer_whatever_later_ones_say():
    budget = WindowBudget()
    for now, left in ((0.0, 3), (4.0, 2), (8.0, 1), (9.0, 0)):
        assert budget.take(now, yielding=False) == 0
        budget.answered(now, Allowance(4, left, 10.0, fixed=True))
    assert budget.take(9.0, yielding=False) == 1.0
    assert budget.take(10.0, yielding=False) == 0
    budget.answered(11.0, Allowance(4, 3, 10.0, fixed=True))
    for _ in range(3):
        assert budget.take(12.0, yielding=False) == 0
        budget.answered(12.0, None)
    assert budget.take(12.0, yielding=False) == 9.0


def test_the_next_window_may_begin_before_the_one_we_know_ends_by_our_clock():
    budget = opened(limit=1000, remaining=5, ends_in=10.0)
    assert budget.take(9.5, yielding=False) == 0
    budget.answered(9.5, Allowance(1000, 999, 300.0))
    assert [budget.take(9.5, yielding=False) for _ in range(999)] == [0.0] * 999
    assert budget.take(9.5, yielding=False) > 0


def test_an_answer_that_was_long_under_way_does_not_raise_what_is_left():
    budget = opened(limit=1000, remaining=5, ends_in=10.0)
    assert budget.take(9.5, yielding=False) == 0
    budget.answered(9.5, Allowance(1000, 50, 3.0))  # counted three seconds ago
    assert sum(budget.take(9.5, yielding=False) == 0 for _ in range(100)) == 5


def test_a_request_that_is_not_made_may_be_taken_by_another_call():
    budget = opened(remaining=1)
    assert budget.take(0.0, yielding=False) == 0
    assert budget.take(0.0, yielding=False) > 0
    budget.give_back(yielding=False)
    assert budget.take(0.0, yielding=False) == 0
