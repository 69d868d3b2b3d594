"""What a service is asked, what it answers and what is taken from that: `check --trace`, for whoever describes one.

A trace stands below the caller: it hears each request as it goes out, also those that are refused or tried again. It
quotes bodies, which nothing else of the engine does. So what it keeps is masked when it is heard: credentials by their
place, and whatever is known as a secret, or looks like one, by its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.configuration import Config
from engine.commands.preview import PreviewedRequest, later_requests, preview
from engine.model.errors import BulkSubmitError
from engine.model.settings import ServiceSettings, secrets_in
from engine.progress.redaction import HIDDEN, Redact, redacting
from engine.services.base import Answer, Call, TakenFrom

if TYPE_CHECKING:
    from engine.http.client import Client, Request
    from engine.http.losses import Lost

MOST_EXCHANGES = 200
"""Of one trace; further ones are counted."""
TRACED_CHARACTERS = 2_000
"""Of a body that are kept."""
_READ_BYTES = 64 * 1024
"""Of a body that are looked at."""
_HEADER_CHARACTERS = 300
_SAYS_NOTHING = frozenset(
    {
        *("date", "server", "connection", "keep-alive", "transfer-encoding", "vary", "cache-control", "expires"),
        *("pragma", "etag", "age", "via", "alt-svc", "x-powered-by", "content-security-policy", "referrer-policy"),
        *("strict-transport-security", "x-content-type-options", "x-frame-options", "x-xss-protection", "nel"),
        *("report-to", "permissions-policy", "content-length", "accept-ranges"),
    }
)
"""Headers of an answer of which no description can make anything."""
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_EXCHANGE = "token"
"""Kind of the call that gets a short-lived token."""


class TracedExchange(Struct, frozen=True):
    """A request, its answer, and what was taken from it."""

    kind: str
    """As of the `Call`: the step of a description."""
    method: str
    url: str
    headers: Mapping[str, str]
    body: str
    """Its beginning."""
    size_bytes: int
    """Of the whole body."""
    sent: bool = True
    """False: it would go out in a load, and was only made up."""
    status: int | None = None
    """None: no answer came, and `lost` says why; or it was not sent."""
    lost: str = ""
    answer_headers: Mapping[str, str] = {}
    """Without those that say nothing."""
    answer: str = ""
    """The beginning of its body."""
    taken: Sequence[tuple[str, str]] = ()
    """What was taken from the answer, by name."""
    times: int = 1
    """So often in a row, all alike: polls, mostly."""


class Trace:
    """Hears the requests of a check and of its probe, from then on that a setup `hears` them."""

    def __init__(self) -> None:
        self.exchanges: list[TracedExchange] = []
        self.planned: Sequence[TracedExchange] = ()
        """What a load would send."""
        self.left_out = 0
        """Further exchanges, of which nothing is kept."""

    def hears(self, setup: wiring.Setup) -> wiring.Setup:
        """Return a setup whose requests are heard."""
        heard = _Heard(setup)
        return replace(setup, hears=partial(_TracingClient, heard, self._note))

    def _note(self, exchange: TracedExchange) -> None:
        if self.exchanges and replace(self.exchanges[-1], times=1) == exchange:
            self.exchanges[-1] = replace(self.exchanges[-1], times=self.exchanges[-1].times + 1)
        elif len(self.exchanges) < MOST_EXCHANGES:
            self.exchanges.append(exchange)
        else:
            self.left_out += 1

    async def plan(
        self,
        config: Config,
        sources: Path | str | Sequence[Path | str],
        records: int,
        format_: str | None,
    ) -> None:
        """Make up the requests of a load: of the first batch, if there is a source, and those that would follow."""
        requests: Sequence[PreviewedRequest] = ()
        if sources:
            try:
                seen = await preview(sources, config, records=records, format=format_)
            except BulkSubmitError:  # the checks have said what is wrong with it
                return
            requests = seen.batches[0].requests if seen.batches else ()
        later = await later_requests(config)
        self.planned = [_planned(one) for one in (*requests, *later)]


class _Heard:
    """Masks what is secret of the requests and answers of one setup, and makes exchanges of them."""

    def __init__(self, setup: wiring.Setup) -> None:
        service = setup.service
        self._service = service
        self._taken_from: TakenFrom | None = getattr(setup.module, "taken_from", None)
        self._headers = _secret_headers(service)
        self._query = frozenset(service.secret_query())
        secrets = [one for one in secrets_in(service) if one]
        self._ours = redacting(secrets, looks=False)
        self._theirs = redacting(secrets)

    def exchange(self, request: Request, answer: Answer | Lost | None) -> TracedExchange:
        """Return what is kept of a request and what came of it; None: it was given up."""
        call = request.call
        headers = {name: self._header(name, value) for name, value in request.headers.items()}
        size = call.size_bytes
        made = TracedExchange(
            call.kind, call.method, self._url(request), headers, _begun(_first(call), self._ours), size
        )
        if not isinstance(answer, Answer):
            return replace(made, lost="it was given up" if answer is None else self._theirs(answer.words))
        body = _body_of(call, answer)
        return replace(
            made,
            status=answer.status,
            answer_headers=self._answer_headers(answer.headers),
            answer=self._answered(call, answer.status, body),
            taken=self._taken(call, Answer(answer.status, answer.headers, body)),
        )

    def _header(self, name: str, value: str) -> str:
        """Return a header of a request; of one that proves who we are, the word before the secret."""
        if name.lower() in self._headers:
            scheme, blank, _ = value.partition(" ")
            return f"{scheme} {HIDDEN}" if blank and scheme.isalpha() else HIDDEN
        return self._ours(value)

    def _url(self, request: Request) -> str:
        """Return a URL without credentials; a presigned one is a secret itself."""
        url = request.url
        if not request.call.authenticated:
            return f"{url.with_query(None)}{f'?{HIDDEN}' if url.query_string else ''}"
        for name in self._query & set(url.query):
            url = url.update_query({name: HIDDEN})
        return self._ours(str(url))

    def _answer_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        return {
            name: HIDDEN if name.lower() in self._headers else self._theirs(value)[:_HEADER_CHARACTERS]
            for name, value in headers.items()
            if name.lower() not in _SAYS_NOTHING
        }

    def _answered(self, call: Call, status: int, body: bytes) -> str:
        if call.kind == _EXCHANGE and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return _masked_json(body)  # what it holds is not known as a secret yet
        return _begun(body, self._theirs)

    def _taken(self, call: Call, answer: Answer) -> Sequence[tuple[str, str]]:
        if call.kind == _EXCHANGE:
            if (exchange := self._service.exchange()) is None or answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                return ()
            try:
                _, seconds = exchange.take(answer.body)
            except ValueError as error:
                return [("token", f"NOT TAKEN: {error}")]
            lasts = f"for {seconds:g} s" if seconds else f"for {exchange.seconds:g} s, as the answer does not say"
            return [("token", f"{HIDDEN}, {lasts}")]
        if self._taken_from is None:
            return ()
        found = self._taken_from(call, answer, self._service)
        return [(name, self._theirs(value)[:TRACED_CHARACTERS]) for name, value in found]


def _secret_headers(service: ServiceSettings) -> frozenset[str]:
    names = {*_SECRET_HEADERS, *service.secret_headers()}
    if (exchange := service.exchange()) is not None:
        names |= {*exchange.secret_headers, *exchange.header("")}
    return frozenset(name.lower() for name in names)


class _TracingClient:
    """Makes requests by another client, and notes each with what came back."""

    def __init__(self, heard: _Heard, note: Callable[[TracedExchange], None], client: Client) -> None:
        self._heard, self._note, self._client = heard, note, client

    async def send(self, request: Request) -> Answer | Lost:
        answer: Answer | Lost | None = None
        try:
            answer = await self._client.send(request)
        finally:
            self._note(self._heard.exchange(request, answer))
        return answer


def _first(call: Call) -> bytes:
    """Return the beginning of a request's body."""
    first = b""
    for piece in call.pieces:
        first += piece[: _READ_BYTES - len(first)]
        if len(first) >= _READ_BYTES:
            break
    return first


