"""A `Call` -> its 2xx `Answer`, or an error that says what is known of the call's effect. Opened by `commands.wiring`.

The loop: admit, wait, send, judge, observe, decide. Here a request waits in `_admit`, and for a place among the
requests under way, and nowhere else. What is decided, and where:

- what a call may do (repeatable, what it carries, a lane of its own): `services.base.Call`, by each service;
- when it may go out, and what a 429 or an outage means for others: `throttle`, with the speeds of `adaptive.rate`;
- what an answer or a loss says of its effect, and whether a repeat is safe: `classify`;
- whose fault a refusal is: the table in `classify`, after the service's own `error_hint`;
- when it is tried again, and when no more: `retry`;
- what proves who we are, where that is a token that ends: `tokens`;
- what becomes of the batch then: `run.uploader`, `run.recovery`; and `run.in_flight` sends fewer at once after a 429.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from http import HTTPStatus

import anyio
from msgspec.structs import replace
from yarl import URL

from engine.clock import Clock, SystemClock
from engine.http.classify import (
    USUAL_WINDOW,
    Loss,
    Verdict,
    allowance,
    asked_wait,
    comes_to,
    judge_loss,
    judge_refusal,
    judge_status,
)
from engine.http.client import Client, Request, open_client
from engine.http.losses import Lost
from engine.http.messages import described, failure, is_of_a_store, said_in
from engine.http.retry import CallState, GiveUp, RetryRules, decide
from engine.http.secrets import Credentials, HidingFile
from engine.http.share import Share
from engine.http.throttle import Throttle
from engine.http.tokens import ExchangePlace, Tokens, check_exchange, exchanged_secrets
from engine.http.urls import check_base_url, check_upload_url, exact_hosts, is_loopback
from engine.model.error_hints import Pause, Refusal
from engine.model.errors import CallFailed, Refused, Unauthorized, Unavailable, WrongAddress
from engine.model.settings import SecretStr, SendSettings, ServiceSettings
from engine.progress.events import WORTH_SAYING_SECONDS, CallEnded, CallRetried, CallStarted, Listener, Spaced, unheard
from engine.progress.redaction import foreign_words
from engine.services.base import Answer, Call

_SPEAKING = {"Accept": "application/json"}
"""To a service; not to a store: there a header may be one that the presigned URL was not signed for."""
_ASKING = {**_SPEAKING, "Cache-Control": "no-cache"}
"""Where a batch stands: what something in between has kept of it is worth nothing."""

MOST_UNDER_WAY = "as many requests are under way as max_in_flight and polls_in_flight allow"


class HttpCaller:
    """Makes calls: paced, retried while that is safe, classified. Implements `engine.services.base.Caller`."""

    def __init__(  # noqa: PLR0913 - what it makes calls with, and what is passed in for tests
        self,
        client: Client,
        service: ServiceSettings,
        settings: SendSettings,
        *,
        clock: Clock,
        draw: Callable[[], float] = random.random,
        emit: Listener = unheard,
        share: Share | None = None,
    ) -> None:
        """Join the parts; `draw` returns random numbers in [0, 1).

        `share`: what this worker has of the limits that all workers share; of this caller alone.
        """
        self._client = client
        self._service = service
        base_url = check_base_url(service.base_url)
        self._origin = base_url.origin()
        self._upload_hosts = service.allowed_upload_hosts()
        self._local = is_loopback(base_url.host or "")
        self._hidden = [*service.other_secrets()]
        self._credentials = Credentials(service.secret_headers(), service.secret_query(), self._hidden)
        self._hides = not isinstance(service, ExchangePlace)  # whose answer is a secret, and shown to nobody
        self._rules_on_success = service.RULES_ON_SUCCESS
        self._window_headers = service.window() or USUAL_WINDOW
        self._clock = clock
        self._draw = draw
        self._emit = emit
        rules = RetryRules(settings.retry_base_seconds, settings.retry_cap_seconds, settings.give_up_seconds)
        paces = [pace for pace in (settings.requests_per_second, service.most_requests_per_second) if pace is not None]
        self._throttle = Throttle(rules, min(paces, default=None), draw, share)
        if share is not None:
            share.on_grant = self._wake
        self._next_turn: anyio.Event | None = None
        """Given when a call that probed has ended, or with a grant; None while nobody waits for it."""
        self._request_slots = asyncio.Semaphore(settings.most_in_flight + settings.polls_in_flight)
        self._tokens: Tokens | None = None
        self._exchange = service.exchange()
        if self._exchange is not None:
            self._hidden += exchanged_secrets(self._exchange)
            place = ExchangePlace.of(self._exchange, service)
            unpaced = replace(settings, requests_per_second=None)
            asking = HttpCaller(client, place, unpaced, clock=clock, draw=draw, emit=emit)
            self._tokens = Tokens(self._exchange, asking, clock, self._use)

    async def call(self, call: Call) -> Answer:
        """Return the 2xx answer; raise as `Caller.call` says.

        Raises:
            ConfigError: an upload URL points to where nothing may be sent.
        """
        request, state = self._request(call), CallState(call)
        tokens = self._tokens if call.authenticated else None
        try:
            while True:
                if tokens is None:
                    await self._admit(state)
                else:
                    request = await self._admit_with(tokens, state)
                answer = await self._send(request, state)
                verdict = self._judge(call, answer)
                self._observe(state, verdict)
                if verdict.error is None and isinstance(answer, Answer):
                    # A service may repeat our credentials; for most answers that is the body itself.
                    body = self._credentials.hide(answer.body) if self._hides else answer.body
                    return Answer(answer.status, answer.headers, body, state.lost)
                if tokens is not None and verdict.error is Unauthorized and not state.renewed:
                    await self._renew(tokens, state, verdict)
                    continue
                self._decide(state, verdict, answer)
        except BaseException as error:
            self._observe(state, None)
            if isinstance(error, CallFailed):
                error.earlier_lost = state.lost
            raise

    def _use(self, tokens: Sequence[str]) -> None:
        """Send the first of some tokens from now on, and hide them all."""
        assert self._exchange is not None  # noqa: S101 - else there are no tokens
        carrying = {name: SecretStr(value) for name, value in self._exchange.header(tokens[0]).items()}
        headers = {**self._service.secret_headers(), **carrying}
        hidden = [*self._hidden, *map(SecretStr, tokens)]
        self._credentials = Credentials(headers, self._service.secret_query(), hidden)

    async def _admit_with(self, tokens: Tokens, state: CallState) -> Request:
        """Wait until the call may go out with a token that holds; return its request.

        The token is got first: a call that has been admitted holds what others wait for.
        """
        await tokens.get()
        await self._admit(state)
        if not tokens.holds:  # it has waited for longer than a token lives: what it holds goes back, but for its place
            self._observe(state, None)
            state.due = self._clock.monotonic()
            await tokens.get()
            await self._admit(state)
        state.token = tokens.number
        return self._request(state.call)

    async def _renew(self, tokens: Tokens, state: CallState, verdict: Verdict) -> None:
        """Have another token for a call that was refused for the one it had: once."""
        call, left = (
            state.call,
            max(0.0, self._throttle.rules.give_up_seconds - state.failing_seconds(self._clock.monotonic())),
        )
        self._emit(CallRetried(call.kind, state.attempts + 1, 0.0, f"{verdict.reason}; its token is renewed", left))
        state.renewed = True
        await tokens.renew(state.token)

    def _request(self, call: Call) -> Request:
        """Add the credentials, where they belong and nowhere else."""
        if not call.authenticated:
            url = check_upload_url(call.url, self._upload_hosts, allow_loopback=self._local)
            url = url.extend_query(call.query) if call.query else url
            return Request(call, url, dict(call.headers), self._into(call))
        url, origin = _address(call.url, tuple(call.query.items()))
        if origin != self._origin:
            # A "next page" link, say, that leads elsewhere: the credentials would go with it.
            raise Refused(f"{described(call)} leads away from the service, so it is not made", call=call.kind)
        proof, asking = self._credentials.query, _ASKING if call.method == "GET" else _SPEAKING
        headers = {**asking, **call.headers, **self._credentials.headers}
        return Request(call, url.extend_query(proof) if proof else url, headers, self._into(call))

    def _into(self, call: Call) -> HidingFile | None:
        return None if call.into is None else HidingFile(call.into, self._credentials)

    async def _admit(self, state: CallState) -> None:
        """Wait until the call may go out."""
        while True:
            wait = self._throttle.admit(state, self._clock.monotonic())
            if isinstance(wait, GiveUp):
                words = f"{described(state.call)} was not sent: {wait.reason}. Run `bulksubmit resume` later"
                unavailable = Unavailable(words, call=state.call.kind)
                unavailable.earlier_lost = state.lost
                raise unavailable
            if wait.news is not None:
                self._emit(wait.news)
            if wait.seconds <= 0:
                return
            if wait.seconds < math.inf:
                await self._clock.sleep(wait.seconds)
                continue
            if self._next_turn is None:
                self._next_turn = anyio.Event()
            await self._next_turn.wait()

    async def _send(self, request: Request, state: CallState) -> Answer | Lost:
        call, asked_at = request.call, self._clock.monotonic()
        async with self._request_slots:
            waited = self._clock.monotonic() - asked_at
            if waited > WORTH_SAYING_SECONDS:  # told afterwards: nobody knows before how long the others take
                self._emit(Spaced(MOST_UNDER_WAY, waited))
            if call.intent is not None:
                await call.intent()
            state.sent_at = self._clock.monotonic()
            answer: Answer | Lost = Lost(Loss.UNREACHABLE)  # a canceled call counts as not sent: sent_bytes 0
            self._emit(CallStarted(call.kind))
            try:
                answer = await self._client.send(request)
            finally:
                status = answer.status if isinstance(answer, Answer) else None
                sent_bytes = 0 if isinstance(answer, Lost) and answer.loss.unsent else call.size_bytes
                self._emit(CallEnded(call.kind, self._clock.monotonic() - state.sent_at, sent_bytes, status))
        return answer

    def _judge(self, call: Call, answer: Answer | Lost) -> Verdict:
        if isinstance(answer, Lost):
            return judge_loss(answer.loss, answer.words, repeatable=call.repeatable)
        verdict, now = judge_status(answer.status, repeatable=call.repeatable), self._clock.now()
        if call.authenticated and (window := allowance(answer.headers, now, self._window_headers)):
            # A push-back while something is left is none of this window, whose end is only guessed.
            known = not (window.fixed and window.remaining and answer.status == HTTPStatus.TOO_MANY_REQUESTS)
            verdict = replace(verdict, window=window if known else None)
        if verdict.error is None and (not self._rules_on_success or call.into is not None or not call.authenticated):
            return verdict
        hint: Pause | Refusal | None = None
        if verdict.error is None or (call.authenticated and answer.status >= HTTPStatus.BAD_REQUEST):
            hint = self._service.error_hint(answer.status, answer.body)
        if verdict.error is None and hint is None:
            return verdict
        asked = asked_wait(answer.headers, now, status=answer.status, names=self._window_headers)
        if hint is not None:
            reason = foreign_words(hint.reason, self._credentials.redact)
            verdict = replace(verdict, asked_seconds=asked, reason=reason)
            return _hinted(verdict, hint, could_be_smaller=call.few_tries)
        if verdict.error is Refused:
            own = self._service.speaks(answer.body) if call.authenticated else is_of_a_store(answer.body)
            verdict = judge_refusal(verdict, call.carries, said_in(answer, own=own))
        return replace(verdict, asked_seconds=asked)

    def _observe(self, state: CallState, verdict: Verdict | None) -> None:
        probed = state.probing
        if news := self._throttle.observe(state, verdict, self._clock.monotonic()):
            self._emit(news)
        if probed:
            self._wake()

    def _wake(self) -> None:
        """Have all calls ask anew that wait for others."""
        if self._next_turn is not None:
            self._next_turn.set()
            self._next_turn = None

    def _decide(self, state: CallState, verdict: Verdict, answer: Answer | Lost) -> None:
        """Have the call tried again later, or raise what is known of it."""
        call, now, known = state.call, self._clock.monotonic(), self._credentials
        redact = (
            known.redact if call.authenticated else known.hiding_query(call.url)
        )  # a presigned URL is a secret itself
        if verdict.error is not Unavailable:
            raise failure(call, verdict, answer, redact)
        has_answered = self._throttle.has_answered(call)
        rules = self._throttle.rules
        decision = decide(rules, state, verdict, now=now, draw=self._draw(), has_answered=has_answered)
        if isinstance(decision, GiveUp):
            ended = replace(verdict, error=WrongAddress) if decision.wrong_address else verdict
            failed = failure(call, ended, answer, redact, why=decision.reason)
            failed.earlier_lost = state.lost
            raise failed
        reason = f"{verdict.reason}; {decision.reason}"
        left = max(0.0, rules.give_up_seconds - state.failing_seconds(now))
        said = str(failure(call, verdict, answer, redact))
        self._emit(CallRetried(call.kind, state.attempts, decision.after_seconds, reason, left, said))
        state.retry_at = now + decision.after_seconds


def _hinted(verdict: Verdict, hint: Pause | Refusal, *, could_be_smaller: bool) -> Verdict:
    """Return what the service's own code makes of an answer: nothing was done, in any case."""
    certain = replace(verdict, error=Refused, lost=False, timed_out=False)
    if isinstance(hint, Refusal):
        return replace(certain, error=comes_to(hint.blame), blame=hint.blame, hint=hint)
    if hint.or_too_much and could_be_smaller:
        return replace(certain, reason=f"status {verdict.status}")
    return replace(certain, error=Unavailable, asked_seconds=max(hint.seconds, verdict.asked_seconds or 0.0))


