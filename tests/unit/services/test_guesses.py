"""docs/guesses.md and the code have the same guesses: a row of the table is a value that a probe looks for."""

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.services.base import Answer, Call
from engine.services.checks import GENERAL_GUESSES, Exchange, ProbeEvidence
from engine.services.described.checks import GUESSES as DESCRIBED
from engine.services.sama.checks import GUESSES as SAMA
from engine.services.sevenbridges.checks import GUESSES as SEVENBRIDGES

PAGE = Path(__file__).parents[3] / "docs" / "guesses.md"
ROW = re.compile(r"^\| `([a-z.-]+)` \| (.*?) \| ", re.MULTILINE)
ALL = {guess.name: guess for guess in (*GENERAL_GUESSES, *SAMA, *SEVENBRIDGES, *DESCRIBED)}


def test_the_page_and_the_code_name_the_same_guesses_in_the_same_words_and_order():
    assert ROW.findall(PAGE.read_text()) == [(guess.name, guess.believed) for guess in ALL.values()]
    assert len(ALL) == len(GENERAL_GUESSES) + len(SAMA) + len(SEVENBRIDGES) + len(DESCRIBED)


def heard(kind, body, *, url="https://service.example", headers=None, sent=None, status=200):
    answer = Answer(status, headers or {}, body.encode()) if body is not None else None
    return Exchange(Call(kind, "GET", url, body=sent and sent.encode()), answer, status)


TASKS = [{"data": {"image": "a"}}, {"data": {"image": "b"}}]
STATUS = (
    '{"state":"completed","created":2,"total":2,"tasks":[{"id":"t1","state":"created"},{"id":"t2","state":"created"}]}'
)
LIST = (
    '{"tasks":[{"id":"t1","created_at":"2026-01-01T00:00:00Z","data":{"image":"a"}},{"id":"t2","data":{"image":"b"}}]}'
)
GOOD = ProbeEvidence([heard("status", STATUS), heard("tasks", LIST)], TASKS, ["t1", "t2"], 1.0, 120.0)
BULK = '{"items":[{"resource":{"id":"%s","status":"DRAFT"}},{"resource":{"id":"%s","status":"DRAFT"}}]}'
ASKED = '{"task_ids":["t1","t2"]}'


def listing(*times):
    items = ",".join(f'{{"id":"t","created_time":"{time}"}}' for time in times)
    return f'{{"items":[{items}]}}'


def evidence(*exchanges):
    return replace(GOOD, exchanges=exchanges)


CASES = [
    # name, what was heard where it holds, what was heard where it does not
    ("any.found", evidence(heard("status", "{}")), evidence(heard("status", None, status=404))),
    ("any.names", GOOD, replace(GOOD, task_ids=["t/1", "t2"])),
    ("any.settle-time", GOOD, replace(GOOD, seconds=121.0)),
    (
        "any.waits",
        evidence(heard("get", "{}", headers={"x-ratelimit-reset": "1795913172"})),
        evidence(heard("get", "{}", headers={"X-RateLimit-Reset": "tomorrow"})),
    ),
    ("sama.order", GOOD, replace(GOOD, sent=TASKS[::-1])),
    (
        "sama.failed-data",
        evidence(heard("status", '{"state":"failed","tasks":[{"state":"failed","data":{"image":"a"}}]}')),
        evidence(heard("status", '{"state":"failed","tasks":[{"state":"failed"}]}')),
    ),
    ("sama.same-data", GOOD, replace(GOOD, sent=[{"data": {"image": "A"}}])),
    ("sama.batch-words", GOOD, evidence(heard("status", STATUS.replace("completed", "erledigt")))),
    ("sama.task-words", GOOD, evidence(heard("status", STATUS.replace('"state":"created"', '"state":"made"')))),
    ("sama.all-listed", GOOD, replace(GOOD, sent=[*TASKS, *TASKS])),
    ("sama.counts", GOOD, evidence(heard("status", '{"state":"completed"}'))),
    ("sama.own-ids", GOOD, evidence(heard("status", STATUS.replace("t2", "t1")))),
    ("sama.zones", GOOD, evidence(heard("tasks", LIST.replace("00Z", "00")))),
    ("sama.etag", evidence(heard("put", "", headers={"ETag": '"1"'})), evidence(heard("put", ""))),
    (
        "sama.url-hours",
        evidence(heard("put", "", url="https://s3.example/key?X-Amz-Expires=14400")),
        evidence(heard("put", "", url="https://s3.example/key?X-Amz-Expires=900")),
    ),
    (
        "sevenbridges.bulk-order",
        evidence(heard("bulk", BULK % ("t1", "t2"), sent=ASKED)),
        evidence(heard("bulk", BULK % ("t2", "t1"), sent=ASKED)),
    ),
    (
        "sevenbridges.descriptions",
        evidence(heard("create", '{"description":"a  b"}', sent='{"description":"a  b"}')),
        evidence(heard("create", '{"description":"a b"}', sent='{"description":"a  b"}')),
    ),
    (
        "sevenbridges.file-types",
        evidence(heard("files", '{"items":[{"type":"file"}]}')),
        evidence(heard("files", '{"items":[{"type":"FILE"}]}')),
    ),
    ("sevenbridges.shown-soon", evidence(heard("get", "{}")), evidence(heard("get", None, status=404))),
    ("sevenbridges.run-soon", evidence(heard("run", "{}")), evidence(heard("run", None, status=404))),
    (
        "sevenbridges.list-order",
        evidence(heard("find", listing("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"))),
        evidence(heard("find", listing("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"))),
    ),
    (
        "sevenbridges.total",
        evidence(heard("find", "{}", headers={"X-Total-Matching-Query": "2"})),
        evidence(heard("find", "{}")),
    ),
    (
        "sevenbridges.statuses",
        evidence(heard("get", '{"status":"DRAFT"}')),
        evidence(heard("get", '{"status":"ENTWURF"}')),
    ),
    ("described.own-ids", GOOD, replace(GOOD, task_ids=["t1", "t1"])),
    ("sevenbridges.offset", evidence(heard("find", "{}")), evidence(heard("find", None, status=400))),
]


@pytest.mark.parametrize(("name", "holding", "other"), CASES, ids=[case[0] for case in CASES])
def test_a_probe_sees_whether_a_guess_holds(name, holding, other):
    assert ALL[name].sight(holding).holds is True
    assert ALL[name].sight(other).holds is False


def test_what_was_not_heard_is_not_judged():
    nothing = ProbeEvidence([])
    assert {
        guess.name: guess.sight(nothing).holds for guess in ALL.values() if guess.sight(nothing).holds is not None
    } == {}


def test_an_answer_of_another_form_shows_nothing_and_stops_nothing():
    odd = evidence(*[heard(kind, '["odd"]', sent="{}") for kind in ("tasks", "bulk", "find", "create", "get", "files")])
    seen = {guess.name: guess.sight(odd).holds for guess in SEVENBRIDGES}
    assert seen["sevenbridges.bulk-order"] is seen["sevenbridges.statuses"] is None
    assert ALL["sama.counts"].sight(evidence(heard("status", '["odd"]'))).holds is None


def test_two_equal_records_prove_no_order():
    equal = [TASKS[0], TASKS[0]]
    same = evidence(heard("status", STATUS), heard("tasks", LIST.replace('"b"', '"a"')))
    assert ALL["sama.order"].sight(replace(same, sent=equal)).holds is None
