"""A web server with files, whose ways a test sets: parts, versions, connections that break, redirects, a password."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class FilesServer:
    """What it serves, and what it was asked."""

    def __init__(self) -> None:
        self.content = b""
        self.tag = '"v1"'
        """ETag; none where empty."""
        self.parts = True
        """Whether a Range is obeyed."""
        self.breaks_after: list[int] = []
        """Bytes after which the next answers break off, one after the other."""
        self.statuses: list[int] = []
        """Of the next answers."""
        self.redirects: list[str] = []
        self.asked: list[dict[str, str]] = []
        """Method, path, Range, If-Match and Authorization of each request."""
        self.origin = ""
        self.after_break = None
        """Called once an answer was broken off."""

    def url(self, path: str) -> str:
        return f"{self.origin}/{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        names = ("Range", "If-Match", "Authorization")
        self.asked.append(
            {"method": request.method, "path": request.path_qs} | {n: request.headers.get(n, "") for n in names}
        )
        if self.redirects:
            raise web.HTTPFound(self.redirects.pop(0))
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        headers = {"ETag": self.tag} if self.tag else {}
        if request.headers.get("If-Match", self.tag) != self.tag:
            return web.Response(status=412)
        start, status = 0, 200
        if self.parts and (found := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))):
            start, status = int(found[1]), 206
            if start >= len(self.content):
                return web.Response(status=416)
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        body = self.content[start:]
        response = web.StreamResponse(status=status, headers=headers | {"Content-Length": str(len(body))})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if self.breaks_after:
            await response.write(body[: self.breaks_after.pop(0)])
            if self.after_break:
                self.after_break()
            request.transport.close()
            return response
        await response.write(body)
        return response


@asynccontextmanager
async def serving_files() -> AsyncIterator[FilesServer]:
    """Serve on a free port of this machine."""
    server = FilesServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
