import pytest
from fakes.clock import under_way, until

from engine.sandbox.agenda import NEVER, Agenda, put_off
from engine.sandbox.behaviour import Behaviour, Fault
from engine.sandbox.errors import BehaviourError
from engine.sandbox.traffic import CallKinds, Traffic

from .api import ManualClock


@pytest.fixture
def agenda(clock):
    return Agenda(clock)


def test_work_that_is_not_put_off_is_done_at_once(agenda, clock):
    done = []
    agenda.do("a", done.append)
    assert (done, agenda.awaits("a")) == ([clock.now], False)


def test_work_is_done_as_of_its_own_time_in_the_order_of_time(agenda, clock):
    done, began = [], clock.now
    for seconds in (7, 3):
        with put_off(seconds):
            agenda.do(seconds, lambda at: done.append(at - began))
    clock.now += 2
    agenda.advance()
    assert (done, agenda.awaits(3)) == ([], True)
    clock.now += 100
    agenda.advance()
    assert (done, agenda.awaits(3), agenda.awaits(7)) == ([3, 7], False, False)


def test_what_is_swallowed_is_never_done_and_not_awaited(agenda, clock):
    done = []
    with put_off(NEVER):
        assert agenda.swallows
        agenda.do("a", done.append)
    clock.now += 10**9
    agenda.advance()
    assert (done, agenda.awaits("a"), agenda.swallows) == ([], False, False)


def test_what_is_forgotten_is_not_done(agenda, clock):
    done = []
    with put_off(1):
        agenda.do("a", lambda at: done.append("a"))
        agenda.do("b", lambda at: done.append("b"))
    agenda.forget("a")
    clock.now += 1
    agenda.advance()
    assert done == ["b"]


async def test_it_needs_nobody_to_ask(agenda, clock):
    done = []
    async with under_way(agenda.run()):
        with put_off(5):
            agenda.do("a", done.append)
        clock.now += 5
        await until(lambda: done)
    assert done == [clock.now]


def _traffic(**fault):
    calls = CallKinds(frozenset({"create", "status"}), deferrable=frozenset({"create"}))
    return Traffic(
        Behaviour(faults=(Fault(nth=(1,), **fault),)), calls=calls, error=lambda *_: None, clock=ManualClock()
    )


@pytest.mark.parametrize("kind", ["act_later", "drop_late", "refuse_late", "html_late", "swallow"])
def test_only_work_that_creates_or_releases_can_be_put_off(kind):
    assert _traffic(call="create", kind=kind)
    with pytest.raises(BehaviourError, match=f"{kind} is for .* \\(create\\), not for status"):
        _traffic(call="status", kind=kind)


def test_for_such_a_fault_all_calls_are_those_that_create_or_release():
    faults = _traffic(call="all", kind="swallow")._faults
    assert faults.next("status") is None
    assert faults.next("create").kind == "swallow"
