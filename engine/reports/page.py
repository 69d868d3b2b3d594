"""`report.html`: a job for whoever was not there, on one page that needs no script, no network and no other file.

It is made of an `Overview` alone, so it is bounded as that is: 2 MB at worst, and some 100 KB mostly. What a
pointer would show is printed beside each plot. Nothing of a record stands in it but its place, and what a message says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from engine.model.outcome import Fate, Tally
from engine.model.runs import PastRun
from engine.progress.charts import STYLE as CHART_STYLE
from engine.progress.charts import bar
from engine.progress.html import Content, Markup, document, element, joined, link, table
from engine.progress.text import count, duration, rate, size
from engine.reports.causes import EXAMPLES_TOLD, Cause
from engine.reports.overview import AuditFacts, JobFacts, Overview
from engine.reports.page_figures import calls, cut, moment, over_time, reasons, share, slowest

MOST_BYTES = 2_000_000
OPEN_CAUSES = 1
"""Whose examples are unfolded: that of most records."""

FATES: Mapping[Fate, tuple[str, str]] = {
    Fate.CREATED: ("good", "became a task"),
    Fate.FAILED: ("bad", "the service said no, or the job was canceled"),
    Fate.REJECTED: ("warn", "not fit to be sent, never left"),
    Fate.UNCERTAIN: ("c3", "sent, but nobody knows what became of them"),
    Fate.SKIPPED: ("c0", "known already, from an earlier job of the family"),
    Fate.UNRESOLVED: ("soft", "not known yet"),
}
"""Fate → its colour, and what it means."""

_STYLE = (
    CHART_STYLE
    + """
.lead { font-size: 1.125rem; margin: .25rem 0 1.25rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1px; margin: 1.25rem 0;
  background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; overflow: hidden; }
.cards div { padding: .75rem .9rem; outline: 1px solid var(--rule); }
.cards dt { font-size: .8125rem; color: var(--soft); }
.cards dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.cards small { display: block; font-size: .8125rem; color: var(--soft); }
.note { border-left: 4px solid var(--rule); padding: .1rem 0 .1rem .9rem; margin: 1rem 0; }
.note.good { border-color: var(--good); } .note.bad { border-color: var(--bad); }
.note.warn { border-color: var(--warn); }
.note p { color: var(--ink); }
.next { padding-left: 1.25rem; } .next li { margin: .5rem 0; }
.next code { display: block; background: var(--panel); border: 1px solid var(--rule); border-radius: 4px;
  padding: .35rem .6rem; overflow-wrap: anywhere; }
