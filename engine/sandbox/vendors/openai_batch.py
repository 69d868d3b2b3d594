"""OpenAI's Batch API: a file of requests, a batch that is made of it, two files of results.

Written from: platform.openai.com, "Batch API" guide (50,000 requests, 200 MB; `custom_id`; a batch that expires writes
`batch_expired` lines into the error file) and the reference of /files (`.jsonl` alone) and /batches (statuses,
`metadata` of 16 pairs, lists newest first with `after` and `has_more`); `types/batch.py` of openai/openai-python;
issues openai/openai-openapi#302 (a request that is refused stands in the error file with its status, and `error` is
null) and openai/openai-python#2084 (`token_limit_exceeded`); the codes of a batch that fails its validation as users
report them (`invalid_json_line`, `duplicate_custom_id`, `url_mismatch`, `model_mismatch`, `empty_file`,
`too_many_tasks`).

Guesses: 64 characters for a `custom_id` (only users say so); the order of lines (here shuffled); that a file which has
no lines has the id null, or "" as a user has seen it (a switch); the names of files of results.

The vendor's client, openai 3.57.0, works with it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import orjson
from msgspec import Struct, field

from engine.model.settings import Section
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import Journal
from engine.sandbox.messages import SandboxAnswer, SandboxRequest, WrongInput, int_of, json_answer
from engine.sandbox.traffic import CallKinds
from engine.sandbox.vendors.standin import VendorService, bearer, parts_of, refuse

CALLS = CallKinds(
    frozenset({"upload", "file", "content", "create", "list", "get", "cancel", "models"}),
    deferrable=frozenset({"create"}),
)
MOST_REQUESTS = 50_000  # the vendor's limit, as the four below are
MOST_FILE_BYTES = 200 * 1000 * 1000
MOST_PAIRS = 16
MOST_KEY_CHARACTERS = 64
MOST_PAGE = 100
_WINDOW_SECONDS = 24 * 3600
_TYPES = {401: "invalid_request_error", 404: "invalid_request_error", 429: "requests"}
_NEEDED: Mapping[str, Sequence[str]] = {"/v1/chat/completions": ["messages"], "/v1/embeddings": ["input"]}
_EXPIRED = "This request could not be executed before the completion window expired."
_CANCELLED = "This request was not executed because the batch was cancelled."


class OpenAiSwitches(Section, frozen=True):
    """How it behaves; times are seconds.

    validating_seconds   from the creation until requests are made
    line_seconds         for each request
    window_seconds       after which a batch expires
    enqueued_requests    so many may be under way in all; a batch beyond that fails with `token_limit_exceeded`; 0: any
    empty_id             what a file has that is not there: null, or "" as a user has seen it
    """

    validating_seconds: float = 0.0
    line_seconds: float = 0.0
    window_seconds: float = _WINDOW_SECONDS
    enqueued_requests: int = 0
    empty_id: str | None = None


class OpenAiFile(Struct):
    """An uploaded file, or one of results."""

    id: str
    purpose: str
    content: bytes
    created_at: float
    name: str


class OpenAiBatch(Struct):
    """A batch: `done` of its `lines` were made so far; `ended` is when and how it ended."""

    id: str
    file: OpenAiFile
    endpoint: str
    metadata: Mapping[str, str] | None
    created_at: float
    lines: list[dict[str, Any]]
    errors: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    output: list[bytes] = field(default_factory=list)
    failed: list[bytes] = field(default_factory=list)
    cancelling_at: float | None = None
    ended: tuple[str, float] | None = None
    output_id: str | None = None
    error_id: str | None = None


class OpenAiStandIn(VendorService):
    """Serves /v1/files and /v1/batches. A request is in the journal when it was made with success."""

    name = "OpenAI"

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        clock: Callable[[], float],
        switches: OpenAiSwitches = OpenAiSwitches(),  # noqa: B008 - a value
    ) -> None:
        """Raise BehaviourError for what cannot be served."""
        rows = [
            ("POST", "/v1/files", "upload", self._upload),
            ("GET", "/v1/files/{id}", "file", self._file),
            ("GET", "/v1/files/{id}/content", "content", self._content),
            ("POST", "/v1/batches", "create", self._create),
            ("GET", "/v1/batches", "list", self._list),
            ("GET", "/v1/batches/{id}", "get", self._get),
            ("POST", "/v1/batches/{id}/cancel", "cancel", self._cancel),
            ("GET", "/v1/models", "models", lambda _: json_answer({"object": "list", "data": []})),
        ]
        super().__init__(behaviour, journal, clock, CALLS, rows)
        self._switches, self._random = switches, Random(behaviour.seed)
        self.files: dict[str, OpenAiFile] = {}
        self.batches: dict[str, OpenAiBatch] = {}

    def error(self, kind: str, status: int, message: str) -> SandboxAnswer:
        """Word an error as `{"error": {"message", "type", "param", "code"}}`."""
        del kind
        usual = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004 - HTTP
        body = {"message": message, "type": _TYPES.get(status, usual), "param": None, "code": None}
        return json_answer({"error": body}, status)

    def refused(self, request: SandboxRequest) -> SandboxAnswer | None:
        """Take a bearer token."""
        if bearer(request) in self.behaviour.access_keys:
            return None
        return self.error(
            "", 401, "Incorrect API key provided: sk-****. You can find your API key at platform.openai.com."
        )

    def catch_up(self) -> None:
        """Make the requests whose time has come."""
        for batch in self.batches.values():
            if batch.ended is None:
                self._go_on(batch)

    def _upload(self, request: SandboxRequest) -> SandboxAnswer:
        parts = parts_of(request)
        if "file" not in parts or "purpose" not in parts:
            raise WrongInput("'file' and 'purpose' are required properties")
        file, purpose = parts["file"], parts["purpose"].content.decode()
        if purpose == "batch" and not file.file.endswith(".jsonl"):
            raise WrongInput("Invalid file format for Batch API. Must be .jsonl")
        if len(file.content) > MOST_FILE_BYTES:
            return self.error("", 413, f"Maximum content size limit ({MOST_FILE_BYTES}) exceeded.")
        return json_answer(self._shown_file(self._keep(file.content, purpose, file.file)))

    def _keep(self, content: bytes, purpose: str, name: str) -> OpenAiFile:
        file = OpenAiFile(f"file-{self.number():024x}", purpose, content, self.clock(), name)
        self.files[file.id] = file
        return file

    def _file(self, request: SandboxRequest) -> SandboxAnswer:
        return json_answer(self._shown_file(self._found_file(request.params["id"])))

    def _content(self, request: SandboxRequest) -> SandboxAnswer:
        content = self._found_file(request.params["id"]).content
        return SandboxAnswer(200, content, {"Content-Type": "application/octet-stream"})

    def _found_file(self, name: str) -> OpenAiFile:
        if name not in self.files:
            raise refuse(self.error("", 404, f"No such File object: {name}"))
        return self.files[name]

    def _shown_file(self, file: OpenAiFile) -> dict[str, Any]:
        named = {"id": file.id, "object": "file", "bytes": len(file.content), "created_at": int(file.created_at)}
        return {**named, "filename": file.name, "purpose": file.purpose, "status": "processed"}

    def _create(self, request: SandboxRequest) -> SandboxAnswer:
        body = request.json_object()
        if missing := [key for key in ("input_file_id", "endpoint", "completion_window") if key not in body]:
            raise WrongInput(f"Missing required parameter: '{missing[0]}'.")
        if body["completion_window"] != "24h":
            raise WrongInput("Invalid value for 'completion_window': must be '24h'.")
        metadata = body.get("metadata")
        if metadata is not None and (
            len(metadata) > MOST_PAIRS or not all(isinstance(v, str) for v in metadata.values())
        ):
            raise WrongInput(f"Invalid 'metadata': must be at most {MOST_PAIRS} pairs of texts.")
        file = self._found_file(body["input_file_id"])
        if file.purpose != "batch":
            raise WrongInput(f"Invalid file purpose: {file.purpose}. Expected 'batch'.")
        batch = OpenAiBatch(f"batch_{self.number():024x}", file, body["endpoint"], metadata, self.clock(), [])
        self.traffic.agenda.do(batch.id, partial(self._open, batch))
        return json_answer(self._shown(batch))

    def _open(self, batch: OpenAiBatch, at: float) -> None:
        batch.created_at = at
        self.batches[batch.id] = batch
        self.traffic.stats.batches += 1
        batch.lines, batch.errors = _lines(batch.file.content, batch.endpoint)
        under_way = sum(len(one.lines) for one in self.batches.values() if one.ended is None)
        if not batch.errors and 0 < self._switches.enqueued_requests < under_way:
            words = f"Enqueued token limit reached. Limit: {self._switches.enqueued_requests} enqueued tokens."
            batch.errors = [_batch_error("token_limit_exceeded", words, None)]
        self._go_on(batch)

    def _go_on(self, batch: OpenAiBatch) -> None:
        begun = batch.created_at + self._switches.validating_seconds
        now, each = self.clock(), self._switches.line_seconds
        expires = batch.created_at + self._switches.window_seconds
        stops = min(expires, batch.cancelling_at if batch.cancelling_at is not None else expires)
        if now < begun:
            return
        if batch.errors:
            batch.ended = ("failed", begun)
            return
        due = len(batch.lines) if not each else int((min(now, stops) - begun) / each)
        while batch.done < min(due, len(batch.lines)):
            self._make(batch, batch.lines[batch.done])
            batch.done += 1
        if batch.done == len(batch.lines):
            self._end(batch, "completed", now)
        elif batch.cancelling_at is not None:
            self._leave(batch, "batch_cancelled", _CANCELLED)
            self._end(batch, "cancelled", now)
        elif now >= expires:
            self._leave(batch, "batch_expired", _EXPIRED)
            self._end(batch, "expired", now)

    def _make(self, batch: OpenAiBatch, line: dict[str, Any]) -> None:
        number, body = self.number(), line["body"]
        named = {"id": f"batch_req_{number:024x}", "custom_id": line["custom_id"]}
        refusal = self.failure(body) or _misfit(body, batch.endpoint)
        if refusal is not None:
            said = {
                "error": {"message": refusal[1], "type": "invalid_request_error", "param": None, "code": refusal[0]}
            }
            response = {"status_code": 400, "request_id": f"req_{number}", "body": said}
            batch.failed.append(orjson.dumps({**named, "response": response, "error": None}))
            self.traffic.stats.tasks_failed += 1
            return
        made = f"chatcmpl-{number:024x}"
        response = {
            "status_code": 200,
            "request_id": f"req_{number}",
            "body": {"id": made, "object": "chat.completion"},
        }
        batch.output.append(orjson.dumps({**named, "response": response, "error": None}))
        self.write(body, batch.id, made, batch.done)

    def _leave(self, batch: OpenAiBatch, code: str, words: str) -> None:
        """Tell of each request that was not made."""
        for line in batch.lines[batch.done :]:
            error = {"code": code, "message": words}
            named = {"id": f"batch_req_{self.number():024x}", "custom_id": line["custom_id"]}
            batch.failed.append(orjson.dumps({**named, "response": None, "error": error}))

    def _end(self, batch: OpenAiBatch, status: str, at: float) -> None:
        batch.ended = (status, at)
        for lines, key in ((batch.output, "output_id"), (batch.failed, "error_id")):
            if lines:
                self._random.shuffle(lines)
                setattr(batch, key, self._keep(b"\n".join([*lines, b""]), "batch_output", f"{batch.id}.jsonl").id)

    def _list(self, request: SandboxRequest) -> SandboxAnswer:
        shown_at = self.clock() - self.behaviour.reads.list_seconds
        every = [batch for batch in self.batches.values() if batch.created_at <= shown_at]
        newest = sorted(every, key=lambda batch: (batch.created_at, batch.id), reverse=True)
        if (after := request.query.get("after")) is not None:
            names = [batch.id for batch in newest]
            newest = newest[names.index(after) + 1 :] if after in names else []
        size = int_of(request.query, "limit", 20, 1, MOST_PAGE)
        page = newest[:size]
        ends = {"first_id": page[0].id if page else None, "last_id": page[-1].id if page else None}
        data = [self._shown(batch) for batch in page]
        return json_answer({"object": "list", "data": data, **ends, "has_more": len(newest) > size})

    def _get(self, request: SandboxRequest) -> SandboxAnswer:
        return json_answer(self._shown(self._found(request)))

    def _cancel(self, request: SandboxRequest) -> SandboxAnswer:
        batch = self._found(request)
        if batch.ended is not None:
            raise WrongInput(f"Cannot cancel a batch with status '{batch.ended[0]}'.")
        batch.cancelling_at = self.clock()
        return json_answer(self._shown(batch))

    def _found(self, request: SandboxRequest) -> OpenAiBatch:
        name = request.params["id"]
        if name not in self.batches:
            raise refuse(self.error("", 404, f"No batch found with id '{name}'."))
        return self.batches[name]

    def _shown(self, batch: OpenAiBatch) -> dict[str, Any]:
        status = "validating" if self.clock() < batch.created_at + self._switches.validating_seconds else "in_progress"
        if batch.cancelling_at is not None:
            status = "cancelling"
        status, ended_at = batch.ended or (status, 0.0)
        times = {f"{status}_at": int(ended_at)} if batch.ended else {}
        counts = {"total": 0 if batch.errors else len(batch.lines), "completed": len(batch.output)}
        refused = sum(b'"response":null' not in line for line in batch.failed)
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "errors": {"object": "list", "data": batch.errors} if batch.errors and batch.ended else None,
            "input_file_id": batch.file.id,
            "completion_window": "24h",
            "status": status,
            "output_file_id": batch.output_id or self._switches.empty_id,
            "error_file_id": batch.error_id or self._switches.empty_id,
            "created_at": int(batch.created_at),
            "expires_at": int(batch.created_at + self._switches.window_seconds),
            **times,
            "request_counts": {**counts, "failed": refused},
            "metadata": batch.metadata,
        }


def _lines(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the requests of a file, and why it cannot be a batch."""
    lines: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    models: set[object] = set()
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
            key, method, url, body = (line[name] for name in ("custom_id", "method", "url", "body"))
        except (ValueError, KeyError, TypeError):
            errors.append(_batch_error("invalid_json_line", "This line is not parseable as valid JSON.", number))
            continue
        model = body.get("model")
        models.add(model)
        if key in seen:
            errors.append(_batch_error("duplicate_custom_id", f"The custom_id '{key}' is there already.", number))
        elif len(key) > MOST_KEY_CHARACTERS or method != "POST":
            errors.append(_batch_error("invalid_request", "custom_id or method cannot be used.", number))
        elif url != endpoint:
            errors.append(_batch_error("url_mismatch", f"The URL {url} is not that of the batch.", number))
        elif len(models) > 1:
            errors.append(_batch_error("model_mismatch", f"The model '{model}' is not that of the first line.", number))
        seen.add(key)
        lines.append(line)
    if not lines and not errors:
        errors = [_batch_error("empty_file", "The batch file is empty.", None)]
    if len(lines) > MOST_REQUESTS:
        errors = [_batch_error("too_many_tasks", f"A batch may have {MOST_REQUESTS} requests at most.", None)]
    return lines, errors


def _batch_error(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _misfit(body: Mapping[str, Any], endpoint: str) -> tuple[str, str] | None:
    needed = ["model", *_NEEDED.get(endpoint, [])]
    missing = [name for name in needed if name not in body]
    return ("missing_required_parameter", f"Missing required parameter: '{missing[0]}'.") if missing else None
