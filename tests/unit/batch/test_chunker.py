import hashlib
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.batch.chunker import Chunker, reference_bytes, with_reference
from engine.model.batch import ClientReference, Limits, decode_spans
from engine.model.record import Block, Position, Reject


def blocks_of(plan: list[list[int | None]]) -> list[Block]:
    """Return blocks of tasks with these lengths, one line each; None is a reject."""
    blocks, index, offset = [], 0, 0
    for lengths in plan:
        good, rejects = [], []
        for length in lengths:
            if length is None:
                rejects.append(Reject(index, offset, 3, index + 1, "no"))
            else:
                good.append((index, offset, length + 1, index + 1, b"t" * length))
            index, offset = index + 1, offset + (4 if length is None else length + 3)
        offset += 1  # a blank line
        columns = [list(column) for column in zip(*good, strict=True)] or [[]] * 5
        blocks.append(Block(Position(offset, index, index + 1), *columns, [{}] * len(good), rejects))
    return blocks


def chunked(blocks: list[Block], limits: Limits):
    chunker = Chunker(limits, Position(), 7)
    batches, rejects = [], []
    for block in blocks:
        chunk = chunker.feed(block)
        batches += chunk.batches
        rejects += chunk.rejects
    chunk = chunker.finish()
    return [*batches, *chunk.batches], [*rejects, *chunk.rejects]


PLANS = st.lists(st.lists(st.none() | st.integers(2, 30), max_size=12), max_size=12)
LIMITS = st.builds(Limits, records=st.integers(1, 9), bytes=st.integers(1, 90))


@given(PLANS, LIMITS)
@settings(max_examples=300)
def test_batches_tile_the_input_within_the_limits(plan, limits):
    blocks = blocks_of(plan)
    batches, rejects = chunked(blocks, limits)
    tasks = [task for block in blocks for task in block.raws]
    offsets = [offset for block in blocks for offset in block.offsets]
    lengths = [length for block in blocks for length in block.lengths]

    assert [batch.sequence for batch in batches] == list(range(7, 7 + len(batches)))
    at, taken = Position(), 0
    for batch in batches:
        assert batch.start == at
        at = batch.end
        inside = slice(taken, taken + batch.count)
        taken += batch.count
        payload = b"[" + b",".join(tasks[inside]) + b"]"
        assert (batch.size_bytes, batch.sha256) == (len(payload), hashlib.sha256(payload).digest())
        assert batch.count <= limits.records
        assert batch.size_bytes <= limits.bytes or batch.count <= 1
        assert decode_spans(batch.start.offset, batch.spans) == (offsets[inside], lengths[inside])
        assert batch.rejected == sum(batch.start.index <= reject.index < batch.end.index for reject in rejects)
    assert taken == len(tasks)
    assert at == (blocks[-1].end if blocks else Position())
    assert rejects == [reject for block in blocks for reject in block.rejects]


@given(PLANS, LIMITS)
def test_batches_are_as_full_as_the_limits_allow(plan, limits):
    plan = [[length for length in lengths if length is not None] for lengths in plan]
    blocks = blocks_of(plan)
    batches, _ = chunked(blocks, limits)
    lengths = [length for each in plan for length in each]
    taken = 0
    for batch, following in pairwise(batches):
        taken += batch.count
        assert following.count
        assert batch.count == limits.records or batch.size_bytes + 1 + lengths[taken] > limits.bytes


@given(PLANS, LIMITS, st.integers(0, 20), st.integers(0, 9))
def test_what_a_service_puts_around_tasks_counts_as_bytes_of_a_batch(plan, limits, fixed_bytes, record_bytes):
    plan = [[length for length in lengths if length is not None] for lengths in plan]
    lengths = [length for each in plan for length in each]
    batches, _ = chunked(blocks_of(plan), replace(limits, fixed_bytes=fixed_bytes, record_bytes=record_bytes))
    taken = 0
    for batch in batches:
        sizes = lengths[taken : taken + batch.count]
        taken += batch.count
        assert batch.size_bytes == len(b"[]") + sum(sizes) + max(0, len(sizes) - 1), "they are no part of the payload"
        sent = batch.size_bytes + fixed_bytes + record_bytes * batch.count
        assert sent <= limits.bytes or batch.count <= 1
        is_full = batch.count == limits.records
        assert taken == len(lengths) or is_full or sent + 1 + lengths[taken] + record_bytes > limits.bytes
    assert taken == len(lengths)


