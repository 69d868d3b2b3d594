import base64

import pytest

from engine.sandbox.behaviour import Fault, RateLimit
from engine.sandbox.vendors.elasticsearch import ElasticsearchStandIn, ElasticsearchSwitches

HEADERS = {"Authorization": "ApiKey sandbox-key"}


def lines(*documents, action="create"):
    pairs = (f'{{"{action}":{{"_id":"{key}"}}}}\n{source}\n' for key, source in documents)
    return "".join(pairs).encode()


async def bulk(vendor, *documents, path="/t/_bulk", **options):
    return await vendor.call("POST", path, lines(*documents, **options))


async def test_each_document_has_a_status_of_its_own(vendor):
    vendor = vendor(ElasticsearchStandIn, ElasticsearchSwitches(fields={"n": "long"}, strict=True), headers=HEADERS)
    await bulk(vendor, ("a", '{"n":1}'))
    documents = [("a", '{"n":2}'), ("b", '{"n":"x"}'), ("c", '{"m":1}'), ("d", '{"n":3}'), ("x" * 513, '{"n":4}')]
    status, body, _ = await bulk(vendor, *documents)
    items = [item["create"] for item in body["items"]]
    assert (status, body["errors"]) == (200, True)
    assert [item["status"] for item in items] == [409, 400, 400, 201, 400]
    assert [item["error"]["type"] for item in items if "error" in item] == [
        "version_conflict_engine_exception",
        "document_parsing_exception",
        "strict_dynamic_mapping_exception",
        "illegal_argument_exception",
    ]
    assert vendor.service.documents == {("t", "a"): {"n": 1}, ("t", "d"): {"n": 3}}
    assert (await vendor.call("GET", "/t/_count"))[1] == {"count": 2}
    assert (await vendor.call("GET", "/t/_doc/d"))[1]["_source"] == {"n": 3}


async def test_index_writes_over_and_the_journal_tells_both_apart(vendor):
    vendor = vendor(ElasticsearchStandIn, headers=HEADERS, marker="n")
    for number in (1, 2):
        status, body, _ = await bulk(vendor, ("a", f'{{"n":{number}}}'), action="index")
        assert (status, body["items"][0]["index"]["result"]) == (200, "created" if number == 1 else "updated")
    assert (vendor.written(), vendor.written("run")) == ([1], [2])


async def test_a_filter_leaves_what_it_names(vendor):
    vendor = vendor(ElasticsearchStandIn, headers=HEADERS)
    path = "/t/_bulk?filter_path=errors,items.*.status,items.*.error.type"
    await bulk(vendor, ("a", "{}"))
    _, body, _ = await bulk(vendor, ("a", "{}"), ("b", "{}"), path=path)
    error = {"type": "version_conflict_engine_exception"}
    assert body == {"errors": True, "items": [{"create": {"status": 409, "error": error}}, {"create": {"status": 201}}]}


async def test_what_is_turned_away_is_taken_later(vendor):
    vendor = vendor(ElasticsearchStandIn, ElasticsearchSwitches(busy_every=2, busy_tries=2), headers=HEADERS)
    documents = [("a", "{}"), ("b", "{}")]
    seen = []
    for _ in range(3):
        _, body, _ = await bulk(vendor, *documents, action="index")
        seen.append([item["index"]["status"] for item in body["items"]])
    assert seen == [[201, 429], [200, 429], [200, 201]]


async def test_open_search_has_names_of_its_own(vendor):
    switches = ElasticsearchSwitches(fields={"n": "long"}, open_search=True, busy_every=2)
    vendor = vendor(ElasticsearchStandIn, switches, headers=HEADERS)
    _, body, _ = await bulk(vendor, ("a", '{"n":"x"}'), ("b", "{}"))
    assert [item["create"]["error"]["type"] for item in body["items"]] == [
        "mapper_parsing_exception",
        "rejected_execution_exception",
    ]


async def test_a_request_as_a_whole_may_be_wrong(vendor):
    vendor = vendor(ElasticsearchStandIn, headers=HEADERS, rate_limits=(RateLimit(3, 60.0),))
    cut, strange = lines(("a", "{}"))[:-1], b'{"fly":{}}\n{}\n'
    for body, reason in ((cut, "terminated by a newline"), (strange, "Malformed action/metadata line [1]")):
        status, said, _ = await vendor.call("POST", "/t/_bulk", body)
        assert (status, said["error"]["type"]) == (400, "illegal_argument_exception")
        assert reason in said["error"]["reason"]
    vendor.headers = {}
    assert (await bulk(vendor, ("a", "{}")))[0] == 401
    status, said, _ = await bulk(vendor, ("a", "{}"))
    assert (status, said["error"]["type"]) == (429, "es_rejected_execution_exception")
    assert vendor.service.documents == {}


async def test_a_password_opens_it_too(vendor):
    basic = base64.b64encode(b"elastic:sandbox-key").decode()
    vendor = vendor(ElasticsearchStandIn, headers={"Authorization": f"Basic {basic}"})
    assert (await bulk(vendor, ("a", "{}")))[0] == 200


async def test_work_may_be_done_after_its_answer_was_lost(vendor):
    vendor = vendor(ElasticsearchStandIn, headers=HEADERS, faults=(Fault("bulk", "drop_late", nth=(1,), seconds=5),))
    assert await bulk(vendor, ("a", "{}")) is None
    assert vendor.service.documents == {}
    await vendor.clock.sleep(6)
    vendor.service.advance()
    assert ("t", "a") in vendor.service.documents


@pytest.mark.parametrize(("open_search", "header"), [(False, "Elasticsearch"), (True, None)])
async def test_a_header_tells_elastics_clients_what_it_is(vendor, open_search, header):
    vendor = vendor(ElasticsearchStandIn, ElasticsearchSwitches(open_search=open_search), headers=HEADERS)
    _, _, headers = await bulk(vendor, ("a", "{}"))
    assert headers.get("X-Elastic-Product") == header