.whole { white-space: nowrap; }
.swatch { display: inline-block; width: .7rem; height: .7rem; margin-right: .45rem; vertical-align: -.05rem; }
.cause { border: 1px solid var(--rule); border-radius: 6px; padding: .5rem .9rem; margin: .6rem 0; }
.cause summary b { font-variant-numeric: tabular-nums; }
.cause bdi, td bdi { overflow-wrap: anywhere; }
.fate { font-size: .8125rem; border: 1px solid currentColor; border-radius: 3px; padding: 0 .35rem; margin: 0 .35rem; }
td.long { min-width: 16rem; }
.share { width: 7rem; margin-top: .3rem; }
footer { margin-top: 3rem; font-size: .875rem; color: var(--soft); border-top: 1px solid var(--rule); }
@media (max-width: 30rem) { body { padding: 1rem .9rem 3rem; } h1 { font-size: 1.4rem; } }
@media print { .cards { overflow: visible; } .cause { break-inside: avoid-page; } }
"""
)


def page(facts: Overview) -> str:
    """Return the page: MOST_BYTES at most. What does not fit are examples of failures, the last of each cause first."""
    for most in (EXAMPLES_TOLD, 8, 2, 0):
        made = _page(_with_examples(facts, most))
        if len(made.encode()) <= MOST_BYTES:
            break
    return made


def _with_examples(facts: Overview, most: int) -> Overview:
    """Return the facts with no more than so many examples of a cause."""
    top = [replace(cause, examples=cause.examples[:most]) for cause in facts.causes.top]
    return replace(facts, causes=replace(facts.causes, top=top))


def _page(facts: Overview) -> str:
    sections = [
        _outcome(facts),
        _causes(facts),
        over_time(facts),
        calls(facts),
        reasons(facts),
        slowest(facts),
        _runs(facts),
        _nights(facts),
        _lineage(facts),
        _about(facts),
    ]
    body = [
        element("header", *_head(facts)),
        element("main", *_standing(facts), *(element("section", *one) for one in map(list, sections) if one)),
        element("footer", *_how_to_read(facts)),
    ]
    return document(f"Job {facts.job}: {_verdict(facts)[1]}", body, _STYLE)


def _head(facts: Overview) -> Iterator[Markup]:
    yield element("h1", f"Job {facts.job}")
    yield element(
        "p",
        f"{facts.service}, begun {moment(facts.created_at)}. As the ledger had it at {moment(facts.at)}.",
        class_="soft",
    )


def _verdict(facts: Overview) -> tuple[str, str]:
    """Return how good the news are (a colour), and the news."""
    tally = facts.tally
    lost = tally.failed + tally.rejected + tally.uncertain
    if facts.running:
        return "warn", f"running: {count(tally.created)} of {count(tally.records, 'record')} read so far are created."
    if facts.state != "finished":
        left = f"{count(tally.unresolved, 'record')} unresolved" if tally.unresolved else "nothing is under way"
        return "warn", f"{facts.state}: {count(tally.created)} created, {left}."
    if not tally.records:
        return "warn", "finished: its sources hold no record."
    if not lost:
        known = f", {count(tally.skipped)} known already" if tally.skipped else ""
        return "good", f"finished: {count(tally.created)} of {count(tally.records, 'record')} created{known}."
    return "bad", f"finished: {count(tally.created)} of {count(tally.records, 'record')} created, {count(lost)} not."


def _standing(facts: Overview) -> Iterator[Markup]:
    colour, news = _verdict(facts)
    yield element("p", element("strong", news[:1].upper() + news[1:], class_=colour), class_="lead")
    yield element("dl", *_cards(facts), class_="cards")
    yield _audit(facts.audit)
    if facts.next:
        yield element("h2", "What to do next")
        steps = [element("li", step.what, element("code", step.command)) for step in facts.next]
        yield element("ol", *steps, class_="next")


def _cards(facts: Overview) -> Iterator[Markup]:
    tally, seconds = facts.tally, facts.worked_seconds
    done = facts.counts.created + facts.counts.failed + facts.counts.rejected + facts.counts.skipped
    pace = f"{rate(done / seconds)} records a second" if seconds >= 1 and done else ""
    sent, requests = facts.counts.sent_bytes, count(facts.counts.requests, "request")
    batches = ", ".join(f"{count(number)} {state}" for state, number in tally.states.items() if number)
    yield _card("Records", count(tally.records), "" if facts.read_complete else "sources not read to the end")
    yield _card("Created", count(tally.created), share(tally.created, tally.records))
    yield _card("Not created", count(tally.failed + tally.rejected + tally.uncertain), _not_created(tally))
    yield _card("Worked for", duration(seconds), f"{count(facts.run_count, 'run')}{f', {pace}' if pace else ''}")
    yield _card("Sent", size(sent), f"{requests}, {count(facts.counts.retries)} repeated")
    yield _card("Batches", count(tally.batches), batches)


def _card(name: str, value: str, note: str) -> Markup:
    return element("div", element("dt", name), element("dd", value, element("small", note) if note else None))


def _not_created(tally: Tally) -> str:
    parts = {"failed": tally.failed, "rejected": tally.rejected, "uncertain": tally.uncertain}
    return ", ".join(f"{count(number)} {name}" for name, number in parts.items() if number)


def _audit(audit: AuditFacts | None) -> Markup:
    if audit is None:
        return element("div", element("p", "No audit was made. ", *_asked("--audit")), class_="note")
    found = audit.found
    old = " Something of the job has changed since: audit it again." if audit.outdated else ""
    when = f"Audit of {moment(found.at)}"
    if found.found or not (found.holds or found.unproven):
        told = f"{when}: it does not hold, {count(found.found, 'finding')}."
        return element("div", element("p", element("strong", told), old), _listed(found.findings), class_="note bad")
    if found.unproven:
        told = f"{when}: nothing is wrong, and not all could be compared with the sources."
        return element("div", element("p", element("strong", told), old), _listed(found.unproven), class_="note warn")
    rest = f", of which {count(found.open_records)} are open or uncertain" if found.open_records else ""
    unread = f" {size(found.unread_bytes)} of the sources are unread." if found.unread_bytes else ""
    told = (
        f"{count(found.records, 'record')} in {count(found.batches, 'batch')}, each accounted for once{rest}.{unread}"
    )
    colour = "warn" if audit.outdated or rest or unread else "good"
    return element("div", element("p", element("strong", f"{when}: it holds. "), told, old), class_=f"note {colour}")


def _listed(words: Sequence[str]) -> Markup:
    return element("ul", *(element("li", element("bdi", cut(one))) for one in words))


def _asked(option: str) -> Iterator[Content]:
    yield from ("With ", element("code", option), ", every source is read again and the verdict stands here.")


def _outcome(facts: Overview) -> Iterator[Markup]:
    tally, shown = facts.tally, list[tuple[Fate, int]]()
    for fate in FATES:
        number: int = getattr(tally, fate.value)
        if number or fate in {Fate.CREATED, Fate.FAILED}:
            shown.append((fate, number))
    yield element("h2", "What became of the records")
    told = ", ".join(f"{count(number)} {fate}" for fate, number in shown)
    if tally.records:
        yield bar(f"Records by fate: {told}", [(f"{fate}: {count(n)}", n, FATES[fate][0]) for fate, n in shown])
    rows = [
        (
            element("span", _swatch(FATES[fate][0]), fate.value, class_="whole"),
            count(number),
            share(number, tally.records),
            FATES[fate][1],
        )
        for fate, number in shown
    ]
    yield table("Each record has one fate", ["fate", "records", "share", "meaning"], rows, figures=(1, 2))
    if any(facts.later.values()):
        later = [(fate, count(number)) for fate, number in sorted(facts.later.items()) if number]
        yield table(
            "Of the tasks that were created, as far as was asked since", ["later", "tasks"], later, figures=(1,)
        )


def _swatch(colour: str) -> Markup:
    square = element("rect", width=10, height=10, class_=f"f-{colour}")
    return element("svg", square, viewBox="0 0 10 10", class_="swatch", aria_hidden="true", focusable="false")


def _causes(facts: Overview) -> Iterator[Markup]:
    causes = facts.causes
    if not causes.records:
        return
    yield element("h2", f"Why: {count(len(causes.top), 'cause')}")
    many = [f"{count(causes.records, 'record')} in all, grouped by message; … stands for what differs."]
    many += [f"{count(causes.others)} of them are of rarer causes: see rejects.ndjson."] if causes.others else []
    yield element("p", " ".join(many), class_="soft")
    for place, cause in enumerate(causes.top):
        yield _cause(cause, place)


def _cause(cause: Cause, place: int) -> Markup:
    colour = {"failed": "bad", "failed later": "bad"}.get(cause.fate, "warn")
    words = element("bdi", cut(cause.words))
    summary = element(
        "summary", element("b", count(cause.records)), element("span", cause.fate, class_=f"fate {colour}"), words
    )
    made = _examples(cause, place) if cause.examples else element("p", "The page has no room for its examples.")
    return element("details", summary, made, class_="cause", open=place < OPEN_CAUSES)


def _examples(cause: Cause, place: int) -> Markup:
    examples = cause.examples
    caption = f"{count(len(examples), 'example')} of {count(cause.records)}"
    sources = list(dict.fromkeys(one.source for one in examples))
    several, named = len(sources) > 1, any(one.task_id for one in examples)
    varies = any(one.message != cause.words for one in examples)
    header = ["record", *(["source"] if several else []), "line", "byte", "batch"]
    header += [*(["task"] if named else []), *(["message"] if varies else [])]
    rows: list[list[Content]] = []
    for one in examples:
        row: list[Content] = [count(one.index), *([element("bdi", cut(one.source))] if several else [])]
        row += ["" if one.line is None else count(one.line), count(one.offset), one.batch]
        row += [link(one.url, one.task_id or "none")] if named else []
        rows.append([*row, *([element("bdi", cut(one.message))] if varies else [])])
    where = "" if several else f", in {cut(sources[0])}"
    numbers = (0, 2, 3) if several else (0, 1, 2)
    return table(caption + where, header, rows, figures=numbers, label=f"Examples of cause {place + 1}")


# Runs, nights, relatives


def _runs(facts: Overview) -> Iterator[Markup]:
    if not facts.runs:
        return
    yield element("h2", f"Runs: {count(facts.run_count)}")
    newest = facts.runs[-1]
    rows = [
        (
            run.number,
            moment(run.begun_at),
            duration(run.ended_at - run.begun_at) if run.ended_at is not None else "",
            _end(run, running=facts.running and run is newest),
            count(run.counts.created),
            count(run.counts.failed + run.counts.rejected),
            count(run.counts.requests),
            count(run.counts.retries),
            element("bdi", cut(run.reason)),
        )
        for run in reversed(facts.runs)
    ]
    told = "The newest first" + (f"; {len(facts.runs)} of {facts.run_count}" if len(rows) < facts.run_count else "")
    header = ["run", "begun", "for", "end", "created", "failed", "requests", "repeated", "why it ended"]
    yield table(told, header, rows, figures=(0, 2, 4, 5, 6, 7), label="Runs")


def _end(run: PastRun, *, running: bool) -> Content:
    if run.exit_code is None:
        return element("span", "running" if running else "killed", class_="soft" if running else "bad")
    return element("span", f"exit {run.exit_code}", class_="good" if run.exit_code == 0 else "warn")


def _nights(facts: Overview) -> Iterator[Markup]:
    if len(facts.nights) < 2:  # noqa: PLR2004 - itself
        return
    yield element("h2", f"Nights of the family {facts.family}")
    more = f"; {len(facts.nights)} of {facts.night_count}" if len(facts.nights) < facts.night_count else ""
    yield _jobs(f"The newest first{more}", facts.nights, facts.job)


def _lineage(facts: Overview) -> Iterator[Markup]:
    lineage = facts.lineage
    if not lineage.parents and not lineage.retries:
        return
    yield element("h2", "Where it comes from, and what tries it again")
    if lineage.parents:
        yield _jobs("It retries records of the first of these", lineage.parents, facts.job)
    if lineage.retries:
        yield _jobs("They retry records of it", lineage.retries, facts.job)


def _jobs(caption: str, jobs: Sequence[JobFacts], own: str) -> Markup:
    rows = [
        (
            joined([element("code", one.name), " (this one)" if one.name == own else None]),
            moment(one.created_at),
            one.state,
            "" if one.exit_code is None else one.exit_code,
            count(one.tally.records),
            count(one.tally.created),
            count(one.tally.failed + one.tally.rejected),
            count(one.tally.uncertain),
            count(one.tally.skipped),
        )
        for one in jobs
    ]
    header = ["job", "begun", "state", "exit", "records", "created", "failed", "uncertain", "skipped"]
    return table(caption, header, rows, figures=range(3, 9), label=f"Jobs: {caption}")


def _about(facts: Overview) -> Iterator[Markup]:
    yield element("h2", "About it")
    rows: list[tuple[Content, Content]] = [("service", facts.service), ("begun", moment(facts.created_at))]
    rows += [("last step", moment(facts.last_step_at)), ("attempt", facts.attempt)]
    rows += [("family", f"{facts.family}{', what it knows is skipped' if facts.delta else ''}")] if facts.family else []
    rows += [
        ("source", joined([element("code", cut(one.path)), f" ({one.format}, {size(one.size_bytes)})"]))
        for one in facts.sources
    ]
    left_out = facts.source_count - len(facts.sources)
    rows += [("and", f"{count(left_out, 'more source')}")] if left_out else []
    rows += [("reports", element("code", cut(facts.output)))]
    yield table("What the ledger says of the job", ["what", "value"], rows)


def _how_to_read(facts: Overview) -> Iterator[Markup]:
    yield element(
        "p",
        "Rates are of all tasks whose fate became known. A time is that of this machine's clock. Times of calls and "
        "batches are at most a tenth too long. Waits of one reason count once, however many calls waited.",
    )
    if not facts.calls and facts.runs:
        yield element("p", "No call is known of: no run made one, or an older bulksubmit made them and kept no times.")
