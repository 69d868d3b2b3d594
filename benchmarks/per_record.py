"""One request per record: specs in a file in, drafts at an nginx that answers as Seven Bridges out; no budget."""

from __future__ import annotations

from benchmarks.harness import Contender, Row, Section, Session, Target, alternate, peer, python, speed_ratios
from benchmarks.nginx import nginx
from benchmarks.ours import NAME, drafts_config, submitting
from benchmarks.workload import write_specs

VENDOR = "sevenbridges-python, 100 threads"
AIOHTTP = "bare aiohttp loop"
IN_FLIGHT = 100

METHOD = f"""Each record is a task spec, and each becomes a draft by a request of its own; nginx answers each with a \
draft and tells of no request budget. {IN_FLIGHT} requests are under way at once for every contender. bulksubmit \
validates each spec, gives it a client reference, makes its steps durable and writes a report. The vendor's client \
reads the same file and creates from {IN_FLIGHT} threads. The bare loop of aiohttp sends each line of the file as it \
stands."""


def measure(session: Session) -> Section:
    """Measure the three in turn."""
    count = session.size(6_000, 2_000)
    source = session.made(f"specs-{count}.ndjson", lambda path: write_specs(path, count))
    with nginx(session.folder) as url:
        config = drafts_config(session.folder / "drafts.toml", url, IN_FLIGHT)
        contenders = [
            submitting(source, config, count),
            Contender(
                VENDOR,
                peer("benchmarks.contenders.sevenbridges_threads", f"{url}/v2", source),
                count,
                remark="no ledger",
            ),
            Contender(
                AIOHTTP,
                python("benchmarks.contenders.replay", f"{url}/v2/tasks", source, IN_FLIGHT),
                count,
                remark="no parsing, no client reference, no ledger",
            ),
        ]
        runs = alternate(contenders, session.rounds(5, 70), session.folder)
    measure = "one request per record"
    rows = [
        Row(measure, VENDOR, speed_ratios(runs, NAME, VENDOR), Target(3)),
        Row(measure, AIOHTTP, speed_ratios(runs, NAME, AIOHTTP), Target(0.5, wish=0.8)),
    ]
    settings = {"records": count, "requests at once": IN_FLIGHT}
    return Section("per_record", "One request per record", METHOD, rows, contenders, runs, settings)


ALONE = "a request by aiohttp alone"
ADDED = "a request by the engine's caller"
BODY_BYTES = 570
"""Of a typical record."""

REQUEST_METHOD = f"""The same body of {BODY_BYTES} bytes is POSTed again and again over connections that are kept, \
{IN_FLIGHT} at once, to an nginx that answers with a draft: by a bare session of aiohttp, and by the engine's caller, \
which paces, guards, judges, hides secrets and tells a display. Counted is CPU time without the start; seconds in the \
table are CPU seconds."""


def measure_request(session: Session) -> Section:
    """Measure what the engine adds to a request, without a source and a ledger."""
    count = session.size(20_000, 4_000)
    with nginx(session.folder) as url:
        contenders = [
            Contender(
                name,
                python("benchmarks.contenders.request", way, f"{url}/v2/tasks", BODY_BYTES, count, IN_FLIGHT),
                count,
                "requests",
            )
            for name, way in ((ADDED, "engine"), (ALONE, "aiohttp"))
        ]
        runs = alternate(contenders, session.rounds(7, 40), session.folder)
    added = [ours.seconds / bare.seconds - 1 for ours, bare in zip(runs[ADDED], runs[ALONE], strict=True)]
    row = Row("what the engine adds to a request, CPU", "what aiohttp takes", added, Target(0.4, at_least=False))
    settings = {"requests": count, "requests at once": IN_FLIGHT, "bytes": BODY_BYTES}
    return Section("request", "What a request costs", REQUEST_METHOD, [row], contenders, runs, settings)
