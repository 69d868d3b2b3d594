import pytest

from benchmarks.simulation.rivals import Fixed, Vector
from benchmarks.simulation.server import servers
from benchmarks.simulation.simulator import simulate
from benchmarks.simulation.sweep import compare
from engine.policy.concurrency import Concurrency

SERVERS = {server.name: server for server in servers()}
COARSE = (1, 2, 4, 6, 8, 10, 14, 20, 28, 40, 64)
"""Every other setting of the full sweep; `python -m benchmarks.simulation` tries them all."""


def speed(name, limit):
    run = simulate(SERVERS[name], Fixed(limit), calls=400)
    return run.answered / run.seconds


def test_there_is_a_server_for_every_kind_of_trouble():
    assert len(SERVERS) >= 15


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_the_limit_found_is_within_a_tenth_of_the_best_fixed_one(name):
    compared = compare(SERVERS[name], seed=1, settings=COARSE)
    assert compared.share >= 0.9, f"{compared.share:.0%} of what {compared.best_limit} in flight get"


def test_label_studio_on_sqlite_is_simulated_as_it_was_measured():
    assert speed("sqlite-collapse", 1) == pytest.approx(3.2, rel=0.05)
    assert speed("sqlite-collapse", 8) == pytest.approx(0.08, rel=0.05)


def test_where_crowding_kills_the_rule_of_vector_gets_a_fraction():
    compared = compare(SERVERS["sqlite-collapse"], settings=(1,))
    assert compared.vector_share < 0.5
    assert compared.share >= 0.9


def test_a_server_with_free_workers_scales_until_they_are_all_busy():
    one, eight, sixteen = (speed("fixed-capacity", limit) for limit in (1, 8, 16))
    assert eight == pytest.approx(8 * one, rel=0.05)
    assert sixteen == pytest.approx(eight * 21 / 20, rel=0.05)  # only the way there is filled


def test_a_rate_limit_holds_and_is_said():
    run = simulate(SERVERS["rate-limit"], Fixed(40), calls=400)
    assert run.pushed_back > 0
    assert (run.answered - SERVERS["rate-limit"].burst) / run.seconds <= 40


def test_a_simulation_is_the_same_every_time():
    first, second = (simulate(SERVERS["lossy"], Concurrency(), seed=7, calls=300) for _ in range(2))
    assert first == second
    assert first.lost > 0


def test_the_time_series_adds_up_to_what_was_answered():
    run = simulate(SERVERS["mixed-sizes"], Vector(), calls=300)
    width = run.seconds / len(run.series)
    assert sum(point.mebibytes_per_second for point in run.series) * width * 2**20 == pytest.approx(run.answered_bytes)
