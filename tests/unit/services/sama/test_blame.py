"""What Sama's calls carry, how its errors are worded, and what explains a refusal."""

import pytest

from engine.model.error_hints import Carries
from engine.model.errors import Refused, Unauthorized, WrongAddress
from engine.model.payload import NO_TASKS
from engine.model.settings import SecretStr
from engine.services.base import Staged
from engine.services.sama.service import UNMARKED
from engine.services.sama.settings import SamaSettings

from .scripted import API, PUT_URL, Caller, a_batch, service

NO_PROJECT = Refused("project: 404: There is no project 42.", call="project", status=404)


async def made(work, *answers, **keys):
    """Return the only call that some work on a service makes."""
    caller = Caller(*answers, headers={"ETag": "x"})
    await work(service(caller, **keys))
    (call,) = caller.calls
    return call


@pytest.mark.parametrize(
    ("work", "carries"),
    [
        (lambda sama: sama.stage(a_batch(), NO_TASKS), Carries.NOTHING),
        (lambda sama: sama.upload(Staged("7", PUT_URL), NO_TASKS), Carries.BYTES),
        (lambda sama: sama.release(a_batch(), "7", None), Carries.RELEASE),
        (lambda sama: sama.release(a_batch(), None, NO_TASKS), Carries.RECORDS),
        (lambda sama: sama.cancel("7"), Carries.NOTHING),
        (lambda sama: sama.look(), Carries.NOTHING),
    ],
    ids=["create", "put", "continue", "post", "cancel", "project"],
)
async def test_each_call_says_what_it_carries(work, carries):
    assert (await made(work, {"batch_id": 7, "tasks_put_url": PUT_URL})).carries is carries


@pytest.mark.parametrize("few_tries", [True, False])
async def test_an_upload_has_as_many_tries_as_it_is_given(few_tries):
    call = await made(lambda sama: sama.upload(Staged("7", PUT_URL), NO_TASKS, few_tries=few_tries), b"")
    assert call.few_tries is few_tries


async def test_the_list_of_tasks_has_a_limit_of_its_own():
    call = await made(lambda sama: sama.count_work(["7"]), {"tasks": []})
    assert (call.lane, call.lane_seconds) == ("tasks", 1.05)
    assert not (await made(lambda sama: sama.look(), {"project": {}})).lane


@pytest.mark.parametrize(
    ("body", "own"),
    [
        (b'{"errors":[{"type":401,"message":"Not authorized."}]}', True),
        (b'{"errors":["nope"]}', True),
        (b'{"error":"nope"}', True),
        (b'{"message":"Forbidden"}', False),
        (b"<html><title>403 Forbidden</title></html>", False),
        (b"[]", False),
        (b"", False),
    ],
)
def test_the_vendors_form_of_an_error_is_told_from_a_gateways(body, own):
    settings = SamaSettings(kind="sama", project_id=42, access_key=SecretStr("k"))
    assert settings.speaks(body) is own


async def test_the_project_is_asked_for_to_explain_a_refusal():
    caller = Caller({"project": {"id": 42}})
    said = await service(caller, notification_email="me@example.com").look()
    assert said.startswith("project 42 is there")
    assert said.endswith("tasks_file_name, notification_email")
    assert caller.calls[0].url == f"{API}.json"


async def test_a_project_that_is_not_there_is_told_with_the_key_of_the_configuration():
    with pytest.raises(Refused, match=r"service\.project_id 42 is no project of this key"):
        await service(Caller(NO_PROJECT)).look()


@pytest.mark.parametrize("error", [Unauthorized(status=401), Refused("500", status=405)])
async def test_any_other_refusal_of_the_project_is_told_as_it_is(error):
    with pytest.raises(type(error)) as raised:
        await service(Caller(error)).look()
    assert raised.value is error


async def test_a_page_in_the_place_of_the_schema_means_no_mark_where_the_project_is_there():
    caller = Caller(WrongAddress("schema: 404 page"), {"project": {}})
    assert await service(caller, mode="inline").learn() == UNMARKED
    assert [call.kind for call in caller.calls] == ["schema", "project"]


async def test_a_page_in_the_place_of_schema_and_project_is_a_wrong_address():
    with pytest.raises(WrongAddress):
        await service(Caller(WrongAddress("schema"), WrongAddress("project")), mode="inline").learn()
