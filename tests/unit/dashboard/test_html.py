"""Whatever a service or a source says stands on a page as text."""

import re
from html.parser import HTMLParser

from engine.dashboard.html import facts, foreign, link, moment, table, tag
from engine.dashboard.layout import HtmlPage, document, refusal

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><svg onload=alert(1)>",
    "\" onmouseover='alert(1)' x=\"",
    "\u202egnp.exe",
    "a\x00b\x1b[2J",
    "lone \ud800 surrogate",
]


class Elements(HTMLParser):
    """Collects the names of elements and attributes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, name, attributes):
        self.seen.append((name, sorted(attribute for attribute, _ in attributes)))


def elements(text):
    parser = Elements()
    parser.feed(text)
    return parser.seen


def test_hostile_words_stay_words_wherever_they_stand():
    for words in HOSTILE:
        shown = tag("p", words, title=words) + table("c", ["h", "i"], [[words, [words]]]) + facts([(words, words)])
        names = {name for name, _ in elements(shown)}
        assert names <= {"p", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd"}
        assert not any(attribute.startswith("on") for _, attributes in elements(shown) for attribute in attributes)
        shown.encode()  # no half letters
        assert not re.search(r"[\x00-\x08\x1b\u202a-\u202e]", shown)


def test_a_column_of_short_words_is_not_broken_and_one_of_sentences_has_room():
    shown = table("c", ["h", "i", "j", "k"], [["a b", "2 min 42 s", tag("b", "x " * 20), 1]], figures=frozenset({3}))
    assert re.findall(r'class="(\w+)"', shown)[-4:] == ["short", "short", "long", "number"]


def test_an_attribute_holds_any_text_and_no_other_attribute():
    for words in [*HOSTILE, "'", '"', "=", "a b=c", ">", "/>", "\n", "&quot;", "`"]:
        assert elements(tag("input", value=words)) == [("input", ["value"])]


def test_only_http_leads_anywhere_and_only_one_slash_stays_here():
    assert elements(link("https://example.com/1", "a"))[0][0] == "a"
    for place in ("javascript:alert(1)", "//example.com", "data:text/html,x", "ftp://x", ""):
        assert link(place, "a") == "a"


def test_secrets_in_foreign_words_are_hidden():
    assert "hunter2hunter2" not in foreign("https://user:hunter2hunter2@example.com/x?sig=hunter2hunter2")


def test_a_time_names_its_zone_and_none_is_shown_of_what_never_was():
    assert re.fullmatch(
        r'<time datetime="2023-11-1\dT[\d:]+[+-]\d{4}">2023-11-1\d [\d:]+</time>', moment(1_700_000_000)
    )
    assert moment(0) == ""


def test_a_page_has_a_language_a_title_a_way_to_its_content_and_no_inline_script():
    page = document(HtmlPage("Jobs", tag("h1", "Jobs")), live=True, ledger="l.db")
    assert page.startswith('<!doctype html><html lang="en">')
    assert '<a href="#main" class="skip">' in page
    assert '<main id="main"' in page
    assert "<style" not in page
    assert not re.search(r"<script(?! src=)", page)
    assert ' style="' not in page
    assert "<header>" not in document(refusal(403, "no"), live=False).split("bulksubmit</p></header>")[1]
