"""Worlds drawn from a seed: a service in all its manners at once, faults, and processes that die. Its journal judges.

A seed always plays alike. BULKSUBMIT_SEED=57 plays that one alone, and a world that ends badly says so;
BULKSUBMIT_TORTURE=1 plays many more.
"""

import os
from dataclasses import replace

import pytest
from msgspec import structs

from engine.sandbox.behaviour import CreationPace, Fault, parse_behaviour

from .ways import BRIEF, BULK_WAYS, INLINE, MARKED, PRESIGNED
from .worlds import Death, Plan, drawn, play

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
SEEDS = [int(os.environ["BULKSUBMIT_SEED"])] if "BULKSUBMIT_SEED" in os.environ else range(300 if TORTURE else 20)
BULK_SEEDS = SEEDS if "BULKSUBMIT_SEED" in os.environ else range(300 if TORTURE else 8)
OLD_SETTLE_SECONDS = 2.0
"""What was waited for before a release was released again."""


@pytest.mark.parametrize("seed", SEEDS)
def test_in_no_world_is_anything_lost_or_created_twice_or_called_failed_that_exists(seed, tmp_path, tally):
    played = play(drawn(seed), tmp_path)
    tally.add(played.tally)
    assert not played.complaints, str(played)


@pytest.mark.parametrize("seed", BULK_SEEDS)
def test_in_no_world_of_a_described_service_is_anything_lost_or_created_twice(seed, tmp_path, tally):
    played = play(drawn(seed, BULK_WAYS), tmp_path)
    tally.add(played.tally)
    assert not played.complaints, str(played)


@pytest.mark.parametrize("seed", range(100 if TORTURE else 2))
def test_a_key_that_the_service_has_forgotten_makes_nothing_twice(seed, tmp_path, tally):
    played = play(drawn(seed, [BRIEF]), tmp_path)
    tally.add(played.tally)
    assert not played.complaints, str(played)


def test_in_some_of_these_worlds_callbacks_are_heard(tmp_path):
    assert sum(bool(drawn(seed).behaviour.callbacks.url) for seed in range(20)) >= 5
    plan = next(plan for plan in map(drawn, range(100)) if plan.behaviour.callbacks.url and not plan.deaths)
    assert play(plan, tmp_path).heard


def test_a_seed_plays_alike(tmp_path):
    plan = next(plan for plan in map(drawn, range(100)) if len(plan.deaths) > 2 and plan.batches > 8)
    histories = []
    for number in range(2):
        (folder := tmp_path / str(number)).mkdir()
        histories.append(play(plan, folder).history)
    assert histories[0] == histories[1]
    assert len(histories[0]) > 20


def test_worlds_show_what_comes_of_telling_again_too_soon(tmp_path):
    for plan in (drawn(seed, [PRESIGNED]) for seed in range(100)):
        if any(fault.call == "continue" and "late" in fault.kind for fault in plan.behaviour.faults):
            (folder := tmp_path / str(plan.seed)).mkdir()
            played = play(replace(plan, settle_seconds=OLD_SETTLE_SECONDS), folder)
            if played.tally.duplicated:
                assert f"BULKSUBMIT_SEED={plan.seed} " in str(played)
                return
    pytest.fail("they do not")


def plan_of(way, *deaths, **behaviour):
    base = parse_behaviour(way.behaviour)
    return Plan(0, way, 3, structs.replace(base, **behaviour), deaths)


ONCE_BAD = {
    "an inline batch that was swallowed is sent again by a person's word": plan_of(
        INLINE, faults=(Fault("create", "swallow", nth=(2,)),)
    ),
    "what was sent again by a person's word is searched for if its answer is lost": plan_of(
        MARKED, faults=(Fault("create", "swallow", nth=(2,)), Fault("create", "drop_after", nth=(4,)))
    ),
    "one that died when its job was finished writes the reports of the last run": plan_of(
        PRESIGNED, Death("signal", 0.8), Death("after a step", 18), creation=CreationPace(tasks_per_second=1)
    ),
}


@pytest.mark.parametrize("plan", ONCE_BAD.values(), ids=ONCE_BAD.keys())
def test_a_world_that_once_ended_badly(plan, tmp_path):
    played = play(plan, tmp_path)
    assert not played.complaints, str(played)
