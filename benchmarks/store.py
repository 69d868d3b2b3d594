"""A presigned way that ends in a real store: `{"url": …}` on standard output when ready, until SIGTERM.

    python -m benchmarks.store

The store is SeaweedFS, which verifies each signature. Before it stands the smallest service that hands out presigned
URLs and says that what was uploaded is created; it never reads an upload, so that only the client and the store work.
"""

from __future__ import annotations

import asyncio
import json
import signal
from itertools import count

import orjson
from aiohttp import web

from benchmarks.nginx import answers
from benchmarks.workload import BATCH_RECORDS
from engine.sandbox.seaweed import SeaweedUploads, seaweed_uploads

KIND = "typical"
"""Of the records that are sent."""

LIFETIME_SECONDS = 4 * 3600.0
PROJECT = BATCH_RECORDS[KIND]


class Desk:
    """The service: it knows batches by number only."""

    def __init__(self, uploads: SeaweedUploads) -> None:
        self._uploads = uploads
        self._numbers = count(1)
        self._answers = answers(KIND)

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        batches = f"/v2/projects/{PROJECT}/batches"
        app.router.add_post(f"{batches}.json", self.create)
        app.router.add_post(batches + "/{id}/continue.json", self.release)
        app.router.add_get(batches + "/{id}.json", self.status)
        app.router.add_get(f"/v2/projects/{PROJECT}/tasks.json", self.shown)
        app.router.add_get("/urls", self.urls)

    async def create(self, request: web.Request) -> web.Response:
        """Answer with the next number and its URL."""
        await request.read()
        number = next(self._numbers)
        return _json(orjson.dumps({"batch_id": number, "tasks_put_url": self._url(number)}))

    async def release(self, request: web.Request) -> web.Response:
        """Agree."""
        return _json(orjson.dumps({"batch_id": int(request.match_info["id"])}))

    async def status(self, request: web.Request) -> web.Response:
        """Say that all is created."""
        return _json(self._answers["tasks" if "page" in request.query else "counts"])

    async def shown(self, request: web.Request) -> web.Response:
        """Show the data of tasks."""
        del request
        return _json(self._answers["shown"])

    async def urls(self, request: web.Request) -> web.Response:
        """Answer with fresh URLs, one a line."""
        fresh = (self._url(next(self._numbers)) for _ in range(int(request.query["count"])))
        return web.Response(text="\n".join(fresh))

    def _url(self, number: int) -> str:
        return self._uploads.url(PROJECT, number, "", LIFETIME_SECONDS)


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


async def serve() -> None:
    """Serve on a free port until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = web.Application()
    async with seaweed_uploads() as uploads:
        Desk(uploads).add_to(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
            await stop.wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
