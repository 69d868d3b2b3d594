"""A job that can be asked: it is opened, gets a CSV, is started and polled, and its results are files with pages.

    POST /ask/token                       client_id=ANY&client_secret=KEY (form)  →  {"access_token", "expires_in"}
    POST /ask/jobs                        {"contentType": "CSV"}  →  201 {"id", "state": "Open", "uploadUrl"}
    PUT  the uploadUrl                    the CSV, without credentials, as stores want it; until the start
    POST /ask/jobs/{id}/start             202 {"id", "state": "Queued"}
    GET  /ask/jobs/{id}                   {"id", "state", "recordsCreated", "recordsFailed", "errorMessage"}
    GET  /ask/jobs/{id}/successfulResults    CSV: ask__id, ask__created, then the columns as they were sent
    GET  /ask/jobs/{id}/failedResults        CSV: ask__id, ask__error, then the columns
    GET  /ask/jobs/{id}/unprocessedRecords   CSV: the columns
    POST /ask/jobs/{id}/abort             202

States: Open (not started), Queued, InProgress, then Complete, Failed (nothing was done) or Aborted. A page has
`maxRecords` lines; the header `Ask-Locator` names the next one, and says `null` on the last. Results stand in no order
that anybody sent. Credentials: `Authorization: Bearer TOKEN`, of an exchange that lasts `token_seconds`; the key itself
is taken as well.

A job's records are created by the clock, in blocks: `creation` of the behaviour says after which delay, and how fast.
"""

import csv
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from random import Random
from urllib.parse import parse_qs

from msgspec import Struct

from engine.sandbox.bulk.face import BulkFace
from engine.sandbox.bulk.records import BatchRefused, FaceParts, SentFate, SentItem, ToldItem, told
from engine.sandbox.messages import (
    Handler,
    SandboxAnswer,
    SandboxRefusal,
    SandboxRequest,
    WrongInput,
    html_answer,
    int_of,
    json_answer,
)

_CODES = {400: "InvalidRequest", 401: "InvalidSession", 404: "NotFound", 409: "InvalidState", 429: "RequestLimit"}
_BLOCK_RECORDS = 2000  # about 10 ms of work
_SHOWN_ID, _SHOWN_NEW, _SHOWN_ERROR = "ask__id", "ask__created", "ask__error"


class JobRun(Struct):
    """One creation of a job's rows, planned at `planned_at`."""

    call: str
    items: list[SentItem]
    fates: list[SentFate]
    planned_at: float
    starts_at: float
    per_second: float
    done: int = 0
    aborted_at: float | None = None

    def due(self, now: float) -> int:
        """Say how many rows count as done at a time."""
        if self.aborted_at is not None or now < self.starts_at:
            return self.done
        if not self.per_second:
            return len(self.items)
        return min(len(self.items), int((now - self.starts_at) * self.per_second))

    def done_at(self, at: float) -> int:
        """Say how many rows were seen to be done at a time."""
        if at < self.starts_at:
            return 0
        return min(self.done, int((at - self.starts_at) * self.per_second) if self.per_second else self.done)

    def row_at(self, position: int) -> float:
        """Say when the row at a position is created."""
        return self.starts_at + ((position + 1) / self.per_second if self.per_second else 0.0)

    @property
    def finished(self) -> bool:
        """True once none of its rows will be created any more."""
        return self.aborted_at is not None or self.done >= len(self.items)


class BulkJob(Struct):
    """A job; `closed` is how it ended without a run, and `why`."""

    id: str
    opened_at: float
    content: bytes | None = None
    started: bool = False
    runs: list[JobRun] = []
    columns: list[str] = []
    rows: list[SentItem] = []
    closed: str = ""
    closed_at: float = 0.0
    why: str = ""

    def state(self, at: float) -> str:
        """Return its state as it was seen at a time."""
        runs = [run for run in self.runs if run.planned_at <= at]
        if runs:
            run = runs[-1]
            if run.aborted_at is not None and run.aborted_at <= at:
                return "Aborted"
            if at < run.starts_at:
                return "Queued"
            return "Complete" if run.done_at(at) >= len(run.items) else "InProgress"
        return self.closed if self.closed and self.closed_at <= at else "Open"


