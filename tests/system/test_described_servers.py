"""Described services against real servers: records of ten bad kinds among good ones, and the engine killed five times.

What was created is counted by the servers' own queries: each good record is there once, and no bad one. Each bad one
has its reason in `outcomes.ndjson`, no record is uncertain, and the audit finds nothing.

BULKSUBMIT_SERVER_RECORDS=20000 is the long form.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .servers import PASSWORD, USER, Server, couchdb, datasette, kinto, pocketbase

pytestmark = pytest.mark.slow

RECORDS = int(os.environ.get("BULKSUBMIT_SERVER_RECORDS", "2000"))
KILLS = 5
MOST_KILLS = 20
"""Where none of the first came between a record and the answer about it, as it happens on a fast machine."""
STOPPED_SECONDS = 5
"""Longest that a server takes for what it was asked last."""
EVERY = 25
"""Of so many records one is bad, of each kind in turn."""
SECONDS = 600
"""Longest that one life of the engine may take."""
LONG = "x" * 41
"""Longer than a title may be."""
BROKEN = "no JSON"
SUBMIT = ("submit", "tasks.ndjson", "--config", "load.toml", "--job", "load")
RESUME = ("resume", "load")


@dataclass(frozen=True)
class Kind:
    """One kind of bad record."""

    reason: str
    """What the reason must hold."""
    flaw: Mapping[str, Any] | None = None
    """What it has instead; a value of None: it lacks that. No mapping: its line is no JSON, so it never leaves."""


@dataclass(frozen=True)
class Case:
    """One server, as a user of it knows it."""

    start: Callable[[], AbstractContextManager[Server]]
    prepare: Callable[[Server], None]
    service: str
    """The keys of [service] that a user fills in, besides its address."""

    kinds: Sequence[Kind]
    created: Callable[[Server], list[tuple[int, str]]]
    """By the server's own query: the number of each record, and its id."""
    count: Callable[[Server], int]
    """How many there are, so far."""
    path: str = ""
    """Of its address."""


def good(n: int) -> dict[str, Any]:
    state = ["new", "done"][n % 2]
    return {"n": n, "title": f"record {n}", "status": state, "score": n % 101, "mail": f"a{n}@example.com"}


