"""How near the concurrency that is found out comes to the best fixed one.

It is simulated: the servers are data (`benchmarks/simulation/servers`), time is made up, and the controller is the
engine's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.harness import Row, Section, Session, Target
from benchmarks.simulation.results import as_json, compared, table
from benchmarks.simulation.server import FOLDER, HELD_OUT, KEPT_BACK
from benchmarks.simulation.sweep import COARSE, SETTINGS, Comparison

NEAR = Target(90, at_least=True)
BEFORE = HELD_OUT / "before.json"

METHOD = f"""A server is described by a file: its capacity, how its answers slow down as calls crowd in, what it \
refuses, and what changes on the way. Each runs in made-up time under every fixed setting of {SETTINGS[0]} to \
{SETTINGS[-1]} calls in flight, under the engine's controller, and under two rivals written from their published \
parameters: Vector's rule (adaptive request concurrency) and Netflix's Gradient2, which starts at 20 and does not heed \
push-back; both may go up to 200. The best fixed setting is what one would have to know beforehand. Throughput is \
counted over the whole run, the ramp included. The parameters of the controller were chosen on these same servers; a \
quick run tries half of the settings, once."""

HELD_OUT_METHOD = """These servers differ in kind from those above, and were never looked at while the parameters of \
the controller were chosen. *Before* is their first result, of the controller as it was then, recorded once in \
`before.json`. On most of the twelve that were written first it costs nothing to ask for too much; five in which it \
does (`busy-by-turns`, `deaf-beyond`, `few-writers`, `penalty-box` and `swapping`) were added before the controller \
met these."""

MEND = """Two misses, `penalty-box` and `swapping`, led to one mend: what a look costs is counted in seconds, the \
pause after a push-back among them, and waited for in proportion; before, it was counted in runs, up to two dozen. \
When the controller was made shorter, too, `pareto` and `autoscaler` told of two rules that had better stay. For \
both the set is held out no longer. Four servers that were written with the first twelve were kept back until all \
that was done, and ran once: 95, 95, 97 and 98%. One change came after that, from a measurement with nginx and not \
from any of these: nothing is judged to fail within a quarter of a second. *Before* is the first controller:"""


def chosen_on(session: Session) -> Section:
    """Run the servers that the controller was made with."""
    comparisons = _compared(session, FOLDER)
    method = f"{METHOD}\n\n{table(comparisons)}"
    title = "Concurrency that is found out"
    return Section("adapting", title, method, _rows(comparisons), series=as_json(_first(comparisons)))


def held_out(session: Session) -> Section:
    """Run those that it had not met."""
    before = json.loads(BEFORE.read_text(encoding="utf-8"))
    sets = [_compared(session, folder) for folder in (HELD_OUT, KEPT_BACK)]
    tables = [table(one, before["shares"]) for one in sets]
    method = "\n\n".join([HELD_OUT_METHOD, tables[0], MEND, tables[1]])
    rows = [*_rows(sets[0], "held out: "), *_rows(sets[1], "kept back: ")]
    series = [one for some in sets for one in as_json(_first(some))]
    settings = {"controller before": before["commit"]}
    return Section("held_out", "Servers that were held out", method, rows, settings=settings, series=series)


def _compared(session: Session, folder: Path) -> Sequence[Comparison]:
    return compared((1,), folder, COARSE) if session.quick else compared((1, 2, 3), folder)


def _first(comparisons: Sequence[Comparison]) -> Sequence[Comparison]:
    """Return one comparison of each server: what is plotted."""
    return [one for one in comparisons if one.seed == 1]


def _rows(comparisons: Sequence[Comparison], prefix: str = "") -> Sequence[Row]:
    shares: Mapping[str, list[float]] = {
        name: [100 * one.share for one in some] for name, some in groupby(comparisons, lambda one: one.server.name)
    }
    return [
        Row(f"throughput, {prefix}{name}", "best fixed setting", figures, NEAR, "%") for name, figures in shares.items()
    ]
