"""`bench.html`: plots and a table on one page that needs no script, no network and no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.bench.results import Bench, BenchStep, rows
from engine.progress.charts import STYLE, Line, Plot, svg
from engine.progress.html import document, element, table

_HOW_TO_READ = """
Time to created runs from the moment at which a record's batch was due to be sent until the poll that showed its task
created: upload, the service's own work, and up to one pause between two polls.

In an open loop batches are due on a schedule, whether or not the service keeps up; in a closed one, when one of those
before it is done. Times are corrected for coordinated omission: what a stalled service kept from being sent counts.

Throughput is what was created, by the time in which the first 95 of 100 were: stragglers show in the percentiles.
An offered rate that is kept up with looks a little lower for the time that its last batch took.

The knee is the last step that paid: in the next one throughput gained less than 5 %, or the median doubled.

Percentiles are at most 1 % too long. Where few records were measured, p99.9 is the maximum.
"""


def page(bench: Bench) -> str:
    """Return the page."""
    title = f"Time to created: {bench.plan.kind} at {bench.plan.host}"
    facts = [headline(bench), *_facts(bench), *bench.hints]
    plots = [*_by_step(bench), _over_time(bench.steps)] if bench.steps else []
    head, *body = rows(bench)
    figures = range(1, len(head))
    regions = [
        element("div", svg(plot), class_="wide", tabindex=0, role="region", aria_label=plot.title) for plot in plots
    ]
    contents = [
        element("h1", title),
        *(element("p", fact) for fact in facts),
        table("What each step brought", head, body, figures=figures),
        *regions,
        element("h2", "How to read it"),
        element("ul", *(element("li", hint) for hint in _HOW_TO_READ.strip().split("\n\n"))),
    ]
    return document(title, [element("main", *contents)], STYLE)


def headline(bench: Bench) -> str:
    """Return the result in a sentence."""
    best = bench.best
    if best is None:
        return "Nothing was measured."
    lasting = ", in bursts" if best.is_bursty else ""
    said = f"Best: {best.measure.throughput:,.1f} records a second {loaded(best)}{lasting}."
    if bench.knee is None:
        return f"{said} No knee was found."
    return f"{said} The knee is {loaded(bench.steps[bench.knee.place])}: {bench.knee.reason}."


def loaded(step: BenchStep) -> str:
    """Return under which load a step was."""
    if step.load.rate is not None:
        return f"at {step.load.label} records a second offered"
    if step.load.in_flight is None:
        return "with as many batches at once as the engine found best"
    return f"with {'one batch' if step.load.in_flight == 1 else f'{step.load.label} batches'} at once"


def _facts(bench: Bench) -> list[str]:
    tasks = "Tasks came from files." if bench.seed is None else f"Tasks were generated from seed {bench.seed}."
    project = f", project {bench.plan.project}" if bench.plan.project else ""
    settings = ", ".join(f"{name} = {value}" for name, value in bench.settings.items())
    return [f"{bench.plan.kind} at {bench.plan.host}{project}. {tasks} {bench.ended}", f"Settings: {settings}."]


def _by_step(bench: Bench) -> list[Plot]:
    steps = bench.steps
    names = [step.load.label for step in steps]
    across = "records per second offered" if steps[0].load.rate is not None else "batches at once"
    marks = [(float(bench.knee.place), "knee")] if bench.knee else []

    def line(name: str, value: Callable[[BenchStep], float]) -> Line:
        return Line(name, [(float(place), value(step)) for place, step in enumerate(steps)])

    reached = [line("created", lambda step: step.measure.throughput)]
    if steps[0].load.rate is not None:
        reached.append(line("offered", lambda step: step.load.rate or 0.0))
    times = [
        line("p50", lambda step: step.measure.time_to_created.p50),
        line("p90", lambda step: step.measure.time_to_created.p90),
        line("p99", lambda step: step.measure.time_to_created.p99),
        line("p99.9", lambda step: step.measure.time_to_created.p999),
        line("p99 uncorrected", lambda step: step.measure.time_to_created_uncorrected.p99),
    ]
    return [
        Plot("Throughput by step", across, "records per second", reached, names, marks),
        Plot("Time to created by step", across, "seconds", times, names, marks),
    ]


def _over_time(steps: Sequence[BenchStep]) -> Plot:
    seen = [
        (step.started + second.second + 0.5, second)
        for step in steps
        for second in step.measure.timeline
        if second.created
    ]
    return Plot(
        "Time to created over time",
        "seconds since the first step began",
        "seconds",
        [
            Line("median", [(at, second.median) for at, second in seen]),
            Line("longest", [(at, second.longest) for at, second in seen]),
        ],
        marks=[(step.started, step.load.label) for step in steps],
    )
