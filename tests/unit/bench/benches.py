"""A bench as it may have been measured."""

from pathlib import Path

from engine.bench.loads import Knee, Load
from engine.bench.meter import Measure, Second
from engine.bench.results import Bench, BenchPlan, BenchStep
from engine.model.outcome import Tally
from engine.progress.histogram import Histogram


def measure(throughput, seconds):
    times = Histogram()
    times.record(seconds, 1000)
    found = times.percentiles()
    timeline = [Second(0, 1000, 0, 0.0, 0.0), Second(1, 0, 1000, seconds, seconds)]
    return Measure(1.5, 1000, 10, 1000, 0, 0, throughput, found, found, 60, 3, 1, 4, 0, 0.0, "", "", timeline)


def bench(*, rate=None, host="api.example.com", ended="It ended one step beyond the knee, at 4."):
    loads = [Load(1000, 100, n, None if rate is None else rate * n) for n in (1, 2, 4)]
    plan = BenchPlan("sama", host, local=False, project="42", loads=loads)
    reached = [(1000.0, 0.2), (1900.5, 0.25), (1950.0, 0.6)]
    steps = [BenchStep(load, f"bench-{at:02}", at * 2.0, measure(*reached[at])) for at, load in enumerate(loads)]
    tally = Tally(3000, 30, 3000)
    knee = Knee(1, "the next step changed throughput by +3%")
    return Bench(plan, 10.0, 7, {"batch.max_records": 100}, steps, knee, ended, tally, 0, Path("out/b"))
