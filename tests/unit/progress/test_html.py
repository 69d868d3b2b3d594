"""Whatever text an element holds stays text, colours can be read, and a page allows nothing but its own style."""

import base64
import hashlib
import re
from itertools import chain

import pytest
from fakes.pages import Page

from engine.progress.html import (
    DARK,
    LIGHT,
    LINES_ON_GROUND,
    TEXT_ON_GROUND,
    Markup,
    document,
    element,
    joined,
    link,
    table,
)

HOSTILE = [
    "</style><script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- ]]> &lt;b&gt;",
    "\u202egnp.exe\u2066\u200f",
    "\ud800 half a letter, \udfff",
    "nul \0, escape \x1b[31m, bell \a",
]


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_text_and_lines_can_be_read_on_what_they_stand_on(colours):
    for pairs, least in ((TEXT_ON_GROUND, 4.5), (LINES_ON_GROUND, 3.0)):
        for front, ground in pairs:
            assert contrast(colours[front], colours[ground]) >= least, (front, ground)


def test_every_colour_of_a_scheme_is_checked_against_its_grounds_and_both_schemes_have_the_same():
    checked = {front for front, _ in chain(TEXT_ON_GROUND, LINES_ON_GROUND)}
    assert LIGHT.keys() == DARK.keys() == checked | {"paper", "panel", "rule"}  # a rule is decoration


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_stays_text_wherever_it_stands(text):
    made = [
        element("p", text, title=text),
        table(text, [text], [[text]], label=text),
        link("https://example.com/?" + text, text),
        joined([text]),
    ]
    page = Page(document(text, made, ""))
    assert set(page.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "p", "div", "table", "caption", "thead", "tbody"),
        *("tr", "th", "td", "a"),
    }
    assert not {"onload", "onmouseover"} & {name for name, _ in page.attributes}


@pytest.mark.parametrize("text", HOSTILE[4:])
def test_what_could_steer_a_display_is_shown_by_its_number(text):
    page = document(text, [element("p", text, title=text)], "")
    assert all(letter.isprintable() or letter == "\n" for letter in page)
    assert page.encode()


def test_text_that_is_joined_by_other_means_is_foreign_again():
    assert element("p", element("b", "x") + "<i>") == "<p>&lt;b&gt;x&lt;/b&gt;&lt;i&gt;</p>"
    assert element("p", element("b", "x"), None, 7) == Markup("<p><b>x</b>7</p>")


def test_attributes_that_are_nothing_are_left_out():
    assert element("td", class_=None, hidden=False, open=True, aria_label="a") == '<td open aria-label="a"></td>'


@pytest.mark.parametrize("url", [None, "", "javascript:alert(1)", "data:text/html,x", " https://x", "//x"])
def test_an_address_that_is_none_of_the_web_is_no_link(url):
    assert link(url, "task") == "task"


def test_a_page_allows_its_own_style_and_nothing_else():
    text = document("t", [element("h1", "t")], ".x { color: red }")
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src &#x27;none&#x27;; style-src &#x27;sha256-{digest}&#x27;; base-uri &#x27;none&#x27;"
    assert policy in text
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_a_table_says_what_it_tells_and_can_be_scrolled_by_keyboard():
    made = table("Fates", ["fate", "records"], [["created", "5"]], figures=[1])
    assert "<caption>Fates</caption>" in made
    assert '<th scope="row">created</th><td class="n">5</td>' in made
    assert 'tabindex="0" role="region" aria-label="Fates"' in made
