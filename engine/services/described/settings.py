"""The tables of a description: `[service]` with `kind = "http"`, and those below it.

Every table but `[service.release]` may be left out. What goes together says `consistency`. `${env:NAME}` and
`${file:/path}` are secrets, and are expanded when the file is read; they stand where nothing is shown, and besides in
`base_url`, `task_page` and `[service.values]`, which are. Any other `${name}` is filled for each batch or each record
(`texts`). A path is dotted (`paths`); where several stand, the first that finds something counts.

The module is a long one, since it has a sentence or two for each key.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import orjson
from msgspec import Meta, field
from msgspec.structs import force_setattr, replace

from engine.model.error_hints import Pause, Refusal
from engine.model.settings import (
    Question,
    SecretStr,
    SecretText,
    SecretTree,
    Section,
    ServiceSettings,
    TokenExchange,
    WindowHeaders,
    json_of,
)
from engine.model.tables import ONE_OR_MORE
from engine.services.described import consistency
from engine.services.described.paths import Getter, compiled, text_of_value
from engine.services.described.rules import compiled_rules
from engine.services.described.texts import JsonText, Text, clear, form_of

KEY_SECONDS = 86_400.0
"""For so long most services know an idempotency key: Stripe's pages say 24 hours."""

LONGEST_TOKEN_SECONDS = 1e9
"""A number beyond it says something else."""

NOTHING = SecretTree({})
"""A free-form table that is left out. In one, references to secrets may stand inside any text, at any depth."""

ResultFormat = Literal["json", "ndjson", "csv", "ids", "count"]
Match = Literal["order", "index", "key"]
Meaning = Literal["pause", "refused", "unauthorized", "whole", "by_index", "gone", "exists", "busy", "stop"]
Scalar = str | bool | int | float

Paths = Annotated[tuple[str, ...], ONE_OR_MORE]
StatusWords = Annotated[tuple[Scalar, ...], ONE_OR_MORE]
Statuses = Annotated[tuple[int, ...], ONE_OR_MORE]
Texts = Annotated[tuple[str, ...], ONE_OR_MORE]


class ExchangeTable(Section, frozen=True, kw_only=True):
    """`[service.auth.exchange]`: a call that brings a short-lived token.

    It is kept in memory, renewed before its end and once on a 401.
    """

    call: str
    """As in `"POST /oauth/token"`; another host by its whole URL, `"POST https://login.example.com/token"`."""
    form: SecretTree = NOTHING
    """What is sent, as a form. `${secret}` is `auth.secret`."""
    json: SecretTree = NOTHING
    """What is sent, as JSON, instead of a form."""
    headers: SecretTree = NOTHING
    """Headers of this call."""
    user: SecretText = SecretText("")
    """Where the call wants Basic authentication: the user name, with `auth.secret` as the password."""
    take: str = "access_token"
    """Where the token stands in the answer."""
    expires_in: str = "expires_in"
    """Where the answer says for how many seconds the token holds."""
    seconds: Annotated[float, Meta(gt=0)] = 300.0
    """For how long it holds where the answer does not say so."""


class AuthTable(Section, frozen=True, kw_only=True):
    """`[service.auth]`: what proves who we are; it goes to the service's own host only."""

    kind: Literal["none", "header", "bearer", "basic", "query", "exchange"] = "none"
    """`header`: `name: prefix + secret`. `bearer`: `Authorization: Bearer secret`. `basic`: `user` and secret; without
    a user, the secret is the user name and there is no password. `query`: the parameter `name`. `exchange`: a token
    that the secret is exchanged for."""
    secret: SecretStr | None = None
    """The key, token or password; the long-lived one where there is an exchange."""
    name: str = ""
    """Of the header (left out: `Authorization`), or of the query parameter."""
    prefix: str | None = None
    """What stands before the secret in the header: `"Token "`. Left out: nothing; with an exchange, `"Bearer "`."""
    user: SecretText = SecretText("")
    """With `basic`."""
    exchange: ExchangeTable | None = None
    """With `exchange`."""

    @property
    def header(self) -> str:
        """The header in which a secret travels."""
        return self.name or "Authorization"


