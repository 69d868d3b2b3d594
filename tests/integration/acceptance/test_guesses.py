"""The main job under the opposite of each thing that we believe of Sama and that its vendor's pages do not say.

Nothing is lost, nothing is there twice, and no record has a fate that is not its own: judged by the sandbox's journal.
docs/guesses.md lists what is believed and what is done where it is wrong.
"""

import json
from dataclasses import dataclass

import pytest

from engine.sandbox.journal import read_journal

RECORDS = 240
BATCH = 80
FAILING = '[[failures]]\npath = "data.id"\nmatches = "7$"\nmessage = "no sevens"\n'
SCHEMA = {
    "type": "object",
    "properties": {"data": {"type": "object", "properties": {"client_batch_id": {"type": "string"}}}},
}
MARKS = '[[projects]]\nid = 42\nschema = "schema.json"\n'
LATE = '[[faults]]\ncall = "continue"\nevery = 2\nseconds = 1\n'
LOST_POST = '[[faults]]\ncall = "create"\nkind = "drop_after"\nnth = [2]\n'


@dataclass(frozen=True)
class Switch:
    """What the sandbox does otherwise, and what may come of it."""

    name: str
    behaviour: str
    mode: str = "presigned"
    uncertain: int = 0
    """Records that may be uncertain at the end."""
    unproven: int = 0
    """Records whose id may be said to be unproven."""


def unwritten(**keys):
    """Return the table that has the sandbox do what no page says otherwise."""
    return "[sama.unwritten]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


OTHERS = 144
"""Created records of the batches after the first one, whose single page has shown that the order is another one."""

WORDS = {"queued": "eingereiht", "processing": "in Arbeit", "completed": "Erledigt", "failed": "kaputt"}

SAMA = [
    Switch("as it is believed to be", ""),
    Switch("shuffled", unwritten(task_order="shuffled"), unproven=OTHERS),
    Switch("shifted", unwritten(task_order="shifted"), unproven=OTHERS),
    Switch("other words for batches", unwritten(batch_words=WORDS)),
    Switch("a title's case", unwritten(case="title")),
    Switch("capitals", unwritten(case="upper")),
    Switch("no counts", unwritten(counts=False)),
    Switch("no counts and other words", unwritten(counts=False, batch_words=WORDS)),
    Switch("no ETag", unwritten(etag=False)),
    Switch("failed tasks without data", unwritten(failed_data=False)),
    Switch("failed tasks without data, shuffled", unwritten(failed_data=False, task_order="shuffled")),
    Switch("a batch is named twice", unwritten(known_batch_every=2)),
    Switch("ids missing", unwritten(no_id_every=40), uncertain=6),
    Switch("ids equal", unwritten(same_id_every=40), uncertain=12),
    Switch("unknown states of tasks", unwritten(task_words={"created": "materialized"}), uncertain=RECORDS),
    Switch("inline", "", mode="inline"),
    *[Switch(f"ids told as {key}", unwritten(told_ids=key), mode="inline") for key in ("task_ids", "tasks", "ids")],
    Switch("ids told, and shuffled", unwritten(told_ids="task_ids", task_order="shuffled"), mode="inline"),
    Switch("a lost answer is searched for", MARKS + LOST_POST, mode="inline"),
    Switch("times without a zone", MARKS + LOST_POST + unwritten(zones=False), mode="inline"),
    Switch("a search that finds nothing", MARKS + LOST_POST + unwritten(searches=False), "inline", uncertain=BATCH),
]

GENERAL = [
    Switch("a status lags", "[reads]\nstatus_seconds = 0.5\n"),
    Switch("a list lags", "[reads]\nlist_seconds = 2\n"),
    Switch("what is new is unknown", "[reads]\nstatus_seconds = 0.5\nnew_are_unknown = true\n"),
    *[Switch(f"continue: {kind}", f'{LATE}kind = "{kind}"\n') for kind in ("act_later", "drop_late", "refuse_late")],
    Switch("continue: html_late", f'{LATE}kind = "html_late"\nstatus = 504\n'),
    *[
        Switch(f"continue is lost, and again: {answer}", f'continue_again = "{answer}"\n{LATE}kind = "drop_after"\n')
        for answer in ("noop", "duplicate", "html")
    ],
    Switch("busy while late", f'busy_while_late = true\n{LATE}kind = "drop_late"\n'),
]


