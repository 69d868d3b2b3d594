from hypothesis import given
from hypothesis import strategies as st

from engine.policy.polling import CreationSpeed, PollRules, Seen, next_poll

RULES = PollRules(first_seconds=0.5, cap_seconds=30.0)


def test_a_batch_just_released_is_asked_about_soon():
    assert next_poll(RULES, None).after_seconds == 0.5


def test_while_nothing_changes_the_wait_doubles_up_to_the_cap():
    waits = [next_poll(RULES, Seen(1.0, gained=0, left=1000, unchanged=n)).after_seconds for n in range(1, 9)]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_next_poll_comes_when_the_rest_should_be_done():
    again = next_poll(RULES, Seen(waited_seconds=2.0, gained=200, left=800))
    assert again.after_seconds == 8
    assert again.reason == "800 tasks left at 100 tasks/s"


def test_an_estimate_that_is_far_off_is_capped_at_both_ends():
    assert next_poll(RULES, Seen(waited_seconds=10, gained=1, left=999)).after_seconds == 30
    assert next_poll(RULES, Seen(waited_seconds=1, gained=999, left=1)).after_seconds == 0.5
    assert next_poll(RULES, Seen(waited_seconds=0, gained=5, left=0)).after_seconds == 0.5


def test_a_batch_behind_others_is_asked_when_they_and_it_should_be_done():
    again = next_poll(RULES, Seen(waited_seconds=20, gained=0, left=1000, ahead=500), tasks_per_second=100)
    assert again.after_seconds == 15
    assert "ahead" in again.reason


def test_a_batch_that_stands_still_is_asked_less_often_however_fast_the_others_are():
    stuck = Seen(waited_seconds=1, gained=0, left=1000, ahead=0, unchanged=5)
    assert next_poll(RULES, stuck, tasks_per_second=10_000).after_seconds == 16


def test_a_cap_below_the_first_wait_is_a_cap():
    assert next_poll(PollRules(5.0, 1.0), Seen(1.0, 0, 10)).after_seconds == 1.0


@given(
    st.builds(Seen, st.floats(0, 1e6), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)),
    st.floats(0, 1e9),
)
def test_every_wait_is_within_the_rules(seen, speed):
    assert 0.5 <= next_poll(RULES, seen, speed).after_seconds <= 30


def test_the_speed_follows_what_is_seen():
    speed = CreationSpeed()
    speed.observe(100, 0.0)
    assert speed.tasks_per_second == 0
    speed.observe(100, 1.0)
    assert speed.tasks_per_second == 100
    for _ in range(10):
        speed.observe(200, 1.0)
    assert 195 < speed.tasks_per_second < 200
