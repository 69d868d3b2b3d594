"""Credentials that are exchanged: a token of a short life, got with credentials of a long one, and kept in memory only.

`caller` has it get one before a call goes out, and another one where the service does not accept it. The exchange is
made by a caller of its own: it has its own outage and pace, and waits for none of the calls that wait for it. It
carries the credentials of long life, and no token.

Invariants: however many calls need a token at once, one exchange is made, and they all end as it does. What it is
answered is seen by `TokenExchange.take` alone, and stands in no error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy

import anyio
from yarl import URL

from engine.clock import Clock
from engine.http.secrets import Credentials
from engine.http.urls import check_base_url
from engine.model.error_hints import Pause, Refusal
from engine.model.errors import RESUME, CallFailed, PossiblyApplied, Refused, Unauthorized, Unavailable, WrongAddress
from engine.model.settings import SecretStr, ServiceSettings, TokenExchange
from engine.progress.redaction import forget_secret, remember_secret
from engine.services.base import Call, Caller

_MARGIN_SECONDS = 60.0
"""A token is renewed so long before its end, since a call may wait for its turn, and clocks differ …"""
_MARGIN_SHARE = 0.2
"""… or so much of its life, if that is less."""


class ExchangePlace(ServiceSettings, frozen=True, kw_only=True):
    """Where tokens are got, as a caller sees it: a place with credentials, mostly at the service itself."""

    by: TokenExchange
    service: ServiceSettings

    @classmethod
    def of(cls, exchange: TokenExchange, service: ServiceSettings) -> ExchangePlace:
        """Return the place of an exchange of a service."""
        return cls(kind=service.kind, base_url=exchange.url, by=exchange, service=service)

    def secret_headers(self) -> Mapping[str, SecretStr]:
        """Those of the exchange alone."""
        return self.by.secret_headers

    def secret_query(self) -> Mapping[str, SecretStr]:
        """Those of the exchange alone."""
        return self.by.secret_query

    def other_secrets(self) -> Sequence[SecretStr]:
        """What its body carries."""
        return self.by.secrets

    def error_hint(self, status: int, body: bytes) -> Pause | Refusal | None:
        """Read an error as the service does."""
        return self.service.error_hint(status, body)


class Tokens:
    """The token of one run."""

    def __init__(
        self, exchange: TokenExchange, caller: Caller, clock: Clock, use: Callable[[Sequence[str]], None]
    ) -> None:
        """`caller` calls the place of the exchange; `use` is given the newest tokens, the one that holds first."""
        self._exchange, self._caller, self._clock, self._use = exchange, caller, clock, use
        self._lock = anyio.Lock()
        self._tokens: Sequence[str] = ()
        self._renew_at = -math.inf
        self._failures = 0
        self._failed: CallFailed | None = None
        """How the newest exchange failed."""
        self.number = 0
        """Of the newest token, from 1."""

    @property
    def holds(self) -> bool:
        """Whether there is a token that holds for a while."""
        return self._clock.monotonic() < self._renew_at

    async def get(self) -> None:
        """Have a token that holds for a while.

        Raises:
            Unauthorized: none is given for the credentials.
            Unavailable, WrongAddress: as of any call.
        """
        if not self.holds:
            await self._renew(self.number)

    async def renew(self, number: int) -> None:
        """Have another token than the one of a number, which the service does not accept. Raises as `get`."""
        if self.number == number:
            await self._renew(number)

    async def _renew(self, number: int) -> None:
        failures = self._failures
        async with self._lock:
            if self.number != number:  # another call has got it meanwhile
                return
            if self._failures != failures and self._failed is not None:
                raise copy(self._failed)
            try:
                await self._make()
            except CallFailed as error:
                self._failures, self._failed = self._failures + 1, copy(error)
                raise

    async def _make(self) -> None:
        exchange = self._exchange
        body = exchange.body.get_secret_value().encode() if exchange.body else None
        call = Call("token", exchange.method, exchange.url, headers=exchange.headers, body=body)
        try:
            answer = await self._caller.call(call)
        except Refused as error:
            words = f"{error}. Without a token nothing can be sent: mend the credentials, then run {RESUME}"
            raise Unauthorized(words, call=call.kind, status=error.status) from None
        except PossiblyApplied as error:  # which must not look as if the call that waits for the token were lost
            raise WrongAddress(str(error), call=call.kind, status=error.status) from None
        token, seconds = self._taken(answer.body)
        life = seconds if seconds is not None and 0 < seconds < math.inf else exchange.seconds
        before = [one for one in self._tokens if one != token]  # some give the same one again
        for ended in before[1:]:
            forget_secret(ended)
        remember_secret(token)
        self._tokens = (token, *before[:1])  # answers under way may still repeat the last one
        self._use(self._tokens)
        self._renew_at = self._clock.monotonic() + life - min(_MARGIN_SECONDS, _MARGIN_SHARE * life)
        self.number += 1

    def _taken(self, body: bytes) -> tuple[str, float | None]:
        try:
            token, seconds = self._exchange.take(body)
        except ValueError:
            token, seconds = "", None
        if not token and body[:200].lstrip().startswith(b"<"):  # whoever it is, it is not the service
            words = f"{self._exchange.url.partition('?')[0]} answers with a page, not with a token"
            raise Unavailable(words, call="token") from None
        if not token or not token.isascii() or not token.isprintable() or token != token.strip():
            words = (
                f"the answer of {self._exchange.url.partition('?')[0]} has no token where one should be. Mend "
                f"[service.auth], then run {RESUME}"
            )
            raise Unauthorized(words, call="token") from None
        return token, seconds


def exchanged_secrets(exchange: TokenExchange) -> Sequence[SecretStr]:
    """Return all that is secret of an exchange, to be hidden in what the service says."""
    return [*exchange.secret_headers.values(), *exchange.secret_query.values(), *exchange.secrets]


def check_exchange(exchange: TokenExchange) -> URL:
    """Check what can be known of an exchange without making it; return where it is made.

    Raises:
        ConfigError: its address is neither https nor on loopback, or a secret cannot be sent.
    """
    Credentials(exchange.secret_headers, exchange.secret_query, exchange.secrets)
    return check_base_url(exchange.url, "the url of the exchange in [service.auth]")
