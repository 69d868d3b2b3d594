import asyncio

import pytest
import yarl

from engine.sandbox.behaviour import Behaviour

from ..api import tasks  # noqa: TID252 - tests of one package


@pytest.fixture
async def api(start, clock):
    return await start(Behaviour(max_body_bytes=10_000), clock=clock.now)


@pytest.fixture
async def url(api):
    return (await api.create()).body["tasks_put_url"]


async def test_a_good_url_takes_the_upload_and_repeats_of_it(api, url):
    first, second = await api.put(url, tasks(1)), await api.put(url, tasks(1))
    assert (first.status, second.status) == (200, 200)
    assert first.headers["ETag"] == second.headers["ETag"]


async def test_the_url_is_absolute_and_of_the_host_that_was_asked(url, api):
    assert url.startswith(f"{api.origin}/uploads/42/")


async def test_the_last_upload_counts(api):
    created = (await api.create()).body
    await api.put(created["tasks_put_url"], tasks(1))
    await api.put(created["tasks_put_url"], tasks(2))
    await api.go_on(created["batch_id"])
    assert (await api.status(created["batch_id"]))["total"] == 2


async def _refusal(api, url, body=None, **options):
    answer = await api.put(str(url), tasks(1) if body is None else body, **options)
    return answer.status, answer.body.split(b"<Code>")[1].split(b"</Code>")[0].decode()


async def test_a_tampered_url_is_refused(api, url):
    good = yarl.URL(url)
    other_batch = (await api.create()).body["batch_id"]
    tampered = [
        good.update_query(Signature="0" * 64),
        good.without_query_params("Signature"),
        good.without_query_params("Expires"),
        good.update_query(Expires=str(int(good.query["Expires"]) + 1)),
        good.with_path(f"/uploads/42/{other_batch}/tasks.json", keep_query=True),
    ]
    for bad in tampered:
        assert await _refusal(api, bad) == (403, "SignatureDoesNotMatch")


async def test_an_expired_url_is_refused(api, url, clock):
    clock.elapsed += 4 * 3600
    assert (await api.put(url, tasks(1))).status == 200
    clock.elapsed += 1
    assert await _refusal(api, url) == (403, "AccessDenied")


async def test_a_leaked_access_key_is_refused(api, url):
    leaky = yarl.URL(url).update_query(access_key="sandbox-key")
    assert await _refusal(api, leaky) == (400, "InvalidArgument")


async def test_the_body_has_a_limit(api, url):
    assert await _refusal(api, url, b"x" * 10_001) == (400, "EntityTooLarge")


async def test_the_length_must_be_known(api, url):
    async def chunks():
        yield b"[]"

    async with api.session.put(yarl.URL(url, encoded=True), data=chunks()) as answer:
        assert answer.status == 411
        assert "MissingContentLength" in await answer.text()


async def test_uploads_at_once_do_not_mix(api):
    ids = await asyncio.gather(*(api.upload(tasks(count)) for count in range(1, 6)))
    await asyncio.gather(*(api.go_on(batch_id) for batch_id in ids))
    assert [(await api.status(batch_id))["total"] for batch_id in ids] == [1, 2, 3, 4, 5]
