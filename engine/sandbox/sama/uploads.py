"""Batches enter, presigned upload URLs leave; the uploaded bytes of a batch leave again when it is continued.

Stands in for S3: a URL is good for one method, one path and until its expiry, shown by an HMAC. Errors have S3's shape.
A body is stored whole or not at all, and an access key on the way here is refused, because it would be a leak.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from engine.sandbox.sama.answers import s3_error_answer

UPLOAD_PATH = "/uploads/{project_id}/{batch_id}/tasks.json"


class Uploads(Protocol):
    """Where a batch's tasks file goes."""

    def url(self, project_id: int, batch_id: int, origin: str, lifetime_seconds: float) -> str:
        """Presign a PUT; `origin` is the scheme and host under which the client sees this server."""
        ...

    async def fetch(self, project_id: int, batch_id: int) -> bytes | None:
        """Return what was uploaded, None if nothing was."""
        ...

    def forget(self, project_id: int, batch_id: int) -> None:
        """Drop what was uploaded: its batch will not be created (again)."""
        ...


class LocalUploads:
    """Keeps uploads in memory and checks its own signatures."""

    def __init__(self, clock: Callable[[], float], max_body_bytes: int, *, etag: bool = True) -> None:
        """Sign with a key that nobody else knows; `etag`: answer as S3 does."""
        self._etag = etag
        self._clock, self._max_body_bytes = clock, max_body_bytes
        self._key = secrets.token_bytes(32)
        self._bodies: dict[str, bytes] = {}

    def url(self, project_id: int, batch_id: int, origin: str, lifetime_seconds: float) -> str:
        """Presign a PUT."""
        path = UPLOAD_PATH.format(project_id=project_id, batch_id=batch_id)
        expires = str(int(self._clock() + lifetime_seconds))
        return f"{origin}{path}?Expires={expires}&Signature={self._sign('PUT', path, expires)}"

    async def fetch(self, project_id: int, batch_id: int) -> bytes | None:
        """Return what was uploaded."""
        return self._bodies.get(UPLOAD_PATH.format(project_id=project_id, batch_id=batch_id))

    def forget(self, project_id: int, batch_id: int) -> None:
        """Drop what was uploaded."""
        self._bodies.pop(UPLOAD_PATH.format(project_id=project_id, batch_id=batch_id), None)

    async def put(self, request: web.Request) -> web.Response:
        """Store a body whose URL is good."""
        if (refused := self._refuse(request)) is not None:
            return refused
        body = await request.read()  # raises, and stores nothing, when the connection ends early
        self._bodies[request.path] = body
        if not self._etag:
            return web.Response()
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return web.Response(headers={"ETag": f'"{etag}"'})

    def _refuse(self, request: web.Request) -> web.Response | None:
        if "access_key" in request.query:
            return s3_error_answer(400, "InvalidArgument", "An access key must not be sent to the storage.")
        expires = request.query.get("Expires", "")
        signature = self._sign(request.method, request.path, expires)
        if not hmac.compare_digest(signature.encode(), request.query.get("Signature", "").encode()):
            return s3_error_answer(403, "SignatureDoesNotMatch", "The signature does not match the request.")
        if self._clock() > int(expires):
            return s3_error_answer(403, "AccessDenied", "Request has expired")
        if request.content_length is None:
            return s3_error_answer(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if request.content_length > self._max_body_bytes:
            return s3_error_answer(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.")
        return None

    def _sign(self, method: str, path: str, expires: str) -> str:
        return hmac.digest(self._key, f"{method}\n{path}\n{expires}".encode(), hashlib.sha256).hex()
