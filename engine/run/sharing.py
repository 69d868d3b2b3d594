"""Keeps one worker's part of the limits that many workers share in step with the ledger.

`commands.wiring` starts it beside whatever calls the service with such a ledger open: a run that sends, or a command
that asks. Both are a worker here.

A sync is one revision of a text that the ledger keeps: the worker's report goes in, its grant comes back. There is one
every half second, at once when a call waits that might get a place, and a last one at the end, which gives all back.
While the ledger cannot be reached nothing new is sent once the grant has ended (`http.share`), and the run goes on when
it can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio

from engine.adaptive.shared_limits import GRANT_SECONDS, SYNC_SECONDS, Grant, Report, SharedLimits
from engine.clock import Clock
from engine.http.share import Share
from engine.http.tokens import exchanged_secrets
from engine.http.urls import check_base_url
from engine.model.errors import LedgerError
from engine.model.settings import ServiceSettings
from engine.progress.events import Listener, Paused, ToldWaits
from engine.run.context import beside
from engine.run.in_flight import InFlight

TextChange: TypeAlias = Callable[[str | None, float], str]
"""A text as it is, None if there is none yet, and Unix seconds by the ledger's clock → the text as it shall be. May be
called more than once for one revision."""
Revise: TypeAlias = Callable[[str, TextChange], Awaitable[None]]
"""Changes the text of a name, with nobody else changing it meanwhile. Raises: LedgerError."""

_LEAST_SECONDS = 0.05
"""Between two syncs, however many calls wait: more would only keep the ledger busy."""
_LEAVING_SECONDS = 2.0
"""For so long the end of a run waits for the last sync; then others take this worker's part back by themselves."""
UNREACHABLE = "the ledger cannot be reached, where the workers share the limits of the service"
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 16}
"""As RFC 7914 has it for logins: 0.05 s and 16 MB a try, so the name of a budget is no help in guessing a password."""


def budget_name(service: ServiceSettings) -> str:
    """Return what the limits of a service and an account are kept under: the service's origin and a digest.

    Equal for all jobs that go to one service with the same credentials. No secret can be read from it.

    Raises:
        ConfigError: `base_url` cannot be used.
    """
    origin = str(check_base_url(service.base_url).origin())
    exchange = service.exchange()
    sent = [*service.secret_headers().items(), *service.secret_query().items()]
    secrets = [[name, secret.get_secret_value()] for name, secret in sent]
    secrets += [["", secret.get_secret_value()] for secret in (exchanged_secrets(exchange) if exchange else ())]
    account = json.dumps(sorted(secrets)).encode()
    return f"{origin} {hashlib.scrypt(account, salt=origin.encode(), **_SCRYPT).hex()}"


class Sharing:
    """The syncs of one worker."""

    def __init__(
        self, name: str, revise: Revise, share: Share, in_flight: InFlight | None, clock: Clock, emit: Listener
    ) -> None:
        """`name`: of the budget. `in_flight`: None if no batches are sent. To be made before the first call."""
        self._name, self._revise = name, revise
        self._share, self._in_flight = share, in_flight
        self._clock, self._emit, self._told = clock, emit, ToldWaits()
        self._asked = anyio.Event()
        share.on_ask = self._ask
        if in_flight is not None:
            in_flight.await_grant()

    async def run(self) -> None:
        """Sync until canceled; then give all back."""
        try:
            while True:
                if await self._synced():
                    await self._clock.sleep(_LEAST_SECONDS)
                    await self._until_asked(SYNC_SECONDS - _LEAST_SECONDS)
                else:
                    await self._clock.sleep(SYNC_SECONDS)
        finally:
            with anyio.move_on_after(_LEAVING_SECONDS, shield=True):
                await self._leave()

    async def _synced(self) -> bool:
        """Report, and take the grant in; return whether the ledger could be reached."""
        self._asked = anyio.Event()
        asked = self._clock.monotonic()
        report, granted = self._report(asked), Grant()

        def change(text: str | None, now: float) -> str:
            nonlocal granted
            limits = SharedLimits.of(text)
            granted = limits.sync(report, now)
            return limits.text()

        try:
            async with beside(self._tell_if_late):
                await self._revise(self._name, change)
        except LedgerError:
            self._tell_away()
            return False
        self._share.grant(report, granted, asked, self._clock.monotonic())
        if self._in_flight is not None:
            self._in_flight.follow(granted.in_flight)
            if granted.pushed_back:
                self._in_flight.others_pushed_back()
        return True

    def _report(self, asked: float) -> Report:
        return self._share.report(asked, self._in_flight.report() if self._in_flight is not None else None)

    async def _tell_if_late(self) -> None:
        """Tell people of a ledger that is waited for: the grant has ended, so nothing new is sent meanwhile."""
        await self._clock.sleep(GRANT_SECONDS)
        self._tell_away()

    def _tell_away(self) -> None:
        if news := self._told.news(Paused(UNREACHABLE, GRANT_SECONDS), self._clock.monotonic()):
            self._emit(news)

    async def _leave(self) -> None:
        self._share.end()
        report = self._report(self._clock.monotonic())
        report.leaving = True

        def change(text: str | None, now: float) -> str:
            limits = SharedLimits.of(text)
            limits.sync(report, now)
            return limits.text()

        try:
            await self._revise(self._name, change)
        except LedgerError:
            return  # the others drop a worker that is silent

    def _ask(self) -> None:
        self._asked.set()

    async def _until_asked(self, seconds: float) -> None:
        """Wait until there is to be a sync, so many seconds at most."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_asked, group.cancel_scope)
            await self._clock.sleep(seconds)
            group.cancel_scope.cancel()

    async def _cancel_when_asked(self, scope: anyio.CancelScope) -> None:
        await self._asked.wait()
        scope.cancel()