class AskFace(BulkFace):
    """Works on jobs."""

    name = "ask"
    calls = frozenset({"token", "open", "upload", "start", "status", "results", "abort"})
    deferrable = frozenset({"start"})
    outside = frozenset({"upload"})

    def __init__(self, parts: FaceParts) -> None:
        super().__init__(parts)
        self._began = int(self.clock()) & 0xFFFFFF
        self._jobs: dict[str, BulkJob] = {}
        self._unfinished: list[JobRun] = []
        self._tokens: dict[str, float] = {}

    def paths(self) -> Iterator[tuple[str, str, str, Handler]]:
        """Yield the paths of the head of this module."""
        job = "/jobs/{job_id}"
        yield "POST", "/jobs", "open", self._open
        yield "POST", job + "/start", "start", self._start
        yield "POST", job + "/abort", "abort", self._abort
        yield "GET", job, "status", self._status
        for name in ("successfulResults", "failedResults", "unprocessedRecords"):
            yield "GET", f"{job}/{name}", "results", partial(self._results, name)
        yield "POST", "/token", "token", self._token
        yield "PUT", "/uploads/{job_id}/{signature}", "upload", self._upload

    def may_call(self, request: SandboxRequest) -> bool:
        """Say whether whoever sent a request is known; an upload URL and the exchange speak for themselves."""
        if request.url.path == f"/{self.name}/token" or request.url.path.startswith(f"/{self.name}/uploads/"):
            return True
        key = self.key_of(request) or ""
        return self._tokens.get(key, 0.0) > self.clock() or key in self.behaviour.access_keys

    def error(self, status: int, message: str, records: Mapping[int, str] | None = None) -> SandboxAnswer:
        """Word a refusal."""
        words = "".join(f" Row {at + 1}: {why}" for at, why in (records or {}).items())
        return json_answer([{"errorCode": _CODES.get(status, "Error"), "message": message + words}], status)

    def advance(self) -> bool:
        """Create what is due, at most one block over all jobs."""
        room = _BLOCK_RECORDS
        for run in self._unfinished:
            room -= self._create(run, room)
            if room == 0:
                break
        self._unfinished = [run for run in self._unfinished if not run.finished]
        return room == 0

    def _create(self, run: JobRun, room: int) -> int:
        low, high = run.done, min(run.due(self.clock()), run.done + room)
        for position in range(low, high):
            self.records.keep_one(run.call, position, run.items[position], run.fates[position], run.row_at(position))
        run.done = max(low, high)
        return run.done - low

    # The calls

    def _token(self, request: SandboxRequest) -> SandboxAnswer:
        form = parse_qs((request.body or b"").decode(errors="replace"))
        if form.get("grant_type") != ["client_credentials"]:
            raise WrongInput("grant_type must be client_credentials.")
        if form.get("client_secret", [""])[0] not in self.behaviour.access_keys:
            raise self.refusal(401, "There is no such client.")
        token = f"ask-token-{self._began:06x}-{len(self._tokens)}"
        self._tokens[token] = self.clock() + self.bulk.token_seconds
        told = {"access_token": token, "token_type": "Bearer", "expires_in": self.bulk.token_seconds}
        return json_answer(told)

    def _open(self, request: SandboxRequest) -> SandboxAnswer:
        if request.json_object().get("contentType") != "CSV":
            raise WrongInput("contentType must be CSV.")
        job = BulkJob(f"job-{self._began:06x}-{len(self._jobs) + 1}", self.clock())
        self._jobs[job.id] = job
        url = f"{request.url.origin()}/{self.name}/uploads/{job.id}/{self._signature(job)}"
        return json_answer({"id": job.id, "state": self.word("Open"), "uploadUrl": url}, 201)

    def _upload(self, request: SandboxRequest) -> SandboxAnswer:
        job = self._jobs.get(request.params["job_id"])
        if "Authorization" in request.headers:
            raise self.refusal(400, "Credentials must not be sent to the storage.")
        if job is None or request.params["signature"] != self._signature(job):
            raise self.refusal(403, "The signature does not match.")
        if job.started or job.closed:
            raise self.refusal(409, f"Job {job.id} takes no upload any more.")
        job.content = request.body
        return SandboxAnswer(201)

    def _start(self, request: SandboxRequest) -> SandboxAnswer:
        job, again = self._job(request), self.bulk.start_again
        self._check_busy(job)
        if job.closed or (job.started and again == "error"):
            words = "started already" if job.started else f"{job.state(self.clock())}, not Open"
            raise self.refusal(409, f"Job {job.id} is {words}.")
        if job.started and again == "html":
            return html_answer(409)
        if not job.started or again == "duplicate":
            if job.content is None:
                raise self.refusal(400, f"Nothing was uploaded for job {job.id}.")
            self.agenda.do((self.name, job.id), partial(self._begin, job))
            job.started = not self.agenda.swallows  # a swallowed one was never told, so that telling it again helps
        return json_answer({"id": job.id, "state": self.word("Queued")}, 202)

    def _begin(self, job: BulkJob, at: float) -> None:
        """Read the upload and plan its rows; a job that is refused as a whole has failed."""
        try:
            job.columns, job.rows = _read_csv(job.content or b"")
            fates = self.records.judge(job.rows)
        except BatchRefused as refused:
            rows = "".join(f" Row {position + 1}: {why}" for position, why in refused.records.items())
            job.closed, job.closed_at, job.why = "Failed", at, refused.message + rows
            return
        pace, call = self.behaviour.creation, f"{job.id}/{len(job.runs) + 1}"
        run = JobRun(call, job.rows, fates, at, at + pace.delay_seconds, pace.tasks_per_second)
        job.runs.append(run)
        self._unfinished.append(run)

    def _status(self, request: SandboxRequest) -> SandboxAnswer:
        at = self.clock() - self.reads.status_seconds
        job = self._job(request)
        if self.reads.new_are_unknown and job.opened_at > at:
            raise self._no_job(job.id)
        run = next((run for run in reversed(job.runs) if run.planned_at <= at), None)
        fates = run.fates[: run.done_at(at)] if run else []
        failed = sum(fate.word != "created" for fate in fates)
        body: dict[str, object] = {"id": job.id, "state": self.word(job.state(at))}
        body |= {"recordsCreated": len(fates) - failed, "recordsFailed": failed}
        body["errorMessage"] = job.why if job.closed and job.closed_at <= at else None
        return json_answer(body)

    def _results(self, name: str, request: SandboxRequest) -> SandboxAnswer:
        job = self._job(request)
        if job.state(self.clock() - self.reads.status_seconds) not in {"Complete", "Failed", "Aborted"}:
            raise self.refusal(400, f"Job {job.id} is at work.")
        size = int_of(request.query, "maxRecords", self.bulk.page, 1, self.bulk.page)
        first = int_of(request.query, "locator", 0, 0, 10**9)
        rows = self._rows(name, job)
        head = {"successfulResults": [_SHOWN_ID, _SHOWN_NEW], "failedResults": [_SHOWN_ID, _SHOWN_ERROR]}.get(name, [])
        page = _csv_text([*head, *job.columns], rows[first : first + size])
        following = str(first + size) if first + size < len(rows) else "null"
        return SandboxAnswer(200, page, {"Content-Type": "text/csv", "Ask-Locator": following})

    def _rows(self, name: str, job: BulkJob) -> list[list[object]]:
        run = job.runs[-1] if job.runs else None
        done = run.done if run else 0
        if name == "unprocessedRecords":
            return [list(item.content.values()) for item in job.rows[done:]]
        items, fates = (run.items[:done], run.fates[:done]) if run else ([], [])
        wanted = "created" if name == "successfulResults" else "failed"
        shown = [one for one in told(items, fates, self.unwritten, len(items)) if _is(one.fate, wanted)]
        if self.unwritten.order == "sent":  # no order that anybody sent
            Random(job.id).shuffle(shown)
        return [_row(one, wanted, job.columns) for one in shown]

    def _abort(self, request: SandboxRequest) -> SandboxAnswer:
        job, now = self._job(request), self.clock()
        self._check_busy(job)
        state = job.state(now)
        if state in {"Complete", "Failed"} or self.behaviour.cancel == "refuse":
            raise self.refusal(409, f"Job {job.id} is {state} and cannot be aborted.")
        lies = self.behaviour.cancel == "lie"
        if state != "Aborted" and not (lies and job.runs):
            if not lies:
                self.agenda.forget((self.name, job.id))
            self._close(job, "Aborted", "The job was aborted.", now)
        return json_answer({"id": job.id, "state": self.word("Aborted")}, 202)

    # What they share

    def _close(self, job: BulkJob, state: str, why: str, at: float) -> None:
        for run in job.runs:
            if not run.finished:
                run.aborted_at = at
        if not job.runs:
            job.closed, job.closed_at, job.why = state, at, why

    def _job(self, request: SandboxRequest) -> BulkJob:
        job = self._jobs.get(request.params["job_id"])
        if job is None:
            raise self._no_job(request.params["job_id"])
        for run in job.runs:
            self._create(run, _BLOCK_RECORDS)
        waited = self.clock() - job.opened_at
        if not job.started and not job.closed and waited > self.behaviour.waiting_seconds:
            self._close(job, "Aborted", "The job waited too long for its start.", self.clock())
        return job

    def _no_job(self, job_id: str) -> SandboxRefusal:
        return self.refusal(404, f"There is no job {job_id}.")

    def _check_busy(self, job: BulkJob) -> None:
        if self.behaviour.busy_while_late and self.agenda.awaits((self.name, job.id)):
            raise self.refusal(409, f"Job {job.id} is busy.")

    def _signature(self, job: BulkJob) -> str:
        return f"{zlib.crc32(job.id.encode(), self._began):08x}"


def _is(fate: SentFate, wanted: str) -> bool:
    return (fate.word == "created") == (wanted == "created")


def _row(one: ToldItem, wanted: str, columns: Sequence[str]) -> list[object]:
    first = [one.fate.id or "", "true"] if wanted == "created" else ["", one.fate.reason]
    return [*first, *(one.item.content.get(column, one.item.key) for column in columns)]


def _read_csv(content: bytes) -> tuple[list[str], list[SentItem]]:
    """Return columns and rows. Raise BatchRefused."""
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise BatchRefused(f"The upload is not CSV: {error}.") from error
    if len(lines) < 2 or len(set(lines[0])) != len(lines[0]):  # noqa: PLR2004 - a head and a row
        raise BatchRefused("The upload must have a line with names, each once, and a row.")
    head = lines[0]
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(head):
            raise BatchRefused(f"Row {number} has {len(line)} columns, not {len(head)}.")
    return head, [SentItem(dict(zip(head, line, strict=True))) for line in lines[1:]]


def _csv_text(head: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *rows])
    return text.getvalue().encode()
