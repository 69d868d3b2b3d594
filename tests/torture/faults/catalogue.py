"""Every fault that can befall a request, as data for the proxy; and which kind of request a request is."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial

from .proxy import Exchange, Fault, Message, made_up

DELAY_SECONDS = 0.15
"""Less than the engine's patience in these tests: an answer that is late but not lost."""
HTML = b"<!DOCTYPE html><html><body><h1>Please sign in to the guest network</h1></body></html>"
_ERROR = b'{"errors": [{"type": "Struck", "message": "The proxy was told to say so."}]}'


async def reset(exchange: Exchange) -> bool:
    exchange.reset()
    return False


async def hang_before_the_head(exchange: Exchange) -> bool:
    await exchange.gone()
    return False


async def hang_in_the_body(exchange: Exchange) -> bool:
    await exchange.say(_half(exchange.answer))
    await exchange.gone()
    return False


async def truncate(exchange: Exchange) -> bool:
    await exchange.say(_half(exchange.answer))
    return False


async def delay(exchange: Exchange) -> bool:
    await asyncio.sleep(DELAY_SECONDS)
    await exchange.say(exchange.answer.wire)
    return True


async def close(exchange: Exchange) -> bool:
    """Answer, then close the connection without having said so."""
    await exchange.say(exchange.answer.wire)
    return False


async def go_stale(exchange: Exchange) -> bool:
    """Answer, and reset the connection as soon as it is used again: what a load balancer's idle timeout does."""
    await exchange.say(exchange.answer.wire)
    exchange.stale = True
    return True


def answer_with(status: int, body: bytes, *headers: str) -> Callable[[Exchange], Awaitable[bool]]:
    async def act(exchange: Exchange) -> bool:
        await exchange.say(made_up(status, body, *headers).wire)
        return True

    return act


async def ask_for_a_pause_until_a_date(exchange: Exchange) -> bool:
    return await answer_with(429, _ERROR, f"Retry-After: {formatdate(time.time() + 1, usegmt=True)}")(exchange)


_JSON = "Content-Type: application/json"
_answer_json = partial(answer_with, 200)

REFUSE = Fault("connection refused")
DEAF = Fault("connection hangs", deaf=True)
RESET = Fault("reset", reset)
HANG = Fault("no answer", hang_before_the_head)
HANG_IN_BODY = Fault("answer stops in the body", hang_in_the_body)
TRUNCATE = Fault("answer cut", truncate)
DELAY = Fault("answer late", delay)
CLOSE = Fault("keep-alive closed", close)
STALE = Fault("keep-alive stale", go_stale)
PAUSE = Fault("429 in seconds", answer_with(429, _ERROR, "Retry-After: 1"))
PAUSE_DATE = Fault("429 by date", ask_for_a_pause_until_a_date)
BUSY = Fault("503 with Retry-After", answer_with(503, _ERROR, "Retry-After: 1"))
PAGE = Fault("HTML page", answer_with(200, HTML, "Content-Type: text/html"))
OTHER_OBJECT = Fault("wrong object", _answer_json(b'{"ok": true}', _JSON))
OTHER_ARRAY = Fault("wrong array", _answer_json(b"[]", _JSON))
NO_JSON = Fault("broken JSON", _answer_json(b'{"batch_id": 7, "tas', _JSON))
ERRORS = [Fault(str(status), answer_with(status, HTML if status == 502 else _ERROR)) for status in (500, 502, 503, 504)]

UNCONNECTED = [REFUSE, DEAF]
DECLINED = [PAUSE, PAUSE_DATE]
"""A 429 says that the request was not served (RFC 6585, section 4)."""
ANSWERED = [DELAY, CLOSE, STALE]
"""The server's own answer arrives, and whole."""
NONSENSE = [PAGE, OTHER_OBJECT, OTHER_ARRAY, NO_JSON]
"""A 200 that the server never gave."""
BROKEN = [RESET, HANG, HANG_IN_BODY, TRUNCATE]
GROUPS = [UNCONNECTED, BROKEN, ANSWERED, DECLINED, [*ERRORS, BUSY], NONSENSE]
"""Faults of one group have the same effect on a call."""
FAULTS = [fault for group in GROUPS for fault in group]


def _half(answer: Message) -> bytes:
    """Return the answer's first half, under a head that promises more than there is even of an empty one."""
    promise = f"\r\nContent-Length: {len(answer.body) + 10}\r\n".encode()
    head = re.sub(rb"(?i)\r\ncontent-length: *\d+\r\n", promise, answer.head)
    return head + answer.body[: len(answer.body) // 2]


def sama_kind(request: Message) -> str:
    """Name a request by what it is to the engine; a page of tasks is part of the settlement."""
    method, target = request.first_words
    path, _, query = target.partition("?")
    if method == "PUT":
        return "put"
    if path.endswith("/batches.json"):
        return "post" if b'"tasks":' in request.body else "create"
    if path.endswith("/create_task.json"):
        return "schema"
    if path.endswith("/tasks.json"):
        return "search"
    for word in ("continue", "cancel"):
        if path.endswith(f"/{word}.json"):
            return word
    return "settlement" if re.search(r"(^|&)page=", query) else "status"


def bridges_kind(request: Message) -> str:
    """Name a request to Seven Bridges as the engine does."""
    method, target = request.first_words
    path, _, query = target.partition("?")
    words = path.split("/")
    if path.endswith("/bulk/tasks/get"):
        return "bulk"
    if path.endswith("/tasks"):
        return "create" if method == "POST" else "children" if re.search(r"(^|&)parent=", query) else "find"
    if "actions" in words:
        return words[-1]
    return "delete" if method == "DELETE" else "get"


_BULK_KINDS = {
    "/safe/records/batch/upsert": "upsert",
    "/key/orders": "create",
    "/exists/records/_bulk": "bulk",
    "/ask/token": "token",
    "/ask/jobs": "open",
    "/never/messages": "send",
}


def bulk_kind(request: Message) -> str:
    """Name a request to one of the bulk faces by what it is to the engine."""
    method, target = request.first_words
    path = target.partition("?")[0]
    if path == "/search/tasks":
        return "post" if method == "POST" else "list"
    if path.startswith("/ask/uploads/"):
        return "put"
    if path.endswith("/start"):
        return "start"
    if path.endswith("/abort"):
        return "abort"
    if path.startswith("/ask/jobs/"):
        return "results" if path.count("/") == 4 else "status"
    return _BULK_KINDS.get(path, "look")
