"""An object of an S3 store, `s3://bucket/key`, as `remote` fetches it. obstore speaks to the store.

Keys and region come from where obstore looks for them: the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN and AWS_REGION, a web identity, or the machine's own role. AWS_ENDPOINT_URL names another store, and
AWS_SKIP_SIGNATURE=true reads a public one without keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

from yarl import URL

from engine.http.remote import Changed, DownloadBroken, Part
from engine.http.urls import is_loopback
from engine.model.errors import SourceError
from engine.progress.redaction import foreign_words

_PLACE = re.compile(r"s3://([^/]*)/(.*)", re.IGNORECASE | re.DOTALL)
_BLOCK_BYTES = 1 << 20
_CONNECT = timedelta(seconds=30)
_SILENT = timedelta(seconds=60)
_LONGEST = timedelta(days=7)
"""A whole file may take so long; one that stands still is given up sooner."""
_RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
"""Of obstore itself; `remote` tries again as well, and says so."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


class S3File:
    """An object."""

    def __init__(self, url: str, plain_http_hosts: Collection[str]) -> None:
        """Check the URL, and that obstore is installed.

        Raises:
            SourceError: it names no object, obstore is missing, or the endpoint may not be spoken to.
        """
        found = _PLACE.fullmatch(url)
        bucket, key = found.groups() if found else ("", "")
        self.name = url
        if not bucket or not key or key.endswith("/"):
            raise SourceError(
                f"{url} names no object: write s3://bucket/key. Prefixes cannot be named: name each of their objects"
            )
        if any(letter in key for letter in "*?["):
            raise SourceError(f"{url}: S3 sources know no globs; name each object")
        try:
            self._obstore = import_module("obstore")
            store = import_module("obstore.store")
        except ImportError as error:
            raise SourceError(
                f"{url}: S3 needs a package that is not installed: pip install 'bulksubmit[s3]'"
            ) from error
        self._key = key
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
        options = {"connect_timeout": _CONNECT, "read_timeout": _SILENT, "timeout": _LONGEST}
        if URL(endpoint).scheme == "http":
            host = (URL(endpoint).host or "").lower()
            if not is_loopback(host) and host not in {one.lower() for one in plain_http_hosts}:
                raise SourceError(
                    f"{url}: AWS_ENDPOINT_URL names {host} by http, where everybody on the way can read and change it. "
                    f'Name it with https; or, if the network is your own, say plain_http_hosts = ["{host}"] in [source]'
                )
            options["allow_http"] = True  # type: ignore[assignment]
        try:
            self._store = store.S3Store(bucket, client_options=options, retry_config=_RETRIES)
        except Exception as error:  # obstore's own class of errors is not their common base
            raise SourceError(f"{url}: the store cannot be used: {foreign_words(str(error))}") from error

    @property
    def file_name(self) -> str:
        """The last part of its key."""
        return self._key.rpartition("/")[2]

    @asynccontextmanager
    async def read(self, start: int, version: str) -> AsyncIterator[Part]:
        """Ask for the object; as `RemoteFile` says."""
        options = {"range": {"offset": start}, "if_match": version} if start and version else {}
        try:
            found = await self._obstore.get_async(self._store, self._key, options=options)
        except Exception as error:
            raise self._mapped(error) from error
        meta = found.meta
        yield Part(found.range[0], meta["size"], meta["e_tag"] or "", self._blocks(found))

    async def version(self) -> str:
        """Return the version that the object has now."""
        try:
            return str((await self._obstore.head_async(self._store, self._key))["e_tag"] or "")
        except Exception as error:
            mapped = self._mapped(error)
            if isinstance(mapped, DownloadBroken):
                return ""
            raise mapped from error

    async def _blocks(self, found: Any) -> AsyncIterator[bytes]:
        try:
            async for block in found.stream(min_chunk_size=_BLOCK_BYTES):
                yield bytes(block)
        except Exception as error:
            raise self._mapped(error) from error

    def _mapped(self, error: Exception) -> Exception:
        """Return what an error of obstore means here."""
        errors = self._obstore.exceptions
        if isinstance(error, errors.PreconditionError):
            return Changed()
        if isinstance(error, FileNotFoundError):
            return SourceError(f"{self.name} does not exist: check bucket, key and AWS_REGION")
        said = foreign_words(str(error))
        if isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError):
            return SourceError(
                f"{self.name} may not be read: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights. {said}"
            )
        if isinstance(error, errors.BaseError | OSError):
            return DownloadBroken(f"the store does not answer as it should: {said}")
        return error