class LimitTable(Section, frozen=True, kw_only=True):
    """`[service.limit]`: what the service takes at most."""

    records: Annotated[int, Meta(ge=1)] | None = None
    """Of one batch; `batch.max_records` holds, too."""
    bytes: Annotated[int, Meta(ge=1)] | None = None
    """Of the body of one batch as it is sent, framing included; `batch.max_bytes` holds, too. A record that is longer
    alone is not sent."""
    open: Annotated[int, Meta(ge=1)] = 100
    """Batches that the service may work on at once."""
    requests_per_second: Annotated[float, Meta(gt=0)] | None = None
    """Of all calls together; `send.requests_per_second` holds, too."""


class WindowTable(Section, frozen=True, kw_only=True):
    """`[service.window]`: headers that tell how many requests are left, where they are not called `X-RateLimit-…`."""

    remaining: str
    """Header: requests that are left in this window."""
    limit: str = ""
    """Header: requests of a whole window."""
    reset: str = ""
    """Header: when the window ends, as a time or in seconds."""
    every: Annotated[float, Meta(gt=0)] | None = None
    """Seconds of a window, where no header says when it ends."""


class RecordTable(Section, frozen=True, kw_only=True):
    """`[service.record]`: what goes up for a record."""

    key: str = ""
    """A name for the record, the same in every attempt: `"${job}-${token}-${index}"`, or `"${task.id}"`."""
    add: dict[str, Any] = field(default_factory=dict)
    """Members that the task gets besides its own, which must have none of that name: `{ _id = "${key}" }`."""
    template: dict[str, Any] = field(default_factory=dict)
    """What goes up in place of the task: `{ custom_id = "${key}", body = "${task}" }`. `"${task}"` alone is the task's
    own bytes, with what `add` says; `"${task.name}"` a value of it."""
    head: dict[str, Any] = field(default_factory=dict)
    """A line before each record (NDJSON)."""


class BodyTable(Section, frozen=True, kw_only=True, rename={"with_": "with"}):
    """`[service.body]`: how records become the body of the call that carries them (`payload = true`)."""

    framing: Literal["array", "ndjson", "csv", "single", "form"] = "array"
    """`array`: a JSON array. `ndjson`: a line each. `csv`: a row each. `single`: one record as JSON, a batch each.
    `form`: one record as the fields of a form, a batch each."""
    under: str = ""
    """Path of the member of an object that holds the array, or the single record: `"inputs"`."""
    with_: SecretTree = NOTHING
    """The other members of that object."""
    type: str = ""
    """Content-Type, where it is not the usual one of the framing."""
    part: str = ""
    """Send `multipart/form-data`, and the records in the part of this name, as a file."""
    file: str = ""
    """Name of that file; left out, `batch.json`, `.ndjson` or `.csv`."""
    fields: SecretTree = NOTHING
    """The other parts of `multipart/form-data`, which stand before it."""
    columns: tuple[str, ...] = ()
    """Of CSV, in this order. Left out: the members of the template, or of the batch's records as they come."""
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    """Of CSV."""
    line_ending: Literal["lf", "crlf"] = "lf"
    """Of CSV."""


