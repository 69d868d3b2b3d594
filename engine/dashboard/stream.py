"""Keeps a page up to date by server-sent events: the page is made again each second, and sent where it has changed.

Who looks at the same page shares what is made (`Reader.shared`). Nothing is made while nobody looks. An event has the
digest of its page for an id: who comes back after a break and has seen the newest page hears nothing until it changes,
and any other gets it whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from engine.dashboard.layout import HtmlPage

LOOK_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
"""After which a browser, and what stands in between, hears that the connection is alive."""
AGAIN_MILLISECONDS = 2000
"""After which a browser comes back that has lost its connection."""
MOST_STREAMS = 64


class Streams:
    """The connections that are kept up to date."""

    def __init__(self) -> None:
        self.open = 0
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End them all, at once."""
        self._closing.set()

    async def serve(
        self, request: web.Request, make: Callable[[], Awaitable[HtmlPage]], goes_on: Callable[[], bool]
    ) -> web.StreamResponse:
        """Send a page whenever it has changed, as long as the browser listens and `goes_on` says so."""
        if self.open >= MOST_STREAMS or self._closing.is_set():
            return web.Response(status=503, headers={"Retry-After": "10"})
        self.open += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
            await response.prepare(request)
            await response.write(f"retry: {AGAIN_MILLISECONDS}\n\n".encode())
            await self._send(response, make, goes_on, request.headers.get("Last-Event-ID", ""))
        except ConnectionError:  # the browser has left
            pass
        finally:
            self.open -= 1
        return response

    async def _send(
        self,
        response: web.StreamResponse,
        make: Callable[[], Awaitable[HtmlPage]],
        goes_on: Callable[[], bool],
        seen: str,
    ) -> None:
        written = time.monotonic()
        while not self._closing.is_set() and goes_on():
            page = await make()
            content = orjson.dumps({"title": page.title, "html": page.body, "said": page.said})
            digest = hashlib.sha256(content).hexdigest()[:32]
            now = time.monotonic()
            if digest != seen:
                seen, written = digest, now
                await response.write(b"event: page\nid: %s\ndata: %s\n\n" % (digest.encode(), content))
            elif now - written >= HEARTBEAT_SECONDS:
                written = now
                await response.write(b": still here\n\n")
            await self._pause()

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), LOOK_SECONDS)
        except TimeoutError:
            return
