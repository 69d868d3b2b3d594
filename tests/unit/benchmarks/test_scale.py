from dataclasses import replace

import pytest

from benchmarks import scaling
from benchmarks.ours import NAME
from benchmarks.simulation.scale import costs_of, outlook, read_costs, table, unlimited
from engine.model.settings import MOST_IN_FLIGHT, BatchSettings

COSTS = replace(costs_of(read_costs()), batches_in_flight=16, calls_per_batch=5.0, record_bytes=300.0, disk_bytes=1e12)


def test_one_machine_is_held_up_by_its_core():
    costs = replace(COSTS, call_seconds=0.01)
    one = outlook(unlimited(costs), 1)
    assert one.records_per_second == pytest.approx(1e6 / costs.cpu_microseconds_per_record, rel=0.01)
    assert one.breaks_first.startswith("CPU")


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
    assert outlook(replace(COSTS, disk_bytes=1e9), 1).breaks_first == "disk: 271 GB of ledger and outcomes"


def test_too_few_batches_on_their_way_saturate_nothing():
    assert outlook(replace(COSTS, call_seconds=10.0), 1).breaks_first.startswith("nothing is saturated")


def test_more_machines_do_not_help_against_a_global_limit():
    costs = replace(COSTS, service_tasks_per_second=10_000.0)
    assert table([outlook(costs, 10)]).splitlines()[1].split()[1] == "10,000"


def test_what_is_set_is_what_the_engine_sets():
    known = read_costs()
    assert known["batches_in_flight"].value == MOST_IN_FLIGHT
    assert known["batch_records"].value == BatchSettings().max_records
    assert {cost.known for cost in known.values()} == {"measured before", "set", "assumed"}


def test_what_the_same_run_measured_takes_the_place_of_what_stands_there():
    def runs(name, **figures):
        return {f"{name}, typical": [{"work": 1000, "seconds": 0.005, "cpu_seconds": 0.0, **figures}]}

    ours, forgetful = runs(NAME, cpu_seconds=0.020), runs(scaling.end_to_end.NO_LEDGER, cpu_seconds=0.016)
    sections = {
        "readers": {"runs": runs(scaling.readers.NDJSON)},
        "end_to_end": {"runs": ours | forgetful},
        "resume": {"settings": {"bytes": 400, "records": 10}},
    }
    found = scaling.measured(sections)
    assert set(found) < set(read_costs())
    assert {cost.known for cost in found.values()} == {"measured"}
    steps = [found[f"{step}_microseconds_per_record"].value for step in ("read", "send", "report")]
    assert steps == pytest.approx([5, 11, 4])
    assert found["ledger_bytes_per_record"].value == 40
    assert found["calls_per_batch"].value > scaling.CALLS_BESIDE_POLLS


def test_without_other_measures_only_what_is_simulated_is_measured():
    assert set(scaling.measured({})) == {"calls_per_batch"}
