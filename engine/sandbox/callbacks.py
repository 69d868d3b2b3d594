"""Sends the sandbox's callbacks, and does to them what happens on the way: lost, twice, late, forged, untrue."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Sequence
from email.utils import formatdate
from random import Random

import aiohttp
import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.sandbox.behaviour import Callbacks

TRIES = 5  # of a callback; the vendor's number
_SENDERS = 8


class Delivery(Struct, frozen=True):
    """A callback that is sent, or made up by somebody else: after how long, and with whose secret."""

    body: bytes
    after_seconds: float = 0.0
    forged: bool = False


class Deliveries:
    """What becomes of bodies on their way, drawn from a seed."""

    def __init__(self, settings: Callbacks) -> None:
        self._settings, self._draw = settings, Random(settings.seed)

    def of(self, body: bytes) -> Sequence[Delivery]:
        """Return what is sent for a body."""
        settings, draw = self._settings, self._draw
        times = 0 if draw.random() < settings.lost else 2 if draw.random() < settings.twice else 1
        sent = [Delivery(body, self._delay()) for _ in range(times)]
        if draw.random() < settings.forged:
            sent.append(Delivery(body, self._delay(), forged=True))
        if draw.random() < settings.untrue:
            untrue = orjson.loads(body)
            untrue["tasks"] = [{**task, "id": f"{draw.getrandbits(96):024x}"} for task in untrue.get("tasks", [])]
            sent.append(Delivery(orjson.dumps(untrue), self._delay()))
        return sent

    def _delay(self) -> float:
        late = self._draw.random() < self._settings.late
        return self._draw.random() * self._settings.late_seconds if late else 0.0


class CallbackSender:
    """POSTs bodies to the user's URL in the background: five tries each, any 2xx is success.

    The canonical string of the HMAC is this sandbox's choice: the value of `X-wsm-date`, a line feed, the body.
    """

    def __init__(self, settings: Callbacks) -> None:
        self._settings = settings
        self._deliveries = Deliveries(settings)
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._late: set[asyncio.TimerHandle] = set()

    def send(self, body: bytes) -> None:
        """Send a body, or what a fault makes of it."""
        for delivery in self._deliveries.of(body):
            if delivery.after_seconds:
                put = self._queue.put_nowait
                self._late.add(asyncio.get_running_loop().call_later(delivery.after_seconds, put, delivery))
            else:
                self._queue.put_nowait(delivery)

    async def run(self) -> None:
        """Send until canceled."""
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                await asyncio.gather(*(self._send_all(session) for _ in range(_SENDERS)))
        finally:
            for late in self._late:
                late.cancel()

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while True:
            delivery = await self._queue.get()
            for _ in range(1 if delivery.forged else TRIES):
                if await self._send(session, delivery):
                    break
                await asyncio.sleep(self._settings.retry_seconds)

    async def _send(self, session: aiohttp.ClientSession, delivery: Delivery) -> bool:
        settings = replace(self._settings, secret="not the secret") if delivery.forged else self._settings  # noqa: S106
        query = {"access_key": settings.secret} if settings.auth == "access_key" else {}
        headers = {"Content-Type": "application/json", **_auth_headers(settings, delivery.body)}
        try:
            async with session.post(settings.url, data=delivery.body, params=query, headers=headers) as answer:
                return answer.ok
        except (aiohttp.ClientError, TimeoutError):
            return False


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
