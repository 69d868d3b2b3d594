"""What a key does to a repeated call: it is written over, answered as the first time, or told off."""

from .api import record


async def test_an_upsert_writes_over_and_says_so_in_the_journal(start):
    api = start()
    first = (await api.upsert(record("a"), record("b"))).body["results"]
    again = (await api.upsert(record("a"), record("other"), keys=["ka", "kb"])).body["results"]
    assert [one["id"] for one in again] == [one["id"] for one in first]
    assert [one["new"] for one in first + again] == [True, True, False, False]
    assert api.created == {"a": 1, "b": 1}
    assert [(entry.kind, entry.marker) for entry in api.entries][2:] == [("update", "other")]
    found = await api.call("GET", "/safe/records/kb")
    assert found.body["properties"] == record("other")
    assert (await api.call("GET", "/safe/records/none")).status == 404


async def test_two_inputs_with_one_key_are_one_record(start):
    api = start()
    results = (await api.upsert(record("a"), record("b"), keys=["k", "k"])).body["results"]
    assert results[0]["id"] == results[1]["id"]
    assert api.created == {"a": 1}


async def test_an_upsert_with_failures_is_a_207_that_names_them_by_key(start):
    answer = await start().upsert(record("a"), record("b", bad="odd"))
    assert answer.status == 207
    assert [error["context"]["key"] for error in answer.body["errors"]] == [["kb"]]
    assert [one["key"] for one in answer.body["results"]] == ["ka"]


async def test_an_idempotency_key_gives_the_first_answer_again(start):
    api = start()
    first, again = await api.order(record("a")), await api.order(record("a"))
    assert (first.status, first.body) == (again.status, again.body)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await api.order(record("b"))).status == 422
    assert (await api.order(record("a"), key="")).status == 400
    assert api.created == {"a": 1}


async def test_an_idempotency_key_is_remembered_so_long_and_may_be_forgotten_earlier(start):
    api = start(key_seconds=100)
    for seconds, times in ((0, 1), (99, 1), (2, 2)):
        api.clock.elapsed += seconds
        await api.order(record("a"))
        assert api.created == {"a": times}
    forgetful = start(key_seconds=100, unwritten={"forgets_keys_after": 10})
    forgetful.clock.elapsed += 1000
    await forgetful.order(record("b"))
    forgetful.clock.elapsed += 11
    await forgetful.order(record("b"))
    assert forgetful.created == {"b": 2}


async def test_a_refusal_is_not_remembered_unless_it_is_told_otherwise(start):
    mended, kept = start(), start(keys_keep_noes=True)
    for api in (mended, kept):
        assert (await api.order(record("a", bad="index"), record("b"))).status == 400
    assert (await mended.order(record("b"))).status == 201
    assert (await kept.order(record("b"))).status == 422
    assert (await kept.order(record("a", bad="index"), record("b"))).headers["Idempotency-Replayed"] == "true"


async def test_a_key_that_is_taken_is_told_item_by_item(start):
    api = start()
    await api.bulk(record("a"))
    answer = await api.bulk(record("a"), record("b"), record("c"), keys=["ka", "kb", "kb"])
    items = [item["create"] for item in answer.body["items"]]
    assert answer.status == 200
    assert answer.body["errors"] is True
    assert [item["status"] for item in items] == [409, 201, 409]
    assert items[0]["error"]["type"] == "version_conflict"
    assert api.created == {"a": 1, "b": 1}
    found = (await api.call("GET", "/exists/records/_doc/ka")).body
    assert (found["found"], found["_source"]) == (True, record("a"))
    assert (await api.call("GET", "/exists/records/_doc/none")).status == 404


async def test_items_may_be_busy_or_said_to_exist_that_do_not(start):
    api = start(busy_every=3, unwritten={"exists_every": 2})
    items = (await api.bulk(record("a"), record("b"), record("c"))).body["items"]
    assert [item["create"]["status"] for item in items] == [201, 409, 429]
    assert api.created == {"a": 1}


async def test_pairs_must_be_pairs(start):
    api = start()
    bodies = (
        b'{"create": {"_id": "a"}}\n{}',
        b'{"create": {"_id": "a"}}\n',
        b'{"index": {"_id": "a"}}\n{}\n',
        b"{\n{}\n",
    )
    for body in bodies:
        assert (await api.call("POST", "/exists/records/_bulk", body)).status == 400
