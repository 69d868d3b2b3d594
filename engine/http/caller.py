"""A `Call` -> its 2xx `Answer`, or an error that says what is known of the call's effect.

The loop: take a turn (freely, or one at a time while there is an outage), keep the pace, send, judge, decide. Each of
these decisions is a pure function in a module beside this one, which only waits and sends as they say.

Calls are kept in lanes that fail independently, each with its pace: see `paces`.

Whose fault a refusal is stands in the table of `http.blame`. What is in nobody's words that we know, a proxy's page
say, is tried again for as long as any trouble, if the service itself has answered in this run; before that, or if it
forbids, for a minute: then the address is wrong, or something in between is, and a person must look.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from typing import TypeAlias

from yarl import URL

from engine.clock import Clock, SystemClock
from engine.http.budget import WindowBudget, allowance
from engine.http.classify import Advice, Effect, Loss, Verdict, judge_loss, judge_refusal, judge_status
from engine.http.client import Client, Lost, Request, open_client
from engine.http.in_flight_limit import InFlightLimit
from engine.http.messages import described, failure, is_of_a_store, said_in
from engine.http.paces import Lane, Paces
from engine.http.retry import GiveUp, RetryRules, asked_wait, decide
from engine.http.secrets import Credentials, hiding_query
from engine.http.urls import DEFAULT_UPLOAD_HOSTS, check_base_url, check_upload_url, exact_hosts, is_loopback
from engine.model.error_hints import Carries, Pause, Refusal
from engine.model.errors import CallFailed, Refused, Unavailable
from engine.model.settings import SendSettings
from engine.progress.events import CallEnded, CallRetried, CallStarted, Listener, Paused
from engine.services.base import Answer, Call

_THE_SERVICE_IS_THERE = frozenset({Advice.ACCEPT, Advice.REFUSED, Advice.UNAUTHORIZED})

ErrorHint: TypeAlias = Callable[[int, bytes], Pause | Refusal | None]
"""(status, body) → what the service's own code means, if that is more than its status says."""


def _no_hint(status: int, body: bytes) -> None:
    del status, body


Speech: TypeAlias = Callable[[bytes], bool]
"""The body of an answer that is no success → whether it is worded as the service words its errors."""


def _own(body: bytes) -> bool:
    del body
    return True


MOST_TURNED_AWAY = 2
"""Pages of something in between: to one release, before the service itself is asked what became of the batch; to one
call with `few_tries`, before it is handed back."""

MOST_LOSSES = 4
"""Of a call with `few_tries`: connections that broke under it."""
_TIME_OUT_LOSSES = 2
"""A timeout counts for so many: the next one would take as long, and random it seldom is."""

STRANGER_SECONDS = 60.0
"""For so long it is tried again what something else than the service answers, where the service was never heard: an
address may be wrong, or a deployment under way. Ingresses answer 404 for seconds while one is."""
_FORBIDDING = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
"""Said by something in between, it will not end by itself."""
_STRANGE = "what answers there does not speak as it should; check the address, and what stands in between"

_WORTH_SAYING_SECONDS = 1.0
"""A shorter wait for the budget is no news."""


@dataclass(frozen=True, slots=True)
class Site:
    """Which hosts may be called."""

    base_url: URL
    upload_hosts: Sequence[str] = DEFAULT_UPLOAD_HOSTS

    @property
    def local(self) -> bool:
        """The service is on this machine: tests and the sandbox."""
        return is_loopback(self.base_url.host or "")


