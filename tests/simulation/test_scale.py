from dataclasses import replace

import pytest

from benchmarks.simulation.scale import outlook, read_costs, table, unlimited

COSTS = replace(read_costs(), batches_in_flight=16)


def test_one_machine_is_held_up_by_its_reader():
    costs = replace(COSTS, call_seconds=0.01)
    one = outlook(unlimited(costs), 1)
    assert one.records_per_second == pytest.approx(1e6 / costs.cpu_microseconds_per_record, rel=0.01)
    assert one.breaks_first.startswith("reader's CPU")


def test_machines_add_up_while_the_service_has_no_limit():
    costs = unlimited(replace(COSTS, call_seconds=0.01))
    assert outlook(costs, 10).records_per_second == pytest.approx(10 * outlook(costs, 1).records_per_second, rel=0.02)


@pytest.mark.parametrize(
    ("limit", "first"),
    [
        ({"service_calls_per_second": 50.0}, "service's calls"),
        ({"service_tasks_per_second": 10_000.0}, "service's creation"),
        ({"uplink_bytes_per_second": 3e6}, "uplink"),
    ],
)
def test_the_narrowest_place_sets_the_pace_and_is_named(limit, first):
    one = outlook(replace(COSTS, **limit), 1)
    assert one.breaks_first.startswith(first)
    assert one.records_per_second == pytest.approx(10_000, rel=0.02)


def test_a_full_disk_comes_before_any_speed():
    assert outlook(replace(COSTS, disk_bytes=1e9), 1).breaks_first == "disk: 38 GB of ledger per machine"


def test_too_few_batches_on_their_way_saturate_nothing():
    assert outlook(replace(COSTS, call_seconds=10.0), 1).breaks_first.startswith("nothing is saturated")


def test_more_machines_do_not_help_against_a_global_limit():
    costs = replace(COSTS, service_tasks_per_second=10_000.0)
    assert table([outlook(costs, 10)]).splitlines()[1].split()[1] == "10,000"
