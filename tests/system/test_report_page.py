"""The report page in a real browser: it asks nobody, says nothing on the console, and axe-core finds no fault in it."""

from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from fakes.browser import launched
from fakes.facts import usual_facts, worst_facts
from playwright.sync_api import sync_playwright

from engine.reports.page import page

pytestmark = pytest.mark.slow

HOSTILE = "</style><svg onload=alert(1)><script>alert(2)</script>\u202e\ud800\0"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return written(usual_facts(), tmp_path_factory.mktemp("report"))


def written(facts, folder):
    file = folder / "report.html"
    file.write_text(page(facts))
    return file


@contextmanager
def shown(browser, file: Path, width=1280, scheme="light"):
    """Show a page; it may ask for itself only, and has nothing to say on the console."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab, heard, asked = context.new_page(), [], []
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.on("dialog", lambda dialog: heard.append(dialog.message) or dialog.dismiss())
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    assert heard == []
    assert asked == [file.as_uri()]
    context.close()


def faults(tab):
    """Return what axe-core has to say against a page."""
    found = Axe().run(tab).response  # evaluated by the browser's debugger, which the page's policy does not bind
    assert len(found["passes"]) > 20
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_from_using_it(browser, file, width, scheme):
    with shown(browser, file, width, scheme) as tab:
        tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert faults(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width  # tables and plots scroll, not the page


def test_each_place_can_be_reached_and_each_cause_opened_by_keyboard(browser, file):
    with shown(browser, file) as tab:
        causes = tab.locator("details.cause")
        assert not causes.nth(1).evaluate("one => one.open")
        for _ in range(60):
            tab.keyboard.press("Tab")
            if causes.nth(1).evaluate("one => one.firstElementChild === document.activeElement"):
                break
        tab.keyboard.press("Enter")
        assert causes.nth(1).evaluate("one => one.open")


def test_a_job_full_of_hostile_words_does_nothing(browser, tmp_path):
    file = written(worst_facts(HOSTILE), tmp_path)
    with shown(browser, file) as tab:
        assert tab.locator("script, [onload]").count() == 0
        assert tab.locator("style").count() == 1
        assert "<svg onload=alert(1)>" in tab.inner_text("main")


def test_on_paper_it_is_light_and_every_cause_is_unfolded(browser, file):
    with shown(browser, file, scheme="dark") as tab:
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"
        tab.emulate_media(media="print")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        examples = tab.locator("details.cause").nth(1).locator("tbody tr").first
        assert examples.evaluate("one => one.getBoundingClientRect().height") > 0
