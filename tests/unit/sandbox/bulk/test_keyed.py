from .api import record


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