class StepTable(Section, frozen=True, kw_only=True):
    """A call: `[service.stage]`, `upload`, `cancel`, `look`, and part of every other step."""

    call: str
    """As in `"POST /jobs/${id}/start"`, from `base_url` on; or a whole URL, or one that a step took: `"PUT
    ${upload_url}"`."""
    query: SecretTree = NOTHING
    """Parameters of the URL."""
    headers: SecretTree = NOTHING
    """Headers besides those of `auth`."""
    json: SecretTree | None = None
    """The body, as JSON."""
    form: SecretTree = NOTHING
    """The body, as a form."""
    payload: bool = False
    """It carries the records: its body is what `[service.body]` says. One of stage, upload and release does."""
    take: dict[str, str] = field(default_factory=dict)
    """Name → path of a value in the answer, for the steps that follow; a `?` at the end: it may be missing. `id` is the
    batch's name at the service, and is all that is kept over a restart. `header.Location` is a header. An empty
    path is the whole answer, also where it is a text."""
    without_credentials: bool = False
    """Do not say who we are: for a presigned URL at a host of `uploads_to`."""


class ReleaseTable(StepTable, frozen=True, kw_only=True):
    """`[service.release]`: the call that has the service create the records of a batch."""

    again: Literal["safe", "key", "exists", "ask", "search", "never"] = "never"
    """What makes it safe after a lost answer. `safe`: it is an upsert, and is repeated. `key`: it carries an
    idempotency key, and is repeated while the service knows that. `exists`: the records' keys are unique there, and it
    is repeated; what exists then counts as created only if an earlier attempt may have arrived. `ask`:
    `[service.status]` tells whether it was released. `search`: `[service.search]` finds what it made. `never`: the
    batch is uncertain."""
    key_header: str = ""
    """With `key`: the header that carries the key, `${mark}`. A key may stand in `query` or `json`, too, as
    `${mark}`."""
    key_seconds: Annotated[float, Meta(gt=0)] = KEY_SECONDS
    """With `key`: for how long the service knows a key."""
    settle_seconds: Annotated[float, Meta(gt=0)] | None = None
    """Longest time from a call until everything that the service shows has its effect; `send.settle_seconds` stands
    above it. Left out: 120."""


class StatusTable(StepTable, frozen=True, kw_only=True):
    """`[service.status]`: asks how far a batch is."""

    state: str
    """Path of the word for where it stands."""
    waiting: StatusWords = ()
    """Words: it was not released."""
    running: StatusWords = ()
    """Words: it is under way. So is every other word; with a list here, one that is in none is said, once."""
    finished: StatusWords = ()
    """Words: it has ended, and its results can be read."""
    failed: StatusWords = ()
    """Words: it has ended as a whole; what the results do not name was not created."""
    created: str = ""
    """Path of how many were created so far, for the display."""
    error: Paths = ()
    """Paths of why the whole failed."""


class PagesTable(Section, frozen=True, kw_only=True):
    """`pages`: how the next page of a list is asked for: one of `next`, `next_header`, `page`, `offset`, a cursor."""

    next: str = ""
    """Path of the next page's URL, or of a path from `base_url` on; none there: that was the last one."""
    next_header: str = ""
    """Header with `<URL>; rel="next"`: `"Link"`."""
    page: str = ""
    """Query parameter for the number of the page."""
    first_page: Annotated[int, Meta(ge=0)] = 1
    """Number of the first one."""
    offset: str = ""
    """Query parameter for how many items were read before."""
    size: Annotated[int, Meta(ge=1)] | None = None
    """Items of a full page: a shorter one is the last. Left out: an empty one is."""
    cursor: str = ""
    """Path of what the next page is asked for with, in the answer."""
    cursor_header: str = ""
    """Header of the answer that has it, instead."""
    cursor_query: str = ""
    """Query parameter that it goes into."""
    more: str = ""
    """Path of what says whether there is another page: true or false."""
    stop_status: Statuses = ()
    """Status of the answer behind the last page, where that is not a 200."""


