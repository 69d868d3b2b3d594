"""The dashboard in a real browser: a job watched live, clicks down to a record, actions, the keyboard, axe-core.

Chromium stands at CHROMIUM; `make test-system` brings it. It reaches only this machine.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from fakes.browser import launched
from fakes.served import served
from playwright.sync_api import expect, sync_playwright

WIDTHS = (390, 1280)
PATIENCE_MS = 60_000.0

BEHAVIOUR = """
[creation]
tasks_per_second = 20
parallel_batches = 2

[[failures]]
path = "data.status"
equals = "broken"
message = "must be <b>reachable</b>"
"""
CONFIG = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[batch]
max_records = 20

[send]
max_in_flight = 2
poll_seconds = 0.2
max_poll_seconds = 0.5
"""
ENVIRONMENT = {**os.environ, "SAMA_ACCESS_KEY": "sandbox-key"}

pytestmark = pytest.mark.slow


def bulksubmit(*arguments):
    return [sys.executable, "-m", "engine", *map(str, arguments)]


@contextmanager
def dashboard(ledger, *options):
    """Serve a dashboard; the URL that signs in."""
    command = bulksubmit("dashboard", "--ledger", ledger, "--port", "0", "--json", *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0, "it ends at once, whoever looks on"


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


class Watched:
    """A page whose errors, and whose calls to any other place, are found."""

    def __init__(self, browser, url, width=1280, scheme="light"):
        self.base = url.partition("/sign-in")[0]
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.faults = []
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda asked: self._judge(asked.url))
        self.page.goto(url)
        self.page.wait_for_url(f"{self.base}/")

    def _judge(self, url):
        if not url.startswith(self.base):
            self.faults.append(f"asked for {url}")

    def resize(self, width, scheme):
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dashboard")


class Load:
    """A job of some ten seconds: 400 records, of which the service refuses 8."""

    def __init__(self, folder, url):
        self.ledger = folder / "state" / "ledger.db"
        records = [{"data": {"id": str(at), "status": "broken" if at % 50 == 7 else "good"}} for at in range(400)]
        (folder / "tasks.ndjson").write_text("".join(json.dumps(record) + "\n" for record in records))
        (folder / "sama.toml").write_text(CONFIG.format(url=url))
        given = (folder / "tasks.ndjson", "--config", folder / "sama.toml", "--ledger", self.ledger)
        self._command = bulksubmit("submit", *given, "--job", "watched", "-q")
        self._process = None

    def start(self):
        self._process = self._process or subprocess.Popen(self._command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)

    def finish(self):
        self.start()
        return self._process.wait(120)


@pytest.fixture(scope="module")
def load(folder):
    with served(folder, BEHAVIOUR) as (url, _):
        load = Load(folder, url)
        yield load
        load.finish()


