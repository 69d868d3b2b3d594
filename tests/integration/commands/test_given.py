"""Records that a program gives are a job like any other: it is resumed, audited and known when it comes again."""

import asyncio
import sqlite3

import orjson
import pytest

import engine

from .desk import once, tasks

COPY = "given-records"


async def later(records):
    for record in records:
        await asyncio.sleep(0)
        yield record


def from_database():
    """Yield rows of a database that may be used in one thread only."""
    with sqlite3.connect(":memory:") as database:
        database.execute("create table images (id integer primary key)")
        database.executemany("insert into images values (?)", [(number,) for number in range(30)])
        for (number,) in database.execute("select id from images order by id"):
            yield {"data": {"id": str(number)}}


@pytest.mark.parametrize("records", [lambda: tasks(30), from_database, lambda: later(tasks(30))])
async def test_records_of_any_iterable_are_created_once_each(desk, records):
    at = await desk()
    result = await at.submit(records())
    assert (result.state, result.tally.created) == ("finished", 30)
    assert at.created() == once(30)
    assert (await at.audit()).holds
    copy = at.ledger.parent / "j" / COPY
    assert copy.read_bytes() == b"".join(orjson.dumps(task) + b"\n" for task in tasks(30))
    assert copy.stat().st_mode & 0o777 == 0o600


async def test_a_stopped_job_of_records_goes_on_from_its_copy(desk):
    at = await desk()
    at.stop_at = 2
    result = await at.submit(iter(tasks(60)), at.config(send="max_in_flight = 1"))
    assert result.state == "open"
    at.stop_at = None
    assert (await at.resume()).tally.created == 60
    assert at.created() == once(60)


async def test_the_same_records_again_are_refused(desk):
    at = await desk()
    await at.submit(tasks(20))
    with pytest.raises(engine.errors.AlreadyTaken):
        await at.submit(iter(tasks(20)), job="k")
    assert not (at.ledger.parent / "k" / COPY).exists()


@pytest.mark.parametrize("wrong", ["no dict", {"data": object()}])
async def test_what_is_no_record_makes_no_job_and_leaves_no_copy(desk, wrong):
    at = await desk()
    with pytest.raises(engine.errors.SourceError):
        await at.submit(iter([*tasks(20), wrong]))
    assert await engine.status(ledger=at.ledger) == []
    assert [path for path in (at.ledger.parent / "j").glob("*") if path.is_file()] == []


async def test_what_the_iterator_raises_comes_out_and_there_is_no_job(desk):
    def failing():
        yield from tasks(20)
        raise LookupError("the database is gone")

    at = await desk()
    with pytest.raises(LookupError, match="the database is gone"):
        await at.submit(failing())
    assert await engine.status(ledger=at.ledger) == []
    assert [path for path in (at.ledger.parent / "j").glob("*") if path.is_file()] == []
    assert (await at.submit(tasks(20))).tally.created == 20


async def test_records_without_end_are_ended_by_a_stop(desk):
    def endless():
        number = 0
        while True:
            yield {"data": {"id": str(number)}}
            number += 1

    at, stop = await desk(), engine.Stop()

    def end(event):
        if isinstance(event, engine.events.SourceCopied) and event.copied_bytes:
            stop.request(engine.errors.Interrupted(15))

    with pytest.raises(engine.errors.Interrupted):
        await engine.submit(endless(), at.config(), at.ledger, end, stop, job="j")
    assert [path for path in (at.ledger.parent / "j").glob("*") if path.is_file()] == []


async def test_no_record_is_a_job_without_records(desk):
    at = await desk()
    result = await at.submit(iter([]))
    assert (result.state, result.tally.records) == ("finished", 0)
    assert "given-records is empty" in result.message


async def test_records_are_validated_and_previewed_and_nothing_else_takes_them(desk):
    at = await desk()
    found = await engine.validate(iter([*tasks(3), {"data": 5}]), at.config())
    assert (found.records, found.rejected) == (4, 1)
    shown = await engine.preview(later(tasks(3)), at.config())
    assert [one.index for one in shown.records] == [0, 1, 2]
    with pytest.raises(engine.errors.SourceError, match="write them to a file"):
        await engine.nightly(tasks(3), at.config(), at.ledger)
