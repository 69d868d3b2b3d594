import json
from dataclasses import replace

import pytest

from benchmarks.adapting import BEFORE
from benchmarks.simulation.results import as_json, table
from benchmarks.simulation.rivals import Fixed, Gradient2, Vector
from benchmarks.simulation.server import HELD_OUT, KEPT_BACK, Server, Turn, servers
from benchmarks.simulation.simulator import simulate
from benchmarks.simulation.sweep import COARSE, compare
from engine.adaptive.concurrency import CallFate, Concurrency, Finished

SERVERS = {server.name: server for server in servers()}
UNMET = [*servers(HELD_OUT), *servers(KEPT_BACK)]
PLAIN = Server("plain", "Ten workers.", 200, workers=10)


def speed(name, limit):
    run = simulate(SERVERS[name], Fixed(limit), calls=400)
    return run.answered / run.seconds


def test_there_is_a_server_for_every_kind_of_trouble():
    assert len(SERVERS) >= 15


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_the_limit_found_is_within_a_tenth_of_the_best_fixed_one(name):
    compared = compare(SERVERS[name], seed=1, settings=COARSE, rivals={})
    assert compared.share >= 0.9, f"{compared.share:.0%} of what {compared.best_limit} in flight get"


def test_label_studio_on_sqlite_is_simulated_as_it_was_measured():
    assert speed("sqlite-collapse", 1) == pytest.approx(3.2, rel=0.05)
    assert speed("sqlite-collapse", 8) == pytest.approx(0.08, rel=0.05)


def test_where_crowding_kills_the_rivals_get_a_fraction():
    compared = compare(SERVERS["sqlite-collapse"], settings=(1,))
    assert all(compared.share_of(run) < 0.5 for run in compared.rivals.values())
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


def test_each_server_that_was_held_out_has_its_first_result_on_record():
    assert len(servers(HELD_OUT)) >= 8
    assert {server.name for server in UNMET} == set(json.loads(BEFORE.read_text())["shares"])


@pytest.mark.parametrize("server", UNMET, ids=lambda server: server.name)
def test_a_server_that_was_held_out_answers_whatever_comes(server):
    assert simulate(server, Fixed(8), calls=100).answered == 100


def test_turns_come_round_again_and_a_server_that_stands_still_answers_nothing():
    turns = (Turn(2.0, speed=0.0), Turn(4.0, speed=1.0))
    still = replace(PLAIN, network_seconds=0.0, turns=turns, every_seconds=4.0)
    assert simulate(still, Fixed(10)).seconds == pytest.approx(2 + 2, abs=0.01)
    assert simulate(still, Fixed(10), calls=800).seconds == pytest.approx(8 + 6, abs=0.01)


def test_whoever_waits_too_long_for_a_worker_is_pushed_back():
    server = replace(PLAIN, queue_seconds=0.15)
    assert simulate(server, Fixed(20)).pushed_back == 0
    assert simulate(server, Fixed(40)).pushed_back > 0


def test_a_call_beyond_the_most_is_lost():
    server = replace(PLAIN, most_calls=12, lost_seconds=0.5)
    assert simulate(server, Fixed(12)).lost == 0
    assert simulate(server, Fixed(40)).lost > 0


def test_workers_are_added_only_where_a_call_had_to_wait():
    server = replace(PLAIN, calls=600, scale_seconds=1.0, most_workers=20)
    few, many = (simulate(server, Fixed(limit)) for limit in (10, 20))
    assert few.seconds == pytest.approx(6.6, abs=0.1)
    assert many.seconds < 0.75 * few.seconds


def test_a_random_walk_is_the_same_for_every_rule():
    walking = replace(PLAIN, calls=400, walk_seconds=0.5, walk_step=0.3)
    assert simulate(walking, Fixed(40)) == simulate(walking, Fixed(40))
    assert simulate(walking, Fixed(40)).seconds != simulate(replace(walking, walk_step=0.0), Fixed(40)).seconds


def test_work_of_a_cold_cache_and_of_a_heavy_tail():
    cold, warm = (replace(PLAIN, cold_factor=factor, cold_calls=50.0) for factor in (8.0, 1.0))
    assert simulate(cold, Fixed(10)).seconds > 2 * simulate(warm, Fixed(10)).seconds
    heavy = replace(PLAIN, workers=1, calls=3000, pareto_shape=3.0)
    assert simulate(heavy, Fixed(2)).seconds == pytest.approx(3000 * 0.1, rel=0.05)


def test_gradient2_moves_a_fifth_of_the_way_each_second_by_how_long_calls_take():
    def second(rule, now, rtt):
        for _ in range(10):
            rule.observe(Finished(now - rtt, now, 1000, rule.limit, CallFate.DONE))
        return rule.observe(Finished(now + 1 - rtt, now + 1, 1000, rule.limit, CallFate.DONE))

    rule = Gradient2()
    second(rule, 0.0, 0.1)
    assert (rule.limit, second(rule, 2.0, 0.1).after) == (20, 21)
    for now in range(4, 42, 2):
        second(rule, float(now), 0.1)
    assert rule.limit == int(20 + 21 * 0.2 * 4)
    second(rule, 42.0, 1.0)
    assert rule.limit == int(36.8 + 0.2 * (4 - 0.5 * 36.8))


def test_the_table_names_every_rule_and_what_was_before():
    compared = compare(replace(PLAIN, calls=50), settings=(1, 10))
    lines = table([compared], {"plain": [0.123]}).splitlines()
    assert lines[0].count("Gradient2") == lines[0].count("Vector's rule") == 2
    assert "| 12% |" in lines[2]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")


def test_what_is_drawn_of_a_server_is_the_limit_of_each_rule_over_its_run():
    compared = compare(replace(PLAIN, calls=50), settings=(1, 10))
    (drawn,) = as_json([compared])
    assert (drawn["server"], drawn["best_limit"]) == ("plain", 10)
    assert list(drawn["rules"]) == ["found out", "Vector's rule", "Gradient2"]
    ours = drawn["rules"]["found out"]
    assert ours["seconds"] == pytest.approx(compared.ours.seconds, abs=0.001)
    assert ours["share"] == pytest.approx(compared.share, abs=0.0001)
    assert ours["limit"] == pytest.approx([point.limit for point in compared.ours.series], abs=0.05)