@pytest.fixture
def behaviour(request, tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    lines = request.param.behaviour.splitlines(keepends=True)
    tables = next((at for at, line in enumerate(lines) if line.startswith("[")), len(lines))
    return "".join(lines[:tables]) + FAILING + "".join(lines[tables:])


@pytest.fixture
def config(workplace, request):
    """Batches of 80, and a settle time of seconds, so that what is waited for comes within the test."""
    switch = request.node.callspec.params["behaviour"]
    config = workplace.configure(mode=switch.mode, more=f"[batch]\nmax_records = {BATCH}\n", settle_seconds=2)
    config.write_text(config.read_text() + "max_poll_seconds = 0.5\nretry_base_seconds = 0.1\n")
    return config


def judge(workplace, job, switch):
    """Hold each record's outcome against what the sandbox really did."""
    entries = list(read_journal(workplace.sandbox.journal))
    true = {entry.marker: entry.task_id for entry in entries}
    assert len(entries) == len(true), "something is there twice"
    outcomes = workplace.lines(job, "outcomes.ndjson")
    assert [outcome["index"] for outcome in outcomes] == list(range(RECORDS)), "something is lost"
    for outcome in outcomes:
        check(outcome, true.get(f"task-{outcome['index']}"))
    uncertain = sum(outcome["state"] == "uncertain" for outcome in outcomes)
    assert uncertain <= switch.uncertain
    assert sum(outcome.get("id_proven") is False for outcome in outcomes) <= switch.unproven
    assert uncertain or len(true) == sum(outcome["state"] == "created" for outcome in outcomes)


def check(outcome, task_id):
    match outcome["state"]:
        case "created":
            assert task_id is not None
            assert outcome["task_id"] == task_id or outcome.get("id_proven") is False
        case "failed":
            assert task_id is None
            assert "no sevens" in outcome["error"]
        case state:
            assert state == "uncertain"


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", [*SAMA, *GENERAL], ids=lambda switch: switch.name, indirect=True)
def test_the_main_job_holds_whatever_the_service_does_otherwise(workplace, config, request):
    switch = request.node.callspec.params["behaviour"]
    tasks = workplace.write_tasks(RECORDS)
    done = workplace.run("submit", tasks, "--config", config, "--job", "main", "--json")
    assert done.code == (4 if done.json["uncertain"] else 3), done.err
    judge(workplace, "main", switch)
    assert done.json["unresolved"] == 0
    ids = [finding for finding in audited(workplace, "main")["findings"] if "the same task id" not in finding]
    assert ids == []


def audited(workplace, job):
    return workplace.run("audit", job, "--json").json


ERLEDIGT = Switch("other words for batches", unwritten(batch_words=WORDS))


@pytest.mark.parametrize("behaviour", [ERLEDIGT], ids=["Erledigt"], indirect=True)
def test_a_word_that_nobody_has_heard_of_is_said_once(workplace, config):
    done = workplace.run("submit", workplace.write_tasks(RECORDS), "--config", config, "--job", "main")
    assert done.code == 3, done.err
    assert done.err.count("Erledigt") == 1


COMPLETED = Switch("Completed", unwritten(case="title"))


@pytest.mark.parametrize("behaviour", [COMPLETED], ids=["Completed"], indirect=True)
def test_ten_records_of_a_service_that_says_completed_with_a_capital_are_done_at_once(workplace, config):
    """It polled for ever, and said nothing."""
    tasks = workplace.write_tasks(10)
    done = workplace.run("submit", tasks, "--config", config, "--job", "j", "--json")
    assert (done.code, done.json["created"], done.json["failed"]) == (3, 9, 1)
    assert done.json["elapsed_seconds"] < 5