def kind_of(case: Case, n: int) -> Kind | None:
    """Return what is wrong with a record; None if nothing is."""
    return case.kinds[n // EVERY % len(case.kinds)] if n % EVERY == EVERY - 1 else None


def line(case: Case, n: int) -> str:
    kind = kind_of(case, n)
    if kind is None:
        return json.dumps(good(n))
    if kind.flaw is None:
        return BROKEN
    record = good(n) | {key: value.format(n=n) if isinstance(value, str) else value for key, value in kind.flaw.items()}
    return json.dumps({key: value for key, value in record.items() if value is not None})


# --- PocketBase -------------------------------------------------------------------------------------------------------

TAKEN = "TAKEN-1"
"""A code that must stand once, and that a record has already which is none of the job's."""


def prepare_pocketbase(server: Server) -> None:
    fields = [
        {"name": "n", "type": "number", "onlyInt": True},
        {"name": "title", "type": "text", "required": True, "max": 40},
        {"name": "status", "type": "select", "values": ["new", "done"], "maxSelect": 1},
        {"name": "score", "type": "number", "min": 0, "max": 100, "onlyInt": True},
        {"name": "mail", "type": "email"},
        {"name": "site", "type": "url"},
        {"name": "code", "type": "text", "pattern": "^[A-Z]+-[0-9]+$"},
    ]
    unique = "CREATE UNIQUE INDEX one_code ON tasks (code) WHERE code != ''"
    made = server.done(
        "POST", "/api/collections", {"name": "tasks", "type": "base", "fields": fields, "indexes": [unique]}
    )
    for one in made["fields"]:
        if one["name"] == "id":
            one["max"] = 30
    server.done("PATCH", "/api/collections/tasks", {"fields": made["fields"]})
    server.done("POST", "/api/collections/tasks/records", {"n": -1, "title": "another's", "code": TAKEN})


def in_pocketbase(server: Server, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{server.folder}/data/data.db?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


POCKETBASE = Case(
    start=pocketbase,
    prepare=prepare_pocketbase,
    service=f'kind = "pocketbase"\nvalues = {{ collection = "tasks", identity = "{USER}" }}\n',
    kinds=[
        Kind('"title":{"code":"validation_required"', {"title": None}),
        Kind("Must be no more than 40 character(s)", {"title": LONG}),
        Kind("Invalid value odd", {"status": "odd"}),
        Kind("Must be greater or equal than 0", {"score": -1}),
        Kind("Must be less or equal than 100", {"score": 101}),
        Kind("Decimal numbers are not allowed", {"score": 1.5}),
        Kind("Must be a valid email address", {"mail": "nobody"}),
        Kind("Must be a valid url", {"site": "::"}),
        Kind("Value must be unique", {"code": TAKEN}),
        Kind("not valid JSON"),
    ],
    created=lambda server: in_pocketbase(server, "SELECT n, id FROM tasks WHERE n >= 0"),
    count=lambda server: in_pocketbase(server, "SELECT COUNT(*) FROM tasks")[0][0],
)

# --- CouchDB ----------------------------------------------------------------------------------------------------------

RULES = """function (doc, old, user) {
  function no(why) { throw({forbidden: why}); }
  if (!doc.title) { no('a title is missing'); }
  if (doc.title.length > 40) { no('the title is too long'); }
  if (doc.status !== 'new' && doc.status !== 'done') { no('there is no such status'); }
  if (typeof doc.score !== 'number') { no('the score is no number'); }
  if (doc.score < 0) { no('the score is below 0'); }
  if (doc.score > 100) { no('the score is above 100'); }
  if (doc.mail.indexOf('@') < 0) { no('that is no address'); }
  if (doc.locked) { throw({unauthorized: 'only its owner may lock it'}); }
}"""


def prepare_couchdb(server: Server) -> None:
    server.done("PUT", "/tasks")
    server.done("PUT", "/tasks/_design/rules", {"validate_doc_update": RULES})


def in_couchdb(server: Server) -> list[tuple[int, str]]:
    rows = server.done("GET", "/tasks/_all_docs?include_docs=true")["rows"]
    return [(row["doc"]["n"], row["id"]) for row in rows if not row["id"].startswith("_design/")]


COUCHDB = Case(
    start=couchdb,
    prepare=prepare_couchdb,
    service='kind = "couchdb"\nvalues = { database = "tasks" }\n',
    kinds=[
        Kind("a title is missing", {"title": None}),
        Kind("the title is too long", {"title": LONG}),
        Kind("there is no such status", {"status": "odd"}),
        Kind("the score is no number", {"score": "many"}),
        Kind("the score is below 0", {"score": -1}),
        Kind("the score is above 100", {"score": 101}),
        Kind("that is no address", {"mail": "nobody"}),
        Kind("only its owner may lock it", {"locked": True}),
        Kind("Bad special document member: _odd", {"_odd": 1}),
        Kind("not valid JSON"),
    ],
    created=in_couchdb,
    count=lambda server: server.done("GET", "/tasks")["doc_count"],
)

# --- Datasette --------------------------------------------------------------------------------------------------------

SCHEMA = """
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    n INTEGER NOT NULL,
    title TEXT NOT NULL CONSTRAINT short_title CHECK (length(title) <= 40),
    status TEXT CONSTRAINT known_status CHECK (status IN ('new', 'done')),
    score INTEGER CONSTRAINT score_range CHECK (score BETWEEN 0 AND 100),
    mail TEXT CONSTRAINT an_address CHECK (mail LIKE '%@%'),
    code TEXT UNIQUE
) STRICT;
INSERT INTO tasks (id, n, title, code) VALUES ('another''s', -1, 'another''s', 'TAKEN-1');
"""


def in_datasette(server: Server, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{server.folder}/tests.db?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


DATASETTE = Case(
    start=lambda: datasette(SCHEMA),
    prepare=lambda server: None,
    service='kind = "datasette"\nvalues = { database = "tests", table = "tasks" }\n',
    kinds=[
        Kind("NOT NULL constraint failed: tasks.title", {"title": None}),
        Kind("CHECK constraint failed: short_title", {"title": LONG}),
        Kind("CHECK constraint failed: known_status", {"status": "odd"}),
        Kind("CHECK constraint failed: score_range", {"score": 101}),
        Kind("cannot store TEXT value in INTEGER column tasks.score", {"score": "many"}),
        Kind("Python int too large to convert to SQLite INTEGER", {"score": 2**63}),
        Kind("CHECK constraint failed: an_address", {"mail": "nobody"}),
        Kind("has invalid columns: odd", {"odd": 1}),
        Kind("UNIQUE constraint failed: tasks.code", {"code": TAKEN}),
        Kind("not valid JSON"),
    ],
    created=lambda server: in_datasette(server, "SELECT n, id FROM tasks WHERE n >= 0"),
    count=lambda server: in_datasette(server, "SELECT COUNT(*) FROM tasks")[0][0],
)

# --- Kinto ------------------------------------------------------------------------------------------------------------

IN_KINTO = "/v1/buckets/shop/collections/tasks"
FIELDS = {
    "n": {"type": "integer"},
    "title": {"type": "string", "minLength": 1, "maxLength": 40},
    "status": {"enum": ["new", "done"]},
    "score": {"type": "integer", "minimum": 0, "maximum": 100},
    "mail": {"pattern": "@"},
    "locked": {"not": {}},
}


def prepare_kinto(server: Server) -> None:
    server.done("PUT", "/v1/buckets/shop")
    server.done("PUT", IN_KINTO, {"data": {"schema": {"type": "object", "required": ["title"], "properties": FIELDS}}})


def in_kinto(server: Server) -> list[tuple[int, str]]:
    return [(one["n"], one["id"]) for one in server.done("GET", f"{IN_KINTO}/records")["data"]]


KINTO = Case(
    start=kinto,
    prepare=prepare_kinto,
    service='kind = "kinto"\nvalues = { bucket = "shop", collection = "tasks" }\n',
    path="/v1",
    kinds=[
        Kind("'title' is a required property", {"title": None}),
        Kind("is too long", {"title": LONG}),
        Kind("'' should be non-empty", {"title": ""}),
        Kind("'odd' is not one of ['new', 'done']", {"status": "odd"}),
        Kind("'many' is not of type 'integer'", {"score": "many"}),
        Kind("-1 is less than the minimum of 0", {"score": -1}),
        Kind("101 is greater than the maximum of 100", {"score": 101}),
        Kind("'nobody' does not match '@'", {"mail": "nobody"}),
        Kind("True should not be valid under {}", {"locked": True}),
        Kind("not valid JSON"),
    ],
    created=in_kinto,
    count=lambda server: len(in_kinto(server)),
)

# --- the engine, and its ends -----------------------------------------------------------------------------------------


class Desk:
    """A folder in which somebody works with the command."""

    def __init__(self, folder: Path, server: Server, path: str = "") -> None:
        self.folder = folder
        self._url = f"{server.url}{path}"
        self._environment = os.environ | server.secrets

    def configure(self, service: str, records: Sequence[str], more: str = "") -> None:
        (self.folder / "tasks.ndjson").write_text("".join(f"{one}\n" for one in records))
        (self.folder / "load.toml").write_text(f'[service]\nbase_url = "{self._url}"\n{service}{more}')

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "engine", *arguments],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def run(self, *arguments: str) -> int:
        return self.start(*arguments).wait(timeout=SECONDS)

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")[-3000:]

    def known_created(self) -> int:
        with closing(sqlite3.connect(f"file:{self.folder}/.bulksubmit/ledger.db?mode=ro", uri=True)) as ledger:
            return ledger.execute("SELECT SUM(created) FROM batches WHERE state = 'settled'").fetchone()[0] or 0

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(one) for one in (self.folder / ".bulksubmit" / "load" / name).read_text().splitlines()]


def wait_until(desk: Desk, process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Wait for what other processes bring about; only the wall clock can bound that."""
    until = time.monotonic() + SECONDS
    while not reached():
        assert process.poll() is None, f"it ended too early:\n{desk.said}"
        assert time.monotonic() < until, f"it did not get there:\n{desk.said}"
        time.sleep(0.005)


def killed(desk: Desk, process: subprocess.Popen[bytes], count: Callable[[], int], *, waits: bool) -> int:
    """Kill the engine; return how many records are there of which its ledger does not know.

    `waits`: until the server has done what the engine asked last, and never heard of. Else the connection breaks under
    that, and the server may do it or give up.
    """
    if waits:
        process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + STOPPED_SECONDS
        while count() <= desk.known_created() and time.monotonic() < until:
            time.sleep(0.005)
    process.kill()
    process.wait()
    return max(0, count() - desk.known_created())


@pytest.mark.parametrize(
    "case", [POCKETBASE, COUCHDB, DATASETTE, KINTO], ids=["pocketbase", "couchdb", "datasette", "kinto"]
)
def test_each_good_record_is_there_once_and_each_bad_one_has_its_reason(case, tmp_path, record_property):
    with case.start() as server:
        case.prepare(server)
        desk = Desk(tmp_path, server, case.path)
        desk.configure(case.service, [line(case, n) for n in range(RECORDS)])
        before, began = case.count(server), time.monotonic()
        wanted = [n for n in range(RECORDS) if kind_of(case, n) is None]
        unknown = kill = 0  # unknown: records that were there at a kill, and of which the ledger did not know
        while kill < KILLS or (not unknown and kill < MOST_KILLS):
            goal = before + (kill + 1) * len(wanted) // (MOST_KILLS + 1)
            process = desk.start(*(RESUME if kill else SUBMIT))
            wait_until(desk, process, lambda goal=goal: case.count(server) >= goal)
            unknown += killed(desk, process, lambda: case.count(server) - before, waits=kill % 2 == 0)
            kill += 1
        assert desk.run(*RESUME) == 3, desk.said  # finished, and some failed
        took = time.monotonic() - began
        assert unknown, "no kill came between a record and the answer about it"

        created = case.created(server)
        assert Counter(n for n, _ in created) == Counter(wanted)

        outcomes = desk.lines("outcomes.ndjson")
        assert [one["index"] for one in outcomes] == list(range(RECORDS))
        states = Counter(one["state"] for one in outcomes)
        reasons: Counter[str] = Counter()
        ids = dict(created)
        for one in outcomes:
            kind = kind_of(case, one["index"])
            if kind is None:
                assert (one["state"], one["task_id"]) == ("created", ids[one["index"]]), one
                continue
            assert one["state"] == ("failed" if kind.flaw is not None else "rejected"), one
            assert kind.reason in one["error"], one
            reasons[kind.reason] += 1
        assert states["uncertain"] == 0
        assert desk.run("audit", "load") == 0, desk.said

        figures = {
            "records": RECORDS,
            "seconds": round(took, 1),
            "kills": kill,
            "unknown": unknown,
            **states,
            "reasons": dict(reasons),
        }
        record_property("figures", figures)
        sys.stdout.write(f"{json.dumps(figures)}\n")


SLOWLY = "[send]\nrequests_per_second = 20\n"


def test_tokens_that_end_in_the_middle_are_renewed(tmp_path):
    """PocketBase tells of it with a 400: a 403 stands in it, beside the first record."""
    with pocketbase() as server:
        prepare_pocketbase(server)
        desk = Desk(tmp_path, server)
        desk.configure(POCKETBASE.service, [json.dumps(good(n)) for n in range(3_000)], SLOWLY)
        process = desk.start(*SUBMIT)
        wait_until(desk, process, lambda: POCKETBASE.count(server) > 500)
        (me,) = server.done("GET", "/api/collections/_superusers/records")["items"]
        again = {"password": PASSWORD, "passwordConfirm": PASSWORD}
        server.done("PATCH", f"/api/collections/_superusers/records/{me['id']}", again)  # this ends all tokens
        assert process.wait(timeout=SECONDS) == 0, desk.said
        assert Counter(n for n, _ in POCKETBASE.created(server)) == Counter(range(3_000))
        assert "token is renewed" in desk.said


def test_a_database_that_is_locked_fails_no_record(tmp_path):
    """Datasette tells of it with a 400 as it does of a bad row."""
    with datasette(SCHEMA) as server:
        desk = Desk(tmp_path, server)
        desk.configure(DATASETTE.service, [json.dumps(good(n)) for n in range(2_000)], SLOWLY)
        process = desk.start(*SUBMIT)
        wait_until(desk, process, lambda: DATASETTE.count(server) > 300)
        with closing(sqlite3.connect(server.folder / "tests.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            wait_until(desk, process, lambda: "database is locked" in desk.said)  # after Datasette's five seconds
            other.execute("ROLLBACK")
        assert process.wait(timeout=SECONDS) == 0, desk.said
        assert Counter(n for n, _ in DATASETTE.created(server)) == Counter(range(2_000))


def test_a_document_that_is_there_already_is_no_success(tmp_path):
    """With ids of one's own: one is somebody else's, and one stands twice in the source."""
    own_ids = 'record = { key = "${task._id}", add = {} }\n'
    with couchdb() as server:
        prepare_couchdb(server)
        server.done("PUT", "/tasks/d7", good(-7))
        desk = Desk(tmp_path, server)
        ids = [f"d{n}" for n in range(20)] + ["d3"]
        desk.configure(COUCHDB.service + own_ids, [json.dumps({"_id": one, **good(n)}) for n, one in enumerate(ids)])
        assert desk.run(*SUBMIT) == 3, desk.said
        outcomes = desk.lines("outcomes.ndjson")
        failed = {one["index"]: one["error"] for one in outcomes if one["state"] == "failed"}
        assert sorted(failed) == [7, 20]
        assert failed[7].startswith("it is there already")
        assert failed[20].startswith("its key stands twice in the source")
        there = dict(in_couchdb(server))
        assert there[-7] == "d7"
        assert {n for n in there if n >= 0} == {one["index"] for one in outcomes if one["state"] == "created"}
        assert desk.run("audit", "load") == 0, desk.said
