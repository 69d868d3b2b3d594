"""Results of task creation enter, POSTs to the user's URL leave: five tries each, any 2xx is success.

Failure body as the vendor shows it; the success body is this sandbox's choice by analogy, and so is the canonical
string of the HMAC: the value of `X-wsm-date`, a line feed, the body.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate

import aiohttp
import orjson

from engine.sandbox.behaviour import Callbacks
from engine.sandbox.faults import Sleep

TRIES = 5  # the vendor's number
_SENDERS = 8


@dataclass(frozen=True, slots=True)
class CreationResult:
    """What became of one task: `error` is empty for a created one."""

    task_id: str
    error: str = ""
    request_data: object = None


class CallbackSender:
    """Collects results and POSTs them in the background, the created and the failed ones apart."""

    def __init__(self, settings: Callbacks, sleep: Sleep = asyncio.sleep) -> None:
        """Without a URL it is off and costs nothing."""
        self.enabled = bool(settings.url)
        self._settings = settings
        self._sleep = sleep
        self._bodies: asyncio.Queue[bytes] = asyncio.Queue()
        self._groups: dict[bool, list[CreationResult]] = {True: [], False: []}

    def push(self, result: CreationResult) -> None:
        """Take one result; it is sent when `tasks_per_call` of its kind have come together."""
        group = self._groups[not result.error]
        group.append(result)
        if len(group) >= self._settings.tasks_per_call:
            self.flush()

    def flush(self) -> None:
        """Send what has come together, however little."""
        for success, group in self._groups.items():
            if group:
                self._bodies.put_nowait(orjson.dumps(_success(group) if success else _failure(group)))
                group.clear()

    async def run(self) -> None:
        """Send until cancelled."""
        if not self.enabled:
            return
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
        ) as session:
            await asyncio.gather(*(self._send_all(session) for _ in range(_SENDERS)))

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while True:
            body = await self._bodies.get()
            for _ in range(TRIES):
                if await self._send(session, body):
                    break
                await self._sleep(self._settings.retry_seconds)

    async def _send(self, session: aiohttp.ClientSession, body: bytes) -> bool:
        query = {"access_key": self._settings.secret} if self._settings.auth == "access_key" else {}
        headers = {"Content-Type": "application/json", **_auth_headers(self._settings, body)}
        try:
            async with session.post(self._settings.url, data=body, params=query, headers=headers) as answer:
                return answer.ok
        except (aiohttp.ClientError, TimeoutError):
            return False


def _success(results: list[CreationResult]) -> Mapping[str, object]:
    return {"success": True, "tasks": [{"id": result.task_id, "state": "created"} for result in results]}


def _failure(results: list[CreationResult]) -> Mapping[str, object]:
    errors = [{"task_id": r.task_id, "type": 400, "message": r.error, "request_data": r.request_data} for r in results]
    return {"success": False, "errors": errors}


def _auth_headers(settings: Callbacks, body: bytes) -> dict[str, str]:
    if settings.auth == "basic":
        credentials = base64.b64encode(f"{settings.user}:{settings.secret}".encode()).decode()
        return {"Authorization": f"Basic {credentials}"}
    if settings.auth == "token":
        return {"X-Auth-Token": settings.secret}
    if settings.auth == "hmac":
        date = formatdate(usegmt=True)
        digest = hmac.digest(settings.secret.encode(), date.encode() + b"\n" + body, hashlib.sha256)
        return {"X-wsm-date": date, "Authorization": f"HMAC-SHA256 {base64.b64encode(digest).decode()}"}
    return {}
