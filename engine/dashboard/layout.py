"""The frame of each page: its head, the way to all other pages, and what screen readers are told."""

from __future__ import annotations

from importlib.resources import files

from msgspec import Struct

from engine.dashboard.html import Fragment, join, link, tag
from engine.progress.charts import STYLE as PLOTS
from engine.progress.html import DARK, LIGHT, Markup

TITLE = "bulksubmit"


class HtmlPage(Struct, frozen=True):
    """What a page shows, below the frame that all have."""

    title: str
    body: Markup
    said: str = ""
    """The same in a sentence, for who cannot see it change."""
    job: str = ""
    """The job that it is about; the search field looks there."""
    query: str = ""
    """What the search field holds."""
    status: int = 200
    """Of HTTP."""
    has_form: bool = False
    """It holds a form that changes something."""


def document(page: HtmlPage, *, live: bool, ledger: str = "", moved_to: str = "") -> str:
    """Return a whole page. `live`: it may change while it is looked at. `moved_to`: where the browser goes at once."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=f"0; url={moved_to}") if moved_to else None,
        tag("title", f"{page.title} · {TITLE}"),
        tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href="/static/dashboard.css"),
        tag("script", src="/static/dashboard.js", type="module") if live else None,
    ]
    body = [
        tag("a", "Skip to the content", href="#main", class_="skip"),
        _header(page, signed_in=bool(ledger)),
        tag("main", page.body, id="main", tabindex=-1, data_said=page.said),
        tag("p", role="status", aria_live="polite", id="said", class_="unseen") if live else None,
        _footer(ledger) if ledger else None,
    ]
    return f"<!doctype html>{tag('html', tag('head', head), tag('body', body), lang='en')}"


def _header(page: HtmlPage, *, signed_in: bool) -> Markup:
    if not signed_in:
        return tag("header", tag("p", TITLE, class_="brand"))
    where = f"/jobs/{page.job}/search" if page.job else "/search"
    label = f"Search job {page.job}" if page.job else "Search all jobs"
    search = tag(
        "form",
        tag("label", label, for_="query", class_="unseen"),
        tag("input", type="search", name="q", id="query", value=page.query, placeholder=label, maxlength=200),
        tag("button", "Search"),
        action=where,
        method="get",
        role="search",
    )
    return tag(
        "header",
        tag("nav", link("/", TITLE, class_="brand"), aria_label="Dashboard"),
        search,
        tag("p", id="connection", class_="connection"),
    )


def _footer(ledger: str) -> Markup:
    return tag(
        "footer", tag("p", "Ledger: ", tag("code", ledger)), tag("p", link("/session", "This browser's session"))
    )


def style() -> str:
    """Return the style sheet: the colours and plots that other pages have, too, then what only these pages have."""
    light, dark = (
        ":root{color-scheme:light dark;" + "".join(f"--{name}:{colour};" for name, colour in colours.items()) + "}"
        for colours in (LIGHT, DARK)
    )
    own = files(__package__).joinpath("static", "dashboard.css").read_text(encoding="utf-8")
    return f"{light}\n@media (prefers-color-scheme:dark){{{dark}}}\n{PLOTS}\n{own}"


def refusal(status: int, reason: str) -> HtmlPage:
    """Return the page that says why something is not to be had."""
    titles = {401: "Sign in first", 403: "Refused", 404: "Not found", 405: "Not possible", 409: "Changed meanwhile"}
    title = titles.get(status, "This did not work")
    again = tag("p", tag("a", "Open this page again", href="")) if status == 401 else None  # noqa: PLR2004 - HTTP
    return HtmlPage(title, join([tag("h1", title), tag("p", reason), again]), status=status)


def trail(*steps: tuple[str, str], here: Fragment) -> Markup:
    """Return the way from the list of jobs to a page."""
    items = [tag("li", link(to, name)) for to, name in (("/", "Jobs"), *steps)]
    return tag(
        "nav", tag("ol", items, tag("li", here, aria_current="page")), aria_label="Where you are", class_="trail"
    )
