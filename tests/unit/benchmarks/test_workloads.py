from itertools import islice

import orjson
import pytest

from benchmarks import workload
from benchmarks.workload import (
    BATCH_RECORDS,
    BLOCK_RECORDS,
    KINDS,
    SIZES,
    count_for,
    records,
    write_array,
    write_bodies,
    write_ndjson,
)
from engine.source.reader import SEGMENT_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(kind, tmp_path):
    first, again, other = tmp_path / "first", tmp_path / "again", tmp_path / "other"
    for path, seed in ((first, 5), (again, 5), (other, 6)):
        write_ndjson(path, kind, 1000, seed)
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_records_have_the_size_they_say_and_every_batch_is_the_same(kind):
    some = list(islice(records(kind), BLOCK_RECORDS))
    assert sum(map(len, some)) / len(some) == pytest.approx(SIZES[kind], rel=0.02)
    batch = BATCH_RECORDS[kind]
    assert len(set(some[:batch])) == batch
    assert some[-batch:] == some[:batch]
    assert all("client_batch_id" in orjson.loads(record)["data"] for record in some[:batch])


def test_typical_records_have_what_trips_naive_readers():
    text = b"\n".join(islice(records("typical"), 100))
    assert b'\\"stop\\" }, { at' in text
    assert "ü".encode() in text


def test_a_file_of_a_size_has_whole_batches(tmp_path):
    count = count_for("typical", 3 * workload.MEGABYTE)
    assert count % BLOCK_RECORDS == 0
    assert write_ndjson(tmp_path / "file", "typical", count) == pytest.approx(3 * workload.MEGABYTE, rel=0.15)


@pytest.mark.parametrize("kind", ["typical", "large"])
def test_each_place_where_the_engine_ends_a_batch_is_the_end_of_a_full_one(kind, tmp_path):
    write_ndjson(tmp_path / "file", kind, count_for(kind, 2 * SEGMENT_BYTES))
    text = (tmp_path / "file").read_bytes()
    first = text[:SEGMENT_BYTES].splitlines(keepends=True)
    assert len(first) % BATCH_RECORDS[kind] == 0
    assert len(first) >= SEGMENT_BYTES // SIZES[kind] - BATCH_RECORDS[kind]
    assert first[-1].endswith(b"\n")
    assert orjson.loads(first[-1]) == orjson.loads(first[BATCH_RECORDS[kind] - 1])


def test_lines_array_and_bodies_hold_the_same_records(tmp_path):
    lines, array, bodies = tmp_path / "lines", tmp_path / "array", tmp_path / "bodies"
    write_ndjson(lines, "small", 2500)
    write_array(array, "small", 2500)
    write_bodies(bodies, "small", 2500)
    rows = [orjson.loads(line) for line in lines.read_bytes().splitlines()]
    assert len(rows) == 2500
    assert orjson.loads(array.read_bytes()) == rows
    sent = [orjson.loads(body)["tasks"] for body in bodies.read_bytes().splitlines()]
    assert list(map(len, sent)) == [1000, 1000, 500]
    assert [row for block in sent for row in block] == rows