class SearchTable(StepTable, frozen=True, kw_only=True):
    """`[service.search]`: finds what a release made whose answer was lost."""

    finds: Literal["batch", "records"] | None = None
    """What it lists: batches, or the records themselves. Left out: batches, where there is a `[service.status]`."""
    mark: str = ""
    """Member that every task gets, with `${mark}`, by which it is found: `"bulksubmit"`, or `"data.bulksubmit"`. It may
    stand in `record.template` or in the release, too, as `${mark}`."""
    items: str = ""
    """Path of the list in the answer; left out, the answer is the list."""
    id: Paths = ("id",)
    """Paths of the name of what was found: of the batch, or of the task. With `results.id = []` records are called by
    their keys here, too."""
    key: str = ""
    """Of records: path of their key; that of `results` where left out."""
    index: str = ""
    """Of records: path of their place, likewise."""
    where: dict[str, Any] = field(default_factory=dict)
    """Path → value that what was found must have, where the service does not filter by it. `${…}` may stand in it."""
    by_results: bool = False
    """Of batches that carry nothing of ours: one is ours if its results name a key of ours. They are read once it has
    ended; as long as one has not that may be ours, nothing is concluded."""
    stop_before: str = ""
    """Path of the time at which it was made: the newest come first, and one older than the release ends the search."""
    pages: PagesTable | None = None
    """How further pages are asked for."""


class FailuresTable(Section, frozen=True, kw_only=True):
    """`[service.results.failures]`: a second list, of the records that failed."""

    items: str
    """Path of the list."""
    key: str = ""
    """Path of the record's key in an item; there may be a list of them."""
    index: str = ""
    """Path of the record's place in the batch, or of a list of them. Left out beside a list by index: the items are
    those of an object, place → item."""
    error: Paths = ("message", "error")
    """Paths of why it failed."""
    exists: dict[str, Any] = field(default_factory=dict)
    """Path → value, or values: it is there already."""
    id: Paths = ()
    """Paths of the task's id in an item for which `exists` holds."""
    busy: dict[str, Any] = field(default_factory=dict)
    """Path → value, or values: it was not done, and goes again later."""


class FetchTable(StepTable, frozen=True, kw_only=True):
    """`[[service.results.fetch]]`: a call that brings results; what stands here stands above `[service.results]`.

    One that needs what `status` took as optional, and did not find, is left out.
    """

    format: ResultFormat | None = None
    """As in `[service.results]`, and so are the others."""
    items: str | None = None
    """Path of the list."""
    match: Match | None = None
    """How an item is matched with its record."""
    key: str | None = None
    """Path of the key in an item."""
    index: str | None = None
    """Path of the place in an item."""
    id: Paths | None = None
    """Paths of the task's id."""
    ok: dict[str, Any] | None = None
    """Path → value, or values, of an item that is created."""
    error: Paths | None = None
    """Paths of why a record failed; `"=not processed"` says so of all items."""
    exists: dict[str, Any] | None = None
    """Path → value, or values: it is there already."""
    busy: dict[str, Any] | None = None
    """Path → value, or values: it goes again later."""
    pages: PagesTable | None = None
    """How further pages are asked for."""


