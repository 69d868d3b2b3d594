import random
from dataclasses import replace
from itertools import pairwise

import pytest
from fakes.creating import LEARNING, Creating, follow, plan
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adaptive.poll_schedule import PollSchedule
from engine.adaptive.poll_times import PollRules

RULES = PollRules(first_seconds=0.5, cap_seconds=30.0)
ENDLESS = 10**9
"""Lanes of a service that works on all batches at once."""


def looks(schedule, created, until):
    """Ask whenever it is due, and return when that was; `created` says of a key and a time how much there is."""
    times = []
    while (now := schedule.next_due()) <= until:
        for key in schedule.take(now):
            times.append((now, key))
            schedule.saw(key, now, created(key, now), finished=False)
    return times


# As few polls as one needs who knows all beforehand, and as soon

SCENARIOS = {
    f"{speed} tasks/s, {name}": Creating(speed, lanes)
    for speed in (5, 50, 500, 5_000, 50_000)
    for name, lanes in (("one by one", 1), ("four at once", 4), ("all at once", ENDLESS))
} | {
    "batches of one task": Creating(50, ENDLESS, sizes=(1, 1)),
    "batches of ten tasks": Creating(50, ENDLESS, sizes=(10, 10)),
    "1 to 1,000 tasks, one by one": Creating(500, 1, sizes=(1, 1000)),
    "1 to 1,000 tasks, all at once": Creating(500, ENDLESS, sizes=(1, 1000)),
    "1 to 1,000 tasks, fast": Creating(5_000, 1, sizes=(1, 1000)),
    "often idle": Creating(500, 1, load=0.5),
    "often idle, four at once": Creating(500, 4, load=0.5),
    "begun after 3 s, one by one": Creating(500, 1, start=3.0),
    "begun after 3 s, four at once": Creating(500, 4, start=3.0, load=0.3),
    "begun after 3 s, all at once": Creating(500, ENDLESS, start=3.0, load=0.3),
    "speeds that differ by 5 %, one by one": Creating(500, 1, jitter=0.05),
    "speeds that differ by 5 %, all at once": Creating(500, ENDLESS, jitter=0.05),
    "twice as fast all of a sudden": Creating(500, 1, change=2.0),
    "half as fast all of a sudden": Creating(500, 1, change=0.5),
    "a tenth as fast all of a sudden": Creating(500, 1, change=0.1),
    "twice as fast all of a sudden, all at once": Creating(500, ENDLESS, change=2.0),
    "half as fast all of a sudden, all at once": Creating(500, ENDLESS, change=0.5),
    "answers that take 50 ms": Creating(500, 1, round_trip=0.05),
    "a hundred in a poll": Creating(500, ENDLESS, together=100),
    "a hundred in a poll, speeds that differ": Creating(500, ENDLESS, together=100, jitter=0.1),
    "a hundred in a poll, 1 to 1,000 tasks": Creating(500, ENDLESS, together=100, sizes=(1, 1000)),
}


@pytest.mark.parametrize("creating", SCENARIOS.values(), ids=SCENARIOS)
def test_batches_are_known_soon_after_their_end_with_few_more_polls_than_an_oracle_needs(creating):
    followed = follow(creating)
    assert followed.polls <= 1.5 * followed.oracle
    assert followed.median <= 0.1


def test_how_many_batches_are_worked_on_at_once_is_found_out():
    assert follow(Creating(500, 1)).schedule.lanes == 1
    assert follow(Creating(500, 4)).schedule.lanes == 4
    assert follow(Creating(500, ENDLESS)).schedule.lanes == float("inf")


def test_how_long_a_start_takes_is_found_out():
    schedule = follow(Creating(500, 1, start=3.0, load=0.3)).schedule
    assert schedule.start_seconds == pytest.approx(3.0, abs=0.02)
    assert schedule.speed == pytest.approx(500, rel=0.01)


