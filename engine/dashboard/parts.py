"""What several pages show: a job's state, its numbers, the way to the next page of a list."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from engine.commands.result import JobStatus
from engine.dashboard.html import join, link, tag
from engine.model.job import JobState
from engine.model.outcome import Fate, Tally
from engine.progress.html import Markup
from engine.progress.text import count, rate, share

FATES: Mapping[Fate, str] = {
    Fate.CREATED: "became tasks",
    Fate.FAILED: "the service said no",
    Fate.REJECTED: "not fit to be sent, never left",
    Fate.UNCERTAIN: "sent, and nobody knows what became of them",
    Fate.SKIPPED: "known already, from an earlier job of the family",
    Fate.UNRESOLVED: "their end is not known yet",
}
"""What became of a record → in words."""

_GREATEST = 10**18 - 1
"""Of the numbers in a URL; SQLite holds it, and no job has so many records."""


def state_of(status: JobStatus) -> str:
    """Return how a job stands, in a word."""
    if status.running:
        return "running"
    return "stopped" if status.job.state is JobState.OPEN else str(status.job.state)


def badge(word: str) -> Markup:
    """Return a state as a word in its colour; the word alone says it all."""
    return tag("span", word, class_=f"badge {word.replace(' ', '-')}")


def number_of(tally: Tally, fate: Fate) -> int:
    """Return how many records have a fate."""
    number: int = getattr(tally, fate.value)
    return number


def fates(tally: Tally) -> str:
    """Return how many records ended how, in a line."""
    numbers = {fate.value: number_of(tally, fate) for fate in Fate}
    return ", ".join(f"{count(number)} {fate}" for fate, number in numbers.items() if number) or "none read yet"


def part_of(part: int, whole_: int) -> str:
    """Return a share, of which little does not look like nothing."""
    if not whole_:
        return ""
    return "under 1 %" if 0 < part < whole_ / 100 else share(part, whole_)


def progress(status: JobStatus) -> Markup:
    """Return how much of what was read has its fate, as a bar with its number."""
    tally = status.tally
    said = part_of(tally.resolved, tally.records)
    if not tally.records:
        return Markup("")
    bar = tag("progress", said, value=tally.resolved, max=tally.records, aria_label="Records whose end is known")
    return join([bar, " ", said])


def sentence(status: JobStatus, pace: float | None) -> str:
    """Return where a job stands, in a sentence."""
    tally = status.tally
    speed = f", {rate(pace)} a second" if pace else ""
    known = f"{count(tally.resolved)} of {count(tally.records, 'record')} known{speed}"
    bad = tally.failed + tally.rejected
    return f"Job {status.job.name} is {state_of(status)}: {known}{f', {count(bad)} failed or rejected' if bad else ''}."


def whole(text: str | None, *, least: int = 0) -> int:
    """Return a number that a URL says; the least one if it says none, the greatest if it says a greater one."""
    if not (text and text.isascii() and text.isdigit()):
        return least
    return max(int(text), least) if len(text) <= len(str(_GREATEST)) else _GREATEST


def pages(what: str, number: int, last: int, query: Mapping[str, str]) -> Markup | None:
    """Return the way through a list that has several pages."""
    if last <= 1:
        return None

    def to(page: int, name: str, rel: str) -> Markup:
        return link("?" + urlencode({**{k: v for k, v in query.items() if v}, "page": page}), name, rel=rel)

    steps = [
        tag("li", to(number - 1, "Previous page", "prev")) if number > 1 else None,
        tag("li", f"Page {count(number)} of {count(last)}", aria_current="page"),
        tag("li", to(number + 1, "Next page", "next")) if number < last else None,
    ]
    return tag("nav", tag("ul", steps), aria_label=f"Pages of {what}", class_="pages")


def command_line(command: str) -> Markup:
    """Return a command that a person may copy."""
    return tag("code", command, class_="command", tabindex=0)