class ResultsTable(Section, frozen=True, kw_only=True):
    """`[service.results]`: what became of each record."""

    of: Literal["release", "status", "fetch"] = "release"
    """Where they stand: in the answer to the release, in the last status, or in what `[[service.results.fetch]]`
    brings."""
    format: ResultFormat = "json"
    """`json`, `ndjson` and `csv`: items. `ids`: a list of ids, one for each record. `count`: a number, and nothing of a
    record; then a batch was created whole, or is uncertain."""
    items: str = ""
    """Path of the list of items, or of the number; left out, the answer is the list."""
    single: bool | None = None
    """What stands there is no list but the one item itself, as of a call that carries one record. Left out: so it is
    where `body.framing` is `single` or `form`, unless a list stands there."""
    match: Match = "order"
    """How an item is matched with its record. `order`: they come as the records went. `index`: the item says at which
    place of the batch its record was. `key`: it carries `record.key`."""
    key: str = ""
    """Path of the key in an item."""
    index: str = ""
    """Path of the place in an item; left out, the items are those of an object, place → item."""
    first_index: int = 0
    """Place of the first record of a batch: 0, or 1 where the service counts so."""
    id: Paths = ("id",)
    """Paths of the task's id in an item. An empty list: the record's key is its id; so it is where `key` is one of
    these paths."""
    ok: dict[str, Any] = field(default_factory=dict)
    """Path → value, or values: only an item with all of them is created; `"*"` is any value. Left out: one without an
    error is."""
    error: Paths = ("error.message", "error")
    """Paths of why a record failed; the first that says something."""
    exists: dict[str, Any] = field(default_factory=dict)
    """Path → value, or values: the record is there already."""
    busy: dict[str, Any] = field(default_factory=dict)
    """Path → value, or values: it was not done, and goes again later."""
    missing: str = "error"
    """A record that no item is about. `error`: the answer makes no sense, and the batch stays in doubt. `created`: it
    was created. Any other text: it failed, and this is why."""
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    """Of CSV."""
    pages: PagesTable | None = None
    """How further pages are asked for; with `fetch`."""
    failures: FailuresTable | None = None
    """A second list."""
    fetch: tuple[FetchTable, ...] = ()
    """The calls that bring results, in this order."""


class RuleTable(Section, frozen=True, kw_only=True):
    """`[[service.rules]]`: what an answer means beyond its status; the first that fits counts."""

    status: Statuses = ()
    """Of the answer, 2xx, too. Left out: every one that is no success."""
    path: str = ""
    """Where in the body it is told; left out, and with `contains`, anywhere in it, also where it is a text."""
    equals: StatusWords = ()
    """One of these stands there. With neither `equals` nor `contains`, anything does."""
    contains: Texts = ()
    """One of these is part of what stands there; in any case of letters."""
    means: Meaning
    """`pause`: nothing was done; nobody calls for `seconds`. `busy`: likewise, for this call alone. `refused`: these
    records fail. `unauthorized`: the credentials do not hold. `whole`: nothing was done, and nobody says which record
    is at fault: the batch is halved. `by_index`: nothing was done, and `at` says which are at fault: the others go
    again at once. `gone`: there is no such batch. `exists`: the one record is there already, or those that `at` names
    are. `stop`: a person must mend something; no record fails."""
    seconds: Annotated[float, Meta(gt=0)] = 30.0
    """Of a pause."""
    at: str = ""
    """With `by_index`, or `exists`: path of an object, place → error, or of a list of errors. Where an answer names no
    record there, the rule does not fit."""
    index: str = ""
    """With `by_index`: path of the place in an error of that list; left out, the error's own place in the list."""
    id: Paths = ()
    """With `exists`, and without `at`: paths of the id of the task that is there already."""
    first_index: int = 0
    """With `by_index`: place of the first record of a batch."""
    error: Paths = ()
    """Paths of the words that people should read; with `by_index`, in each error. Left out: `message`, `error` and the
    like. Of an answer that is a text: the text."""


_SKELETON = """\
What else [service] can say: docs/describing.md tells how an API's page is read for it, and explains every key.

In [service.release]: what makes it safe after a lost answer. again = "never" leaves its records uncertain.
  again = "safe"     it is an upsert: the same records again change nothing
  again = "key"      with key_header = "Idempotency-Key"
  again = "exists"   with a key of ours in each record, unique there, and exists in [service.results]
  again = "ask"      with [service.stage] and [service.status]
  again = "search"   with [service.search]

In [service.results]: what an item of the answer says of its record.
  match = "key"                           # order, index or key: how an item is matched with its record
  key = "key"
  ok = { status = [200, 201] }            # left out: an item without an error is created
  error = ["error.message", "message"]
  exists = { "error.code" = "duplicate" }
  busy = { status = 429 }

Tables of their own: take the # away where it is true of your API.
[service.record]
key = "${job}-${token}-${index}"          # a name for each record, the same in every attempt; or "${task.id}"
template = { key = "${key}", data = "${task}" }

[service.stage]                           # a harmless first call; then release carries no records, but upload does
call = "POST /jobs"
take = { id = "id" }
[service.upload]
call = "PUT /jobs/${id}"
payload = true
[service.status]                          # asks how far a batch is, by ${id}
call = "GET /jobs/${id}"
state = "status"
waiting = ["open"]
finished = ["done"]
[service.cancel]
call = "DELETE /jobs/${id}"

[[service.rules]]                         # what an answer means beyond its status
status = [400]
means = "whole"
"""


