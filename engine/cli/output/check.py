"""The screens of `check`, and of its probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec.structs import asdict, replace

from engine.cli.output.screen import Mood, Screen, Table
from engine.commands.check import Checked, CheckReport
from engine.commands.probe import Probed, Seen
from engine.commands.trace import Trace, TracedExchange
from engine.model.errors import Exit
from engine.progress.text import count, size
from engine.services.checks import CheckVerdict


def check_screen(report: CheckReport) -> Screen:
    """Return a line for each check, with what to do about those that are not well."""
    failed = report.failed
    exit_code = Exit.MEND_FIRST if failed else Exit.ALL_CREATED
    warned = any(one.verdict is CheckVerdict.WARNING for one in report.lines)
    return Screen(
        f"{_headline(report)} Nothing was created.",
        {**check_data(report), "exit_code": int(exit_code)},
        mood=Mood.BAD if failed else Mood.MIXED if warned else Mood.GOOD,
        tables=[Table([row for one in report.lines for row in _rows(one)])],
        exit_code=exit_code,
    )


def check_data(report: CheckReport) -> dict[str, object]:
    """Return the checks as JSON has them."""
    checks = [
        {**{key: value for key, value in asdict(one).items() if key != "seconds"}, "seconds": round(one.seconds, 3)}
        for one in report.lines
    ]
    return {"config": report.config, "destination": report.destination or None, "checks": checks}


def _headline(report: CheckReport) -> str:
    counted = Counter(one.verdict for one in report.lines)
    where = f" A load would go to {report.destination}." if report.destination else ""
    if failed := report.failed:
        names = ", ".join(one.name for one in failed)
        return f"{count(len(failed), 'check')} failed: {names}.{where}"
    said = f"{count(counted[CheckVerdict.OK])} of {count(len(report.lines), 'check')} are well"
    if counted[CheckVerdict.WARNING]:
        said += f", {count(counted[CheckVerdict.WARNING], 'warning')}"
    if counted[CheckVerdict.UNCHECKED]:
        said += f", {count(counted[CheckVerdict.UNCHECKED])} not made"
    return f"{said}.{where}"


def _rows(one: Checked) -> list[list[str]]:
    rows = [[str(one.verdict), one.name, one.found]]
    if one.cure and one.verdict in {CheckVerdict.FAILED, CheckVerdict.WARNING}:
        rows.append(["", "", f"To mend it: {one.cure}."])
    return rows


def _kept(report: CheckReport, job: str) -> str:
    if report.undoable:
        return f" They stay; `bulksubmit undo {job}` deletes them."
    return " They stay: nothing here can take them back. Delete them at the service."


_JUDGED = {True: "holds", False: "wrong"}


def probe_screen(report: CheckReport, probed: Probed, deleted: str = "") -> Screen:
    """Return what became of the tasks of a probe, and which guesses hold; `deleted` says what was taken back."""
    result, counted = probed.result, Counter(one.holds for one in probed.guesses)
    tasks = count(result.tally.created, "task")
    said = f"{counted[True]} guesses hold, {counted[False]} do not, {counted[None]} could not be seen"
    kept = "" if deleted or not result.tally.created else _kept(report, result.job)
    fine = result.exit_code == Exit.ALL_CREATED
    seen = [one for one in sorted(probed.guesses, key=lambda one: bool(one.holds)) if one.holds is not None]
    unseen = ", ".join(one.name for one in probed.guesses if one.holds is None)
    rows = [[_JUDGED[bool(one.holds)], one.name, f"{one.believed}{_sight(one)}"] for one in seen]
    data = {
        "job": result.job,
        "ledger": str(probed.ledger),
        "state": str(result.state),
        "created": result.tally.created,
        "failed": result.tally.failed,
        "message": result.message or None,
        "deleted": deleted or None,
        "guesses": [asdict(one) for one in probed.guesses],
    }
    return Screen(
        f"{tasks} created at {report.destination} as job {result.job}; {said}.{kept}",
        {**check_data(report), "probe": data, "exit_code": int(result.exit_code)},
        mood=Mood.BAD if not fine else Mood.MIXED if counted[False] else Mood.GOOD,
        tables=[
            Table([["message", result.message]] if result.message else []),
            Table([["deleted", deleted]] if deleted else []),
            Table(rows, "Guesses about the service; docs/guesses.md says what is done where one is wrong"),
            Table([[unseen]] if unseen else [], "Guesses that two tasks could not show"),
        ],
        exit_code=result.exit_code,
    )


def _sight(one: Seen) -> str:
    return f" — {one.seen}" if one.seen else ""


_SHOWN_LINES = 6
"""Of a body on the screen; `--json` has more."""
_LINE_CHARACTERS = 700


def with_trace(screen: Screen, trace: Trace | None, *, planned: bool = False) -> Screen:
    """Return a screen with what was heard of the service below it; `planned`: and what a load would send."""
    if trace is None:
        return screen
    told = trace_screen(trace, planned=planned)
    return replace(screen, data={**screen.data, **told.data}, tables=[*screen.tables, *told.tables])


def trace_screen(trace: Trace, *, planned: bool = False) -> Screen:
    """Return each request with its answer, and what was taken from it by name."""
    shown = [*trace.exchanges, *(trace.planned if planned else ())]
    tables = [_exchange(number, one) for number, one in enumerate(shown, 1)]
    if trace.left_out:
        tables.append(Table([[f"{count(trace.left_out, 'further request')} left out"]]))
    data = [{**asdict(one), "taken": dict(one.taken)} for one in shown]
    headline = f"{count(len(trace.exchanges), 'request')} heard."
    return Screen(headline, {"trace": data, "trace_left_out": trace.left_out}, tables=tables)


def _exchange(number: int, one: TracedExchange) -> Table:
    times = f", {one.times} times" if one.times > 1 else ""
    title = f"{number}. {one.kind}{times}{'' if one.sent else ', not sent: a load would'}"
    rows = [["request", f"{one.method} {one.url}"]]
    rows += [["", f"{name}: {value}"] for name, value in one.headers.items()]
    rows += [["", line] for line in _lines(one.body, one.size_bytes)]
    if one.sent:
        rows.append(["answer", f"status {one.status}" if one.status is not None else f"none: {one.lost}"])
        rows += [["", f"{name}: {value}"] for name, value in one.answer_headers.items()]
        rows += [["", line] for line in _lines(one.answer)]
        rows += [["taken" if not at else "", f"{name} = {value}"] for at, (name, value) in enumerate(one.taken)]
    return Table(rows, title, whole=frozenset({1}))


def _lines(body: str, size_bytes: int = 0) -> Iterator[str]:
    """Yield the first lines of a body."""
    lines = body.splitlines()
    for line in lines[:_SHOWN_LINES]:
        yield line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]}…"
    if len(lines) > _SHOWN_LINES:
        whole = f", {size(size_bytes)} in all" if size_bytes else ""
        yield f"… {count(len(lines) - _SHOWN_LINES, 'more line')} here{whole}"
