"""Every command once on a ledger in PostgreSQL, one after the other, as a person types them; the journal judges."""

import json
import subprocess
import urllib.request
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

import psycopg
import pytest
from fakes.served import served
from integration.acceptance.conftest import COMMAND, Sandbox, Workplace

from engine.ledger.address import PostgresAddress
from engine.ledger.postgres_connection import TABLES

from .postgres import postgres

pytestmark = pytest.mark.slow
BEHAVIOUR = """
[creation]
tasks_per_second = 2000
parallel_batches = 4

[[failures]]
path = "data.status"
equals = "broken"
message = "must be reachable"

[journal]
marker = ["data.id"]
"""
BATCHES = "[batch]\nmax_records = 10\n"


@pytest.fixture(scope="module")
def server():
    with postgres(durable=False) as running:
        running.make_user("loader")
        yield running


@pytest.fixture
def place(server, tmp_path):
    """A workplace whose ledger is a database, as its variables say; with a sandbox."""
    with served(tmp_path, BEHAVIOUR) as (url, journal):
        (tmp_path / "work" / ".bulksubmit").mkdir(parents=True)
        workplace = Workplace(tmp_path / "work", Sandbox(url, journal))
        database = server.make_database(owner="loader")
        workplace.environment |= {
            "BULKSUBMIT_LEDGER": server.url("loader", database),
            "PGPASSWORD": server.passwords["loader"],
        }
        workplace.configure(mode="inline", more=BATCHES)
        yield workplace


class Typed:
    """Runs commands; keeps all that they have said."""

    def __init__(self, place):
        self.place = place
        self.said = ""

    def __call__(self, line, code=0):
        done = self.place.run(*line.split(), "--json")
        self.said += done.out + done.err
        assert done.code == code, f"{line}: {done.out}{done.err}"
        return done.json


def write(path, numbers, **data):
    path.write_text("".join(json.dumps({"data": {"id": f"task-{number}", **data}}) + "\n" for number in numbers))


def created(place):
    """How many tasks the service has; each is there once."""
    assert set(place.sandbox.markers.values()) <= {1}
    return len(place.sandbox.markers)


def test_every_command_works_on_a_database(server, place):  # noqa: PLR0915 - one after the other
    typed, folder = Typed(place), place.folder
    password, url = server.passwords["loader"], place.environment["BULKSUBMIT_LEDGER"]

    write(folder / "a.ndjson", range(95))
    with (folder / "a.ndjson").open("a") as file:
        file.write('{"data": {"id": "task-95", "status": "broken"}}\n')
    found = typed("check a.ndjson --config sama.toml")
    assert {one["name"]: one["verdict"] for one in found["checks"]}["ledger"] == "ok"
    typed("submit a.ndjson --config sama.toml --job a --max-records 30", 5)
    assert created(place) == 30
    assert typed("status a")["state"] == "open"
    typed("resume a", 3)
    assert created(place) == 95
    found = typed("report a", 3)
    assert (found["created"], found["failed"]) == (95, 1)
    beside = PostgresAddress(url).folder_name
    assert len(place.lines(f"{beside}/a", "outcomes.ndjson")) == 96
    assert typed("audit a")["holds"]
    typed("refresh a", 3)
    typed("report a --record 3")

    mended = (folder / ".bulksubmit" / beside / "a" / "rejects.ndjson").read_text().replace("broken", "whole")
    (folder / "mended.ndjson").write_text(mended)
    typed("retry a --from mended.ndjson")
    assert created(place) == 96

    write(folder / "b.ndjson", range(200, 260))
    typed("nightly b.ndjson --config sama.toml --family nights")
    write(folder / "b.ndjson", range(200, 270))
    assert typed("nightly b.ndjson --config sama.toml --family nights")["skipped"] == 60
    assert created(place) == 166
    write(folder / "c.ndjson", range(210, 280))
    assert typed("submit c.ndjson --config sama.toml --delta --family nights --job c")["skipped"] == 60
    assert created(place) == 176
    typed("report c --missing")

    write(folder / "d.ndjson", range(300, 340))
    typed("submit d.ndjson --config sama.toml --job d --max-records 20", 5)
    typed("cancel d --yes")
    typed("undo d --yes")
    assert typed("status d")["state"] == "canceled"

    with dashboard(place) as pages:
        assert all(f"/jobs/{name}" in pages("/") for name in "acd")
        assert "must be reachable" in pages("/jobs/a")
        assert "created" in pages("/jobs/a/records/3")

    typed("backup copy.db", 9)
    copied = typed(f"ledger copy {url} copy.db")
    assert len(copied["jobs"]) == len(typed("status")["jobs"])
    assert typed("audit a --ledger copy.db")["holds"]
    removed = typed("prune --keep-last 1 --yes")["removed"]
    assert "a" in removed
    assert "there is no job 'a'" in typed("status a", 2)["error"]
    assert typed("audit c")["holds"]
    assert place.run("completion", "--jobs", "", "resume").out == ""

    shown = [typed.said, *(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())]
    with psycopg.connect(url, password=password) as connection:
        shown += [str(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in TABLES]  # noqa: S608
    assert [text for text in shown if password in text] == []


@contextmanager
def dashboard(place):
    """Serve a dashboard; what gets a page as who is signed in."""
    command = [*COMMAND, "dashboard", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=place.environment) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
            browser.open(url, timeout=30).close()
            assert place.environment["PGPASSWORD"] not in Path(f"/proc/{process.pid}/cmdline").read_text()

            def page(path):
                with browser.open(f"{url.partition('/sign-in')[0]}{path}", timeout=30) as answer:
                    return answer.read().decode()

            yield page
        finally:
            process.terminate()


def test_check_says_what_is_wrong_with_a_database_and_how_to_mend_it(server, place):
    """One after the other: no rights to make tables, too weak a promise, no rights on the rows, a wrong address."""
    typed, url = Typed(place), place.environment["BULKSUBMIT_LEDGER"]
    database = url.rpartition("/")[2]

    def ledger(code=9):
        (found,) = (one for one in typed("check --config sama.toml", code)["checks"] if one["name"] == "ledger")
        return f"{found['verdict']}: {found['found']} -- {found['cure']}"

    assert ledger(0).startswith(f"ok: there is none yet in {url}, PostgreSQL ")
    server.query("ALTER ROLE loader SET synchronous_commit = off")
    assert "synchronous_commit is off, so a step that was answered could be lost" in ledger()
    server.query("ALTER ROLE loader RESET synchronous_commit")
    server.make_user("stranger")
    place.environment |= {
        "BULKSUBMIT_LEDGER": server.url("stranger", database),
        "PGPASSWORD": server.passwords["stranger"],
    }
    assert "user stranger lacks CREATE on schema public -- there are no tables yet" in ledger()
    place.environment["PGPASSWORD"] = server.passwords["loader"]
    assert "the password is wrong or missing" in ledger()
    assert server.passwords["loader"] not in typed.said
    place.environment["BULKSUBMIT_LEDGER"] = server.url("loader", "nowhere")
    assert "there is no such database, or no such user" in ledger()
