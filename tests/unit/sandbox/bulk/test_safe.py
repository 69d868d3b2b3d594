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
