"""What happened enters, numbers and words by name leave. The server's journal is the judge, never the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from engine.adaptive.concurrency import LimitChanged
from engine.progress.events import Paused

from .scenario import Range, Scenario
from .server import ACCESS_KEYS, kinds
from .world import Played

GATE_CLOSED = "one call at a time"
"""Of the event that tells that a retry budget is spent."""
SPAN_SECONDS = 60.0
"""Before an outage: what is usual."""
RECOVERED_SECONDS = 5.0
"""After it: time over which calls are counted again."""

NEEDED = frozenset({"created", "duplicated", "lost", "exit_code"})
"""Measures that every scenario must accept something of."""

Measured = float | str


def complaints(played: Played) -> Iterator[str]:
    """Yield what must never be, whatever a scenario accepts."""
    yield from played.audit.findings
    if not played.audit.holds:
        yield f"the audit counts {played.audit.records} records and {dict(played.audit.fates)}"
    for outcome in played.outcomes:
        created = played.server.journal.get(str(outcome["index"]), [])
        if outcome["state"] == "created" and created != [outcome["task_id"]]:
            yield f"record {outcome['index']} is said to be task {outcome['task_id']}, and is {created}"
        if outcome["state"] in {"failed", "rejected"} and created:
            yield f"record {outcome['index']} is said to be {outcome['state']}, and is {created}"
    said = " ".join([*(result.message for result in played.results), *map(str, played.events), str(played.outcomes)])
    yield from (f"the key {key!r} is shown" for key in ACCESS_KEYS if key in said)


def differences(played: Played) -> Iterator[str]:
    """Yield each measure that is not as the scenario accepts it."""
    for name, accepted in checked_names(played.scenario):
        measured = MEASURES[name](played)
        if not _is_accepted(measured, accepted):
            yield f"{name} is {measured!r}, accepted is {accepted!r}"


def checked_names(scenario: Scenario) -> Iterator[tuple[str, float | str | Range]]:
    """Yield what the scenario accepts; an unknown name, or one that is missing, is an error."""
    if unknown := scenario.accept.keys() - MEASURES.keys():
        raise ValueError(f"{scenario.name}: no such measure: {sorted(unknown)}; known: {sorted(MEASURES)}")
    if missing := NEEDED - scenario.accept.keys():
        raise ValueError(f"{scenario.name}: [accept] says nothing of {sorted(missing)}")
    yield from scenario.accept.items()


def _is_accepted(measured: Measured, accepted: float | str | Range) -> bool:
    if isinstance(accepted, tuple):
        return accepted[0] <= float(measured) <= accepted[1]
    if isinstance(accepted, str):
        return accepted in str(measured)
    return measured == accepted


def _batches(played: Played) -> int:
    return -(-played.scenario.job.records // played.scenario.job.batch_records)


def _fates(state: str) -> Callable[[Played], Measured]:
    return lambda played: sum(outcome["state"] == state for outcome in played.outcomes)


def _status_answers(status: int) -> Callable[[Played], Measured]:
    return lambda played: sum(seen == status for _, _, seen in played.server.answered)


def _duplicated(played: Played) -> Measured:
    return sum(len(ids) > 1 for ids in played.server.journal.values())


def _lost(played: Played) -> Measured:
    """Count records that do not exist and of which nobody says so."""
    excused = {
        str(outcome["index"])
        for outcome in played.outcomes
        if outcome["state"] in {"failed", "rejected", "uncertain", "unresolved"}
    }
    markers = map(str, range(played.scenario.job.records))
    return sum(marker not in played.server.journal and marker not in excused for marker in markers)


def _limits_moved(played: Played) -> Measured:
    return " ".join(sorted({event.name for _, event in played.events if isinstance(event, LimitChanged)}))


def _refused_for_size(played: Played) -> Measured:
    """Count bodies that were refused: the store says it with a 400, which nothing else here is told."""
    return sum((kind, status) in {("put", 400), ("post", 413)} for _, kind, status in played.server.answered)


def _uploads_lost(played: Played) -> Measured:
    """Count payloads that were sent and got no answer."""
    sent = sum(one.kind in {"put", "post"} for one in played.server.seen)
    return sent - sum(kind in {"put", "post"} for _, kind, _ in played.server.answered)


def _times_probed(played: Played) -> Measured:
    """Count calls that waited for their turn because the service seemed to be gone."""
    return sum(isinstance(event, Paused) and GATE_CLOSED in event.reason for _, event in played.events)


def _spent_at(played: Played) -> float:
    """Return when the engine first found its retry budget spent."""
    paused = [at for at, event in played.events if isinstance(event, Paused) and GATE_CLOSED in event.reason]
    assert paused, "the retry budget was never spent"
    return paused[0]


def _sends_per_request(played: Played) -> Measured:
    """Count requests on the wire a logical one, from the spending of the budget to the end of the job."""
    after = [one.request for one in played.server.seen if one.at >= _spent_at(played)]
    return len(after) / len({id(request) for request in after})


def _outages(played: Played) -> list[Range]:
    """Return (from, to) of each outage of the API that ended."""
    found: list[Range] = []
    steps = [(0.0, played.scenario.server), *played.scenario.changes]
    for (start, before), (end, _) in pairwise(steps):
        if before.api == "up":
            continue
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    assert found, "the API was never down"
    return found


def _sends_per_minute_down(played: Played) -> Measured:
    """Count requests to a dead API, from the spending of the budget on, over all outages."""
    spent = _spent_at(played)
    outages = [(max(start, spent), end) for start, end in _outages(played) if end > spent]
    sends = sum(start <= one.at < end for one in played.server.seen for start, end in outages)
    return 60 * sends / sum(end - start for start, end in outages)


def _recovery_seconds(played: Played) -> Measured:
    """Return after how long half as many calls as usual get through again."""
    start, end = _outages(played)[-1]
    times = [at for at, _, _ in played.server.answered]
    usual = sum(start - SPAN_SECONDS <= at < start for at in times) / min(SPAN_SECONDS, start)
    for begin in (at for at in times if at >= end):
        if sum(begin <= at < begin + RECOVERED_SECONDS for at in times) >= usual / 2 * RECOVERED_SECONDS:
            return begin - end
    return float("inf")


MEASURES: dict[str, Callable[[Played], Measured]] = {
    # What became of the records
    "created": lambda played: len(played.server.journal),
    "duplicated": _duplicated,
    "lost": _lost,
    "failed": _fates("failed"),
    "uncertain": _fates("uncertain"),
    # How the runs ended
    "exit_code": lambda played: played.results[-1].exit_code,
    "first_exit_code": lambda played: played.results[0].exit_code,
    "message": lambda played: played.results[-1].message,
    "first_message": lambda played: played.results[0].message,
    "paused": lambda played: " | ".join(event.reason for _, event in played.events if isinstance(event, Paused)),
    "resumes": lambda played: len(played.results) - 1,
    "elapsed_seconds": lambda played: played.elapsed_seconds,
    # What it found out
    "limits_moved": _limits_moved,
    "refused_for_size": _refused_for_size,
    "uploads_lost": _uploads_lost,
    # What it cost the server
    "requests_sent": lambda played: len(played.server.seen),
    "requests_per_batch": lambda played: len(played.server.seen) / _batches(played),
    "polls_per_batch": lambda played: kinds(played.server.seen)["status"] / _batches(played),
    "sends_per_logical_request": _sends_per_request,
    "sends_per_minute_down": _sends_per_minute_down,
    "times_probed": _times_probed,
    "most_at_once": lambda played: played.server.most_at_once,
    "told_401": _status_answers(401),
    "told_403": _status_answers(403),
    "told_429_share": lambda played: _status_answers(429)(played) / len(played.server.answered),
    # How soon it goes on
    "recovery_seconds": _recovery_seconds,
}
