"""A URL that somebody else chose -> the same URL as one that may be called, or an error.

A presigned URL comes from the service's answer, so whoever can forge an answer could point a batch anywhere. It must be
https, name an allow-listed host at its usual port, and be written so that every parser reads the same host. What the
host's name resolves to is checked as well (`client.PublicResolver`), on the very addresses that are connected to: a
name may resolve differently a second later (DNS rebinding). Loopback is for tests and the sandbox: only a service that
is on loopback itself may send us there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from yarl import URL

from engine.model.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")
"""The characters of RFC 3986 but `#`: encoders escape all others, and parsers differ about them."""
_HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""RFC 1123 plus `_` (old S3 buckets), lower case, no dot at the end. Punycode is refused apart: look-alikes."""
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")
"""All that IANA gives out of IPv6 as global unicast; what lies outside needs no row of its own."""
_REFUSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: leads to any IPv4 address
            "3ffe::/16",  # 6bone, given back
            "3fff::/20",  # documentation
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared, behind a carrier's NAT
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local, and a cloud's metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
"""The IANA special-purpose address registries (RFC 6890 and later), of which Python's own `is_global` knows as much as
its version did. What a registry calls global and no host has (192.0.0.9/32, parts of 2001::/23) is refused as well."""
_WITH_IPV4 = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
"""Mapped addresses, and those of NAT64 (RFC 6052), by which networks without IPv4 reach it: the last 32 bits are the
IPv4 address that is really reached."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""RFC 5214: bits 32 to 63 of an address that leads through a tunnel to the IPv4 address in its last 32 bits."""
_LOOPBACK_6 = ipaddress.IPv6Address("::1")
_PORTS = {"http": 80, "https": 443}


def check_base_url(url: str, key: str = "base_url") -> URL:
    """Return the service's base URL: https, or http to loopback. `key` names it in errors.

    Raises:
        ConfigError: it is something else.
    """
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError as error:
        raise ConfigError(f"{key} cannot be read: {error}") from None
    if parsed.host is None or port is None or parsed.scheme not in _PORTS:
        raise ConfigError(f"{key} must be an absolute https URL such as https://api.sama.com/v2")
    if parsed.user is not None or parsed.password is not None:
        raise ConfigError(f"{key} must not contain a user name or password; use the service's own key for secrets")
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise ConfigError(f"{key} must be https: plain http to {parsed.host} would show the credentials on the way")
    return parsed


def check_upload_url(url: str, allowed_hosts: Collection[str], *, allow_loopback: bool) -> URL:
    """Return a presigned URL as it stands (nothing is re-encoded: the signature covers it) if it may be called.

    `allowed_hosts`: exact names, or `*.suffix` for anything below; `:port` behind it for a port other than 443.

    Raises:
        ConfigError: it may not; says which host, and how to allow it. Never shows the query.
    """
    parsed = _parse(url)
    host, scheme = (parsed.raw_host or "").lower(), parsed.scheme
    if is_loopback(host):
        if allow_loopback and scheme in _PORTS:
            return parsed
        raise ConfigError(f"the service named {host!r} as upload host: this machine, which only a local service may do")
    if scheme != "https":
        raise ConfigError(f"the service named an upload URL that is not https: {scheme}://{host}. It is not used")
    if not _HOST.fullmatch(host) or _is_numeric(host) or any(label.startswith("xn--") for label in host.split(".")):
        raise ConfigError(f"the service named an upload host that is no plain host name: {host!r}. It is not used")
    if not any(_matches(host, parsed.port, allowed.lower()) for allowed in allowed_hosts):
        named = host if parsed.port == _PORTS["https"] else f"{host}:{parsed.port}"
        raise ConfigError(
            f"the service named the upload host {named!r}, which is not among the allowed: {', '.join(allowed_hosts)}. "
            "If you trust it, add it to upload_hosts"
        )
    return parsed


def _parse(url: str) -> URL:
    if not _PLAIN.fullmatch(url):
        raise ConfigError("the service named an upload URL with characters that no URL holds. It is not used")
    try:
        parsed = URL(url, encoded=True)
        _ = parsed.port
    except ValueError:
        raise ConfigError("the service named an upload URL that cannot be read. It is not used") from None
    if "@" in parsed.raw_authority:
        raise ConfigError(f"the service named an upload URL with a user name, at {parsed.raw_host!r}. It is not used")
    return parsed


def _matches(host: str, port: int | None, allowed: str) -> bool:
    name, _, wanted_port = allowed.partition(":")
    if port != int(wanted_port or _PORTS["https"]):
        return False
    return host.endswith(name[1:]) and len(host) > len(name) - 1 if name.startswith("*.") else host == name


def _is_numeric(host: str) -> bool:
    # 127.1, 0x7f.1, 2130706433: some resolvers take them for addresses. No top-level domain starts with a digit.
    return host.rpartition(".")[2][0].isdigit()


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine: `localhost`, or a loopback address in its usual form."""
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower() == "localhost"
    return ip.is_loopback if ip.version == 4 else ip == _LOOPBACK_6  # noqa: PLR2004 -- neither scoped nor mapped


def is_public(address: str) -> bool:
    """Return whether an IP address is global unicast: one host of the open Internet, whatever Python knows."""
    ip = ipaddress.ip_address(address)
    refused = any(ip in network for network in _REFUSED)
    if isinstance(ip, ipaddress.IPv4Address):
        return not refused
    if any(ip in network for network in _WITH_IPV4):
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)))
    tunnelled = int(ip) >> 32 & 0xFFFF_FFFF in _ISATAP
    return ip in _UNICAST_6 and not tunnelled and not refused


def exact_hosts(allowed_hosts: Sequence[str]) -> list[str]:
    """Return the host names of an allow-list that stand for themselves."""
    return [allowed.partition(":")[0] for allowed in allowed_hosts if not allowed.startswith("*.")]
