"""One request per record: specs in a file in, drafts at an nginx that answers as Seven Bridges out; no budget."""

from __future__ import annotations

from benchmarks.harness import Contender, Row, Section, Session, Target, alternate, peer, python, speed_ratios
from benchmarks.nginx import nginx
from benchmarks.ours import NAME, drafts_config, submitting
from benchmarks.workload import write_specs

VENDOR = "sevenbridges-python, 100 threads"
AIOHTTP = "bare aiohttp loop"
IN_FLIGHT = 100

CAUSE = """aiohttp alone takes about 106 µs of CPU a request; 0.8 of the bare loop would leave 35 µs for \
reading, the marker, two durable steps, the events and the report. Tried: kept connections, one \
step fewer, steps written together, payloads read ahead, tasks that serve again, reports by the group: \
1,269 to about 320 µs a record. What is left is Python, spread thin."""

METHOD = f"""Each record is a task spec, and each becomes a draft by a request of its own; nginx answers each with \
the same draft and tells of no request budget. {IN_FLIGHT} requests are under way at once for every contender. \
bulksubmit validates each spec, gives it a marker, makes its steps durable and writes a report. The vendor's client \
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
                remark="no parsing, no marker, no ledger",
            ),
        ]
        runs = alternate(contenders, session.rounds(3, 70), session.folder)
    measure = "one request per record"
    rows = [
        Row(measure, VENDOR, speed_ratios(runs, NAME, VENDOR), Target(3), cause=CAUSE),
        Row(measure, AIOHTTP, speed_ratios(runs, NAME, AIOHTTP), Target(0.8), cause=CAUSE),
    ]
    settings = {"records": count, "requests at once": IN_FLIGHT}
    return Section("per_record", "One request per record", METHOD, rows, contenders, runs, settings)