def _body_of(call: Call, answer: Answer) -> bytes:
    """Return the beginning of an answer's body, whole lines where it went into a file."""
    if call.into is None or answer.status >= HTTPStatus.MULTIPLE_CHOICES:
        return answer.body
    at = call.into.tell()
    call.into.seek(0)
    first = call.into.read(_READ_BYTES)
    call.into.seek(at)
    return first if len(first) < _READ_BYTES else first.rpartition(b"\n")[0]


def _begun(body: bytes, redact: Redact) -> str:
    """Return the beginning of a body without secrets."""
    text = redact(body[:_READ_BYTES].decode(errors="replace"))
    return text if len(text) <= TRACED_CHARACTERS else f"{text[:TRACED_CHARACTERS]}…"


def _masked_json(body: bytes) -> str:
    """Return JSON with stars in place of each text, so that its members can be seen."""
    try:
        return orjson.dumps(_masked(orjson.loads(body))).decode()[:TRACED_CHARACTERS]
    except orjson.JSONDecodeError:
        return f"{len(body):,} bytes that are no JSON"


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return HIDDEN if isinstance(value, str) else value


_STARS = re.compile(r"\*{4,}")


def _planned(one: PreviewedRequest) -> TracedExchange:
    """Return a request that was made up; a preview knows no secret, and has stars in place of each."""
    body = _begun(one.body.encode(), str)
    headers = {name: _STARS.sub(HIDDEN, value) for name, value in one.headers.items() if name != "Content-Length"}
    url = _STARS.sub(HIDDEN, one.url)
    return TracedExchange(one.kind, one.method, url, headers, body, one.size_bytes, sent=False)
