"""Print how the rules fare and what a billion records take: `python -m benchmarks.simulation`.

`python -m benchmarks --only adapting` writes the same comparisons down and draws them.
"""

from __future__ import annotations

import argparse

from benchmarks.simulation import scale
from benchmarks.simulation.results import compared, table


def main() -> None:
    """Run every server under every rule, then the model of scale."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    options.add_argument("--seeds", type=int, default=1, help="runs of each server; the median is shown")
    chosen = options.parse_args()
    comparisons = compared(range(1, chosen.seeds + 1))
    print("Throughput as a share of the best fixed setting")
    print(table(comparisons))
    costs = scale.costs_of(scale.read_costs())
    print("\n10^9 records against the service's global limits")
    print(scale.table([scale.outlook(costs, machines) for machines in scale.MACHINES]))
    print("\n10^9 records against a service without limits")
    print(scale.table([scale.outlook(scale.unlimited(costs), machines) for machines in scale.MACHINES]))


if __name__ == "__main__":
    main()
