from hypothesis import given
from hypothesis import strategies as st

from engine.adaptive.concurrency import CallFate, Concurrency, Finished


class Line:
    """A service whose calls take `rtt(in_flight)` seconds, all slots filled; calls end one after the other, evenly."""

    def __init__(self, controller, rtt, most_in_flight=None):
        self.controller, self.rtt = controller, rtt
        self.most_in_flight = most_in_flight or controller.most
        self.now, self.started, self.changes = 0.0, [], []

    def run(self, calls, fate=lambda _: CallFate.DONE):
        for number in range(calls):
            while len(self.started) < min(self.controller.limit, self.most_in_flight):
                self.started.append((self.now, len(self.started) + 1))
            self.now += self.rtt(len(self.started)) / len(self.started)
            began, in_flight = self.started.pop(0)
            change = self.controller.observe(Finished(began, self.now, 1000, in_flight, fate(number)))
            if change:
                self.changes.append(change)
        return self.controller.limit


def workers(count, seconds=0.1):
    return lambda in_flight: seconds * max(1, in_flight / count)


def test_it_starts_with_one_call_and_leaps_while_more_calls_bring_more():
    line = Line(Concurrency(), workers(64))
    line.run(100)
    assert [change.before for change in line.changes][:2] == [1, 2]
    assert line.changes[1].after == 8
    assert "slow start" in line.changes[0].reason


def test_it_settles_near_the_knee_and_not_at_the_ceiling():
    assert 8 <= Line(Concurrency(), workers(8)).run(2000) <= 16


def test_where_crowding_slows_the_whole_service_down_it_stays_at_one():
    line = Line(Concurrency(), lambda in_flight: 0.1 * in_flight * 1.5 ** (in_flight - 1))
    line.run(500)
    assert max(change.after for change in line.changes) == 2
    assert line.controller.limit <= 2


def test_it_follows_a_service_that_grows_and_one_that_shrinks():
    line = Line(Concurrency(), workers(4))
    small = line.run(500)
    line.rtt = workers(24)
    grown = line.run(3000)
    line.rtt = lambda in_flight: 0.1 * max(1, in_flight / 4) ** 1.5
    assert small <= 8
    assert grown >= 20
    assert line.run(3000) <= 10


def test_a_hiccup_of_a_fast_service_does_not_end_the_slow_start():
    line = Line(Concurrency(), workers(64, seconds=0.004))
    while line.controller.limit < 8:
        line.run(1)
    line.rtt = workers(64, seconds=0.02)
    line.run(16)
    line.rtt = workers(64, seconds=0.004)
    assert line.run(500) == 64
    assert not any("over" in change.reason for change in line.changes)


def test_a_limit_that_is_not_reached_is_no_evidence_to_raise_it():
    line = Line(Concurrency(), workers(64), most_in_flight=3)
    assert line.run(2000) <= 16
    assert line.changes[-1].after <= 16


def test_push_back_lowers_the_limit_at_once_and_once_per_round_trip():
    line = Line(Concurrency(), workers(16))
    line.run(300)
    before, count = line.controller.limit, len(line.changes)
    now = line.now
    assert line.controller.observe(Finished(now, now + 0.01, 1000, 1, CallFate.PUSHED_BACK)).after < before
    after = line.controller.limit
    for _ in range(5):
        assert line.controller.observe(Finished(now + 0.02, now + 0.03, 1000, 1, CallFate.PUSHED_BACK)) is None
    assert (line.controller.limit, len(line.changes)) == (after, count)


def test_where_the_service_pushed_back_is_not_tried_again_soon():
    line = Line(Concurrency(), workers(64))
    line.run(40)
    limit = line.controller.limit
    line.controller.observe(Finished(line.now, line.now + 0.01, 1000, 1, CallFate.PUSHED_BACK))
    line.changes.clear()
    line.run(limit * 2)
    assert all(change.after < limit for change in line.changes)


def test_the_longer_calls_had_to_pause_after_push_back_the_later_is_the_next_step_upwards():
    def until_it_looks_up(pause):
        line = Line(Concurrency(), workers(64))
        line.run(200)
        line.controller.observe(Finished(line.now, line.now + 0.01, 1000, 1, CallFate.PUSHED_BACK))
        line.started.clear()
        line.now += pause
        resumed, count = line.now, len(line.changes)
        while not any(change.reason == "probing upwards" for change in line.changes[count:]):
            line.run(1)
        return line.now - resumed

    assert until_it_looks_up(20.0) > 20.0
    assert until_it_looks_up(0.02) < 5.0


def test_a_probe_that_cost_much_is_not_soon_made_again():
    def probes_downwards(loss):
        line = Line(Concurrency(), workers(16))
        limit = line.run(300)
        line.rtt = lambda in_flight: workers(16)(in_flight) * (1 if in_flight >= limit - 1 else loss)
        line.run(4000)
        return sum(change.reason == "probing downwards" for change in line.changes)

    assert probes_downwards(8.0) < probes_downwards(1.3)


def test_calls_that_met_an_earlier_limit_push_nobody_back():
    line = Line(Concurrency(), workers(64))
    line.run(60)
    assert line.controller.observe(Finished(0.0, line.now, 1000, 1, CallFate.PUSHED_BACK)) is None


def test_when_most_calls_are_lost_the_limit_is_halved_down_to_one():
    line = Line(Concurrency(), workers(64))
    line.run(400)
    line.changes.clear()
    line.run(2000, fate=lambda _: CallFate.LOST)
    assert line.controller.limit == 1
    assert any("calls lost" in change.reason for change in line.changes)


def test_calls_lost_from_the_start_are_no_reason_to_go_up():
    line = Line(Concurrency(), workers(64))
    assert line.run(50, fate=lambda _: CallFate.LOST) == 1
    assert line.changes == []


def test_each_change_says_what_became_of_the_limit_and_why():
    line = Line(Concurrency(), workers(8))
    line.run(1000)
    limit = 1
    for change in line.changes:
        assert (change.name, change.before) == ("max_in_flight", limit)
        assert change.reason
        limit = change.after
    assert limit == line.controller.limit


calls = st.tuples(
    st.floats(0, 10), st.floats(0, 10), st.integers(0, 10**7), st.integers(1, 64), st.sampled_from(CallFate)
)


@given(st.integers(1, 64), st.lists(calls, max_size=300))
def test_the_limit_stays_between_one_and_the_ceiling_whatever_comes(most, seen):
    controller, now = Concurrency(most), 0.0
    for gap, seconds, size, in_flight, fate in seen:
        now += gap
        controller.observe(Finished(now - seconds, now, size, in_flight, fate))
        assert 1 <= controller.limit <= most
