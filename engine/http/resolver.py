"""A host's name in, the addresses that it may be called at out, or an error: the second half of `urls`."""

from __future__ import annotations

import socket
from collections.abc import Collection

from aiohttp.abc import AbstractResolver, ResolveResult

from engine.http.urls import is_public


class ForbiddenAddress(OSError):
    """A host name resolved to an address that nothing may be sent to."""


class PublicResolver(AbstractResolver):
    """A resolver that refuses answers outside the open Internet, except for hosts that the user named exactly."""

    def __init__(self, inner: AbstractResolver, *, trusted_hosts: Collection[str]) -> None:
        self._inner = inner
        self._trusted = frozenset(host.lower() for host in trusted_hosts)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of `host`.

        Raises:
            ForbiddenAddress: one of them is private, link-local, loopback or the like.
        """
        found = await self._inner.resolve(host, port, family)
        if host.lower() not in self._trusted:
            for result in found:
                if not is_public(result["host"]):
                    raise ForbiddenAddress(None, f"{host} resolves to {result['host']}, which is not a public address")
        return found

    async def close(self) -> None:
        """Let go of the resolver inside."""
        await self._inner.close()
