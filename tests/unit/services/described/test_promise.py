"""What a description promises, in words; and the checks that tell it."""

from contextlib import suppress

import pytest

from engine.model.doubt import Again
from engine.model.errors import CallFailed, Unauthorized
from engine.services.checks import Checking, CheckVerdict, ProbeEvidence
from engine.services.described.promise import AFTER_A_LOSS, promise_of

from .served import Described, read

PLAIN = '[release]\ncall = "POST /items"\npayload = true\n'


@pytest.mark.parametrize("again", [again for again in Again if again is not Again.REFUSED])
def test_each_way_after_a_lost_answer_has_words(again):
    assert AFTER_A_LOSS[again]


def test_what_counts_as_created():
    assert promise_of(read(PLAIN)).created == (
        "a record is created if its item in the answer to the release has no error (matched by their order); one "
        "without an item is uncertain"
    )
    keyed = '[record]\nkey = "${index}"\n[results]\nmatch = "key"\nkey = "k"\nok = { s = 1 }\nmissing = "not made"\n'
    assert promise_of(read(PLAIN + keyed)).created == (
        "a record is created if its item in the answer to the release says that it is fine (matched by the key that "
        "each item names); one without an item has failed"
    )


@pytest.mark.parametrize(("key", "says"), [("${task.id}", True), ("${token}-${task.id}", True), ("${index}", False)])
def test_that_keys_of_the_source_are_unique_is_a_condition(key, says):
    promise = promise_of(read(f'{PLAIN}[record]\nkey = "{key}"\n'))
    assert ("no key may stand twice in the source" in promise.created) is says


def test_a_weak_promise_says_what_would_make_it_stronger():
    (warning,) = promise_of(read(PLAIN)).warnings
    assert "idempotency key" in warning
    safe = promise_of(read(PLAIN + 'again = "safe"\n'))
    assert (safe.warnings, "upsert" in safe.lost) == ((), True)
    assert promise_of(read(PLAIN + 'again = "key"\nkey_header = "Idempotency-Key"\n')).lost.endswith(
        "after 24 hours it is uncertain instead"
    )
    keyed = PLAIN + 'again = "key"\nkey_header = "Idempotency-Key"\n'
    assert promise_of(read(f"{keyed}key_seconds = 3600\n")).lost.endswith("after 1 hour it is uncertain instead")
    (warning,) = promise_of(read(keyed)).warnings
    assert "409" in warning
    assert promise_of(read(f'{keyed}[[rules]]\nstatus = [409]\nmeans = "busy"\n')).warnings == ()


def test_a_success_that_is_taken_for_a_refusal_is_said():
    rule = '[[rules]]\nstatus = [200]\npath = "errors"\nmeans = "whole"\n'
    (warning,) = promise_of(read(f'{PLAIN}again = "safe"\n{rule}')).warnings
    assert "nothing may have been done" in warning


async def test_a_check_tells_it():
    service = Described(PLAIN, lambda seen: (200, b"{}")).service
    checking = service.checking
    assert isinstance(checking, Checking)
    found = {one.name: await one.look() for one in checking.checks()}
    assert found["key"].verdict is CheckVerdict.OK
    assert found["promise"].found.startswith("a record is created if")
    assert found["lost answers"].verdict is CheckVerdict.WARNING
    assert await checking.flaws([{"a": 1}]) == [None]
    assert checking.probe_note()
    await checking.look_closer(["b"], [])
    assert checking.guesses


SEARCHED = """
[record]
key = "${token}-${index}"
template = { tag = "${mark}", ref = "${key}" }
[release]
call = "POST /items"
payload = true
again = "search"
[search]
call = "GET /items"
query = { tag = "${mark}" }
key = "ref"
"""
FOUND = [{"id": "1", "ref": "a"}, {"id": "2", "ref": "b"}]


async def searched(text, listed, *, batches=(), created=2):
    """Return what a probe sees of the search, where each search lists the next of `listed`, and the last one again."""
    lists = list(listed)
    described = Described(text, lambda seen: (200, lists.pop(0) if len(lists) > 1 else lists[0]))
    checking = described.service.checking
    with suppress(CallFailed):
        await checking.look_closer(batches, ["1", "2"][:created])
    (guess,) = (one for one in checking.guesses if one.name == "described.search")
    assert all("j-00112233aabbccdd-0" in str(seen.url) for seen in described.wire.seen if seen.path == "/items")
    return guess.sight(ProbeEvidence([])).holds


@pytest.mark.parametrize(
    ("listed", "holds"),
    [
        ([FOUND], True),
        ([[], FOUND[:1], FOUND], True),  # a list that is a little late
        ([[]], False),
        ([[{"id": "7", "ref": "a"}, {"id": "8", "ref": "b"}]], False),  # `search.id` names something else
        ([[{"id": "1"}, {"id": "2"}]], False),  # `search.key` leads to nothing
        ([{"total": 2}], False),  # and so does `search.items`
    ],
)
async def test_a_probe_tries_the_search_that_would_follow_a_lost_answer(listed, holds):
    assert await searched(SEARCHED, listed) is holds


async def test_so_it_does_where_the_search_lists_batches():
    status = '[status]\ncall = "GET /jobs/${id}"\nstate = "s"\nfinished = ["done"]\n'
    text = SEARCHED.replace("again =", 'take = { id = "id" }\nagain =').replace('key = "ref"\n', "") + status
    text += '[results]\nof = "status"\nitems = "items"\n'
    listed = [{"s": "done"}, [{"id": "b7"}, {"id": "b8"}]]
    assert await searched(text, listed, batches=["b7"]) is True
    assert await searched(text, listed, batches=["b9"]) is False


async def test_a_place_that_is_not_there_is_told_from_a_key_that_does_not_hold():
    text = PLAIN + '[look]\ncall = "GET /tables/7"\n'
    key = Described(text, lambda seen: (404, {"error": "no such table"})).service.checking.checks()[0]
    found = await key.look()
    assert (found.verdict, "no such table" in found.found, "values" in found.cure) == (CheckVerdict.FAILED, True, True)
    with pytest.raises(Unauthorized):
        await Described(text, lambda seen: (401, {"error": "no"})).service.checking.checks()[0].look()
