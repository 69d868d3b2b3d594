"""Records that a program gives become lines of NDJSON, asked for in one thread and never all at once."""

import asyncio
import threading
from datetime import date
from pathlib import Path

import orjson
import pytest

from engine.model.errors import SourceError
from engine.source import given
from engine.source.given import blocks_of_records, names_of


async def text_of(records):
    return b"".join([block async for block in blocks_of_records(records)])


async def later(records):
    for record in records:
        await asyncio.sleep(0)
        yield record


ROWS = [{"a": 1, "day": date(2026, 11, 29)}, {"ä": [None, 1.5, float("nan")]}, {}]
LINES = b"".join(orjson.dumps(row) + b"\n" for row in ROWS)


@pytest.mark.parametrize("give", [list, iter, later])
async def test_each_record_is_a_line_in_the_bytes_that_orjson_writes(give):
    assert await text_of(give(ROWS)) == LINES


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["a"], "is a list and no dict"),
        (Path("a.csv"), "give paths as a list"),
        ({"a": object()}, "cannot be written as JSON"),
        ({1: 2}, "cannot be written as JSON"),
        ({"a": 2**64}, "cannot be written as JSON"),
    ],
)
@pytest.mark.parametrize("give", [iter, later])
async def test_what_is_no_record_is_an_error_that_names_its_index(give, wrong, said):
    with pytest.raises(SourceError, match=f"record 2 of the given records.*{said}"):
        await text_of(give([{}, {}, wrong, {}]))


async def test_an_iterator_is_asked_in_one_thread_and_no_faster_than_it_is_written(monkeypatch):
    monkeypatch.setattr(given, "_BLOCK_BYTES", 100)
    threads, asked = set(), []

    def rows():
        for number in range(1000):
            threads.add(threading.get_ident())
            asked.append(number)
            yield {"number": number}

    blocks = blocks_of_records(rows())
    first = await anext(blocks)
    assert len(asked) == first.count(b"\n") < 20
    rest = [block async for block in blocks]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert max(map(len, rest)) < 200
    assert (first + b"".join(rest)).count(b"\n") == 1000


async def test_whoever_cancels_does_not_wait_for_an_iterator_that_brings_nothing():
    waiting, asked = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def rows():
        loop.call_soon_threadsafe(asked.set)
        waiting.wait(30)
        yield {}

    task = asyncio.create_task(text_of(rows()))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not waiting.is_set()
    waiting.set()


async def test_what_an_iterator_raises_comes_out():
    def rows():
        yield {}
        raise LookupError("the database is gone")

    with pytest.raises(LookupError, match="the database is gone"):
        await text_of(rows())


def test_sources_are_names_or_records():
    assert names_of("a.csv") == ["a.csv"]
    assert names_of([Path("a.csv"), "b*.csv"]) == ["a.csv", "b*.csv"]
    assert names_of([]) == []
    for records in ([{}], iter([]), later([]), ({} for _ in "ab")):
        assert names_of(records) is None
    for wrong in ({"data": 1}, 5, None):
        with pytest.raises(SourceError, match="is no source"):
            names_of(wrong)
