import orjson
import pytest

from engine.sandbox.behaviour import RateLimit, Reads
from engine.sandbox.vendors.anthropic_batches import AnthropicStandIn, AnthropicSwitches

HEADERS = {"x-api-key": "sandbox-key", "anthropic-version": "2023-06-01"}
PLACE = "/v1/messages/batches"


def request(key, **params):
    return {"custom_id": key, "params": {"model": "m", "max_tokens": 1, "messages": [], **params}}


async def create(vendor, *requests):
    return await vendor.call("POST", PLACE, {"requests": requests})


async def results(vendor, batch):
    _, text, _ = await vendor.call("GET", f"{PLACE}/{batch}/results")
    return {one["custom_id"]: one["result"] for one in map(orjson.loads, text.splitlines())}


async def test_a_batch_ends_in_a_line_for_each_request(vendor):
    vendor = vendor(AnthropicStandIn, AnthropicSwitches(line_seconds=1), headers=HEADERS, marker="n")
    _, made, _ = await create(vendor, request("a", n=1), {"custom_id": "b", "params": {"model": "m"}})
    assert (made["processing_status"], made["request_counts"]["processing"]) == ("in_progress", 2)
    assert (await vendor.call("GET", f"{PLACE}/{made['id']}/results"))[0] == 404
    await vendor.clock.sleep(1.5)
    assert (await vendor.call("GET", f"{PLACE}/{made['id']}"))[1]["request_counts"]["succeeded"] == 0
    await vendor.clock.sleep(1)
    _, batch, _ = await vendor.call("GET", f"{PLACE}/{made['id']}")
    assert batch["processing_status"] == "ended"
    assert batch["request_counts"] == {"processing": 0, "succeeded": 1, "errored": 1, "canceled": 0, "expired": 0}
    assert batch["results_url"].endswith("/results")
    told = await results(vendor, made["id"])
    assert told["a"]["type"] == "succeeded"
    assert told["b"]["error"]["error"] == {"type": "invalid_request_error", "message": "max_tokens: Field required"}
    assert vendor.written() == [1]


async def test_what_is_not_made_in_time_expires_or_is_canceled(vendor):
    vendor = vendor(AnthropicStandIn, AnthropicSwitches(line_seconds=10, window_seconds=25), headers=HEADERS)
    made = [(await create(vendor, *(request(f"r{number}") for number in range(5))))[1]["id"] for _ in range(2)]
    await vendor.clock.sleep(12)
    assert (await vendor.call("POST", f"{PLACE}/{made[1]}/cancel"))[1]["processing_status"] == "canceling"
    await vendor.clock.sleep(20)
    kinds = [sorted(one["type"] for one in (await results(vendor, batch)).values()) for batch in made]
    assert kinds == [["expired"] * 3 + ["succeeded"] * 2, ["canceled"] * 4 + ["succeeded"]]


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "requests: Field required"),
        ([request("a"), request("a.b")], "requests.1.custom_id: String should match pattern"),
        ([request("a" * 65)], "requests.0.custom_id"),
        ([request("a"), request("a")], "requests.1.custom_id: must be unique"),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
    ],
)
async def test_a_form_that_is_wrong_refuses_the_whole(vendor, requests, words):
    vendor = vendor(AnthropicStandIn, headers=HEADERS)
    status, body, _ = await create(vendor, *requests)
    assert (status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert words in body["error"]["message"]
    assert vendor.service.batches == {}


async def test_headers_tell_of_the_window(vendor):
    vendor = vendor(AnthropicStandIn, headers=HEADERS, rate_limits=(RateLimit(2, 60.0),))
    _, _, headers = await create(vendor, request("a"))
    assert headers["anthropic-ratelimit-requests-remaining"] == "1"
    assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    await create(vendor, request("a"))
    status, body, _ = await create(vendor, request("a"))
    assert (status, body["error"]["type"]) == (429, "rate_limit_error")


async def test_the_list_is_newest_first_in_pages_and_lags(vendor):
    vendor = vendor(AnthropicStandIn, headers=HEADERS, reads=Reads(list_seconds=10))
    made = []
    for _ in range(3):
        made.append((await create(vendor, request("a")))[1]["id"])
        await vendor.clock.sleep(5)
    _, first, _ = await vendor.call("GET", f"{PLACE}?limit=1")
    assert ([one["id"] for one in first["data"]], first["has_more"]) == ([made[1]], True)
    _, rest, _ = await vendor.call("GET", f"{PLACE}?limit=1&after_id={first['last_id']}")
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([made[0]], False)


async def test_a_key_and_a_version_are_needed(vendor):
    vendor = vendor(AnthropicStandIn, headers={})
    assert (await vendor.call("GET", PLACE))[0] == 401
    assert (await vendor.call("GET", PLACE, x_api_key="sandbox-key"))[0] == 400


async def test_a_key_is_a_bearer_token_and_the_new_version_takes_no_sampling_parameters(vendor):
    headers = {"Authorization": "Bearer sandbox-key", "anthropic-version": "2026-10-21"}
    vendor = vendor(AnthropicStandIn, headers=headers, marker="n")
    _, made, _ = await create(vendor, request("a", n=1), request("b", temperature=1))
    told = await results(vendor, made["id"])
    assert told["a"]["type"] == "succeeded"
    assert told["b"]["error"]["error"]["message"] == "temperature: Extra inputs are not permitted"


async def test_the_old_version_takes_sampling_parameters(vendor):
    vendor = vendor(AnthropicStandIn, headers=HEADERS)
    _, made, _ = await create(vendor, request("a", temperature=1))
    assert (await results(vendor, made["id"]))["a"]["type"] == "succeeded"
