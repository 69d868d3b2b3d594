"""The variables HTTPS_PROXY, ALL_PROXY and NO_PROXY -> the proxy that stands before a URL. `client` and wiring ask it.

They are read here and handed to aiohttp one request at a time: its own way (`trust_env`) would read passwords from
`.netrc`, too. This machine is never reached through a proxy. A proxy's name and password are secrets from the moment
they are read.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import unquote
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined] # typeshed

from msgspec import Struct, field
from yarl import URL

from engine.http.urls import is_loopback
from engine.model.errors import ConfigError
from engine.progress.redaction import remember_secret

_SPOKEN = frozenset({"http", "https"})


class Proxy(Struct, frozen=True):
    """Where a request goes first, and what proves to a proxy who we are."""

    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.place

    @property
    def place(self) -> str:
        """What people may read of it."""
        return f"proxy {self.url.host_port_subcomponent}"


class Proxies(Struct, frozen=True):
    """The proxy of an environment, as `from_environment` found it, and who is called without it."""

    proxy: Proxy | None = None
    exempt: str = ""
    """NO_PROXY: host names, each with all below it; `*` for all."""
    unusable: str = ""
    """Why the proxy that is named cannot be used. An error only for a URL that needs it: a SOCKS proxy may be meant for
    other programs, and this machine is called without any."""

    def before(self, url: URL) -> Proxy | None:
        """Return the proxy that stands before a URL; None if it is called directly.

        Raises:
            ConfigError: the URL needs the proxy, and that is none that we can speak to.
        """
        if _is_called_directly(url.host or "", url.port, self.exempt):
            return None
        if self.unusable:
            raise ConfigError(self.unusable)
        return self.proxy

    @property
    def hosts(self) -> Sequence[str]:
        """Their names: whoever wrote them into the environment wants them called, wherever they are."""
        return [self.proxy.url.host or ""] if self.proxy else []


@lru_cache(maxsize=64)  # before each request, and all go to a few hosts
def _is_called_directly(host: str, port: int | None, exempt: str) -> bool:
    return is_loopback(host) or bool(proxy_bypass_environment(f"{host}:{port}", {"no": exempt}))


def from_environment() -> Proxies:
    """Read the variables, in small letters or, where those are not there, in capitals; ALL_PROXY without HTTPS_PROXY.

    No HTTP_PROXY: in the clear only this machine is spoken to.
    """
    found = getproxies_environment()
    exempt = found.get("no", "")
    scheme = next((scheme for scheme in ("https", "all") if scheme in found), None)
    if scheme is None:
        return Proxies(exempt=exempt)
    try:
        return Proxies(_proxy(f"{scheme}_proxy".upper(), found[scheme]), exempt)
    except ConfigError as error:
        return Proxies(exempt=exempt, unusable=str(error))


def _proxy(variable: str, value: str) -> Proxy:
    """Read a variable.

    Raises:
        ConfigError: it names no proxy that we can speak to; says which, and never shows its value.
    """
    try:
        url = URL(value if "://" in value else f"http://{value}")
        port = url.port
    except ValueError:
        raise ConfigError(f"the variable {variable} cannot be read as a URL; write http://host:port") from None
    if url.scheme not in _SPOKEN or not url.host or port is None:
        raise ConfigError(
            f"the variable {variable} names a proxy that is not spoken to ({url.scheme}): write http://host:port, or "
            "unset it for this command. Hosts that need no proxy stand in NO_PROXY"
        )
    headers = {}
    if url.user or url.password:
        name, password = unquote(url.raw_user or ""), unquote(url.raw_password or "")
        for secret in (password, f"{name}:{password}", url.raw_password or ""):
            remember_secret(secret)
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"
    return Proxy(url.with_user(None).origin(), headers)
