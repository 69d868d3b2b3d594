"""Serves the dashboard: routes, sign-in, and its life from the first line it prints to the signal that ends it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import html
import os
import signal
import socket
import time
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeAlias

import orjson
from aiohttp import web
from msgspec import Struct

from engine.commands.paths import open_ledger
from engine.dashboard.actions import LABELS, Actions, stands
from engine.dashboard.batches import batch_page, batches_page, record_page
from engine.dashboard.guard import LINK_SECONDS, OWN_REFERRER, Guard, Sessions, add_headers
from engine.dashboard.html import foreign, join, link, tag
from engine.dashboard.job import job_page
from engine.dashboard.jobs import jobs_page
from engine.dashboard.layout import HtmlPage, document, refusal, style
from engine.dashboard.reading import Reader
from engine.dashboard.search import search_all_page, search_page
from engine.dashboard.stream import Streams
from engine.dashboard.words import Words
from engine.http.ports import no_port
from engine.http.urls import is_loopback
from engine.ledger.address import LedgerAddress
from engine.model.errors import BulkSubmitError, ConfigError, JobError, NoLedger
from engine.model.job import check_job_name

PORT = 8801
_PORTS_TRIED = 50
_SHUTDOWN_SECONDS = 0.5
_STATIC = {"dashboard.css": "text/css", "dashboard.js": "text/javascript", "icon.svg": "image/svg+xml"}
SIGN_IN = "/sign-in"
PUBLIC = frozenset({SIGN_IN, *(f"/static/{name}" for name in _STATIC)})
"""Paths that need no session."""

MakePage: TypeAlias = Callable[[web.Request], Awaitable[HtmlPage]]
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class DashboardOptions(Struct, frozen=True):
    """How a dashboard is served."""

    ledger: LedgerAddress
    host: str = "127.0.0.1"
    port: int | None = None
    """None: 8801, or the next one that is free."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which a proxy that speaks TLS lets it be reached."""
    allow_actions: bool = False


