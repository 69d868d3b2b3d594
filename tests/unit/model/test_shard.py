import pytest

from engine.model.shard import SHARD_BATCHES, SHARD_RECORDS, cut_into_shards


def counts(*records, start=0):
    """Return batches side by side of so many records each."""
    return [(start + number, count) for number, count in enumerate(records)]


def test_of_nothing_no_shard_is_made():
    assert cut_into_shards([]) == []


def test_a_shard_ends_after_so_many_batches():
    shards = cut_into_shards(counts(*[1] * (2 * SHARD_BATCHES + 1), start=7))
    assert shards == [
        (7, 6 + SHARD_BATCHES),
        (7 + SHARD_BATCHES, 6 + 2 * SHARD_BATCHES),
        (7 + 2 * SHARD_BATCHES, 7 + 2 * SHARD_BATCHES),
    ]


@pytest.mark.parametrize(
    ("records", "shards"),
    [
        ([SHARD_RECORDS // 2] * 3, [(0, 1), (2, 2)]),
        ([SHARD_RECORDS, 1], [(0, 0), (1, 1)]),
        ([1, SHARD_RECORDS, 1], [(0, 0), (1, 1), (2, 2)]),
        ([2 * SHARD_RECORDS] * 2, [(0, 0), (1, 1)]),
        ([SHARD_RECORDS, 0, 0], [(0, 2)]),
    ],
)
def test_a_shard_ends_before_it_has_too_many_records(records, shards):
    assert cut_into_shards(counts(*records)) == shards


def test_each_batch_is_in_one_shard():
    cut = cut_into_shards(counts(*(number % 900 for number in range(0, 40_000, 97))))
    assert [number for first, last in cut for number in range(first, last + 1)] == list(range(413))
