import orjson

from engine.services.base import Answer
from engine.services.described.items import fetch_table
from engine.services.described.results import (
    ListReader,
    RecordFates,
)
from engine.services.described.settings import FetchTable, ResultsTable

from .judged import settled


def test_a_fetch_has_its_own_words_and_the_rest_from_the_table():
    table = ResultsTable(format="csv", match="key", key="K", id=["sf__Id"])
    gathered = RecordFates(2, lambda: ["k0", "k1"])
    for own, text in (
        (FetchTable(call="GET /ok"), b"K,sf__Id\nk0,a\n"),
        (FetchTable(call="GET /rest", error=("=not processed",)), b"K\nk1\n"),
    ):
        ListReader(fetch_table(table, own)).add(Answer(200, {}, text), gathered)
    found = gathered.settlement("error", earlier=False)
    assert (found.task_ids, found.errors) == (["a", None], {1: "not processed"})


def test_what_others_say_is_kept_short_and_without_secrets():
    found = settled([{"id": "a"}, {"error": "x" * 1000}], error=["error"])
    assert len(found.errors[1]) == 300


def test_a_large_answer_is_read_rule_by_rule():
    items = [{"create": {"_id": f"i{at}", "status": 201}} for at in range(1000)]
    body = orjson.loads(orjson.dumps({"errors": False, "items": items}))
    found = settled(body, count=1000, items="items", id=["*._id"], ok={"*.status": [200, 201]})
    assert found.task_ids == [f"i{at}" for at in range(1000)]


def test_the_answer_about_one_record_is_its_item():
    from engine.services.described.items import ResultReader  # noqa: PLC0415

    reader = ResultReader(ResultsTable(items="data", id=("id",), single=True))
    items, _ = reader.items({"data": {"id": 7, "error": None}})
    assert reader.judged(items).ids == ["7"]
    assert reader.items({"data": [{"id": 7}]})[0] == [{"id": 7}]