@dataclass(slots=True)
class _Effort:
    """One call and what has been tried for it."""

    request: Request
    lane: Lane
    attempts: int = 0
    sent_at: float = 0.0
    """Monotonic seconds of its last attempt."""
    hindered_since: float | None = None
    """Monotonic seconds of its first failure, or of finding the gate closed."""
    price: int = 0
    """What its last retry cost; refunded if it helps."""
    lost: bool = False
    """An attempt may have been applied."""
    losses: int = 0
    """Attempts that got lost on the way, timeouts weighing more."""
    strange_since: float | None = None
    """Monotonic seconds of the first answer in nobody's words."""

    def hindered(self, now: float) -> float:
        """Note that it does not get through; return for how many seconds already."""
        if self.hindered_since is None:
            self.hindered_since = now
        return now - self.hindered_since


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one request came to."""

    answer: Answer | Lost
    verdict: Verdict
    asked_seconds: float | None


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
        self._heard: set[bool] = set()
        """Who has answered in words of its own: the service (True), the store (False)."""
        self._paces = Paces(self._rules, settings.requests_per_second)
        self._budget = WindowBudget()
        self._in_flight = InFlightLimit(settings.most_in_flight + settings.polls_in_flight)

    async def call(self, call: Call) -> Answer:
        """Return the 2xx answer.

        Raises:
            Unauthorized, Refused: the service said no; nothing was done.
            Unavailable: retries are spent, or waiting does not help; nothing was done, or the call is repeatable.
            PossiblyApplied: the answer to a call that is not repeatable was lost.
            UnexpectedAnswer: the answer is too large, or not HTTP and the call not repeatable.
            ConfigError: an upload URL points to where nothing may be sent.
        """
        effort = _Effort(self._request(call), self._paces.lane(call))
        while True:
            attempt = await self._take_turn(effort)
            if isinstance(attempt.answer, Answer) and attempt.verdict.advice is Advice.ACCEPT:
                return _without_secrets(attempt.answer, self._credentials)
            await self._before_retry(effort, attempt)

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

    async def _take_turn(self, effort: _Effort) -> _Attempt:
        """Send once it is this call's turn: at once, or while there is an outage one at a time and spaced."""
        outage = effort.lane.outage
        if outage.probing:
            effort.hindered(self._clock.monotonic())
            async with effort.lane.turn:
                if outage.probing:  # still: the call before may have found that it is over
                    await self._await_probe(effort)
                    return await self._send(effort, probe=True)
        return await self._send(effort, probe=False)

    async def _await_probe(self, effort: _Effort) -> None:
        now = self._clock.monotonic()
        failing = max(effort.hindered(now), effort.lane.outage.failing_seconds(now))
        if failing >= self._rules.give_up_seconds:
            raise self._unavailable(effort, f"nothing has got through for {failing:.0f} s")
        wait = effort.lane.outage.probe_wait(now)
        self._emit(Paused("the service does not answer; one call at a time tries", wait))
        await self._clock.sleep(wait)

    async def _send(self, effort: _Effort, *, probe: bool) -> _Attempt:
        if (wait := self._paces.book(effort.request.call, self._clock.monotonic())) > 0:
            await self._keep_pace(effort, wait)
        await self._in_flight.acquire()
        try:
            await self._keep_budget(effort)
            if effort.request.call.intent is not None:
                await effort.request.call.intent()
            effort.sent_at = self._clock.monotonic()
            answer = await self._observed(effort.request)
        finally:
            self._in_flight.release()
        attempt = self._judged(effort.request.call, answer)
        self._learn(effort, attempt, probe=probe)
        return attempt

    async def _keep_pace(self, effort: _Effort, wait: float) -> None:
        call = effort.request.call
        while wait > 0:
            held = self._paces.held_seconds(call, self._clock.monotonic())
            if held > self._rules.give_up_seconds:
                raise self._unavailable(effort, f"the service asks not to be called for {held:.0f} s")
            await self._clock.sleep(wait)
            # Told off while we slept: the place is void, everybody queues anew behind the pause.
            now = self._clock.monotonic()
            wait = self._paces.book(call, now) if self._paces.held_seconds(call, now) else 0.0

    async def _keep_budget(self, effort: _Effort) -> None:
        """Take one request out of the service's window, or wait for the next window."""
        call = effort.request.call
        if not call.authenticated:  # another host, which knows nothing of the window
            return
        while (wait := self._budget.take(self._clock.monotonic(), yielding=call.yielding)) > 0:
            if wait >= _WORTH_SAYING_SECONDS and not call.yielding:
                self._emit(Paused("the request budget of this window is used up", wait))
            await self._clock.sleep(wait)

    async def _observed(self, request: Request) -> Answer | Lost:
        kind, size = request.call.kind, request.call.size_bytes
        answer: Answer | Lost = Lost(Loss.UNREACHABLE)  # what a cancelled call counts as
        started = self._clock.monotonic()
        self._emit(CallStarted(kind))
        try:
            answer = await self._client.send(request)
            return answer
        finally:
            seconds = self._clock.monotonic() - started
            if isinstance(answer, Answer):
                self._emit(CallEnded(kind, seconds, size, answer.status))
            else:
                self._emit(CallEnded(kind, seconds, 0 if answer.loss.unsent else size, None))
            if request.call.authenticated:
                self._count(request.call, answer)

    def _count(self, call: Call, answer: Answer | Lost) -> None:
        """Take off the service's window what a call has cost."""
        said, refused = None, isinstance(answer, Answer) and answer.status == HTTPStatus.TOO_MANY_REQUESTS
        if isinstance(answer, Answer) and not (refused and call.lane):
            said = allowance(answer.headers, self._clock.now())
        self._budget.answered(self._clock.monotonic(), said, refused=refused)

    def _judged(self, call: Call, answer: Answer | Lost) -> _Attempt:
        if isinstance(answer, Lost):
            return _Attempt(answer, judge_loss(answer.loss, repeatable=call.repeatable), None)
        error_hint = self._error_hint(answer.status, answer.body) if answer.status >= HTTPStatus.BAD_REQUEST else None
        if isinstance(error_hint, Pause) and error_hint.or_too_much and call.few_tries:
            return _Attempt(answer, Verdict(Effect.NOT_APPLIED, Advice.REFUSED, f"status {answer.status}"), None)
        if isinstance(error_hint, Pause):
            return _Attempt(answer, Verdict(Effect.NOT_APPLIED, Advice.REPEAT, error_hint.reason), error_hint.seconds)
        if isinstance(error_hint, Refusal):
            verdict = Verdict(Effect.NOT_APPLIED, Advice.REFUSED, error_hint.reason, blame=error_hint.blame)
            return _Attempt(answer, verdict, None)
        verdict = judge_status(answer.status, repeatable=call.repeatable)
        if verdict.advice is Advice.REFUSED:
            own = self._speech(answer.body) if call.authenticated else is_of_a_store(answer.body)
            verdict = judge_refusal(verdict, call.carries, said_in(answer, own=own))
        return _Attempt(answer, verdict, asked_wait(answer.headers, self._clock.now(), status=answer.status))

    def _learn(self, effort: _Effort, attempt: _Attempt, *, probe: bool) -> None:
        """Let all other calls profit from what this one has met."""
        now, call, verdict = self._clock.monotonic(), effort.request.call, attempt.verdict
        until = now + (attempt.asked_seconds or 0.0)
        if attempt.asked_seconds and self._paces.hold(call, until):
            self._emit(Paused(f"the service asks for it ({verdict.reason})", attempt.asked_seconds))
        effort.attempts += 1
        if isinstance(attempt.answer, Answer):
            sent_at, clock_now = effort.sent_at, self._clock.now()
            self._paces.learn(call, attempt.answer, sent_at=sent_at, now=now, until=until, clock_now=clock_now)
        if verdict.advice in _THE_SERVICE_IS_THERE:
            if not verdict.stranger:
                self._heard.add(call.authenticated)
            effort.lane.outage.answered(effort.price)
            return
        unknown = verdict.effect is Effect.POSSIBLY_APPLIED and not (call.repeatable or call.reconcilable)
        effort.price = effort.lane.outage.failed(
            now, self._draw(), timed_out=verdict.timed_out, fate_unknown=unknown, probe=probe
        )

    async def _before_retry(self, effort: _Effort, attempt: _Attempt) -> None:
        """Wait until the call may be made again, or raise what is known of it."""
        call, known = effort.request.call, self._credentials.redact
        redact = known if call.authenticated else hiding_query(call.url, known)  # a presigned URL is a secret itself
        if attempt.verdict.advice is not Advice.REPEAT:
            failed = failure(call, attempt.verdict, attempt.answer, redact)
            if isinstance(failed, Refused):
                failed.earlier_lost = effort.lost
            raise failed
        effort.lost |= attempt.verdict.effect is Effect.POSSIBLY_APPLIED
        effort.losses += _losses(attempt.verdict)
        if call.few_tries and effort.losses >= MOST_LOSSES:
            raise failure(call, attempt.verdict, attempt.answer, redact, why="it was lost on the way again and again")
        if attempt.verdict.stranger and call.few_tries and effort.attempts >= MOST_TURNED_AWAY:
            raise failure(call, attempt.verdict, attempt.answer, redact, why="it was turned away again")
        if attempt.verdict.stranger and call.carries is Carries.RELEASE and effort.attempts >= MOST_TURNED_AWAY:
            raise failure(call, attempt.verdict, attempt.answer, redact, why="whether it was released can be asked")
        if attempt.verdict.stranger and self._is_strange(effort, attempt):
            verdict = replace(attempt.verdict, advice=Advice.STOP)
            raise failure(call, verdict, attempt.answer, redact, why=_STRANGE)
        now = self._clock.monotonic()
        decision = decide(
            self._rules,
            attempt=effort.attempts,
            failing_seconds=effort.hindered(now),
            draw=self._draw(),
            asked_seconds=attempt.asked_seconds,
        )
        if isinstance(decision, GiveUp):
            raise failure(call, attempt.verdict, attempt.answer, redact, why=decision.reason)
        reason = f"{attempt.verdict.reason}; {decision.reason}"
        left = max(0.0, self._rules.give_up_seconds - effort.hindered(now))
        self._emit(CallRetried(call.kind, effort.attempts, decision.after_seconds, reason, left))
        await self._clock.sleep(decision.after_seconds)

    def _is_strange(self, effort: _Effort, attempt: _Attempt) -> bool:
        """Tell whether answers in nobody's words have come for too long to be believed to end by themselves."""
        now, call = self._clock.monotonic(), effort.request.call
        if effort.strange_since is None:
            effort.strange_since = now
        forbidding = isinstance(attempt.answer, Answer) and attempt.answer.status in _FORBIDDING
        if call.authenticated in self._heard and not forbidding:
            return False
        return now - effort.strange_since >= min(STRANGER_SECONDS, self._rules.give_up_seconds)

    def _unavailable(self, effort: _Effort, why: str) -> CallFailed:
        call = effort.request.call
        return Unavailable(f"{described(call)} was not sent: {why}. Run `bulksubmit resume` later", call=call.kind)


def _losses(verdict: Verdict) -> int:
    """Return what an attempt weighs that got lost on the way."""
    if verdict.effect is not Effect.POSSIBLY_APPLIED:
        return 0
    return _TIME_OUT_LOSSES if verdict.timed_out else int(verdict.reset)


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
