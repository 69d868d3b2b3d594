"""Facts of a job as they may be: one of a usual night, and one of which everything is as much as can be."""

import random

from engine.model.outcome import Tally
from engine.model.runs import BatchTime, CallCounts, LimitStep, PastAudit, PastRun, RunCounts, Sample
from engine.progress.histogram import COARSE, Histogram
from engine.reports import causes as causes_of
from engine.reports import overview as facts_of
from engine.reports.causes import Cause, Causes, FailureExample
from engine.reports.overview import (
    AuditFacts,
    JobFacts,
    LimitChange,
    Lineage,
    NextCommand,
    Overview,
    SeriesPoint,
    SlowBatch,
    SourceFacts,
    find_calls,
    sum_of,
)

BEGUN = 1_796_000_000.0


def spread(draw, median, count):
    histogram = Histogram(COARSE)
    for _ in range(count):
        histogram.record(draw.lognormvariate(0, 0.6) * median)
    return histogram


def usual_facts(seed=1):
    """Return the facts of a night of two runs, with a pause, a changed limit and some failures."""
    draw = random.Random(seed)
    kinds = {"create": (0.21, 990), "put": (0.9, 985), "continue": (0.12, 985), "status": (0.05, 3_200)}
    calls = {
        kind: CallCounts(
            number,
            number * 480_000 * (kind == "put"),
            {"200": number - 14, "503": 9, "429": 4, "no answer": 1},
            spread(draw, median, number).spread,
        )
        for kind, (median, number) in kinds.items()
    }
    reasons = (
        "growth stopped paying at 12.1 batches/s",
        "the service pushed back (429)",
        "a probe of 12 pays: 1.31 times the speed",
    )
    steps = [LimitStep(30.0 * at + 4, "max_in_flight", 2 + at, 3 + at, reasons[at % 3]) for at in range(12)]
    runs = [
        PastRun(
            1,
            BEGUN,
            "loader-1",
            "0.1.0",
            BEGUN + 900,
            5,
            "the deadline of 05:30 is reached: `bulksubmit resume images-2026-11-28` goes on",
            RunCounts(
                700_000,
                640_000,
                5_100,
                1_204,
                sent_bytes=310_000_000,
                requests=4_200,
                retries=31,
                warnings=2,
                seconds={"read": 610.0, "send": 890.0, "settle": 880.0, "all": 900.0},
                calls=calls,
                waits={"the service asks for it (HTTP 503: maintenance)": 62.0, "the pace of status calls": 11.5},
                retry_reasons={"HTTP 503; in 2.0 s again": 18, "HTTP 429; as the service asks": 9, "no answer": 4},
                limit_steps=steps,
                limits_changed=12,
            ),
        ),
        PastRun(
            2,
            BEGUN + 80_000,
            "loader-1",
            "0.1.0",
            BEGUN + 80_420,
            3,
            "",
            RunCounts(300_000, 353_200, 400, 96, sent_bytes=171_000_000, requests=1_960, calls=calls),
        ),
    ]
    points, worked = [], 0.0
    for run, length in zip(runs, (90, 42), strict=True):
        for at in range(1, length + 1):
            paused = run.number == 1 and 40 <= at < 47
            pace = 0.0 if paused else 760 * min(1, at / 8) * draw.uniform(0.85, 1.1)
            sample = Sample(
                run.begun_at + 10 * at,
                10.0,
                pace,
                pace * 480,
                pace / 170,
                draw.randint(2, 9) * (not paused),
                min(14, 2 + at // 3) * (not paused),
                min(14, 2 + at // 3),
                reasons[at // 31],
            )
            points.append(SeriesPoint(run.number, worked + 10.0 * at, sample))
        worked = points[-1].worked_seconds
    tally = Tally(1_000_000, 1_000, created=993_200, failed=5_500, rejected=1_300, states={"settled": 1_000})
    return Overview(
        job="images-2026-11-28",
        service="sama",
        state="finished",
        running=False,
        at=BEGUN + 90_000,
        created_at=BEGUN,
        last_step_at=BEGUN + 80_419,
        family="images",
        delta=True,
        parent=None,
        attempt=1,
        output="/srv/loads/.bulksubmit/images-2026-11-28",
        sources=[SourceFacts("/srv/exports/images-2026-11-28.csv", "csv", 481_204_551)],
        source_count=1,
        size_bytes=481_204_551,
        read_complete=True,
        tally=tally,
        later={"completed": 12_400, "rejected": 21},
        counts=sum_of(runs),
        runs=runs,
        run_count=2,
        worked_seconds=1_320.0,
        series=points,
        limit_changes=[LimitChange(1, BEGUN + step.at_seconds, step) for step in steps],
        calls=find_calls(runs),
        batch_seconds=spread(draw, 14.0, 990).percentiles(),
        slowest=[
            SlowBatch(
                str(17 * at), 1, BatchTime(17 * at, 1_000, 480_000, 91.0 - 3 * at, 70.0 - 3 * at), f"8785610{at:02}"
            )
            for at in range(20)
        ],
        causes=Causes(
            [
                a_cause("failed", "data.image: the address … cannot be reached", 4_812),
                a_cause("rejected", "priority: not an integer (…)", 1_300),
                a_cause("failed", "InvalidInputSchema: data.status must not be broken.", 670),
                a_cause("rejected later", "the quality check did not pass: boxes overlap", 21),
            ],
            6_821,
            18,
        ),
        nights=[
            JobFacts(
                f"images-2026-11-{day}",
                "finished",
                BEGUN - 86_400 * (28 - day),
                Tally(1_000_000, 1_000, created=20_000 + day, failed=draw.randint(0, 90), skipped=979_900),
                draw.choice((0, 3)),
            )
            for day in range(28, 20, -1)
        ],
        night_count=8,
        lineage=Lineage(retries=[JobFacts("images-2026-11-28.retry", "open", BEGUN + 85_000, Tally(6_800, 7), 5)]),
        audit=AuditFacts(PastAudit(BEGUN + 81_000, holds=True, records=1_000_000, batches=1_000), outdated=False),
        next=[
            NextCommand("send failed and rejected again", "bulksubmit retry images-2026-11-28"),
            NextCommand("prove that every record is accounted for", "bulksubmit audit images-2026-11-28"),
        ],
    )


def a_slow_batch(at):
    took = BatchTime(17 * at, 1_000, 480_000, 91.0 - 3 * at, 70.0 - 3 * at)
    return SlowBatch(str(17 * at), 1, took, f"8785610{at:02}")


def a_cause(fate, words, records, examples=20):
    later = fate.endswith("later")
    return Cause(
        fate,
        words,
        records,
        [
            FailureExample(
                1_000 * at + 7,
                "/srv/exports/images-2026-11-28.csv",
                48_123 * at,
                1_000 * at + 9,
                str(at),
                f"6b0aeea1345dc6e9000000{at:02}" if later else None,
                f"https://app.sama.com/projects/42/tasks/6b0aeea1345dc6e9000000{at:02}" if later else None,
                words.replace("…", f"https://img.example/{at}.jpg"),
            )
            for at in range(min(examples, records))
        ],
    )


def worst_facts(words="A message that is as long as one may be, & not <short>. "):
    """Return facts of which everything is as much, and as long, as can be."""
    base, text = usual_facts(), (words * 300)[:300]
    sample = Sample(BEGUN, 10.0, 1e6 / 7, 1e9 / 7, 1e4 / 7, 99_999, 99_999, 99_999, text)
    step = LimitStep(5.0, "max_batch_bytes", 10**12, 10**12 - 1, text)
    calls = {
        f"{at} {text}"[:40]: CallCounts(10**9, 10**15, {str(code): 10**9 for code in range(400, 420)}, base_spread())
        for at in range(facts_of.MOST_KINDS)
    }
    reasons = {f"{at} {text}": 10**9 for at in range(facts_of.REASONS_TOLD)}
    run = PastRun(
        10**6, BEGUN, text, text, BEGUN + 9e9, 9, text, RunCounts(waits=reasons, retry_reasons=reasons, calls=calls)
    )
    example = FailureExample(10**10, text, 10**15, 10**10, "1.2.1.2.1.2", text, f"https://app.sama.com/{text}", text)
    examples = [example] * causes_of.EXAMPLES_TOLD
    fates = ("failed", "rejected", "uncertain", "failed later", "rejected later")
    other = JobFacts("n" * 100, "finished", BEGUN, Tally(10**10, 10**8, 10**10), 130)
    return Overview(
        **{name: getattr(base, name) for name in ("service", "running", "at", "created_at", "last_step_at", "delta")},
        **{name: getattr(base, name) for name in ("size_bytes", "read_complete", "tally", "later", "batch_seconds")},
        job="j" * 100,
        state="finished",
        family="f" * 100,
        parent="p" * 100,
        attempt=10**6,
        output=text,
        sources=[SourceFacts(text * 10, text, 10**15)] * facts_of.MOST_SOURCES,
        source_count=100_000,
        counts=sum_of([run]),
        runs=[run] * facts_of.RUNS_TOLD,
        run_count=10**6,
        worked_seconds=1e9,
        series=[SeriesPoint(at, 1e6 * at, sample) for at in range(1, facts_of.MOST_POINTS + 1)],
        limit_changes=[LimitChange(10**6, BEGUN, step)] * facts_of.MOST_STEPS,
        calls=find_calls([run]),
        slowest=[SlowBatch("1.2.1.2", 10**6, BatchTime(1, 10**9, 10**12, 1e6, 1e6), text)] * facts_of.MOST_SLOWEST,
        causes=Causes(
            [Cause(fates[at % 5], text, 10**9, examples) for at in range(causes_of.MOST_CAUSES)],
            10**12,
            10**9,
        ),
        nights=[other] * facts_of.MOST_NIGHTS,
        night_count=10**5,
        lineage=Lineage([other] * facts_of.MOST_RELATIVES, [other] * facts_of.MOST_RELATIVES),
        audit=AuditFacts(
            PastAudit(BEGUN, holds=False, records=10**10, batches=10**8, findings=[text] * 20, found=100), outdated=True
        ),
        next=[NextCommand(text, text)] * 6,
    )


def base_spread():
    return spread(random.Random(5), 1.0, 500).spread
