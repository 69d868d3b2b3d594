"""A ledger that an older version left in the midst of two jobs: resumed, both end right."""

import json
from urllib.request import Request, urlopen

import pytest
from unit.ledger.old import INLINE, INLINE_MARK, PRESIGNED, SOURCES, write_old_ledger

KEY = "access_key=sandbox-key"


def call(url, method="POST", body=None):
    data = json.dumps(body).encode() if body is not None else b""
    with urlopen(Request(url, data, {"Content-Type": "application/json"}, method=method)) as answer:  # noqa: S310 - loopback
        said = answer.read()
    return json.loads(said) if said.startswith(b"{") else {}


def create(sandbox, tasks, *, inline):
    """Make a batch as the older version did: uploaded and continued, or in one call; return its name."""
    batches = f"{sandbox.url}/projects/42/batches"
    if inline:
        return str(call(f"{batches}.json?{KEY}", body={"tasks": tasks})["batch_id"])
    made = call(f"{batches}.json?{KEY}", body={})
    call(made["tasks_put_url"], "PUT", tasks)
    call(f"{batches}/{made['batch_id']}/continue.json?{KEY}")
    return str(made["batch_id"])


def tasks_of(job, *indexes):
    return [json.loads(SOURCES[job][index]) for index in indexes]


@pytest.fixture
def old(workplace, sandbox):
    """Return the ledger, beside a service that has what was released before and has forgotten one batch."""
    marked = [{"data": {**task["data"], "client_batch_id": INLINE_MARK}} for task in tasks_of(INLINE, 2, 3)]
    create(sandbox, marked, inline=True)
    names = {
        (PRESIGNED, 2): create(sandbox, tasks_of(PRESIGNED, 5, 6), inline=False),
        (PRESIGNED, 3): create(sandbox, tasks_of(PRESIGNED, 7, 8), inline=False),
        (INLINE, 2): create(sandbox, tasks_of(INLINE, 4, 5), inline=True),
    }
    return write_old_ledger(workplace.folder, url=sandbox.url, remote_ids=names)


def states(workplace, ledger, job):
    workplace.run("report", job, "--ledger", ledger)
    return [json.loads(line)["state"] for line in (ledger.parent / job / "outcomes.ndjson").read_text().splitlines()]


def test_what_was_releasing_is_adopted_what_was_frozen_is_sent_and_what_was_uncertain_stays_so(workplace, old, sandbox):
    done = workplace.run("resume", PRESIGNED, "--ledger", old, "--json")
    assert done.code == 4, done.err
    assert done.json["uncertain"] == 2
    told = states(workplace, old, PRESIGNED)
    assert told == ["created", "rejected", "failed", "uncertain", "uncertain", *["created"] * 8]
    assert {sandbox.markers[str(number)] for number in range(5, 13)} == {1}
    assert workplace.run("audit", PRESIGNED, "--ledger", old).code == 0


def test_what_was_sent_inline_and_lost_is_found_by_its_mark(workplace, old, sandbox):
    done = workplace.run("resume", INLINE, "--ledger", old, "--json")
    assert done.code == 0, done.err
    assert states(workplace, old, INLINE) == ["created"] * 6
    assert {sandbox.markers[str(number)] for number in range(102, 106)} == {1}
    assert workplace.run("audit", INLINE, "--ledger", old).code == 0
