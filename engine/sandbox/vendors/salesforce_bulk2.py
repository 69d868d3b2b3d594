"""Salesforce's Bulk API 2.0, ingest: open a job, PUT its CSV, close it, poll it, fetch three CSVs of results.

Written from: developer.salesforce.com, "Bulk API 2.0": Create a Job, Upload Job Data (201; 150 MB as base64, so 100 MB
as they are sent), Upload Complete, Abort a Job, Job States, Get Job Successful / Failed / Unprocessed Record Results
(the order is not that of the CSV), Errors, Limits (10,000 records a chunk); "OAuth 2.0 Client Credentials Flow"; the
shapes of errors (`[{"errorCode", "message"}]`, 403 with REQUEST_LIMIT_EXCEEDED) and of job infos in
simple-salesforce/simple-salesforce, jsforce/jsforce and amp-labs/connectors#42.

Guesses: a second PUT to one job is refused (the pages do not say; a switch), and with which words; which of two rows
with one external id fail (here all but the first); the time for which a token holds; the words of most item errors.

simple-salesforce 1.12.10 upserts into it, and reads its results.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from msgspec import Struct, field

from engine.model.settings import Section
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import Journal
from engine.sandbox.messages import SandboxAnswer, SandboxRequest, WrongInput, json_answer
from engine.sandbox.traffic import CallKinds
from engine.sandbox.vendors.standin import VendorService, bearer, refuse

CALLS = CallKinds(
    frozenset({"token", "create", "upload", "change", "get", "results", "versions"}), deferrable=frozenset({"change"})
)
MOST_CSV_BYTES = 100 * 1000 * 1000  # what becomes 150 MB of base64, as the vendor counts
_CODES = {400: "INVALIDJOB", 401: "INVALID_SESSION_ID", 403: "REQUEST_LIMIT_EXCEEDED", 404: "NOT_FOUND"}
_CODES |= {413: "REQUEST_BODY_TOO_LARGE", 429: "REQUEST_LIMIT_EXCEEDED", 503: "SERVER_UNAVAILABLE"}
_SESSION_SECONDS = 2 * 3600


class SalesforceSwitches(Section, frozen=True):
    """What is there, and how it behaves; times are seconds.

    client_id             with the access key as its secret, it gets tokens
    required, fields      of the object: a row without a required value fails, a column that is no field fails the job
    emails                fields that must look like an address
    queue_seconds         from the closing of a job until it begins
    row_seconds           for each row
    session_seconds       for which a token holds
    session_calls         calls for which a token holds, beside its time; 0: any number
    fail_after            a job fails when it has so many rows; the rest is not processed. 0: none does
    upload_again          whether a second PUT to a job takes the place of the first
    """

    client_id: str = "client"
    required: tuple[str, ...] = ("LastName",)
    fields: tuple[str, ...] = ("LastName", "FirstName", "Email", "Bulksubmit_Key__c")
    emails: tuple[str, ...] = ("Email",)
    queue_seconds: float = 0.0
    row_seconds: float = 0.0
    session_seconds: float = _SESSION_SECONDS
    session_calls: int = 0
    fail_after: int = 0
    upload_again: bool = False


class SalesforceJob(Struct):
    """An ingest job: `rows` of its CSV, `done` of them processed, each in `created` or `failed`."""

    id: str
    info: dict[str, Any]
    created_at: float
    state: str = "Open"
    columns: Sequence[str] = ()
    rows: list[dict[str, str]] = field(default_factory=list)
    uploaded: bool = False
    closed_at: float | None = None
    done: int = 0
    created: list[list[str]] = field(default_factory=list)
    failed: list[list[str]] = field(default_factory=list)
    message: str | None = None


class SalesforceStandIn(VendorService):
    """Serves tokens and ingest jobs. `contacts` has each record by its external id."""

    name = "Salesforce"

    def __init__(
        self,
        behaviour: Behaviour,
        journal: Journal,
        clock: Callable[[], float],
        switches: SalesforceSwitches = SalesforceSwitches(),  # noqa: B008 - a value
    ) -> None:
        """Raise BehaviourError for what cannot be served."""
        version = r"/services/data/v{version:[0-9.]+}"
        jobs = version + "/jobs/ingest"
        rows = [
            ("POST", "/services/oauth2/token", "token", self._token),
            ("GET", "/services/data", "versions", lambda _: json_answer([{"version": "62.0"}])),
            ("GET", version + "/limits", "versions", lambda _: json_answer({"DailyApiRequests": {"Max": 15000}})),
            ("POST", jobs, "create", self._create),
            ("PUT", jobs + "/{id}/batches", "upload", self._upload),
            ("PATCH", jobs + "/{id}", "change", self._change),
            ("GET", jobs + "/{id}", "get", self._get),
            ("GET", jobs + "/{id}/successfulResults", "results", self._successful),
            ("GET", jobs + "/{id}/failedResults", "results", self._failed),
            ("GET", jobs + "/{id}/unprocessedrecords", "results", self._unprocessed),
        ]
        super().__init__(behaviour, journal, clock, CALLS, rows)
        self._switches = switches
        self.jobs: dict[str, SalesforceJob] = {}
        self.contacts: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, tuple[float, int]] = {}

    def error(self, kind: str, status: int, message: str) -> SandboxAnswer:
        """Word an error as `[{"errorCode", "message"}]`, and one of OAuth as `{"error", "error_description"}`."""
        if kind == "token":
            return json_answer({"error": "invalid_request", "error_description": message}, status)
        return json_answer([{"errorCode": _CODES.get(status, "UNKNOWN_EXCEPTION"), "message": message}], status)

    def refused(self, request: SandboxRequest) -> SandboxAnswer | None:
        """Take a token that was given out, as long as it holds."""
        if request.url.path == "/services/oauth2/token":
            return None
        token = bearer(request)
        ends_at, calls = self.tokens.get(token, (0.0, 0))
        if self.clock() >= ends_at or 0 < self._switches.session_calls <= calls:
            return self.error("", 401, "Session expired or invalid")
        self.tokens[token] = (ends_at, calls + 1)
        return None

    def catch_up(self) -> None:
        """Process the rows whose time has come."""
        for job in self.jobs.values():
            if job.state in ("UploadComplete", "InProgress"):
                self._go_on(job)

    def _token(self, request: SandboxRequest) -> SandboxAnswer:
        form = {key: values[0] for key, values in parse_qs((request.body or b"").decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return json_answer(
                {"error": "unsupported_grant_type", "error_description": "grant type not supported"}, 400
            )
        if (
            form.get("client_id") != self._switches.client_id
            or form.get("client_secret") not in self.behaviour.access_keys
        ):
            return json_answer({"error": "invalid_client", "error_description": "invalid client credentials"}, 401)
        token = f"00Dsandbox!{self.number():08x}"
        self.tokens[token] = (self.clock() + self._switches.session_seconds, 0)
        place = str(request.url.origin())
        named = {"access_token": token, "instance_url": place, "api_instance_url": place, "token_type": "Bearer"}
        return json_answer(
            {**named, "id": f"{place}/id/0/1", "issued_at": str(int(self.clock() * 1000)), "scope": "api"}
        )

    def _create(self, request: SandboxRequest) -> SandboxAnswer:
        body = request.json_object()
        if body.get("operation") not in ("insert", "upsert") or "object" not in body:
            raise WrongInput("operation and object are required")
        if body["operation"] == "upsert" and "externalIdFieldName" not in body:
            raise WrongInput("InvalidJob : External ID was blank for upsert")
        job = SalesforceJob(f"750{self.number():012d}AAA", body, self.clock())
        self.jobs[job.id] = job
        return json_answer(
            {**self._shown(job, "Open"), "contentUrl": f"services/data/v62.0/jobs/ingest/{job.id}/batches"}
        )

    def _upload(self, request: SandboxRequest) -> SandboxAnswer:
        job = self._found(request)
        if job.state != "Open" or (job.uploaded and not self._switches.upload_again):
            raise _wrong_state(job)
        if len(request.body or b"") > MOST_CSV_BYTES:
            return self.error("", 413, "The job's data is too large.")
        if not request.headers.get("Content-Type", "").startswith("text/csv"):
            return self.error("", 415, "Content-Type must be text/csv")
        reader = csv.DictReader(io.StringIO((request.body or b"").decode(), newline=""))
        job.rows, job.columns, job.uploaded = list(reader), reader.fieldnames or (), True
        return SandboxAnswer(201)

    def _change(self, request: SandboxRequest) -> SandboxAnswer:
        job, state = self._found(request), request.json_object().get("state")
        if state == "Aborted":
            return self._abort(job)
        if state != "UploadComplete" or job.state != "Open" or job.closed_at is not None:
            raise _wrong_state(job)
        self.traffic.agenda.do(job.id, partial(self._close, job))
        return json_answer(self._shown(job, "UploadComplete"))

    def _abort(self, job: SalesforceJob) -> SandboxAnswer:
        if job.state not in ("Open", "UploadComplete", "InProgress"):
            raise _wrong_state(job)
        job.state = "Aborted"
        return json_answer(self._shown(job, job.state))

    def _close(self, job: SalesforceJob, at: float) -> None:
        if job.state != "Open":
            return
        self.traffic.stats.batches += 1
        job.state, job.closed_at = "UploadComplete", at
        self._go_on(job)

    def _go_on(self, job: SalesforceJob) -> None:
        begun, each = (job.closed_at or 0.0) + self._switches.queue_seconds, self._switches.row_seconds
        if self.clock() < begun:
            return
        job.state = "InProgress"
        if wrong := [name for name in job.columns if name not in self._switches.fields]:
            self._fail(job, f"InvalidBatch : Field name not found : {wrong[0]}")
            return
        due = len(job.rows) if not each else int((self.clock() - begun) / each)
        while job.done < min(due, len(job.rows)):
            if 0 < self._switches.fail_after <= job.done:
                self._fail(job, "InternalServerError : the job failed to be processed after 10 retries")
                return
            self._process(job, job.rows[job.done])
            job.done += 1
        if job.done == len(job.rows):
            job.state = "JobComplete"

    def _fail(self, job: SalesforceJob, message: str) -> None:
        job.state, job.message = "Failed", message

    def _process(self, job: SalesforceJob, row: Mapping[str, str]) -> None:
        values = [row.get(name) or "" for name in job.columns]
        key_field = job.info.get("externalIdFieldName", "")
        wrong = self._misfit(job, row, key_field)
        if wrong is not None:
            self.traffic.stats.tasks_failed += 1
            job.failed.append(["", wrong, *values])
            return
        key = row.get(key_field) or f"insert-{self.number()}"
        is_new = key not in self.contacts
        record_id = self.contacts[key]["Id"] if not is_new else f"003{self.number():012d}AAA"
        self.contacts[key] = {**row, "Id": record_id}
        job.created.append([record_id, "true" if is_new else "false", *values])
        self.write(row, job.id, record_id, job.done, "task" if is_new else "run")

    def _misfit(self, job: SalesforceJob, row: Mapping[str, str], key_field: str) -> str | None:
        if (failure := self.failure(row)) is not None:
            return f"{failure[0]}:{failure[1]}:--"
        if missing := [name for name in self._switches.required if not row.get(name)]:
            return f"REQUIRED_FIELD_MISSING:Required fields are missing: [{missing[0]}]:{missing[0]} --"
        if wrong := [name for name in self._switches.emails if row.get(name) and "@" not in row[name]]:
            return f"INVALID_EMAIL_ADDRESS:{wrong[0]}: invalid email address: {row[wrong[0]]}:{wrong[0]} --"
        if key_field and not row.get(key_field):
            return f"MISSING_ARGUMENT:{key_field} not specified:--"
        if key_field and any(one[key_field] == row[key_field] for one in job.rows[: job.done]):
            return f"DUPLICATE_VALUE:Duplicate external id specified: {row[key_field]}:{key_field} --"
        return None

    def _get(self, request: SandboxRequest) -> SandboxAnswer:
        job = self._found(request)
        lag = self.behaviour.reads.status_seconds
        state = "Open" if job.closed_at is not None and self.clock() < job.closed_at + lag else job.state
        return json_answer(self._shown(job, state))

    def _successful(self, request: SandboxRequest) -> SandboxAnswer:
        job = self._ended(request)
        return _csv(["sf__Id", "sf__Created", *job.columns], job.created[::-1])

    def _failed(self, request: SandboxRequest) -> SandboxAnswer:
        job = self._ended(request)
        return _csv(["sf__Id", "sf__Error", *job.columns], job.failed[::-1])

    def _unprocessed(self, request: SandboxRequest) -> SandboxAnswer:
        job = self._ended(request)
        return _csv(list(job.columns), [[row[name] for name in job.columns] for row in job.rows[job.done :]])

    def _ended(self, request: SandboxRequest) -> SalesforceJob:
        job = self._found(request)
        if job.state not in ("JobComplete", "Failed", "Aborted"):
            raise _wrong_state(job)
        return job

    def _found(self, request: SandboxRequest) -> SalesforceJob:
        name = request.params["id"]
        if name not in self.jobs:
            raise refuse(self.error("", 404, "The requested resource does not exist"))
        return self.jobs[name]

    def _shown(self, job: SalesforceJob, state: str) -> dict[str, Any]:
        keys = ("object", "operation", "externalIdFieldName", "contentType", "lineEnding")
        told = {"state": state, "apiVersion": 62.0, "jobType": "V2Ingest", "columnDelimiter": "COMMA"}
        counts = {"numberRecordsProcessed": len(job.created) + len(job.failed), "numberRecordsFailed": len(job.failed)}
        words = {"errorMessage": job.message} if job.message else {}
        return {"id": job.id, **{key: job.info[key] for key in keys if key in job.info}, **told, **counts, **words}


def _wrong_state(job: SalesforceJob) -> Exception:
    words = f"Operation is not allowed for job {job.id} in state {job.state}"
    return refuse(json_answer([{"errorCode": "INVALIDJOBSTATE", "message": words}], 400))


def _csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> SandboxAnswer:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([columns, *rows])
    return SandboxAnswer(200, text.getvalue().encode(), {"Content-Type": "text/csv"})
