"""How near the concurrency that is found out comes to the best fixed one, and what a billion records would take.

Both are simulated: the servers are data (`benchmarks/simulation/servers`), time is made up, and the controller is the
engine's own.
"""

from __future__ import annotations

from benchmarks.harness import Row, Section, Session, Target
from benchmarks.simulation import scale
from benchmarks.simulation.results import as_json, compared
from benchmarks.simulation.sweep import SETTINGS

NEAR = Target(90, at_least=True)

METHOD = f"""A server is described by a file: its capacity, how its answers slow down as calls crowd in, what it \
refuses, and what changes on the way. Each runs in made-up time under every fixed setting of {SETTINGS[0]} to \
{SETTINGS[-1]} calls in flight, under the engine's controller, and under Vector's rule (adaptive request concurrency, \
written from its published parameters); the best fixed setting is what one would have to know beforehand. Throughput \
is counted over the whole run, the ramp included. The parameters of the controller were chosen on these same servers."""

SCALE = """A model with the costs in `benchmarks/simulation/measured.json` (those of a service are assumed, and marked \
so) says what 10⁹ records would take, and what gives way first:"""


def adapting(session: Session) -> Section:
    """Run every server once under each rule."""
    del session  # in made-up time a quick run is no quicker
    comparisons = compared()
    rows = [
        row
        for one in comparisons
        for row in (
            Row(f"throughput, {one.server.name}", "best fixed setting", [100 * one.share], NEAR, "%"),
            Row(
                f"throughput of Vector's rule, {one.server.name}",
                "best fixed setting",
                [100 * one.vector_share],
                unit="%",
            ),
        )
    ]
    return Section("adapting", "Concurrency that is found out", METHOD, rows, series=as_json(comparisons))


def scaling(session: Session) -> Section:
    """Reckon what many machines would do."""
    del session
    costs = scale.read_costs()
    tables = [
        ("Against a service with global limits", costs),
        ("Against a service that takes whatever comes", scale.unlimited(costs)),
    ]
    parts = [SCALE]
    for title, assumed in tables:
        outlooks = [scale.outlook(assumed, machines) for machines in scale.MACHINES]
        parts += [f"{title}:", f"```\n{scale.table(outlooks)}\n```"]
    return Section("scaling", "A billion records", "\n\n".join(parts))
