import orjson
import pytest

from engine.sandbox.behaviour import FailureRule, Reads
from engine.sandbox.vendors.openai_batch import OpenAiStandIn, OpenAiSwitches

REFUSED = FailureRule(path="user", equals="bad", type="policy", message="No.")


def line(number, **body):
    whole = {"model": "m", "messages": [], **body}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": whole}


def content(*lines):
    return b"".join(one if isinstance(one, bytes) else orjson.dumps(one) + b"\n" for one in lines)


async def upload(vendor, data, purpose="batch", file="batch.jsonl"):
    parts = [("purpose", "", purpose.encode()), ("file", f'; filename="{file}"', data)]
    body = b"".join(
        f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"
        for name, more, value in parts
    )
    return await vendor.call("POST", "/v1/files", body + b"--B--\r\n", Content_Type="multipart/form-data; boundary=B")


async def create(vendor, *lines, **more):
    file = (await upload(vendor, content(*lines)))[1]["id"]
    order = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
    return await vendor.call("POST", "/v1/batches", order)


async def results(vendor, batch, key):
    _, text, _ = await vendor.call("GET", f"/v1/files/{batch[key]}/content")
    return {one["custom_id"]: one for one in map(orjson.loads, text.splitlines())}


async def test_a_batch_is_made_of_a_file_and_ends_in_two(vendor):
    vendor = vendor(OpenAiStandIn, failures=(REFUSED,), marker="n")
    _, made, _ = await create(vendor, line(1, n=1), line(2, n=2, user="bad"), line(3, n=3), metadata={"a": "b"})
    _, batch, _ = await vendor.call("GET", f"/v1/batches/{made['id']}")
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 3, "completed": 2, "failed": 1})
    assert batch["metadata"] == {"a": "b"}
    output, errors = await results(vendor, batch, "output_file_id"), await results(vendor, batch, "error_file_id")
    assert output.keys() == {"r1", "r3"}
    assert output["r1"]["response"]["status_code"] == 200
    assert errors["r2"]["response"]["body"]["error"]["message"] == "No."
    assert errors["r2"]["error"] is None
    assert sorted(vendor.written()) == [1, 3]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([line(1), line(1)], "duplicate_custom_id"),
        ([line(1), line(2, model="other")], "model_mismatch"),
        ([line(1), {**line(2), "url": "/v1/embeddings"}], "url_mismatch"),
        ([line(1), b"{\n"], "invalid_json_line"),
        ([], "empty_file"),
    ],
)
async def test_a_file_that_is_wrong_makes_a_batch_that_fails(vendor, lines, code):
    vendor = vendor(OpenAiStandIn)
    _, made, _ = await create(vendor, *lines)
    _, batch, _ = await vendor.call("GET", f"/v1/batches/{made['id']}")
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", code)
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    assert vendor.written() == []


async def test_what_is_not_made_in_time_expires_or_is_cancelled(vendor):
    vendor = vendor(OpenAiStandIn, OpenAiSwitches(validating_seconds=5, line_seconds=10, window_seconds=32))
    made = [(await create(vendor, *map(line, range(5))))[1]["id"] for _ in range(2)]
    assert (await vendor.call("GET", f"/v1/batches/{made[0]}"))[1]["status"] == "validating"
    await vendor.clock.sleep(16)
    assert (await vendor.call("POST", f"/v1/batches/{made[1]}/cancel"))[1]["status"] == "cancelling"
    await vendor.clock.sleep(20)
    shown = [(await vendor.call("GET", f"/v1/batches/{one}"))[1] for one in made]
    assert [one["status"] for one in shown] == ["expired", "cancelled"]
    assert [one["request_counts"]["completed"] for one in shown] == [2, 1]
    errors = await results(vendor, shown[0], "error_file_id")
    assert {one["error"]["code"] for one in errors.values()} == {"batch_expired"}
    assert (await vendor.call("POST", f"/v1/batches/{made[0]}/cancel"))[0] == 400


async def test_too_much_under_way_fails_a_batch(vendor):
    vendor = vendor(OpenAiStandIn, OpenAiSwitches(line_seconds=10, enqueued_requests=3))
    made = [(await create(vendor, line(1), line(2)))[1]["id"] for _ in range(2)]
    shown = [(await vendor.call("GET", f"/v1/batches/{one}"))[1] for one in made]
    assert [one["status"] for one in shown] == ["in_progress", "failed"]
    assert shown[1]["errors"]["data"][0]["code"] == "token_limit_exceeded"


async def test_the_list_is_newest_first_in_pages_and_lags(vendor):
    vendor = vendor(OpenAiStandIn, reads=Reads(list_seconds=10))
    made = []
    for _ in range(3):
        made.append((await create(vendor, line(1)))[1]["id"])
        await vendor.clock.sleep(5)
    _, first, _ = await vendor.call("GET", "/v1/batches?limit=1")
    assert ([one["id"] for one in first["data"]], first["has_more"]) == ([made[1]], True)
    _, rest, _ = await vendor.call("GET", f"/v1/batches?limit=1&after={first['last_id']}")
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([made[0]], False)


async def test_what_is_wrong_is_told_off(vendor):
    vendor = vendor(OpenAiStandIn)
    other = (await upload(vendor, b"", "assistants"))[1]["id"]
    order = {"input_file_id": other, "endpoint": "/v1/responses", "completion_window": "24h"}
    assert (await vendor.call("POST", "/v1/batches", order))[0] == 400
    assert (await vendor.call("POST", "/v1/batches", {**order, "completion_window": "1h"}))[0] == 400
    assert (await vendor.call("POST", "/v1/batches", {**order, "input_file_id": "file-x"}))[0] == 404
    assert (await vendor.call("POST", "/v1/files", b"{}", Content_Type="application/json"))[0] == 400
    assert (await upload(vendor, b"", file="batch.json"))[0] == 400
    assert (await vendor.call("GET", "/v1/batches/x"))[0] == 404
    assert (await vendor.call("GET", "/v1/batches", Authorization="Bearer other"))[0] == 401