class Dashboard:
    """The pages of one ledger, for those who are signed in."""

    def __init__(self, options: DashboardOptions, words: Words, port: int) -> None:
        self.sessions = Sessions(time.monotonic)
        self.streams = Streams()
        self.signed_in: Callable[[], None] = lambda: None
        """Called when a token was used."""
        self._options = options
        self._reader = Reader(options.ledger)
        self._words = words
        self.actions = Actions(options.ledger, words) if options.allow_actions else None
        self._guard = Guard(self.sessions, port, public=PUBLIC, refuse=self._refused, names=options.allowed_hosts)

    def application(self) -> web.Application:
        """Return what aiohttp is to serve. Without `allow_actions` there is no route that starts anything."""
        app = web.Application(middlewares=[self._guard.middleware, self._say_errors], client_max_size=16 * 1024)
        app.on_response_prepare.append(add_headers)
        app.on_shutdown.append(self._end_streams)
        app.on_cleanup.append(self._close)
        reader, words = self._reader, self._words
        pages: dict[str, tuple[MakePage, bool]] = {
            "/": (lambda request: jobs_page(request, reader), True),
            "/search": (lambda request: search_all_page(request, reader), False),
            "/session": (self._session_page, False),
            "/jobs/{job}": (lambda request: job_page(request, reader, words, self.actions), True),
            "/jobs/{job}/search": (lambda request: search_page(request, reader, words), False),
            "/jobs/{job}/batches": (lambda request: batches_page(request, reader), True),
            "/jobs/{job}/batches/{sequence}": (lambda request: batch_page(request, reader), True),
            "/jobs/{job}/records/{index}": (lambda request: record_page(request, reader), False),
        }
        for path, (make, live) in pages.items():
            app.router.add_get(path, partial(self._show, make, live), allow_head=False)
        app.router.add_get(SIGN_IN, self._sign_in, allow_head=False)
        app.router.add_get("/static/{name}", _static, allow_head=False)
        app.router.add_post("/sign-out", self._sign_out)
        app.router.add_post("/links", self._new_link)
        if self.actions is not None:
            path = "/jobs/{job}/actions/{action:" + "|".join(LABELS) + "}"
            app.router.add_get(path, partial(self._ask, self.actions), allow_head=False)
            app.router.add_post(path, partial(self._act, self.actions))
        return app

    async def _end_streams(self, _: web.Application) -> None:
        self.streams.close()

    async def _close(self, _: web.Application) -> None:
        await self._reader.close()
        if self.actions is not None:
            self.actions.close()

    # Pages

    async def _show(self, make: MakePage, live: bool, request: web.Request) -> web.StreamResponse:  # noqa: FBT001 - by `partial`
        """Answer with a page or, to who asks for events, with that page whenever it changes."""

        async def made() -> HtmlPage:
            return await self._reader.shared(request.path_qs, lambda: self._made(make, request))

        if live and request.headers.get("Accept") == "text/event-stream":
            session = self._guard.session_of(request)
            return await self.streams.serve(request, made, lambda: self.sessions.holds(session))
        return self._answer(await made(), live=live)

    async def _made(self, make: MakePage, request: web.Request) -> HtmlPage:
        """Make a page, or the one that says why it cannot be made."""
        try:
            if "job" in request.match_info:
                check_job_name(request.match_info["job"])
            return await make(request)
        except JobError as error:
            return refusal(404, foreign(str(error)))
        except BulkSubmitError as error:
            return refusal(503, foreign(str(error)))

    def _answer(self, page: HtmlPage, *, live: bool = False) -> web.Response:
        text = document(page, live=live, ledger=str(self._options.ledger))
        response = web.Response(text=text, content_type="text/html", status=page.status)
        if page.has_form:
            response.headers["Referrer-Policy"] = OWN_REFERRER
        return response

    def _refused(self, status: int, reason: str) -> web.Response:
        return web.Response(text=document(refusal(status, reason), live=False), content_type="text/html", status=status)

    @web.middleware
    async def _say_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Say what aiohttp answers by itself in a page of ours."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return self._answer(refusal(404, "There is no such page."))
        except web.HTTPMethodNotAllowed as refused:
            answer = self._answer(refusal(405, "This page cannot be used so."))
            answer.headers["Allow"] = refused.headers["Allow"]
            return answer

    # Sessions

    async def _sign_in(self, request: web.Request) -> web.Response:
        """Begin a session with a token. The page goes on by itself: a redirect would come from another site still.

        A browser sends a cookie that is SameSite=Strict only where a page of ours has led to the request.
        """
        value = self.sessions.begin(request.query.get("token", ""))
        if value is None and not self.sessions.holds(self._guard.session_of(request)):
            return self._refused(
                403, "This link was used already, or is too old. `bulksubmit dashboard` has printed a new one."
            )
        page = HtmlPage("Signed in", join([tag("h1", "Signed in"), tag("p", link("/", "Go to the jobs"))]))
        response = web.Response(text=document(page, live=False, moved_to="/"), content_type="text/html")
        if value is not None:
            self._guard.set_cookie(request, response, value)
            self.signed_in()
        return response

    async def _session_page(self, _: web.Request) -> HtmlPage:
        end = tag("form", tag("button", "Sign out"), action="/sign-out", method="post")
        other = tag("form", tag("button", "Make a link for another device"), action="/links", method="post")
        parts = [
            tag("h1", "This browser's session"),
            tag("p", "It ends twelve hours after it began, or with the dashboard."),
            tag("p", "Another device, or another browser, signs in with a link of its own. It works once."),
            other,
            end,
        ]
        return HtmlPage("Session", join(parts), has_form=True)

    async def _sign_out(self, request: web.Request) -> web.Response:
        self.sessions.end(self._guard.session_of(request))
        page = HtmlPage("Signed out", join([tag("h1", "Signed out"), tag("p", "This browser sees nothing any more.")]))
        response = web.Response(text=document(page, live=False), content_type="text/html")
        response.del_cookie(self._guard.cookie, path="/")
        return response

    async def _new_link(self, request: web.Request) -> web.Response:
        scheme = "https" if self._guard.is_behind_proxy(request) else "http"
        token = self.sessions.new_token(LINK_SECONDS)
        url = f"{scheme}://{request.headers['Host']}{SIGN_IN}?token={token}"
        parts = [
            tag("h1", "A link for another device"),
            tag("p", "Open it there within ten minutes. It works once; whoever has it first is signed in."),
            tag("p", tag("code", url, tabindex=0, class_="command")),
        ]
        return self._answer(HtmlPage("Link", join(parts)))

    # Actions

    async def _ask(self, actions: Actions, request: web.Request) -> web.Response:
        async def make(request: web.Request) -> HtmlPage:
            status = await self._reader.status(request.match_info["job"])
            return actions.page(status, request.match_info["action"])

        return self._answer(await self._made(make, request))

    async def _act(self, actions: Actions, request: web.Request) -> web.Response:
        """Start an action, unless the job stands otherwise than the page said that asked."""
        seen = (await request.post()).get("stands", "")

        async def make(request: web.Request) -> HtmlPage:
            job, action = request.match_info["job"], request.match_info["action"]
            status = await self._reader.status(job)
            if seen != stands(status) or action not in actions.possible(status):
                return actions.page(status, action, changed=True)
            await asyncio.to_thread(actions.start, job, action)
            self._reader.forget()  # the page of the job says what was started
            raise web.HTTPSeeOther(f"/jobs/{job}")

        return self._answer(await self._made(make, request))


