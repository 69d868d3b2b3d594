"""A dashboard that is served, and browsers before it: what they send is what real ones do."""

from __future__ import annotations

import contextlib

import aiohttp
import pytest
from msgspec.structs import replace
from yarl import URL

from engine.cli.output.result import command
from engine.cli.output.status import cancel_said, next_of, resume_said, retry_said
from engine.dashboard.server import DashboardOptions, serving
from engine.dashboard.words import Words
from integration.commands.conftest import desk  # noqa: F401 - a fixture

WORDS = Words(next_of, command, {"resume": resume_said, "cancel": cancel_said, "retry": retry_said})
OWN = {"Sec-Fetch-Site": "same-origin"}
"""Of a form on a page of the dashboard."""


class Browser:
    """Asks a dashboard for pages, with the cookies that it was given; follows nothing by itself."""

    def __init__(self, session, dashboard, url):
        self._session = session
        self.dashboard = dashboard
        self.url = url

    async def sign_in(self):
        return await self.get(f"/sign-in?token={self.dashboard.sessions.new_token()}")

    async def get(self, path, **headers):
        return await self._ask("GET", path, headers)

    async def post(self, path, data=None, **headers):
        return await self._ask("POST", path, headers, data)

    async def _ask(self, method, path, headers, data=None):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(f"{self.url}{path}", encoded=True)
        async with self._session.request(method, url, headers=named, data=data, allow_redirects=False) as answer:
            answer.words = await answer.text()
            return answer

    @contextlib.asynccontextmanager
    async def listening(self, path, **headers):
        """Yield a function that returns the next event of a page: its id and its data."""
        named = {"Accept": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self._session.get(f"{self.url}{path}", headers=named) as answer:

            async def next_event():
                while True:
                    block = (await answer.content.readuntil(b"\n\n")).decode()
                    lines = dict(line.split(": ", 1) for line in block.strip().split("\n"))
                    if "data" in lines:
                        return lines["id"], lines["data"]

            answer.next_event = next_event
            yield answer


@pytest.fixture
async def browse(tmp_path):
    """Serve a dashboard of a ledger, as the options say; return a browser that is not signed in yet."""
    async with contextlib.AsyncExitStack() as stack:

        async def starting(ledger=None, **options):
            served = replace(DashboardOptions(ledger or tmp_path / "ledger.db", port=0), **options)
            dashboard, url = await stack.enter_async_context(serving(served, WORDS))
            # Cookies of an address, too: it is one.
            session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
            return Browser(await stack.enter_async_context(session), dashboard, url)

        yield starting
