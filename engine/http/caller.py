"""A `Call` -> its 2xx `Answer`, or an error that says what is known of the call's effect. Made by `commands.wiring`.

The loop: admit, wait, send, judge, observe, decide. `throttle` says when a call may go out and hears how it ended,
`classify` says what an answer means, `retry` whether to try again. Here is only the doing: a request waits in `_admit`
and nowhere else.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias

import anyio
from yarl import URL

from engine.clock import Clock, SystemClock
from engine.http.classify import (
    Advice,
    Effect,
    Loss,
    Verdict,
    allowance,
    asked_wait,
    judge_loss,
    judge_refusal,
    judge_status,
)
from engine.http.client import Client, Lost, Request, open_client
from engine.http.messages import described, failure, is_of_a_store, said_in
from engine.http.retry import CallState, GiveUp, RetryRules, decide
from engine.http.secrets import Credentials, hiding_query
from engine.http.throttle import Throttle
from engine.http.urls import DEFAULT_UPLOAD_HOSTS, check_base_url, check_upload_url, exact_hosts, is_loopback
from engine.model.error_hints import Pause, Refusal
from engine.model.errors import Refused, Unavailable
from engine.model.settings import SendSettings
from engine.progress.events import CallEnded, CallRetried, CallStarted, Listener
from engine.services.base import Answer, Call

ErrorHint: TypeAlias = Callable[[int, bytes], Pause | Refusal | None]
"""(status, body) → what the service's own code means, if that is more than its status says."""


def _no_hint(status: int, body: bytes) -> None:
    del status, body


Speech: TypeAlias = Callable[[bytes], bool]
"""The body of an answer that is no success → whether it is worded as the service words its errors."""


def _own(body: bytes) -> bool:
    del body
    return True


@dataclass(frozen=True, slots=True)
class Site:
    """Which hosts may be called."""

    base_url: URL
    upload_hosts: Sequence[str] = DEFAULT_UPLOAD_HOSTS

    @property
    def local(self) -> bool:
        """The service is on this machine: tests and the sandbox."""
        return is_loopback(self.base_url.host or "")


