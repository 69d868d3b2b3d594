"""Elements of the dashboard's pages: those of `progress.html`, nested; links and tables as a live page has them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from engine.progress.html import LONG, Markup, element, joined, letters
from engine.progress.redaction import foreign_words

Fragment: TypeAlias = "str | int | Iterable[Fragment] | None"
"""What an element may hold: `Markup` as it is, text and numbers escaped, None left out, and several of these."""

_WITHOUT_END = frozenset({"input", "link"})
"""Elements that hold nothing and have no end tag; `element` knows others."""

_SHORT = 16
"""Letters of a cell, up to which it is not broken."""


def tag(name: str, /, *children: Fragment, **attributes: str | float | bool | None) -> Markup:
    """Return an element whose children may be nested; the rest is as `element` has it."""
    made = element(name, join(children), **attributes)
    return Markup(made.removesuffix(f"</{name}>")) if name in _WITHOUT_END else made


def join(children: Fragment) -> Markup:
    """Return children one after another."""
    if children is None or isinstance(children, str | int):
        return joined([children])
    return joined(map(join, children))


def foreign(text: str | None) -> str:
    """Return words of a service, or of a source, as they may be shown: without secrets, on one line, not too long."""
    return foreign_words(text or "")


def moment(unix_seconds: float) -> Markup:
    """Return a time in the zone of this machine, with seconds; programs read it with its zone."""
    if not unix_seconds:
        return Markup("")
    local = time.localtime(unix_seconds)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S%z", local)
    return tag("time", time.strftime("%Y-%m-%d %H:%M:%S", local), datetime=whole)


def link(to: str, *children: Fragment, **attributes: str | int | bool | None) -> Markup:
    """Return a link to a page of ours, or to one at the service: only http and https lead anywhere."""
    if to.startswith("?") or (to.startswith("/") and not to.startswith("//")):
        return tag("a", *children, href=to, **attributes)
    if to.startswith(("https://", "http://")):
        return tag("a", *children, href=to, rel="noopener noreferrer", **attributes)
    return join(children)


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Fragment]],
    *,
    figures: frozenset[int] = frozenset(),
    spare: frozenset[int] = frozenset(),
    hidden_caption: bool = False,
) -> Markup:
    """Return a table, its first column being what each row is about.

    `figures` are the columns that hold numbers, `spare` those that a narrow screen leaves out. What is wider still
    scrolls in its own frame, which can be reached by keyboard: there short words are not broken, and sentences have
    room.
    """
    kinds = [
        " ".join(filter(None, ["number" if place in figures else _width(cells), "spare" if place in spare else ""]))
        or None
        for place, cells in enumerate(zip(*rows, strict=True) if rows else [()] * len(header))
    ]
    head = [tag("th", name, scope="col", class_=kind) for name, kind in zip(header, kinds, strict=True)]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", class_=kinds[0]),
            [tag("td", cell, class_=kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)],
        )
        for row in rows
    ]
    inner = tag(
        "table",
        tag("caption", caption, class_="unseen" if hidden_caption else None),
        tag("thead", tag("tr", head)),
        tag("tbody", body),
    )
    return tag("div", inner, class_="scrolls", tabindex=0, role="region", aria_label=caption)


def _width(cells: Sequence[Fragment]) -> str:
    """Return how wide the words of a column are: "short", "long", or "" between the two."""
    most = max((letters(join(cell)) for cell in cells), default=0)
    return "short" if most <= _SHORT else "long" if most >= LONG else ""


def facts(pairs: Iterable[tuple[str, Fragment]]) -> Markup:
    """Return names with their values; a value that is empty is left out with its name."""
    shown = [(name, join(value)) for name, value in pairs]
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in shown if value], class_="facts")