def test_a_batch_in_a_long_queue_is_known_as_soon_as_one_at_its_head():
    followed = follow(Creating(20, 1, sizes=(100, 100), batches=100, load=50.0))
    assert max(followed.delays[LEARNING:]) < 0.1  # of 5 seconds; a longest wait of 30 seconds is six times as much
    assert followed.polls <= 1.5 * followed.oracle


@pytest.mark.parametrize("lanes", [1, 4, ENDLESS])
@pytest.mark.parametrize(
    "change",
    [{"change": 10.0}, {"jitter": 0.3}, {"shows": False}, {"together": 7, "jitter": 0.2}, {"start": 9.0}],
    ids=str,
)
def test_what_can_hardly_be_foretold_is_followed_to_its_end_all_the_same(lanes, change):
    # No promise of few and timely polls holds here. At speeds that differ by 20 % from batch to batch the median delay
    # is 0.2 to 0.3 of a creation time; where no progress is told until the end, it takes 1.7 to 1.8 times the oracle's
    # polls and 0.1 (all at once) to 1.8 (one by one) creation times; after a speed-up by ten, what stands in line is
    # asked about by the old dates for some batches more. No other creep, smoothing or surprise, nor lanes told from
    # ends alone, mended one of them without harm to another.
    creating = replace(Creating(500, lanes, sizes=(1, 1000)), **change)
    assert follow(creating).polls <= 8 * creating.batches


# What does not move


def test_before_anything_is_known_a_look_comes_soon_and_then_ever_less_often():
    schedule = PollSchedule(RULES)
    schedule.release(0, 1000, 0.0)
    times = [at for at, _ in looks(schedule, lambda key, now: 0, 120.0)]
    assert times == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 81.2, 111.2])


def test_batches_released_to_a_slow_service_are_not_asked_about_in_a_burst():
    schedule = PollSchedule(RULES)
    schedule.release(0, 1000, 0.0)
    looks(schedule, lambda key, now: 0, 2.0)
    schedule.release(1, 1000, 2.0)
    assert schedule.next_due() == pytest.approx(2.5)


def test_a_batch_that_hangs_is_asked_about_ever_less_often_and_holds_up_no_other():
    schedule = PollSchedule(RULES)
    for key in range(3):
        schedule.release(key, 100, 0.0)
    created = {0: lambda now: 40, 1: lambda now: 30, 2: lambda now: 20}
    times = looks(schedule, lambda key, now: created[key](now), 600.0)
    assert {key for _, key in times} == {0, 1, 2}
    assert len(times) < 3 * 40
    assert times[-1][0] > 560


def test_a_batch_of_which_there_was_no_answer_is_asked_about_when_it_is_told():
    schedule = PollSchedule(RULES)
    schedule.release(0, 1000, 0.0)
    assert schedule.take(0.05) == [0]
    assert schedule.next_due() == float("inf")
    schedule.ask_again(0, 7.0)
    assert schedule.next_due() == 7.0


def test_what_is_forgotten_is_not_asked_about():
    schedule = PollSchedule(RULES)
    schedule.release(0, 1000, 0.0)
    schedule.forget(0, 0.01)
    assert schedule.next_due() == float("inf")
    assert schedule.take(100.0) == []


def test_one_poll_takes_as_many_along_as_it_may():
    schedule = PollSchedule(replace(RULES, together=2))
    for key in range(3):
        schedule.release(key, 1000, 0.01 * key)
    assert schedule.take(0.0) == []
    assert schedule.take(0.05) == [0, 1]


def test_a_poll_of_many_that_shows_nothing_is_one_look_in_vain_and_not_many():
    schedule = PollSchedule(replace(RULES, together=100))
    schedule.release(0, 1, 0.0)
    schedule.saw(0, 0.5, 1, finished=True)
    for key in range(1, 65):
        schedule.release(key, 1, 1.0)
    times = [1.0]
    while (now := schedule.next_due()) < 10.0:
        times.append(now)
        for key in schedule.take(now):
            schedule.saw(key, now, 0, finished=False)
    assert max(after - before for before, after in pairwise([*times, now])) < 10.0  # not the longest wait of 30 s