class HttpCaller:
    """Makes calls: paced, retried while that is safe, classified. Implements `engine.services.base.Caller`."""

    def __init__(  # noqa: PLR0913 -- the parts it is made of, put together by `open_caller`
        self,
        client: Client,
        site: Site,
        settings: SendSettings,
        credentials: Credentials,
        *,
        clock: Clock,
        draw: Callable[[], float],
        emit: Listener,
        error_hint: ErrorHint = _no_hint,
        speech: Speech = _own,
    ) -> None:
        self._client = client
        self._site = site
        self._origin = site.base_url.origin()
        self._credentials = credentials
        self._proof_headers, self._proof_query = credentials.header_values(), credentials.query_values()
        self._clock = clock
        self._draw = draw
        self._emit = emit
        self._error_hint = error_hint
        self._speech = speech
        self._rules = RetryRules(settings.retry_base_seconds, settings.retry_cap_seconds, settings.give_up_seconds)
        self._throttle = Throttle(self._rules, settings.requests_per_second, draw)
        self._next_turn: anyio.Event | None = None
        """Given when a call that probed has ended; None while nobody waits for it."""
        self._in_flight = anyio.Semaphore(settings.most_in_flight + settings.polls_in_flight, fast_acquire=True)

    async def call(self, call: Call) -> Answer:
        """Return the 2xx answer.

        Raises:
            Unauthorized, Refused: the service said no; nothing was done.
            Unavailable: retries are spent, or waiting does not help; nothing was done, or the call is repeatable.
            PossiblyApplied: the answer to a call that is not repeatable was lost.
            UnexpectedAnswer: the answer is too large, or not HTTP and the call not repeatable.
            ConfigError: an upload URL points to where nothing may be sent.
        """
        request, state = self._request(call), CallState(call)
        try:
            while True:
                await self._admit(state)
                answer = await self._send(request, state)
                verdict = self._judged(call, answer)
                probed, now = state.probing, self._clock.monotonic()
                if news := self._throttle.observe(state, verdict, now):
                    self._emit(news)
                if probed:
                    self._pass_turn_on()
                if verdict.advice is Advice.ACCEPT and isinstance(answer, Answer):
                    return _without_secrets(answer, self._credentials)
                self._decide(state, verdict, answer, now)
        finally:
            probed = state.probing
            self._throttle.leave(state, self._clock.monotonic())
            if probed:
                self._pass_turn_on()

    def _request(self, call: Call) -> Request:
        """Add the credentials, where they belong and nowhere else."""
        if not call.authenticated:
            url = check_upload_url(call.url, self._site.upload_hosts, allow_loopback=self._site.local)
            return Request(call, url.extend_query(call.query) if call.query else url, dict(call.headers))
        if _origin(call.url) != self._origin:
            # A "next page" link, say, that leads elsewhere: the credentials would go with it.
            raise Refused(f"{described(call)} leads away from the service, so it is not made", call=call.kind)
        url, proof = _address(call.url, tuple(call.query.items())), self._proof_query
        return Request(call, url.extend_query(proof) if proof else url, {**call.headers, **self._proof_headers})

    async def _admit(self, state: CallState) -> None:
        """Wait until the call may go out."""
        while True:
            wait = self._throttle.admit(state, self._clock.monotonic())
            if isinstance(wait, GiveUp):
                words = f"{described(state.call)} was not sent: {wait.reason}. Run `bulksubmit resume` later"
                raise Unavailable(words, call=state.call.kind)
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

    def _pass_turn_on(self) -> None:
        if self._next_turn is not None:
            self._next_turn.set()
            self._next_turn = None

    async def _send(self, request: Request, state: CallState) -> Answer | Lost:
        call = request.call
        async with self._in_flight:
            if call.intent is not None:
                await call.intent()
            state.sent_at = started = self._clock.monotonic()
            answer: Answer | Lost = Lost(Loss.UNREACHABLE)  # what a cancelled call counts as
            self._emit(CallStarted(call.kind))
            try:
                answer = await self._client.send(request)
            finally:
                status = answer.status if isinstance(answer, Answer) else None
                sent_bytes = 0 if isinstance(answer, Lost) and answer.loss.unsent else call.size_bytes
                self._emit(CallEnded(call.kind, self._clock.monotonic() - started, sent_bytes, status))
        return answer

    def _judged(self, call: Call, answer: Answer | Lost) -> Verdict:
        if isinstance(answer, Lost):
            return judge_loss(answer.loss, repeatable=call.repeatable)
        verdict = judge_status(answer.status, repeatable=call.repeatable)
        window = allowance(answer.headers, self._clock.now()) if call.authenticated else None
        if window is not None:
            verdict = replace(verdict, window=window)
        if answer.status < HTTPStatus.BAD_REQUEST and verdict.advice is not Advice.REFUSED:
            return verdict
        return self._judged_failure(call, answer, verdict)

    def _judged_failure(self, call: Call, answer: Answer, verdict: Verdict) -> Verdict:
        hint = self._error_hint(answer.status, answer.body) if answer.status >= HTTPStatus.BAD_REQUEST else None
        certain = replace(verdict, effect=Effect.NOT_APPLIED, advice=Advice.REFUSED, timed_out=False)
        match hint:
            case Pause(or_too_much=True) if call.few_tries:
                return certain
            case Pause():
                return replace(certain, advice=Advice.REPEAT, reason=hint.reason, asked_seconds=hint.seconds)
            case Refusal():
                return replace(certain, reason=hint.reason, blame=hint.blame)
        if verdict.advice is Advice.REFUSED:
            own = self._speech(answer.body) if call.authenticated else is_of_a_store(answer.body)
            verdict = judge_refusal(verdict, call.carries, said_in(answer, own=own))
        asked = asked_wait(answer.headers, self._clock.now(), status=answer.status)
        return verdict if asked is None else replace(verdict, asked_seconds=asked)

    def _decide(self, state: CallState, verdict: Verdict, answer: Answer | Lost, now: float) -> None:
        """Have the call tried again later, or raise what is known of it."""
        call, known = state.call, self._credentials.redact
        redact = known if call.authenticated else hiding_query(call.url, known)  # a presigned URL is a secret itself
        if verdict.advice is not Advice.REPEAT:
            failed = failure(call, verdict, answer, redact)
            failed.earlier_lost = state.lost
            raise failed
        heard = self._throttle.heard(call)
        decision = decide(self._rules, state, verdict, now=now, draw=self._draw(), heard=heard)
        if isinstance(decision, GiveUp):
            ended = replace(verdict, advice=Advice.STOP) if decision.wrong_address else verdict
            raise failure(call, ended, answer, redact, why=decision.reason)
        reason = f"{verdict.reason}; {decision.reason}"
        left = max(0.0, self._rules.give_up_seconds - state.failing_seconds(now))
        self._emit(CallRetried(call.kind, state.attempts, decision.after_seconds, reason, left))
        state.retry_at = now + decision.after_seconds


def _without_secrets(answer: Answer, credentials: Credentials) -> Answer:
    body = credentials.hide(answer.body)
    return answer if body is answer.body else replace(answer, body=body)


_ADDRESSES = 64
"""Addresses kept as they were read: where each record is a call, all of them go to one."""


@lru_cache(_ADDRESSES)
def _address(url: str, query: tuple[tuple[str, str], ...]) -> URL:
    """Return a URL with a query added; none of a caller's secrets among it, for it is kept."""
    return URL(url).extend_query(query)


@lru_cache(_ADDRESSES)
def _origin(url: str) -> URL | None:
    try:
        return URL(url).origin()
    except ValueError:  # relative, or no URL at all
        return None


@asynccontextmanager
async def open_caller(  # noqa: PLR0913 -- clock, draw and emit are passed in by tests and by the assembly only
    base_url: str,
    settings: SendSettings,
    credentials: Credentials,
    *,
    upload_hosts: Sequence[str] = DEFAULT_UPLOAD_HOSTS,
    clock: Clock | None = None,
    draw: Callable[[], float] = random.random,
    emit: Listener = lambda _: None,
    error_hint: ErrorHint = _no_hint,
    speech: Speech = _own,
) -> AsyncIterator[HttpCaller]:
    """Open connections to the service at `base_url` and, for presigned uploads, to `upload_hosts`.

    Raises:
        ConfigError: `base_url` is neither https nor on loopback.
    """
    site = Site(check_base_url(base_url), tuple(upload_hosts))
    trusted = [site.base_url.host or "", *exact_hosts(site.upload_hosts)]
    async with open_client(settings, trusted_hosts=trusted, anywhere=site.local) as client:
        yield HttpCaller(
            client,
            site,
            settings,
            credentials,
            clock=clock or SystemClock(),
            draw=draw,
            emit=emit,
            error_hint=error_hint,
            speech=speech,
        )
