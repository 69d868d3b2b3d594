"""A file behind an https URL that a person named, as `remote` fetches it.

A person may name any host, also one in their own network. Where a server sends us on (a redirect), it is that server
who names the host: so that must be https and public, unless the person has named it, too. Name and password of a URL go
to the place that was named and nowhere else. Plain http is spoken to this machine, and to hosts that `[source]` names.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import unquote

import aiohttp
from aiohttp.resolver import DefaultResolver
from yarl import URL

from engine import __version__
from engine.http.classify import Loss
from engine.http.client import PublicResolver, tls_context
from engine.http.losses import MAX_FIELD_BYTES, loss_of
from engine.http.proxies import from_environment
from engine.http.remote import Changed, DownloadBroken, Part
from engine.http.urls import is_loopback, is_public
from engine.model.errors import SourceError
from engine.progress.redaction import redactor, remember_secret

MOST_REDIRECTS = 5
_BLOCK_BYTES = 1 << 20
_CONNECT_SECONDS = 30.0
_SILENT_SECONDS = 60.0
"""A server that sends nothing for so long is given up."""
_FINAL = frozenset({Loss.UNTRUSTED, Loss.FORBIDDEN, Loss.TURNED_AWAY})
"""Losses that the next try would meet, too."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LATER = frozenset({408, 425, 429})
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class WebFile:
    """A file behind a URL."""

    def __init__(self, url: str, plain_http_hosts: Collection[str]) -> None:
        """Check the URL.

        Raises:
            SourceError: it cannot be read, or nothing may be fetched from there.
        """
        self.name = redactor({})(url)
        try:
            parsed = URL(url, encoded="%" in url or "?" in url)  # a signature covers a URL as it is written
            _ = parsed.port
        except ValueError:
            raise SourceError(f"{self.name} cannot be read as a URL: write https://host/path") from None
        if not parsed.host or parsed.path in {"", "/"}:
            raise SourceError(f"{self.name} names no file: write https://host/path")
        self._plain = frozenset(host.lower() for host in plain_http_hosts)
        self._headers = _authorization(parsed)
        self._url = parsed.with_user(None).with_fragment(None)
        self._host = (self._url.host or "").lower()
        if parsed.raw_query_string:
            remember_secret(parsed.raw_query_string)
        if not self._is_spoken(self._url):
            raise SourceError(
                f"{self.name}: by http, everybody on the way can read and change it. Name it with https; or, if the "
                f'network is your own, say plain_http_hosts = ["{self._host}"] in [source]'
            )

    @property
    def file_name(self) -> str:
        """The last part of its path, whose ending tells the format."""
        return self._url.name

    @asynccontextmanager
    async def read(self, start: int, version: str) -> AsyncIterator[Part]:
        """Ask for the file; as `RemoteFile` says."""
        asked = {"Range": f"bytes={start}-", "If-Match": version} if start and version else {}
        async with self._answer("GET", asked) as answer:
            if answer.status in {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
                raise Changed
            self._check_status(answer.status)
            yield _part(answer, start, self._blocks(answer))

    async def version(self) -> str:
        """Return the version that the file has now; "" if that cannot be told: a URL may be signed for GET alone."""
        try:
            async with self._answer("HEAD", {}) as answer:
                return _strong(answer.headers) if answer.ok else ""
        except DownloadBroken:
            return ""

    async def _blocks(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for block in answer.content.iter_chunked(_BLOCK_BYTES):
                yield block
        except (aiohttp.ClientError, OSError) as error:
            raise DownloadBroken(loss_of(error, answer.url.host or "").words) from None

    def _check_status(self, status: int) -> None:
        """Raise if a status is none of a file that comes."""
        if status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            return
        if status in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise DownloadBroken(f"the server answers with status {status}")
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            raise SourceError(f"{self.name} does not exist there (status {status}): check the URL")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise SourceError(
                f"{self.name} may not be read (status {status}): a signed URL may have expired, so get a new one; or "
                "write https://user:password@host/path, best from a variable of the shell"
            )
        raise SourceError(f"{self.name}: the server answers with status {status} instead of a file")

    @asynccontextmanager
    async def _answer(self, method: str, asked: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request, and follow whereto it is sent on, as far as that may be."""
        proxies = from_environment()
        inner = DefaultResolver()
        trusted = {self._host, *self._plain, *proxies.hosts}
        connector = aiohttp.TCPConnector(resolver=PublicResolver(inner, trusted_hosts=trusted), force_close=True)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS),
            headers={"User-Agent": f"bulksubmit/{__version__}", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # offsets are of what the server has
            trust_env=False,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
        ) as session:
            url = self._url
            for _ in range(MOST_REDIRECTS + 1):
                proxy = proxies.before(url)
                try:
                    answer = await session.request(
                        method,
                        url,
                        headers={**asked, **(self._headers if url.origin() == self._url.origin() else {})},
                        allow_redirects=False,
                        ssl=tls_context() if "https" in {url.scheme, proxy and proxy.url.scheme} else True,
                        proxy=proxy.url if proxy else None,
                        proxy_headers=proxy.headers if proxy else None,
                    )
                except (aiohttp.ClientError, OSError) as error:
                    lost = loss_of(error, url.host_port_subcomponent or "")
                    if lost.loss in _FINAL:
                        raise SourceError(f"{self.name} cannot be fetched: {lost.words}") from None
                    raise DownloadBroken(lost.words) from None
                async with answer:
                    if answer.status not in _REDIRECTS:
                        yield answer
                        return
                    url = self._sent_on(url, answer.headers.get("Location", ""))
        raise SourceError(f"{self.name}: the server sends us on more than {MOST_REDIRECTS} times")

    def _sent_on(self, url: URL, location: str) -> URL:
        """Return whereto a server sends us.

        Raises:
            SourceError: nothing is fetched from there.
        """
        try:
            to = url.join(URL(location, encoded=True))
            host = (to.host or "").lower()
        except ValueError:
            raise SourceError(f"{self.name}: the server sends us to what is no URL") from None
        if to.raw_query_string:
            remember_secret(to.raw_query_string)
        if "@" in to.raw_authority or not host or not self._is_spoken(to) or not self._may_lead(host):
            raise SourceError(
                f"{self.name}: the server sends us to {to.scheme}://{host}, and nothing is fetched from there: it is "
                "not https, not public, or has a user name in it. If it is right, name that URL itself"
            )
        return to

    def _may_lead(self, host: str) -> bool:
        if host == self._host or host in self._plain:
            return True
        if is_loopback(host):
            return is_loopback(self._host)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return True  # what its name resolves to is looked at when it is called
        return is_public(host)

    def _is_spoken(self, url: URL) -> bool:
        host = (url.host or "").lower()
        return url.scheme == "https" or (url.scheme == "http" and (is_loopback(host) or host in self._plain))


def _authorization(url: URL) -> Mapping[str, str]:
    if not (url.raw_user or url.raw_password):
        return {}
    name, password = unquote(url.raw_user or ""), unquote(url.raw_password or "")
    for secret in (password, url.raw_password or "", f"{name}:{password}"):
        remember_secret(secret)
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def _strong(headers: Mapping[str, str]) -> str:
    """Return the ETag of an answer, if it says that the bytes are the same."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else ""


def _part(answer: aiohttp.ClientResponse, start: int, blocks: AsyncIterator[bytes]) -> Part:
    if answer.status == HTTPStatus.OK:
        return Part(0, answer.content_length, _strong(answer.headers), blocks)
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != start:
        raise DownloadBroken("the server answers with another part than the one that was asked for")
    return Part(start, None if found[2] == "*" else int(found[2]), _strong(answer.headers), blocks)
