"""The checks of a description without its server: those that are shipped hold, and each kind of mistake is found."""

import tomllib

import pytest

from engine.services.described.shipped import shipped_kinds
from engine.testing import DESCRIPTION_CHECKS, PromiseBroken, made_of, read_description
from engine.testing.description import RECORDS, fresh_records

from .described import GOOD

ADDRESS = {"base_url": "https://api.example.com"}


FILLED_IN = {
    "anthropic-batches": {},
    "clickhouse": {**ADDRESS, "values": {"table": "tasks"}},
    "couchdb": {**ADDRESS, "values": {"database": "tasks"}},
    "datasette": {**ADDRESS, "values": {"database": "data", "table": "tasks"}},
    "directus": {**ADDRESS, "values": {"collection": "tasks"}},
    "doccano": {**ADDRESS, "values": {"project": "7"}},
    "elasticsearch": {**ADDRESS, "values": {"index_name": "tasks"}},
    "hubspot": {"values": {"object": "contacts"}},
    "kinto": {**ADDRESS, "values": {"bucket": "shop", "collection": "tasks"}},
    "label-studio": {**ADDRESS, "values": {"project": "7"}},
    "openai-batch": {},
    "parse-server": {**ADDRESS, "values": {"class": "Task"}},
    "pocketbase": {**ADDRESS, "values": {"collection": "tasks", "identity": "me@example.com"}},
    "salesforce-bulk2": {
        **ADDRESS,
        "values": {"client_id": "client", "object": "Contact", "key_field": "Key__c"},
        "record": {"key": "${task.Key__c}"},
        "results": {"key": "Key__c"},
    },
}


"""Kind → what a user writes beside it."""


def check_all(one):
    for check in DESCRIPTION_CHECKS:
        check(one)


@pytest.mark.parametrize("kind", shipped_kinds())
@pytest.mark.parametrize("check", DESCRIPTION_CHECKS, ids=lambda check: check.__name__)
def test_what_is_shipped_holds(kind, check):
    check(made_of({"kind": kind, **FILLED_IN[kind]}))


def test_a_description_of_every_form_holds():
    check_all(made_of(tomllib.loads(GOOD)["service"]))
    pages = """
        kind = "http"
        base_url = "https://api.example.com/v1"
        record = { key = "${index}", template = { key = "${key}" }, head = { n = "${task.n}" } }
        body = { framing = "ndjson" }
        stage = { call = "POST /jobs", take = { id = "header.X-Id", other = "a.0.b?" } }
        upload = { call = "PUT /jobs/${id}/${other}", payload = true }
        release = { call = "POST /jobs/${id}", again = "ask" }
        [status]
        call = "GET /jobs/${id}"
        state = "job.state"
        waiting = ["open"]
        finished = [3]
        [results]
        of = "fetch"
        match = "index"
        items = "failed"
        error = ["=not processed"]
        [[results.fetch]]
        call = "GET /jobs/${id}/a"
        pages = { cursor_header = "Next", cursor_query = "after" }
        [[results.fetch]]
        call = "GET /jobs/${id}/b"
        format = "csv"
        match = "key"
        key = "key"
        error = ["a.b"]
        pages = { next_header = "Link" }
    """
    check_all(made_of(tomllib.loads(pages)))
    for results in ('{ format = "ids", items = "ids" }', '{ format = "count", items = "n" }'):
        text = (
            f'kind = "http"\nbase_url = "https://a.example"\nrecord = {{ key = "${{index}}" }}\nresults = {results}\n'
        )
        check_all(made_of(tomllib.loads(text + 'release = { call = "POST /a", payload = true }')))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"${task.id}", template', '"${task.id.0.x}-${task.id}", template', "each_record|cannot be sent"),
        ('key = "id"', 'key = "state"', "not said to be created"),
        ('exists = { code = "duplicate" }', 'exists = { state = "made" }', "exists holds"),
        ('path = "code"\nequals = ["E1"]\n', "", "rule 2 never fits, since rule 1"),
    ],
)
def test_what_contradicts_itself_is_found(old, new, said):
    assert old in GOOD
    with pytest.raises((PromiseBroken, ValueError), match=said):
        check_all(made_of(tomllib.loads(GOOD.replace(old, new))["service"]))


def test_records_that_share_a_key_or_lack_a_value_are_found():
    service = tomllib.loads(GOOD)["service"]
    with pytest.raises(PromiseBroken, match="3 records have 1 keys"):
        check_all(made_of(service, [{"id": "a"}] * 3))
    with pytest.raises(PromiseBroken, match=r"a record cannot be sent: .*id"):
        check_all(made_of(service, [{"name": "a"}] * 3))


def test_made_up_records_are_never_the_same_and_given_ones_end():
    one = made_of(tomllib.loads(GOOD)["service"])
    fresh = fresh_records(one, ())
    ids = [record["id"] for _ in range(3) for record in next(fresh)]
    assert len(set(ids)) == 3 * RECORDS
    assert len(list(fresh_records(one, [{"id": at} for at in range(7)]))) == 2


# The command


def test_what_a_user_fills_in_lies_over_the_file(tmp_path):
    (tmp_path / "c.toml").write_text(GOOD)
    one = read_description(
        tmp_path / "c.toml", filled_in={"results": {"items": "list"}, "base_url": "https://b.example"}
    )
    assert (one.settings.results.items, one.settings.results.key) == ("list", "id")
    assert one.settings.base_url == "https://b.example"