async def _static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _STATIC:
        raise web.HTTPNotFound
    text = style() if name == "dashboard.css" else (files(__package__) / "static" / name).read_text(encoding="utf-8")
    return web.Response(text=text, content_type=_STATIC[name])


@contextlib.asynccontextmanager
async def serving(options: DashboardOptions, words: Words) -> AsyncIterator[tuple[Dashboard, str]]:
    """Serve until the block ends; give the dashboard and the URL of its pages.

    Raises:
        ConfigError: the address or the port cannot be listened on.
        LedgerError: the ledger is there and cannot be opened; of none, the pages say so until there is one.
    """
    with contextlib.suppress(NoLedger):
        async with open_ledger(options.ledger):
            pass
    listening = _listen(options.host, options.port)
    port = int(listening.getsockname()[1])
    dashboard = Dashboard(options, words, port)
    runner = web.AppRunner(dashboard.application(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield dashboard, f"http://{_reached_as(options.host, listening)}:{port}"
    finally:
        await runner.cleanup()


def _listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens; where no port was asked for, on the first free one from PORT on."""
    ports = [port] if port is not None else range(PORT, PORT + _PORTS_TRIED)
    for number in ports:
        try:
            return _bound(host, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or number == ports[-1]:
                raise ConfigError(no_port(error, host, number, lambda free: f"--port {free}")) from error
    raise AssertionError(ports)


def _bound(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
        bound.setblocking(False)  # noqa: FBT003 - the socket's own signature
    except OSError:
        bound.close()
        raise
    return bound


def _reached_as(host: str, listening: socket.socket) -> str:
    """Return the address that a browser is to open: of all addresses, the one by which this machine is known best."""
    address = str(listening.getsockname()[0])
    if address in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        with contextlib.suppress(OSError), socket.socket(listening.family, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1" if listening.family == socket.AF_INET else "2001:db8::1", 9))  # sends nothing
            address = str(probe.getsockname()[0])
    elif is_loopback(host):
        address = host
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def run(options: DashboardOptions, words: Words, tell: Callable[[str], None], *, as_json: bool, open_: bool) -> None:
    """Be the command: print where it is, and serve until a signal ends it.

    Args:
        options: how it is served.
        words: those of the command line.
        tell: says a line to whoever sits at the terminal.
        as_json: print one line of JSON on standard output, and nothing else there.
        open_: open the page in this machine's browser.

    Raises:
        ConfigError: it cannot listen.
    """
    asyncio.run(_serve(options, words, tell, as_json=as_json, open_=open_))


async def _serve(
    options: DashboardOptions, words: Words, tell: Callable[[str], None], *, as_json: bool, open_: bool
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(options, words) as (dashboard, url):

        def link_to() -> str:
            return f"{url}{SIGN_IN}?token={dashboard.sessions.new_token()}"

        dashboard.signed_in = lambda: tell(f"A browser has signed in. For another one, once: {link_to()}")
        first = link_to()
        if as_json:
            print(orjson.dumps({"url": first, "pid": os.getpid()}).decode(), flush=True)  # noqa: T201 - as promised
        else:
            can = "It can resume, cancel and retry jobs" if options.allow_actions else "It only reads"
            print(  # noqa: T201 - the line that is promised
                f"The dashboard of {options.ledger} is served at {first} (works once; process {os.getpid()}; Ctrl-C "
                f"ends it). {can}.",
                flush=True,
            )
        if not is_loopback(options.host):
            tell(
                "Other machines can reach it, by plain HTTP: whoever listens on the way sees what you see, the link "
                "above included. Let a proxy speak TLS, serve on 127.0.0.1, and name the proxy by --allowed-host."
            )
        with _opened_in_browser(link_to()) if open_ else contextlib.nullcontext():
            await stop.wait()


@contextlib.contextmanager
def _opened_in_browser(url: str) -> Iterator[None]:
    """Open a page by a file that only this user can read: a command line would show the token to all users."""
    with NamedTemporaryFile("w", prefix="bulksubmit-", suffix=".html", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">')
        file.flush()
        webbrowser.open(Path(file.name).as_uri())
        yield
