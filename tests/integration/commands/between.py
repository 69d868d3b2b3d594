"""What stands between the engine and a sandbox: hands every request on, unless a rule answers it instead."""

import re
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

KINDS = [
    (re.compile(r"PUT "), "put"),
    (re.compile(r"POST .*/batches\.json"), "create"),
    (re.compile(r"POST .*/continue\.json"), "continue"),
    (re.compile(r"POST .*/cancel\.json"), "cancel"),
    (re.compile(r"GET .*/batches/"), "status"),
    (re.compile(r"GET .*/schemas/"), "schema"),
    (re.compile(r"GET .*/projects/\d+\.json"), "project"),
]
PAGE = "<html><head><title>{title}</title></head><body>Support ID 123</body></html>"
S3 = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>Said by the store.</Message></Error>"
RESET = "reset"


def page(status, title):
    """Return an answer as a proxy or a firewall words it."""
    return web.Response(status=status, text=PAGE.format(title=title), content_type="text/html")


def store_says(code, status=400):
    return web.Response(status=status, text=S3.format(code=code), content_type="application/xml")


class Between:
    """`rule(kind, nth, body, path)` returns an answer, RESET, or None to hand the request on."""

    def __init__(self, target, rule):
        self.target, self.rule = target, rule
        self.calls = Counter()
        self.url = ""

    async def answer(self, request):
        kind = next((kind for pattern, kind in KINDS if pattern.match(f"{request.method} {request.path}")), "other")
        self.calls[kind] += 1
        body = await request.read()
        ruled = self.rule(kind, self.calls[kind], body, request.path)
        if ruled is RESET:
            request.transport.abort()
            return web.Response()
        return ruled or await self._hand_on(request, body)

    async def _hand_on(self, request, body):
        # With the host that was asked for: presigned URLs lead this way, too.
        headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        url = self.target + str(request.rel_url)
        async with (
            aiohttp.ClientSession(auto_decompress=False, requote_redirect_url=False) as session,
            session.request(request.method, url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            kept = {name: answer.headers[name] for name in ("Content-Type", "ETag") if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


@asynccontextmanager
async def between(desk, rule):
    """Stand between the engine and the sandbox of a desk; `url` is the service's as the engine sees it."""
    stands = Between(desk.sandbox.url.removesuffix("/v2"), rule)
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", stands.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stands.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v2"
    try:
        yield stands
    finally:
        await runner.cleanup()