def test_a_job_is_watched_live_and_followed_down_to_a_record(chromium, load, folder):
    with dashboard(load.ledger, "--allow-actions") as url:
        watched = Watched(chromium, url)
        page = watched.page
        expect(page.get_by_text("There are no jobs in this ledger yet.")).to_be_visible()
        load.start()
        page.get_by_role("link", name="watched").click(timeout=PATIENCE_MS)
        expect(page.get_by_role("heading", level=1)).to_contain_text("running", timeout=PATIENCE_MS)
        expect(page.locator("#connection")).to_contain_text("Live")
        seen = page.locator(".lead").inner_text()
        expect(page.locator(".lead")).not_to_have_text(seen, timeout=PATIENCE_MS)
        page.screenshot(path=folder / "running.png", full_page=True)
        expect(page.get_by_role("heading", level=1)).to_contain_text("finished", timeout=PATIENCE_MS)
        assert load.finish() == 3
        expect(page.get_by_role("heading", name="Failures")).to_be_visible(timeout=PATIENCE_MS)
        expect(page.get_by_text("must be <b>reachable</b>").first).to_be_visible()

        page.get_by_role("link", name="settled").click()
        page.get_by_role("link", name="0", exact=True).click()
        page.get_by_role("link", name="1 failed").click()
        page.get_by_role("link", name="7", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Record 7 of job watched failed")

        page.get_by_role("searchbox", name="Search job watched").fill("reachable")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="57", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Record 57")

        page.goto(f"{watched.base}/jobs/watched")
        page.get_by_role("link", name="Retry…").click()
        expect(page.get_by_text("8 failed and 0 rejected records are sent again")).to_be_visible()
        page.get_by_role("button", name="Yes, retry it").click()
        expect(page.get_by_text("has ended with exit code 3")).to_be_visible(timeout=PATIENCE_MS)
        expect(page.get_by_role("link", name="watched.retry")).to_be_visible(timeout=PATIENCE_MS)
        assert not watched.faults


def test_each_page_is_fit_for_every_screen_and_reader(chromium, load, folder):
    load.finish()
    with dashboard(load.ledger, "--allow-actions") as url:
        watched = Watched(chromium, url)
        page, found = watched.page, []
        places = ["", "jobs/watched", "jobs/watched/batches", "jobs/watched/batches/0", "jobs/watched/records/7"]
        places += ["jobs/watched/search?q=reachable", "jobs/watched/actions/retry", "session", "search?q=w", "nowhere"]
        for place in places:
            page.goto(f"{watched.base}/{place}")
            for scheme in ("light", "dark"):
                for width in WIDTHS:
                    watched.resize(width, scheme)
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    found += [f"/{place} at {width}: {wide} wide"] if wide > width else []
                    if width == WIDTHS[0] or scheme == "light":  # colours do not depend on the width
                        found += [f"/{place} {scheme} {width}: {one}" for one in violations(page)]
                    if place in {"", "jobs/watched"}:
                        name = f"{place.rpartition('/')[2] or 'jobs'}-{width}-{scheme}.png"
                        page.screenshot(path=folder / name, full_page=True)
        assert not found
        assert [fault for fault in watched.faults if "404" not in fault] == []


def violations(page):
    """Return what axe-core finds wrong with a page."""
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in Axe().run(page).response["violations"]
    ]


def test_all_of_a_page_is_reached_by_keyboard_and_where_one_is_can_be_seen(chromium, load):
    load.finish()
    with dashboard(load.ledger, "--allow-actions") as url:
        watched = Watched(chromium, url, width=390)
        page = watched.page
        page.goto(f"{watched.base}/jobs/watched")
        expect(page.locator("#connection")).to_contain_text("Live")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        expect(page.locator(".skip")).to_be_in_viewport()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"

        page.goto(f"{watched.base}/jobs/watched")
        wanted = page.evaluate(
            """() => {
                const kinds = "a[href],button,input:not([type=hidden]),select,summary,[tabindex='0']";
                return [...document.querySelectorAll(kinds)].filter((one) => one.checkVisibility()).length;
            }"""
        )
        seen = []
        for _ in range(wanted + 5):
            page.keyboard.press("Tab")
            here = page.evaluate(
                """() => {
                    const one = document.activeElement;
                    if (one === document.body) return null;
                    one.dataset.walked = one.dataset.walked || String(Math.random());
                    const style = getComputedStyle(one);
                    return [one.dataset.walked, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
                }"""
            )
            if here is None:
                break
            seen.append(here)
        assert len({walked for walked, _ in seen}) == wanted, "no trap, and nothing left out"
        assert all(visible for _, visible in seen)

        pause = page.get_by_role("button", name="Pause")
        pause.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#connection")).to_contain_text("Paused")


def test_without_a_script_the_pages_are_whole(chromium, load):
    load.finish()
    with dashboard(load.ledger) as url:
        context = chromium.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(url)
        page.get_by_role("link", name="watched", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("finished")
        expect(page.get_by_role("link", name="Retry…")).to_have_count(0)
