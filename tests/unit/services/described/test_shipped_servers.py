"""What the descriptions of PocketBase, CouchDB and Datasette make of answers, word for word as the servers gave them.

`tests/system/test_described_servers.py` has the servers themselves.
"""

import tomllib

import orjson
import pytest
from fakes.clock import FakeClock

from engine.model.batch import Batch
from engine.model.error_hints import Blame, Refusal
from engine.model.job import Job
from engine.model.payload import Payload
from engine.model.record import Position
from engine.model.settings import BatchSettings
from engine.model.tables import table_of
from engine.services.base import Answer
from engine.services.described.service import DescribedService
from engine.services.described.settings import DescribedSettings
from engine.services.described.shipped import whole

FILLED_IN = {
    "pocketbase": 'values = { collection = "tasks", identity = "me@example.com" }\nauth = { secret = "s" }',
    "couchdb": 'values = { database = "tasks" }\nauth = { user = "me", secret = "s" }',
    "datasette": 'values = { database = "tests", table = "tasks" }\nauth = { secret = "s" }',
}
TOKEN = "00112233aabbccdd"


def settings_of(kind):
    service = tomllib.loads(f'kind = "{kind}"\nbase_url = "https://a.example"\n{FILLED_IN[kind]}')
    complaints = []
    settings = table_of(DescribedSettings, whole(service), "service", complaints)
    assert not complaints
    return settings


class Server:
    """Answers each call with the next of some answers, and keeps the bodies that went out."""

    def __init__(self, *answers):
        self.answers, self.sent = list(answers), []

    async def call(self, call):
        self.sent.append((call, orjson.loads(b"".join(call.pieces))))
        return Answer(200, {}, orjson.dumps(self.answers.pop(0)))


async def settled(kind, tasks, *answers, sent_before=False):
    server = Server(*answers)
    job = Job("j", "http", "", (), "", learnt=TOKEN, created_at=0.0)
    service = DescribedService(settings_of(kind), BatchSettings(), job, server, FakeClock())
    payload = Payload.of([orjson.dumps(task) for task in tasks], range(7, 7 + len(tasks)))
    batch = Batch(0, Position(), Position(), len(tasks), len(payload.array), b"", b"")
    released = await service.release(batch, None, payload, sent_before=sent_before)
    return released.settlement, server.sent


def refused(place, data, message="Failed to create record.", status=400):
    response = {"data": data, "message": message, "status": status}
    one = {"code": "batch_request_failed", "message": "Batch request failed.", "response": response}
    return {"data": {"requests": {str(place): one}}, "message": "Batch transaction failed.", "status": 400}


TOO_LONG = {
    "code": "validation_max_text_constraint",
    "message": "Must be no more than 15 character(s).",
    "params": {"max": 15},
}
BLANK = {"title": {"code": "validation_required", "message": "Cannot be blank."}}


@pytest.mark.parametrize(
    ("kind", "status", "body", "blame", "flaws"),
    [
        ("pocketbase", 400, refused(3, BLANK), Blame.RECORDS, {3: orjson.dumps(BLANK).decode()}),
        ("pocketbase", 400, refused(2, {}, "a hook says no"), Blame.RECORDS, {2: "a hook says no"}),
        ("pocketbase", 400, refused(0, {}), Blame.NOT_NOW, {}),
        ("pocketbase", 400, {"data": {}, "message": "Batch transaction failed.", "status": 400}, Blame.NOT_NOW, {}),
        ("pocketbase", 400, refused(0, {}, "Only superusers can perform this action.", 403), Blame.KEY, {}),
        ("pocketbase", 400, refused(0, {}, "Missing collection context.", 404), Blame.JOB, {}),
        ("pocketbase", 403, {"data": {}, "message": "Batch requests are not allowed.", "status": 403}, Blame.JOB, {}),
        ("pocketbase", 400, refused(0, {"id": TOO_LONG}), Blame.JOB, {}),
        (
            "pocketbase",
            400,
            refused(1, {"title": TOO_LONG}),
            Blame.RECORDS,
            {1: orjson.dumps({"title": TOO_LONG}).decode()},
        ),
        ("couchdb", 500, {"error": "doc_validation", "reason": "Bad special document member: _odd"}, Blame.PAYLOAD, {}),
        ("couchdb", 400, {"error": "bad_request", "reason": "Invalid rev format"}, Blame.PAYLOAD, {}),
        ("couchdb", 404, {"error": "not_found", "reason": "no_db_file"}, Blame.JOB, {}),
        (
            "datasette",
            400,
            {"ok": False, "error": "database is locked", "errors": ["database is locked"]},
            Blame.NOT_NOW,
            {},
        ),
        ("datasette", 400, {"ok": False, "error": "UNIQUE constraint failed: tasks.code"}, Blame.PAYLOAD, {}),
        ("datasette", 404, {"ok": False, "error": "Table not found", "status": 404}, Blame.JOB, {}),
    ],
)
def test_whose_fault_a_refusal_is(kind, status, body, blame, flaws):
    hint = settings_of(kind).error_hint(status, orjson.dumps(body))
    assert isinstance(hint, Refusal)
    assert (hint.blame, hint.flaws) == (blame, flaws)


