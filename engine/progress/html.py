"""HTML pages of one file: elements that escape what they hold, the colours, and a document that loads nothing.

The report page, the page of `bench` and the dashboard are made of it. All text is taken for foreign: only what
`element` or `joined` has made is markup. What could steer a display (control letters, marks that turn the direction
of text, halves of letters) is shown by its number. A page has one style sheet, which its policy names by hash, no
script, no style within an element, and no address that is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import TypeAlias

from engine.progress.text import printable


class Markup(str):
    """Text that is HTML already. What is made of it by other means than `joined` is foreign text again."""

    __slots__ = ()


Content: TypeAlias = str | int | None
"""What an element holds: Markup as it is, any other text escaped; None: nothing."""

LONG = 24
"""Letters of a cell, from which on its column is of class `long`: a sheet gives it room on a narrow screen."""

_VOID = frozenset({"meta", "br", "hr", "col"})
_TAG = re.compile(r"<[^>]*>")


def element(name: str, /, *contents: Content, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        contents: in their order.
        attributes: a `_` at the end of a name is left out (`class_`), any other is a hyphen; None and False: none.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(printable(str(value)))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(contents)}</{name}>")


def joined(contents: Iterable[Content]) -> Markup:
    """Return contents side by side as markup."""
    return Markup(
        "".join(
            one if isinstance(one, Markup) else escape(printable(str(one)), quote=False)
            for one in contents
            if one is not None
        )
    )


def link(url: str | None, words: str) -> Markup:
    """Return a link that tells its target nothing; plain words where the address is none of the web."""
    if not url or not url.startswith(("https://", "http://")):
        return joined([words])
    return element("a", words, href=url, rel="noopener noreferrer nofollow")


def letters(content: Content) -> int:
    """Return how many letters a content shows, without its elements."""
    return len(_TAG.sub("", content)) if isinstance(content, Markup) else len(str(content or ""))


def table(
    caption: str,
    header: Iterable[Content],
    rows: Iterable[Iterable[Content]],
    *,
    figures: Iterable[int] = (),
    label: str = "",
) -> Markup:
    """Return a table, whose first column names its rows, in a region that can be scrolled sideways, by keyboard too.

    Args:
        caption: says what the table tells.
        header: of each column.
        rows: of contents.
        figures: columns that hold numbers.
        label: names the region, where the caption is that of another table, too.
    """
    right = frozenset(figures)
    rows = [tuple(row) for row in rows]
    long = frozenset(at for at, cells in enumerate(zip(*rows, strict=True)) if max(map(letters, cells)) >= LONG)

    def cell(place: int, content: Content) -> Markup:
        kind = "n" if place in right else "long" if place in long else None
        if place == 0:
            return element("th", content, scope="row", class_=kind)
        return element("td", content, class_=kind)

    head = [element("th", one, scope="col", class_="n" if at in right else None) for at, one in enumerate(header)]
    body = [element("tr", *(cell(at, one) for at, one in enumerate(row))) for row in rows]
    made = element(
        "table", element("caption", caption), element("thead", element("tr", *head)), element("tbody", *body)
    )
    return scrolled(made, label or caption)


def scrolled(content: Markup, label: str) -> Markup:
    """Return what may be wider than the window in a region that can be scrolled sideways, by keyboard too."""
    return element("div", content, class_="wide", tabindex=0, role="region", aria_label=label)


LIGHT: Mapping[str, str] = {
    "paper": "#ffffff",
    "panel": "#f4f6f8",
    "ink": "#1c2329",
    "soft": "#55606b",
    "rule": "#d3dae1",
    "link": "#0b57a4",
    "good": "#1a7237",
    "warn": "#855600",
    "bad": "#b42318",
    "c0": "#1f6fb2",
    "c1": "#b45309",
    "c2": "#0f766e",
    "c3": "#6d4fc4",
    "c4": "#5f6670",
}
DARK: Mapping[str, str] = {
    "paper": "#14181c",
    "panel": "#1e242a",
    "ink": "#e6eaee",
    "soft": "#a6b0ba",
    "rule": "#3a444e",
    "link": "#7cb8f5",
    "good": "#5ccb7f",
    "warn": "#e9b44c",
    "bad": "#ff8f80",
    "c0": "#6ab0ea",
    "c1": "#f0a050",
    "c2": "#4fc9b4",
    "c3": "#b3a5f0",
    "c4": "#a9b1ba",
}
TEXT_ON_GROUND = tuple(
    (text, ground) for text in ("ink", "soft", "link", "good", "warn", "bad") for ground in ("paper", "panel")
)
"""Colours that text has, and what it may stand on: their contrast is 4.5 at least (WCAG 2.2, 1.4.3)."""
LINES_ON_GROUND = tuple((f"c{number}", ground) for number in range(5) for ground in ("paper", "panel"))
"""Likewise of lines and areas: 3 at least (1.4.11)."""


def _variables(colours: Mapping[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{colour};" for name, colour in colours.items()) + "}"


BASE_STYLE = (
    _variables(LIGHT)
    + "@media screen and (prefers-color-scheme:dark){"
    + _variables(DARK)
    + "}"
    + """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
code, pre { font: .875em/1.5 ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace; }
td, th, code, bdi, dd { unicode-bidi: isolate; }
.soft { color: var(--soft); } .good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; min-width: min(100%, 30rem); font-size: .875rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .875rem; color: var(--soft); padding-bottom: .25rem; }
th, td { padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-weight: 600; color: var(--soft); white-space: nowrap; }
tbody th { font-weight: 400; }
.n { text-align: right; white-space: nowrap; }
figure { margin: 1rem 0 1.75rem; }
figcaption { font-size: .875rem; color: var(--soft); margin-bottom: .25rem; }
figcaption b { color: var(--ink); }
details { margin: .5rem 0; }
summary { cursor: pointer; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; }
  h2, h3, figcaption, caption, thead, summary { break-after: avoid; }
  tr, figure, svg { break-inside: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
  a { color: inherit; }
}
"""
)


def document(title: str, body: Iterable[Content], style: str = "") -> str:
    """Return a page.

    Args:
        title: of the page, for the window.
        body: its contents.
        style: CSS beside BASE_STYLE.
    """
    whole = BASE_STYLE + style
    digest = base64.b64encode(hashlib.sha256(whole.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        Markup(f"<style>{whole}</style>"),
    )
    return "<!DOCTYPE html>\n" + element("html", head, element("body", *body), lang="en") + "\n"
