from .api import record


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
