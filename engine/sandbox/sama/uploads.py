"""Where a batch's tasks file goes: behind presigned URLs, as with S3; the bytes leave when the batch is continued.

A URL is good for one method, one path and until its expiry, shown by an HMAC. Errors have S3's shape. A body is stored
whole or not at all, and an access key on the way here is refused, because it would be a leak.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable

from engine.sandbox.messages import SandboxAnswer, SandboxRequest

UPLOAD_PATH = "/uploads/{project_id}/{batch_id}/tasks.json"


class Uploads:
    """Keeps uploads in memory and checks its own signatures; `seaweed.py` has a real store in their place."""

    def __init__(self, clock: Callable[[], float], *, etag: bool = True) -> None:
        """Sign with a key that nobody else knows; `etag`: answer as S3 does."""
        self._clock, self._etag = clock, etag
        self._key = secrets.token_bytes(32)
        self._bodies: dict[str, bytes] = {}

    def url(self, project_id: int, batch_id: int, origin: str, lifetime_seconds: float) -> str:
        """Presign a PUT; `origin` is the scheme and host under which the client sees this server."""
        path = UPLOAD_PATH.format(project_id=project_id, batch_id=batch_id)
        expires = str(int(self._clock() + lifetime_seconds))
        return f"{origin}{path}?Expires={expires}&Signature={self._sign('PUT', path, expires)}"

    def fetch(self, project_id: int, batch_id: int) -> bytes | None:
        """Return what was uploaded, None if nothing was."""
        return self._bodies.get(UPLOAD_PATH.format(project_id=project_id, batch_id=batch_id))

    def forget(self, project_id: int, batch_id: int) -> None:
        """Drop what was uploaded: its batch will not be created (again)."""
        self._bodies.pop(UPLOAD_PATH.format(project_id=project_id, batch_id=batch_id), None)

    def put(self, request: SandboxRequest) -> SandboxAnswer:
        """Store a body whose URL is good."""
        query, path = request.query, request.url.path
        if "access_key" in query:
            return s3_error_answer(400, "InvalidArgument", "An access key must not be sent to the storage.")
        expires = query.get("Expires", "")
        signature = self._sign(request.method, path, expires)
        if not hmac.compare_digest(signature.encode(), query.get("Signature", "").encode()):
            return s3_error_answer(403, "SignatureDoesNotMatch", "The signature does not match the request.")
        if self._clock() > int(expires):
            return s3_error_answer(403, "AccessDenied", "Request has expired")
        if "Content-Length" not in request.headers:
            return s3_error_answer(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if request.body is None:
            return s3_error_answer(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.")
        self._bodies[path] = request.body
        digest = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
        return SandboxAnswer(headers={"ETag": f'"{digest}"'} if self._etag else {})

    def _sign(self, method: str, path: str, expires: str) -> str:
        return hmac.digest(self._key, f"{method}\n{path}\n{expires}".encode(), hashlib.sha256).hex()


def s3_error_answer(status: int, code: str, message: str) -> SandboxAnswer:
    """Answer with an error in the shape of S3."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return SandboxAnswer(status, body.encode(), {"Content-Type": "application/xml; charset=utf-8"})
