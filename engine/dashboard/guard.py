"""Who may see the dashboard, and what a page of somebody else's cannot do with it.

A *token* stands in the URL that the command prints. It works once, and a *session* begins with it: a random value in a
cookie that no script reads (HttpOnly) and that no other site's page sends along (SameSite=Strict).

- A request must name a host by which the dashboard is really reached. Else a page of somebody else could have its own
  name lead to this machine (DNS rebinding), and read what is answered.
- What changes something is a POST that a page of ours has sent: the browser says so in `Sec-Fetch-Site`. Browsers leave
  that out on plain HTTP to other machines; then `Origin` must be the host that was asked. A request with neither is
  refused.
- Each answer forbids the browser to run or load anything that is not ours, to frame it, to guess what it is, to tell
  others where it was, and to keep it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from engine.http.urls import is_loopback

SESSION_SECONDS = 12 * 3600.0
"""Of a working day. After it, a new token is needed."""
LINK_SECONDS = 600.0
"""For which a link for another device works. The first token works until it is used."""
MOST_SESSIONS = 64
MOST_TOKENS = 8
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of each answer."""
OWN_REFERRER = "same-origin"
"""The referrer policy of a page with a form: by `no-referrer` a browser would hide our own `Origin` from us."""


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Put what protects a page on an answer."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)


class Sessions:
    """The tokens that still work, and the sessions that were begun with one. Of each, only its sha256 is kept."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tokens: deque[tuple[bytes, float]] = deque(maxlen=MOST_TOKENS)
        """Digest, and until when it works; the oldest ones first."""
        self._sessions: deque[tuple[bytes, float]] = deque(maxlen=MOST_SESSIONS)

    def new_token(self, seconds: float = float("inf")) -> str:
        """Return a token that begins one session, within so many seconds."""
        return self._remember(self._tokens, seconds)

    def begin(self, token: str) -> str | None:
        """Return the value of a new session, and take its token out of use; None if the token does not work."""
        found = self._find(self._tokens, token)
        if found is None:
            return None
        self._tokens.remove(found)
        return self._remember(self._sessions, SESSION_SECONDS)

    def holds(self, value: str) -> bool:
        """Return whether a session goes on."""
        return self._find(self._sessions, value) is not None

    def end(self, value: str) -> None:
        """End a session."""
        if (found := self._find(self._sessions, value)) is not None:
            self._sessions.remove(found)

    def _remember(self, kept: deque[tuple[bytes, float]], seconds: float) -> str:
        value = secrets.token_urlsafe(32)
        kept.append((_digest(value), self._now() + seconds))
        return value

    def _find(self, kept: deque[tuple[bytes, float]], value: str) -> tuple[bytes, float] | None:
        wanted, now = _digest(value), self._now()
        found = None
        for one in kept:  # each is compared, so that the time tells nothing
            if hmac.compare_digest(one[0], wanted) and now < one[1]:
                found = one
        return found


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """Judges requests before anything answers them: `middleware` is aiohttp's."""

    def __init__(
        self,
        sessions: Sessions,
        port: int,
        *,
        public: Collection[str],
        refuse: Callable[[int, str], web.Response],
        names: Collection[str] = (),
    ) -> None:
        """Make a guard of a server on a port.

        Args:
            sessions: those who may see more than what is public.
            port: on which the server listens.
            public: paths that need no session.
            refuse: makes an answer of a status and a reason.
            names: by which a proxy that speaks TLS lets the server be reached.
        """
        self._sessions = sessions
        self._port = port
        self._public = frozenset(public)
        self._names = {name.lower().rstrip(".") for name in names}
        self._refuse = refuse
        self.cookie = f"bulksubmit-{port}"
        """Cookies do not tell ports apart: two dashboards must not take each other's."""

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, or say why not."""
        if not self.knows_host(request):
            return self._refuse(
                403,
                f"This dashboard is not reached by the name {request.headers.get('Host', '')[:100]!r}. Use the address "
                "that the command has printed; --allowed-host NAME allows another name.",
            )
        if request.method not in _SAFE_METHODS and not is_from_own_page(request):
            return self._refuse(403, "This request did not come from a page of this dashboard, so nothing was done.")
        if request.path not in self._public and not self._sessions.holds(self.session_of(request)):
            return self._refuse(
                401,
                "Nobody is signed in here. Open the link that `bulksubmit dashboard` has printed in its terminal; each "
                "works once. If you came by a link from elsewhere and are signed in, open this page again.",
            )
        return await handler(request)

    def knows_host(self, request: web.Request) -> bool:
        """Return whether the host that is asked is one of ours: where the connection came in, or a name allowed."""
        host, port = split_host(request.headers.get("Host", ""))
        if host in self._names:
            return True
        if port != self._port:
            return False
        came_in = request.transport.get_extra_info("sockname") if request.transport else None
        address = str(came_in[0]) if came_in else ""
        return host == address or (is_loopback(host) and is_loopback(address.removeprefix("::ffff:")))

    def is_behind_proxy(self, request: web.Request) -> bool:
        """Return whether the request came by a name that a proxy serves by TLS."""
        return split_host(request.headers.get("Host", ""))[0] in self._names

    def session_of(self, request: web.Request) -> str:
        """Return the value of the session's cookie; empty if there is none."""
        return request.cookies.get(self.cookie, "")

    def set_cookie(self, request: web.Request, response: web.Response, value: str) -> None:
        """Give the browser its session."""
        response.set_cookie(
            self.cookie,
            value,
            max_age=int(SESSION_SECONDS),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self.is_behind_proxy(request),
        )


def split_host(host: str) -> tuple[str, int | None]:
    """Return name and port of a `Host` header, the port of HTTP if it names none; no port if it cannot be read."""
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return "", None
    return name.rstrip("."), 80 if port is None else port


def is_from_own_page(request: web.Request) -> bool:
    """Return whether a page of ours has sent a request, as far as the browser tells."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("Origin", ""))
    return origin.scheme in {"http", "https"} and origin.netloc.lower() == request.headers.get("Host", "").lower()