def test_a_task_that_does_not_even_fit_alone_is_a_batch_of_its_own():
    batches, _ = chunked(blocks_of([[10, 50, 10, 10]]), Limits(9, 45, fixed_bytes=10, record_bytes=2))
    assert [batch.count for batch in batches] == [1, 1, 2]
    batches, _ = chunked(blocks_of([[10, 10]]), Limits(9, 45, fixed_bytes=100))
    assert [batch.count for batch in batches] == [1, 1]


def test_a_thousand_and_one_records_are_two_batches():
    batches, _ = chunked(blocks_of([[10] * 1001]), Limits(1000, 1 << 20))
    assert [batch.count for batch in batches] == [1000, 1]


def test_what_follows_the_last_record_belongs_to_its_batch():
    blocks = [*blocks_of([[10] * 3]), Block(Position(99, 3, 9), [], [], [], [], [], [])]
    (batch,), _ = chunked(blocks, Limits(3, 1 << 20))
    assert batch.end == Position(99, 3, 9)


def test_bad_records_without_end_are_cut_too():
    batches, rejects = chunked(blocks_of([[None] * 1000] * 5), Limits(1000, 1 << 20))
    assert [(batch.count, batch.rejected, batch.size_bytes) for batch in batches] == [(0, 1000, 2)] * 5
    assert len(rejects) == 5000


@pytest.mark.parametrize(("content", "count"), [([], 0), ([[]], 1)])
def test_no_record_is_no_batch_unless_there_are_bytes(content, count):
    batches, _ = chunked(blocks_of(content), Limits(10, 100))
    assert [batch.count for batch in batches] == [0] * count


MARK = ClientReference("data", "client_batch_id", 'job "a"-1f-7.1')
MEMBER = orjson.dumps({"client_batch_id": MARK.value})[1:-1]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (b'{"data":{"a":1}}', b'{"data":{%b,"a":1}}'),
        (b' { "data" : { "a":1 } , "priority":2}', b' { "data" : {%b, "a":1 } , "priority":2}'),
        (b'{"data":{}}', b'{"data":{%b}}'),
        (b'{"data":{ }}', b'{"data":{%b }}'),
        (b'{"priority":1,"data":{"a":1.0E+2}}', b'{"priority":1,"data":{%b,"a":1.0E+2}}'),
        (b'{"priority":1,"data":{}}', b'{"priority":1,"data":{%b}}'),
        (b'{"data":{"n":123456789012345678901234567890}}', b'{"data":{%b,"n":123456789012345678901234567890}}'),
        (b'{"data":{"a":"client_batch_id"}}', b'{"data":{%b,"a":"client_batch_id"}}'),
    ],
)
def test_a_task_gets_the_mark_and_keeps_its_text(task, expected):
    assert with_reference([task], MARK) == [expected.replace(b"%b", MEMBER)]


@pytest.mark.parametrize(
    "task",
    [b'{"data":{"client_batch_id":"mine"}}', b'{"priority":1,"data":{"a":1,"client_batch_id":null}}'],
)
def test_a_task_keeps_a_mark_of_its_own(task):
    assert with_reference([task], MARK) == [task]


def test_without_a_mark_nothing_changes():
    tasks = [b'{"data":{}}']
    assert with_reference(tasks, None) is tasks
    assert reference_bytes(None) == 0


@given(st.dictionaries(st.text(), st.none() | st.integers(0, 9) | st.text()), st.booleans(), st.booleans())
def test_a_marked_task_is_the_task_with_one_more_input_and_no_longer_than_told(data, priority, indented):
    task = {"priority": 1, "data": data} if priority else {"data": data}
    text = orjson.dumps(task, option=orjson.OPT_INDENT_2 if indented else 0)
    (done,) = with_reference([text], MARK)
    assert orjson.loads(done) == {**task, "data": {**data, "client_batch_id": MARK.value}}
    assert len(done) <= len(text) + reference_bytes(MARK)
