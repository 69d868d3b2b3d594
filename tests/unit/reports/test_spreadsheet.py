import csv
import io

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.errors import JobError
from engine.reports.spreadsheet import TableRow, neutral, read_spreadsheet, restored, write_spreadsheet
from engine.source.json_text import members

FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def rejects(*records):
    """Return the lines of a rejects file."""
    lines = [
        orjson.dumps({"job": "j", "index": index, "line": None, "state": "failed", "error": "no"})[:-1]
        + b',"record":'
        + record
        + b"}\n"
        for index, record in enumerate(records)
    ]
    return b"".join(lines)


def table(*records):
    """Return the table of some records."""
    to = io.BytesIO()
    write_spreadsheet(io.BytesIO(rejects(*records)), to)
    return to.getvalue()


def rows(*records):
    return list(csv.reader(io.StringIO(table(*records).decode("utf-8-sig"), newline="")))


def returned(tmp_path, text):
    path = tmp_path / "back.csv"
    path.write_bytes(text)
    return list(read_spreadsheet(path))


@given(st.text())
def test_a_cell_is_no_formula_and_says_the_same_when_it_comes_back(text):
    assert not neutral(text).startswith(FORMULAS)
    assert restored(neutral(text)) == text


@given(
    st.lists(
        st.dictionaries(
            st.text(min_size=1).filter(lambda name: "\0" not in name),
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
            max_size=4,
        ),
        max_size=4,
    )
)
def test_what_nobody_has_changed_comes_back_to_the_byte(tmp_path_factory, records):
    try:
        texts = [orjson.dumps(record) for record in records]
    except TypeError:  # half an emoji
        return
    back = returned(tmp_path_factory.mktemp("back"), table(*texts))
    assert [row.record(texts[row.index], {}, complete=True) for row in back] == texts


def test_the_columns_are_those_of_all_records_in_the_order_in_which_they_come():
    found = rows(b'{"a":1,"b":{"c":[1, 2]}}', b'{"b":null,"=c":"=1"}', b'"no json"')
    assert found[0][5:] == ["unread", "a", "b", "'=c"]
    assert [row[5:] for row in found[1:]] == [["", "1", '{"c":[1, 2]}', ""], ["", "", "", "'=1"], ["no json"]]


def test_a_table_without_rejects_is_its_header():
    assert table() == b"\xef\xbb\xbfjob,index,line,state,reason,unread\r\n"


def test_numbers_keep_their_digits():
    assert rows(b'{"n":12345678901234567890123,"f":1.50}')[1][6:] == ["12345678901234567890123", "1.50"]


def test_a_value_that_no_spreadsheet_holds_is_cut_and_comes_back_whole(tmp_path):
    texts = [orjson.dumps({"a": "x" * 40_000}), b"y" * 40_000]
    text = table(texts[0], orjson.dumps(texts[1].decode()))
    assert len(text) < 1_000
    assert [row.record(texts[row.index], {}, complete=False) for row in returned(tmp_path, text)] == texts


@pytest.mark.parametrize(
    ("was", "shown", "types", "becomes"),
    [
        (b'{"a":"5"}', "6", {}, b'{"a":"6"}'),
        (b'{"a":5}', "6.0", {}, b'{"a":6.0}'),
        (b'{"a":5}', "", {}, b'{"a":null}'),
        (b'{"a":"5"}', "", {}, b'{"a":""}'),
        (b'{"a":true}', "TRUE", {}, b'{"a":true}'),
        (b'{"a":true}', "FALSE", {}, b'{"a":false}'),
        (b'{"a":[1]}', "[1,2]", {}, b'{"a":[1,2]}'),
        (b'{"a":null}', "", {}, b'{"a":null}'),
        (b'{"a":null}', "x", {}, b'{"a":"x"}'),
        (b'{"b": 1}', "", {}, b'{"b": 1}'),
        (b'{"b": 1}', "x", {}, b'{"b":1,"a":"x"}'),
        (b'{"a":"x"}', "7", {"a": "integer"}, b'{"a":7}'),
        (b'{"a":"x"}', "", {"a": "integer"}, b'{"a":null}'),
        (b'{"a":"x\\r\\ny"}', "x\ny", {}, b'{"a":"x\\r\\ny"}'),
        (b"no json", "x", {}, b'{"a":"x"}'),
        (b"no json", "", {}, b"mended"),
    ],
)
def test_a_cell_becomes_a_value_of_the_type_that_it_had_or_that_is_configured(was, shown, types, becomes):
    row = TableRow("line 2", "j", 0, "mended", {"a": shown})
    assert row.record(was, types, complete=False) == becomes


def test_a_row_that_was_unread_is_completed_where_each_row_has_all_columns():
    row = TableRow("line 2", "j", 0, "a,b", {"a": "1", "b": "", "n": ""})
    made = row.record(b"a,b", {"n": "integer"}, complete=True)
    assert members(made) == {"a": b'"1"', "b": b'""', "n": b"null"}


@pytest.mark.parametrize(
    ("was", "shown", "said"),
    [
        (b'{"a":5}', "x", "line 2: column 'a': 'x' is no number that JSON can hold"),
        (b'{"a":true}', "x", "line 2: column 'a': 'x' is no boolean"),
        (b'{"a":{}}', "{", "line 2: column 'a': '{' is no valid JSON"),
    ],
)
def test_a_cell_that_is_not_of_the_type_is_named(was, shown, said):
    with pytest.raises(JobError, match=said.replace("{", r"\{")):
        TableRow("line 2", "j", 0, "", {"a": shown}).record(was, {}, complete=False)


def test_a_table_that_is_not_there_is_said(tmp_path):
    with pytest.raises(JobError, match=r"x\.csv cannot be read"):
        list(read_spreadsheet(tmp_path / "x.csv"))