class DescribedSettings(ServiceSettings, frozen=True, kw_only=True, rename={"window_table": "window"}):
    """`[service]` with `kind = "http"`."""

    MENDABLE: ClassVar[frozenset[str]] = frozenset(
        {
            *("base_url", "name", "task_page", "uploads_to", "auth", "limit", "window"),
            *("status", "cancel", "look", "results", "rules"),
        }
    )
    """What records become (record, body) and how they get there (stage, upload, release, search) is not among them. How
    an answer is read is: who finds a mistake in it goes on with the same job."""
    MENDABLE_UNSENT: ClassVar[frozenset[str]] = frozenset({"stage", "upload", "release", "values"})
    PLAIN_REFERENCES: ClassVar[frozenset[str] | None] = frozenset({"base_url", "task_page", "values"})
    SECRETS_STAND: ClassVar[str] = (
        "auth.secret, auth.user, auth.exchange, headers, query, json, form, body.fields and body.with; "
        "what differs from place to place may stand in [service.values], and is shown"
    )
    RULES_ON_SUCCESS: ClassVar[bool] = True
    """`error_hint` is asked about answers with 2xx, too."""

    QUESTIONS: ClassVar[Sequence[Question]] = (
        Question("base_url", "Address of the API, as in https://api.example.com/v1"),
        Question("auth.kind", "How the key travels: bearer, header, basic, query or none", "bearer"),
        Question(
            "auth.name",
            "Header or parameter that holds it, where it is not Authorization",
            needed=False,
            where={"auth.kind": ("header", "query")},
        ),
        Question(
            "auth.user",
            "User name, where the key is its password and not the user name itself",
            needed=False,
            where={"auth.kind": ("basic",)},
        ),
        Question(
            "auth.secret",
            "Variable of the environment that holds the key or token",
            "API_TOKEN",
            where={"auth.kind": ("bearer", "header", "basic", "query")},
        ),
        Question("release.call", "Call that creates records, as in POST /tasks", "POST /tasks"),
        Question(
            "release.again",
            "What makes a repeat safe: safe (an upsert), key (an idempotency key); never, if neither or in doubt",
            "never",
        ),
        Question(
            "release.key_header",
            "Header that carries the idempotency key",
            "Idempotency-Key",
            where={"release.again": ("key",)},
        ),
        Question("body.framing", "How records stand in its body: array, ndjson, csv, single or form", "array"),
        Question(
            "body.under",
            "Member of the body that holds the array, if it is not the whole body",
            needed=False,
            where={"body.framing": ("array", "single")},
        ),
        Question(
            "limit.records", "Most records in one call", "100", where={"body.framing": ("array", "ndjson", "csv")}
        ),
        Question("results.items", "Member of the answer that lists what was created, if not the whole", needed=False),
        Question("results.id", "Member of each one there that is its id", "id"),
    )
    UNASKED: ClassVar[Mapping[str, Any]] = {"release.payload": True}

    NOTES: ClassVar[Sequence[str]] = tuple(_SKELETON.splitlines())

    kind: Literal["http"]
    """A service by its description."""
    name: str = ""
    """What the service is called; of a description that is shipped, its name."""
    base_url: str
    """Where its API is. Plain http only towards this machine. A path that begins with `/` goes on from here. What
    `${env:NAME}` fills in is shown."""
    task_page: str = ""
    """URL that people open to see a task, with `${id}`: a whole one, or a path from `base_url` on. Left out, the id
    below `base_url`. What `${env:NAME}` fills in is shown."""
    headers: SecretTree = NOTHING
    """Headers of every call to the service: `{ api-version = "2023-06-01" }`. Those of a step stand above them."""
    uploads_to: Texts = ()
    """Hosts besides the service's own that a step without credentials may call: `"*.amazonaws.com"`."""
    values: dict[str, str] = field(default_factory=dict)
    """Names of your own for `${…}`: `{ project = "7" }`. One that is empty must be filled in. They are shown, and
    so is what `${env:NAME}` fills in here: no secret belongs here."""
    auth: AuthTable = AuthTable()
    """What proves who we are."""
    limit: LimitTable = LimitTable()
    """What the service takes at most."""
    window_table: WindowTable | None = None
    """Headers that tell how many requests are left."""
    record: RecordTable = RecordTable()
    """What goes up for a record."""
    body: BodyTable = BodyTable()
    """How records become a body."""
    stage: StepTable | None = None
    """Harmless, and may be repeated: what it leaves does nothing."""
    upload: StepTable | None = None
    """Likewise: brings the records to what was staged."""
    release: ReleaseTable
    """The call that has the records created."""
    status: StatusTable | None = None
    """Asks how far a batch is."""
    cancel: StepTable | None = None
    """Has the service create nothing more of a batch."""
    search: SearchTable | None = None
    """Finds what a lost release made."""
    look: StepTable | None = None
    """A cheap call without a record, by which `check` and a run see that the service answers. Left out: a GET of
    `base_url`, whose answer may be anything."""
    results: ResultsTable = ResultsTable()
    """What became of each record."""
    rules: tuple[RuleTable, ...] = ()
    """What answers mean beyond their status."""

    def __post_init__(self) -> None:
        consistency.check(self)
        if self.results.single is None:
            single = self.body.framing in {"single", "form"}
            force_setattr(self, "results", replace(self.results, single=single))

    @property
    def title(self) -> str:
        """What people call the service."""
        return self.name or self.kind

    @property
    def place(self) -> str:
        """Tasks go where the first step says, with the values that the user has named."""
        path = (self.stage or self.release).call.partition(" ")[2]
        beside = []
        for name, value in self.values.items():
            if f"${{{name}}}" not in path:
                beside.append(f"{name}={value}")
            path = path.replace(f"${{{name}}}", value)
        return " ".join([path, *beside])

    @property
    def needs_token(self) -> bool:
        """Whether a text of the description names `${token}` or `${mark}`, or a header carries the mark.

        The token is random and the same for the whole life of a job, so it is made before anything is frozen and
        remembered as `Job.learnt`: that is what `Referencing.learn` is for. A service whose description needs a token
        therefore has a `referencing`, whatever its `again` is: `learn` makes `body.TOKEN_BYTES` hexadecimal digits
        without a call, and returns them. `reference` is None for every batch: what marks records is put in by `body`,
        when a batch is sent, and is no part of its sha256; so processes that plan need no token. `locate` is asked only
        where `again` is SEARCH.
        """
        return consistency.needs_token(self)

    @property
    def most_requests_per_second(self) -> float | None:
        """What the service allows."""
        return self.limit.requests_per_second

    def bearing_on_speed(self) -> Mapping[str, Any]:
        """Return how many calls a batch takes, and how large it may be."""
        steps = ("stage", "upload", "release", "status")
        calls = [name for name in steps if getattr(self, name) is not None]
        return {"service": self.title, "steps": calls, "records": self.limit.records, "bytes": self.limit.bytes}

    def speaks(self, body: bytes) -> bool:
        """Return whether a refusal is worded as services word theirs: as an object or a list."""
        return isinstance(json_of(body), dict | list)

    def secret_headers(self) -> Mapping[str, SecretStr]:
        """Return the header in which the secret travels; a token that is exchanged is not known here."""
        auth = self.auth
        if auth.secret is None:
            return {}
        secret = auth.secret.get_secret_value()
        match auth.kind:
            case "header":
                return {auth.header: SecretStr(f"{auth.prefix or ''}{secret}")}
            case "bearer":
                return {"Authorization": SecretStr(f"Bearer {secret}")}
            case "basic":
                user = auth.user.get_secret_value()
                return {"Authorization": SecretStr(basic(user or secret, secret if user else ""))}
        return {}

    def secret_query(self) -> Mapping[str, SecretStr]:
        """Return the query parameter in which the secret travels."""
        if self.auth.kind != "query" or self.auth.secret is None:
            return {}
        return {self.auth.name: self.auth.secret}

    def other_secrets(self) -> Sequence[SecretStr]:
        """Return the secret itself, of which a header may hold another form."""
        return () if self.auth.secret is None else (self.auth.secret,)

    def exchange(self) -> TokenExchange | None:
        """Return how a short-lived token is got for the secret."""
        table, secret = self.auth.exchange, self.auth.secret
        if table is None or secret is None:
            return None
        known = {"secret": secret.get_secret_value(), **self.values}
        method, _, target = Text(table.call, "auth.exchange.call").fill(self.values).partition(" ")
        given = {name: text_of_value(one) for name, one in _filled(table.headers, known).items()}
        body: bytes | None = None
        headers = {}
        if form := _filled(table.form, known):
            body, headers = form_of(form), {"Content-Type": "application/x-www-form-urlencoded"}
        elif json := _filled(table.json, known):
            body, headers = orjson.dumps(json), {"Content-Type": "application/json"}
        if user := table.user.get_secret_value():
            given["Authorization"] = basic(Text(user).fill(known), secret.get_secret_value())
        return TokenExchange(
            url=target if "://" in target else f"{self.base_url.rstrip('/')}{target}",
            method=method,
            headers={"Accept": "application/json", **headers},
            secret_headers={name: SecretStr(text) for name, text in given.items()},
            body=None if body is None else SecretStr(body.decode()),
            secrets=(secret,),
            take=partial(_token_in, compiled(table.take), compiled(table.expires_in)),
            header=self._token_header,
            seconds=table.seconds,
        )

    def _token_header(self, token: str) -> Mapping[str, str]:
        prefix = "Bearer " if self.auth.prefix is None else self.auth.prefix
        return {self.auth.header: f"{prefix}{token}"}

    def window(self) -> WindowHeaders | None:
        """Return the headers of the service's window."""
        table = self.window_table
        if table is None:
            return None
        return WindowHeaders(table.remaining, table.limit, table.reset, table.every or 0.0)

    def error_hint(self, status: int, body: bytes) -> Pause | Refusal | None:
        """Return what the first rule that fits says."""
        return compiled_rules(self.rules)(status, body)

    def allowed_upload_hosts(self) -> Sequence[str]:
        """Return the hosts that steps without credentials may call."""
        return self.uploads_to


def basic(user: str, password: str) -> str:
    """Return the value of an `Authorization` header for Basic authentication (RFC 7617)."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _filled(tree: SecretTree, known: Mapping[str, str]) -> Any:
    return JsonText(clear(tree), "auth.exchange").fill(known)


def _token_in(take: Getter, expires_in: Getter, body: bytes) -> tuple[str, float | None]:
    """Return the token in an answer, and for how many seconds it holds, if that is said.

    Raises:
        ValueError: there is none.
    """
    value = orjson.loads(body)
    token, seconds = take(value), expires_in(value)
    if not isinstance(token, str) or not token:
        raise ValueError("the answer has no token at auth.exchange.take")
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdecimal():
        seconds = float(seconds)
    is_number = type(seconds) in {int, float} and 0 < seconds < LONGEST_TOKEN_SECONDS
    return token, float(seconds) if is_number else None