def test_thousands_of_open_batches_take_no_more_time_each():
    followed = follow(Creating(500, ENDLESS, batches=3000, load=400.0), most_polls=10_000)
    assert followed.polls <= 1.5 * followed.oracle


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.builds(
        Creating,
        st.floats(50, 1e5),
        st.sampled_from([1, 2, 4, ENDLESS]),
        sizes=st.sampled_from([(1, 1), (1, 50), (1, 1000)]),
        batches=st.just(30),
        load=st.floats(0.1, 10),
        start=st.floats(0, 10),
        jitter=st.floats(0, 0.5),
        change=st.floats(0.05, 20),
        shows=st.booleans(),
        together=st.sampled_from([1, 3, 100]),
        round_trip=st.floats(0, 0.2),
    )
)
def test_whatever_the_service_does_every_batch_is_known_in_the_end(creating):
    lasts = max(one.end for one in plan(creating))
    followed = follow(creating, most_polls=(60 + lasts / RULES.cap_seconds) * creating.batches)
    assert len(followed.delays) == creating.batches
    assert min(followed.delays) >= 0


@given(st.integers(0, 2**32), st.sampled_from([0.05, 1.0, 20.0]), st.sampled_from([1, 4]))
def test_a_batch_is_never_asked_about_twice_at_once_however_long_answers_take(seed, answer_seconds, together):
    dice = random.Random(seed)
    schedule = PollSchedule(PollRules(together=together))
    counts = {key: dice.choice([10, 500, 1000]) for key in range(30)}
    created = dict.fromkeys(counts, 0)
    steps = [(dice.uniform(0, 60), "release", (key,)) for key in counts]
    now, asked = 0.0, set()
    while steps or schedule.next_due() < float("inf"):
        now = max(now, min([at for at, _, _ in steps] + [schedule.next_due()]))
        group = tuple(schedule.take(now))
        assert asked.isdisjoint(group)
        asked.update(group)
        if group:
            steps.append((now + dice.uniform(0, answer_seconds), "answer", group))
        for step in [step for step in steps if step[0] <= now]:
            steps.remove(step)
            for key in step[2]:
                if step[1] == "release":
                    schedule.release(key, counts[key], now)
                    continue
                asked.remove(key)
                created[key] = min(counts[key], created[key] + dice.choice([0, 0, 1, 300, 1000]))
                done = created[key] == counts[key]
                schedule.saw(key, now, created[key], finished=done)
                if done:
                    schedule.forget(key, now)
    assert created == counts


@pytest.mark.parametrize("in_flight", [1, 4, 8, 32])
def test_polls_in_flight_that_show_nothing_do_not_stall_a_burst(in_flight):
    """Twenty batches released at once to a service that creates one after the other, each in 0.2 s."""
    schedule, answers, known, now, sent_at = PollSchedule(PollRules()), [], {}, 0.0, 0.0
    for key in range(20):
        schedule.release(key, 1000, 0.0)
    while len(known) < 20:
        due_at = max(sent_at + 0.001, schedule.next_due()) if len(answers) < in_flight else float("inf")
        now = max(now, min([due_at, *(at for at, _ in answers)]))
        if answers and answers[0][0] <= now:
            _, key = answers.pop(0)
            created = max(0, min(1000, int(5000 * (now - 0.025) - 1000 * key)))
            schedule.saw(key, now - 0.025, created, finished=created == 1000)
            if created == 1000:
                known[key] = now
                schedule.forget(key, now)
            continue
        sent_at = now
        answers += [(now + 0.05, key) for key in schedule.take(now)]
    assert max(known.values()) <= 1.3 * 4.0 + 1.0
