"""Anthropic's Message Batches: one call makes a batch, its results are a file of lines with `custom_id`.

Written from: docs.anthropic.com and platform.claude.com, "Create / Retrieve / List / Cancel a Message Batch", "Retrieve
Message Batch results", "Batch processing" (100,000 requests, 256 MB, 24 hours; `params` are looked at later only),
"Errors" (types by status, 413, 529), "Rate limits" (headers), "Authentication" (a key is a bearer token, or stands in
`x-api-key`) and "Migrating to API version 2026-10-21" (sampling parameters are refused); the words of a refused
`custom_id` (`^[a-zA-Z0-9_-]{1,64}$`) as several users quote them. The vendor's client, anthropic 2.14.0, works with it.

Guesses: what is answered about results before the end (404); the words about a `custom_id` that stands twice, about a
sampling parameter, and about a version that is not known; the order of results (here shuffled; none is promised).
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

import orjson
from msgspec import Struct, field

from engine.model.settings import Section
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import Journal
from engine.sandbox.messages import SandboxAnswer, SandboxRequest, WrongInput, int_of, json_answer
from engine.sandbox.traffic import CallKinds, ReadBody, Sleep
from engine.sandbox.vendors.standin import VendorService, bearer, refuse

CALLS = CallKinds(frozenset({"create", "list", "get", "cancel", "results", "models"}), deferrable=frozenset({"create"}))
MOST_REQUESTS = 100_000  # the vendor's limits
MOST_PAGE = 1000
_KEY = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_TYPES |= {413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}
_DAY = 24 * 3600
_OLD = "2023-06-01"
_SAMPLING = ("temperature", "top_p", "top_k")  # taken by the old version alone


class AnthropicSwitches(Section, frozen=True):
    """How it behaves: seconds for each request, after how many a batch expires, and which versions are known.

    `held` batches, counted from 1 as they were made, make no progress.
    """

    line_seconds: float = 0.0
    held: tuple[int, ...] = ()
    window_seconds: float = _DAY
    versions: tuple[str, ...] = (_OLD, "2026-10-21")


class AnthropicBatch(Struct):
    """A batch: `results` has a line for each request that has ended."""

    id: str
    requests: list[dict[str, Any]]
    created_at: float
    refuses: tuple[str, ...] = ()
    results: list[bytes] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    cancel_at: float | None = None
    ended_at: float | None = None


class AnthropicStandIn(VendorService):
    """Serves /v1/messages/batches. A request is in the journal when it has succeeded."""

    name = "Anthropic"

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        clock: Callable[[], float],
        switches: AnthropicSwitches = AnthropicSwitches(),  # noqa: B008 - a value
    ) -> None:
        """Raise BehaviourError for what cannot be served."""
        place = "/v1/messages/batches"
        rows = [
            ("POST", place, "create", self._create),
            ("GET", place, "list", self._list),
            ("GET", place + "/{id}", "get", self._get),
            ("POST", place + "/{id}/cancel", "cancel", self._cancel),
            ("GET", place + "/{id}/results", "results", self._results),
            ("GET", "/v1/models", "models", lambda _: json_answer({"data": [], "has_more": False})),
        ]
        super().__init__(behaviour, journal, clock, CALLS, rows)
        self._switches, self._random = switches, Random(behaviour.seed)
        self.batches: dict[str, AnthropicBatch] = {}

    async def answer(self, request: SandboxRequest, read: ReadBody, sleep: Sleep) -> SandboxAnswer:
        """Answer a request, with the headers about the limit of requests."""
        answer = await super().answer(request, read, sleep)
        if (window := self.window) is not None:
            now = self.clock()
            answer.headers["anthropic-ratelimit-requests-limit"] = str(window.limit.requests)
            answer.headers["anthropic-ratelimit-requests-remaining"] = str(window.remaining(now))
            answer.headers["anthropic-ratelimit-requests-reset"] = _time(math.ceil(window.ends_at(now)))
        return answer

    def error(self, kind: str, status: int, message: str) -> SandboxAnswer:
        """Word an error as `{"type": "error", "error": {"type", "message"}, "request_id"}`."""
        del kind
        error = {"type": _TYPES.get(status, "api_error"), "message": message}
        return json_answer({"type": "error", "error": error, "request_id": f"req_{self.number():024x}"}, status)

    def refused(self, request: SandboxRequest) -> SandboxAnswer | None:
        """Take a bearer token or `x-api-key`, and a version that is known."""
        if (bearer(request) or request.headers.get("x-api-key")) not in self.behaviour.access_keys:
            return self.error("", 401, "invalid x-api-key")
        if request.headers.get("anthropic-version") not in self._switches.versions:
            return self.error("", 400, "anthropic-version: header is required")
        return None

    def switch(self, switches: AnthropicSwitches) -> None:
        """Behave otherwise from now on."""
        self._switches = switches

    def catch_up(self) -> None:
        """Make the requests whose time has come."""
        for number, batch in enumerate(self.batches.values(), 1):
            if batch.ended_at is None and number not in self._switches.held:
                self._go_on(batch)

    def _create(self, request: SandboxRequest) -> SandboxAnswer:
        requests = request.json_object().get("requests")
        if not isinstance(requests, list) or not requests:
            raise WrongInput("requests: Field required")
        if len(requests) > MOST_REQUESTS:
            raise WrongInput(f"requests: List should have at most {MOST_REQUESTS} items")
        seen = set()
        for number, one in enumerate(requests):
            key = one.get("custom_id", "")
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise WrongInput(f"requests.{number}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
            if not isinstance(one.get("params"), dict):
                raise WrongInput(f"requests.{number}.params: Field required")
            if key in seen:
                raise WrongInput(f"requests.{number}.custom_id: must be unique")
            seen.add(key)
        refuses = () if request.headers.get("anthropic-version") == _OLD else _SAMPLING
        batch = AnthropicBatch(f"msgbatch_{self.number():024x}", requests, self.clock(), refuses)
        self.traffic.agenda.do(batch.id, partial(self._open, batch))
        return json_answer(self._shown(batch, request))

    def _open(self, batch: AnthropicBatch, at: float) -> None:
        batch.created_at = at
        self.batches[batch.id] = batch
        self.traffic.stats.batches += 1

    def _go_on(self, batch: AnthropicBatch) -> None:
        now, each = self.clock(), self._switches.line_seconds
        expires = batch.created_at + self._switches.window_seconds
        stops = min(now, expires, batch.cancel_at if batch.cancel_at is not None else now)
        due = (
            len(batch.requests)
            if not each and batch.cancel_at is None
            else int((stops - batch.created_at) / (each or 1))
        )
        while len(batch.results) < min(due, len(batch.requests)):
            self._make(batch, batch.requests[len(batch.results)])
        left = "canceled" if batch.cancel_at is not None else "expired" if now >= expires else ""
        if left:
            for one in batch.requests[len(batch.results) :]:
                self._tell(batch, one, left)
        if len(batch.results) == len(batch.requests):
            batch.ended_at = now
            self._random.shuffle(batch.results)

    def _make(self, batch: AnthropicBatch, one: dict[str, Any]) -> None:
        params = one["params"]
        missing = [name for name in ("model", "max_tokens", "messages") if name not in params]
        failed = self.failure(params)
        if failed is None and missing:
            failed = ("invalid_request_error", f"{missing[0]}: Field required")
        if failed is None and (unknown := [name for name in batch.refuses if name in params]):
            failed = ("invalid_request_error", f"{unknown[0]}: Extra inputs are not permitted")
        if failed is not None:
            error = {"type": "error", "error": {"type": failed[0], "message": failed[1]}, "request_id": None}
            self.traffic.stats.tasks_failed += 1
            self._tell(batch, one, "errored", error=error)
            return
        message = {"id": f"msg_{self.number():024x}", "type": "message", "role": "assistant", "model": params["model"]}
        self.write(params, batch.id, str(message["id"]), len(batch.results))
        self._tell(batch, one, "succeeded", message={**message, "content": [{"type": "text", "text": "Yes."}]})

    def _tell(self, batch: AnthropicBatch, one: dict[str, Any], kind: str, **more: object) -> None:
        batch.results.append(orjson.dumps({"custom_id": one["custom_id"], "result": {"type": kind, **more}}))
        batch.counts[kind] += 1

    def _list(self, request: SandboxRequest) -> SandboxAnswer:
        shown_at = self.clock() - self.behaviour.reads.list_seconds
        every = [batch for batch in self.batches.values() if batch.created_at <= shown_at]
        newest = sorted(every, key=lambda batch: (batch.created_at, batch.id), reverse=True)
        if (after := request.query.get("after_id")) is not None:
            names = [batch.id for batch in newest]
            newest = newest[names.index(after) + 1 :] if after in names else []
        size = int_of(request.query, "limit", 20, 1, MOST_PAGE)
        page = newest[:size]
        ends = {"first_id": page[0].id if page else None, "last_id": page[-1].id if page else None}
        data = [self._shown(batch, request) for batch in page]
        return json_answer({"data": data, **ends, "has_more": len(newest) > size})

    def _get(self, request: SandboxRequest) -> SandboxAnswer:
        return json_answer(self._shown(self._found(request), request))

    def _cancel(self, request: SandboxRequest) -> SandboxAnswer:
        batch = self._found(request)
        if batch.ended_at is None and batch.cancel_at is None:
            batch.cancel_at = self.clock()
        return json_answer(self._shown(batch, request))

    def _results(self, request: SandboxRequest) -> SandboxAnswer:
        batch = self._found(request)
        if batch.ended_at is None:
            raise refuse(self.error("", 404, f"Batch {batch.id} has no results yet."))
        return SandboxAnswer(200, b"\n".join([*batch.results, b""]), {"Content-Type": "application/x-jsonl"})

    def _found(self, request: SandboxRequest) -> AnthropicBatch:
        name = request.params["id"]
        if name not in self.batches:
            raise refuse(self.error("", 404, f"Message batch {name} not found"))
        return self.batches[name]

    def _shown(self, batch: AnthropicBatch, request: SandboxRequest) -> dict[str, Any]:
        """Show a batch; its requests count as processing until all of them have ended, as the vendor says."""
        ended = batch.ended_at is not None
        counts = {kind: batch.counts[kind] if ended else 0 for kind in ("succeeded", "errored", "canceled", "expired")}
        status = "ended" if ended else "canceling" if batch.cancel_at is not None else "in_progress"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {"processing": 0 if ended else len(batch.requests), **counts},
            "created_at": _time(batch.created_at),
            "expires_at": _time(batch.created_at + self._switches.window_seconds),
            "ended_at": _time(batch.ended_at) if batch.ended_at is not None else None,
            "cancel_initiated_at": _time(batch.cancel_at) if batch.cancel_at is not None else None,
            "archived_at": None,
            "results_url": f"{request.url.origin()}/v1/messages/batches/{batch.id}/results" if ended else None,
        }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