@lru_cache(maxsize=64)  # where each record is a call, all of them go to one address
def _address(url: str, query: tuple[tuple[str, str], ...]) -> tuple[URL, URL | None]:
    """Return a URL with a query added (none of a caller's secrets is in it, for it is kept), and its origin."""
    try:
        parsed = URL(url)
        if "@" in parsed.raw_authority:  # the client would log in by it, or refuses to have two proofs
            return URL(), None
        return parsed.extend_query(query), parsed.origin()
    except ValueError:  # relative, or no URL at all
        return URL(), None


@asynccontextmanager
async def open_caller(  # noqa: PLR0913 - as above
    service: ServiceSettings,
    settings: SendSettings,
    *,
    clock: Clock | None = None,
    draw: Callable[[], float] = random.random,
    emit: Listener = unheard,
    hears: Callable[[Client], Client] | None = None,
    share: Share | None = None,
) -> AsyncIterator[HttpCaller]:
    """Open connections to a service and, for presigned uploads, to the hosts that it allows.

    `hears` puts one that hears each request, with its credentials, before the client. `share`: as of `HttpCaller`.

    Raises:
        ConfigError: its `base_url`, or where its tokens are got, is neither https nor on loopback.
    """
    host = check_base_url(service.base_url).host or ""
    trusted = [host, *exact_hosts(service.allowed_upload_hosts())]
    if exchange := service.exchange():
        trusted.append(check_exchange(exchange).host or "")
    async with open_client(settings, trusted_hosts=trusted, anywhere=is_loopback(host)) as opened:
        client = hears(opened) if hears else opened
        yield HttpCaller(client, service, settings, clock=clock or SystemClock(), draw=draw, emit=emit, share=share)
