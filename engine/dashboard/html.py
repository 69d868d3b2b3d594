"""Elements of a page. A text is escaped, always; only what was made here, as `Html`, goes out as it is."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from engine.progress.redaction import foreign_words
from engine.progress.text import printable

_EMPTY = frozenset({"br", "hr", "img", "input", "link", "meta"})
"""Elements without an end tag."""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | Iterable[Child] | None"
"""What an element may hold: `Html` as it is, text and numbers escaped, None left out, and several of these."""


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """Return an element: `tag("p", "a < b", class_="note")`.

    Of an attribute's name, the underscore at its end is left out and others become hyphens. One that is None or False
    is left out, one that is True has no value.
    """
    said = "".join(_attribute(name, value) for name, value in attributes.items())
    return Html(f"<{name}{said}>" if name in _EMPTY else f"<{name}{said}>{join(children)}</{name}>")


def _attribute(name: str, value: str | int | bool | None) -> str:  # noqa: FBT001 - some attributes have no value
    if value is None or value is False:
        return ""
    written = name.rstrip("_").replace("_", "-")
    return f" {written}" if value is True else f' {written}="{html.escape(printable(str(value)))}"'


def join(children: Child) -> Html:
    """Return children one after another."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str | int):
        return Html(html.escape(printable(str(children))))
    return Html("".join(map(join, children)))


def foreign(text: str | None) -> str:
    """Return words of a service, or of a source, as they may be shown: without secrets, on one line, not too long."""
    return foreign_words(text or "")


def moment(unix_seconds: float) -> Html:
    """Return a time in the zone of this machine, with seconds; programs read it with its zone."""
    if not unix_seconds:
        return Html("")
    local = time.localtime(unix_seconds)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S%z", local)
    return tag("time", time.strftime("%Y-%m-%d %H:%M:%S", local), datetime=whole)


def link(to: str, *children: Child, **attributes: str | int | bool | None) -> Html:
    """Return a link to a page of ours, or to one at the service: only http and https lead anywhere."""
    if to.startswith("?") or (to.startswith("/") and not to.startswith("//")):
        return tag("a", *children, href=to, **attributes)
    if to.startswith(("https://", "http://")):
        return tag("a", *children, href=to, rel="noopener noreferrer", **attributes)
    return join(children)


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Child]],
    *,
    figures: frozenset[int] = frozenset(),
    spare: frozenset[int] = frozenset(),
    hidden_caption: bool = False,
) -> Html:
    """Return a table, its first column being what each row is about.

    `figures` are the columns that hold numbers, `spare` those that a narrow screen leaves out. What is wider still
    scrolls in its own frame, which can be reached by keyboard.
    """
    kinds = [
        " ".join(filter(None, ["number" if place in figures else "", "spare" if place in spare else ""])) or None
        for place in range(len(header))
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


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Return names with their values; a value that is empty is left out with its name."""
    shown = [(name, join(value)) for name, value in pairs]
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in shown if value], class_="facts")
