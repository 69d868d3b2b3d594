import datetime as dt
import sys
from decimal import Decimal

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from engine.model.errors import SourceError
from engine.model.record import Format, Source
from engine.model.settings import SourceSettings
from engine.source.json_text import parse
from engine.source.parquet import ParquetRows, groups_of

UUID = bytes(range(16))


@pytest.fixture
def write(tmp_path):
    def run(table, **more):
        path = tmp_path / "x.parquet"
        parquet.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **more)
        return path

    return run


def lines(path, **settings):
    with ParquetRows(path, "x.parquet", SourceSettings(**settings)) as rows:
        return b"".join(rows.lines()).splitlines()


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array([2**53 + 1, -(2**63)], pa.int64()), ["9007199254740993", "-9223372036854775808"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([0.1, 1.0, -0.0, 1e300]), ["0.1", "1.0", "-0.0", "1e+300"]),
        (pa.array([0.1, 1.0, 3e38], pa.float32()), ["0.1", "1.0", "3e+38"]),
        (pa.array([1.5], pa.float16()), ["1.5"]),
        (
            pa.array([Decimal("12345678901234567890.10"), Decimal("-0.05")], pa.decimal128(38, 2)),
            ["12345678901234567890.10", "-0.05"],
        ),
        (pa.array([Decimal("1e-9")], pa.decimal256(50, 9)), ["0.000000001"]),
        (pa.array([dt.date(2024, 2, 29), dt.date(1, 1, 1)]), ['"2024-02-29"', '"0001-01-01"']),
        (
            pa.array([1_700_000_000_500, -1], pa.timestamp("ms", "Europe/Berlin")),
            ['"2023-11-14T22:13:20.5Z"', '"1969-12-31T23:59:59.999Z"'],
        ),
        (
            pa.array([1, 10_000_000_000], pa.timestamp("ns")),
            ['"1970-01-01T00:00:00.000000001"', '"1970-01-01T00:00:10"'],
        ),
        (pa.array([dt.time(1, 2, 3, 40)]), ['"01:02:03.00004"']),
        (pa.array([1500], pa.duration("ms")), ["1500"]),
        (pa.array([b"\x00\xff"]), ['"AP8="']),
        (pa.array([b"ab"], pa.binary(2)), ['"YWI="']),
        (pa.array([UUID], pa.uuid()), ['"00010203-0405-0607-0809-0a0b0c0d0e0f"']),
        (pa.array(["é\n", ""]).dictionary_encode(), ['"é\\n"', '""']),
        (pa.array([[1, None], []], pa.list_(pa.int8())), ["[1,null]", "[]"]),
        (pa.array([[[dt.date(2024, 1, 1)], None]]), ['[["2024-01-01"],null]']),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), ["[1,2]"]),
        (
            pa.array([{"a": 1, "b": {"c": [True]}}, {"a": None, "b": None}]),
            ['{"a":1,"b":{"c":[true]}}', '{"a":null,"b":null}'],
        ),
        (pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8())), ['{"k":1}', "{}"]),
        (pa.array([[(1, "v"), (2, None)]], pa.map_(pa.int8(), pa.string())), ['{"1":"v","2":null}']),
        (pa.nulls(1), ["null"]),
    ],
)
def test_each_type_has_one_text(write, array, texts):
    nothing = pa.concat_arrays([pa.nulls(2, array.type), array, pa.nulls(1, array.type)])
    expected = ["null", "null", *texts, "null"]
    assert lines(write({"x": nothing}, row_group_size=2)) == [f'{{"x":{text}}}'.encode() for text in expected]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (pa.array([1.0, float("nan")]), "not valid JSON: NaN is no value that JSON has"),
        (pa.array([1.0, -float("inf")], pa.float32()), "not valid JSON: Infinity is no value that JSON has"),
        (pa.array([[1.0], [float("inf")]]), "not valid JSON: Infinity is no value that JSON has"),
        (pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xe9\n"]).buffers()), "not valid UTF-8"),
        (
            pa.array([[("a", 1)], [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int8())),
            "not valid JSON: <a map that has a key twice> is no value that JSON has",
        ),
    ],
)
def test_what_json_cannot_hold_makes_its_row_a_reject_and_no_other(write, array, reason):
    texts = lines(write({"x": array, "y": [1, 2]}))
    rows, flaws = parse(texts, 1 << 20)
    assert len(texts) == 2
    assert rows[0]["y"] == 1
    assert list(flaws) == [1]
    assert flaws[1].startswith(reason)


def test_rows_know_their_group_however_many_there_are(write):
    path = write({"n": list(range(10))}, row_group_size=4)
    with ParquetRows(path, "x", SourceSettings()) as rows:
        texts = b"".join(rows.lines()).splitlines()
        source = Source(0, "copy", Format.PARQUET, 0, 0, 0, name="x.parquet", row_groups=rows.groups)
    assert rows.groups == "2*4 2"
    for group, first in enumerate((0, 4, 8)):
        part = parquet.ParquetFile(path).read_row_group(group).to_pylist()
        for row, record in enumerate(part):
            line = first + row + 1
            assert orjson.loads(texts[line - 1]) == record
            assert source.row_at(line) == {"row_group": group, "row": row}
    assert source.place(6) == "x.parquet, row group 1, row 1"
    assert Source(0, "a.csv", Format.CSV, 0, 0, 0).row_at(6) == {}
    assert groups_of([]) == ""
    assert groups_of([0, 3, 3]) == "0 2*3"


def test_rows_of_any_group_are_read_a_few_at_a_time(write, monkeypatch):
    monkeypatch.setattr("engine.source.parquet._STEP_BYTES", 1 << 16)
    path = write({"x": [f"{number:01000}" for number in range(1000)]}, use_dictionary=False, compression="none")
    with ParquetRows(path, "x", SourceSettings()) as rows:
        assert rows._together < 70
        assert sum(piece.count(b"\n") for piece in rows.lines()) == 1000


def test_a_file_made_to_fill_the_disk_is_stopped(write):
    path = write({"x": ["y" * 1000] * 20_000})
    with pytest.raises(SourceError, match=r"Parquet have become .* max_unpacked_bytes"):
        lines(path, max_unpacked_bytes=1_000_000)


@pytest.mark.parametrize("cut", [4, 50, -1])
def test_a_file_that_is_not_whole_says_so(write, cut):
    path = write({"x": [1, 2, 3]})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match=r"x\.parquet cannot be read as Parquet .* Get the file again"):
        lines(path)


def test_what_is_no_parquet_says_so(tmp_path):
    (tmp_path / "x").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"x\.parquet begins with b'a,b.n', and no Parquet file does"):
        lines(tmp_path / "x")


def test_without_pyarrow_the_error_names_the_extra(write, monkeypatch):
    path = write({"x": [1]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r"pip install 'bulksubmit\[parquet\]'"):
        lines(path)


def test_two_columns_of_one_name_are_refused(write):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    with pytest.raises(SourceError, match="column 'a' more than once"):
        lines(write(twice))


def test_rows_that_share_a_long_value_become_json_in_steps_of_their_real_size(tmp_path):
    shared = "x" * 100_000
    path = tmp_path / "packed.parquet"
    parquet.write_table(pa.table({"number": list(range(600)), "text": [shared] * 600}), path)
    assert path.stat().st_size < 200_000
    with ParquetRows(path, "packed.parquet", SourceSettings()) as rows:
        numbers = [orjson.loads(line)["number"] for piece in rows.lines() for line in piece.splitlines()]
        assert rows._at_once < 50
    assert numbers == list(range(600))