def test_pocketbase_says_what_to_do_where_ids_of_ours_do_not_fit():
    hint = settings_of("pocketbase").error_hint(400, orjson.dumps(refused(0, {"id": TOO_LONG})))
    assert "set its max length to 30 or more" in hint.reason


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        # a GET with a token that does not hold; more requests than the batch API takes: their status says enough
        ("pocketbase", 403, {"data": {}, "message": "Only superusers can perform this action.", "status": 403}),
        (
            "pocketbase",
            400,
            {"data": {"requests": {"code": "validation_length_too_long", "message": "…", "params": {}}}},
        ),
        ("couchdb", 500, {"error": "internal_server_error", "reason": "…"}),
        ("couchdb", 401, {"error": "unauthorized", "reason": "Name or password is incorrect."}),
        ("datasette", 403, {"ok": False, "error": "Permission denied: need both insert-row and update-row"}),
    ],
)
def test_what_their_status_says_is_left_to_it(kind, status, body):
    assert settings_of(kind).error_hint(status, orjson.dumps(body)) is None


async def test_pocketbase_takes_requests_each_with_an_id_of_ours():
    ids = [f"{TOKEN}7", f"{TOKEN}8"]
    answer = [{"body": {"id": one}, "status": 200} for one in ids]
    found, [(call, body)] = await settled("pocketbase", [{"n": 1}, {"n": 2}], answer)
    assert (found.task_ids, found.errors) == (ids, {})
    assert (call.method, call.url, call.repeatable) == ("POST", "https://a.example/api/batch", True)
    url = "/api/collections/tasks/records?fields=id"
    assert body == {
        "requests": [
            {"method": "PUT", "url": url, "body": {"n": 1, "id": ids[0]}},
            {"method": "PUT", "url": url, "body": {"n": 2, "id": ids[1]}},
        ]
    }


async def test_couchdb_may_answer_in_another_order():
    ids = [f"{TOKEN}-7", f"{TOKEN}-8", f"{TOKEN}-9"]
    answer = [
        {"id": ids[1], "error": "forbidden", "reason": "a title is missing"},
        {"ok": True, "id": ids[0], "rev": "1-a"},
        {"id": ids[2], "error": "conflict", "reason": "Document update conflict"},
    ]
    found, [(call, body)] = await settled("couchdb", [{"n": 1}, {"n": 2}, {"n": 3}], answer)
    assert found.task_ids == [ids[0], None, None]
    assert found.errors[1] == "a title is missing"
    assert found.errors[2].startswith("it is there already")
    assert call.url == "https://a.example/tasks/_bulk_docs"
    assert body["docs"][0] == {"n": 1, "_id": ids[0]}
    found, _ = await settled("couchdb", [{"n": 1}, {"n": 2}, {"n": 3}], answer, sent_before=True)
    assert found.task_ids == [ids[0], None, ids[2]]


async def test_datasette_answers_in_the_order_of_ids():
    ids = [f"{TOKEN}-7", f"{TOKEN}-8"]
    answer = {"ok": True, "rows": [{"id": ids[1], "n": 2}, {"id": ids[0], "n": 1}]}
    found, [(call, body)] = await settled("datasette", [{"n": 1}, {"n": 2}], answer)
    assert (found.task_ids, found.errors) == (ids, {})
    assert call.url == "https://a.example/tests/tasks/-/upsert"
    assert body == {"rows": [{"n": 1, "id": ids[0]}, {"n": 2, "id": ids[1]}], "return": True}


async def test_datasette_says_nothing_of_a_row_that_is_not_there_and_so_do_we():
    answer = {"ok": True, "rows": [{"id": f"{TOKEN}-7", "n": 1}]}
    found, _ = await settled("datasette", [{"n": 1}, {"n": 2}], answer)
    assert (found.task_ids, found.errors, list(found.uncertain)) == ([f"{TOKEN}-7", None], {}, [1])
