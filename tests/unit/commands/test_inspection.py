import pytest

from engine.commands import inspection
from engine.commands.inspection import inspect
from engine.model.errors import SourceError


@pytest.fixture
def look(tmp_path):
    def run(name, content, **more):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return inspect(path, **more)

    return run


def types(found):
    return {column.name: column.type for column in found.columns}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", ""], "integer"),
        (["1", "2.5"], "number"),
        (["1e3", "-0.5E-2"], "number"),
        (["007", "8"], "string"),
        (["1", "none"], "string"),
        (["1234567890123456"], "string"),
        (["true", "FALSE", ""], "boolean"),
        (["yes", "no"], "string"),
        (["1", "0"], "integer"),
        (['"[1, 2]"', '"{}"'], "json"),
        (['"[1, 2"', '"{}"'], "string"),
        (["", ""], "string"),
    ],
)
def test_the_type_of_a_column_of_a_table_is_one_that_all_its_values_have(look, values, kind):
    found = look("a.csv", "x,other\n" + "".join(f"{value},y\n" for value in values))
    assert types(found) == {"x": kind, "other": "string"}
    assert all(column.textual for column in found.columns)


@pytest.mark.parametrize("name", ["id", "sample_id", "userId", "ID", "zip", "postal code", "uuid"])
def test_digits_that_are_a_name_stay_a_text(look, name):
    assert types(look("a.csv", f"{name},n\n1,2\n")) == {name: "string", "n": "integer"}


@pytest.mark.parametrize("name", ["paid", "grid", "monkey", "number_of_beds"])
def test_a_name_that_only_ends_like_one_is_none(look, name):
    assert types(look("a.csv", f"{name},n\n1,2\n"))[name] == "integer"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_by_which_the_header_has_the_most_columns(look, delimiter):
    found = look("a.csv", f"a{delimiter}b{delimiter}c\n1{delimiter}2{delimiter}3\n")
    assert found.settings.delimiter == delimiter
    assert len(found.columns) == 3


def test_a_header_with_other_delimiters_in_its_names_is_cut_where_the_rows_are(look):
    found = look("a.csv", "size, in m, of all;name, first, last\n1;a\n2;b\n")
    assert (found.settings.delimiter, len(found.columns)) == (";", 2)


def test_records_of_json_tell_their_types_themselves(look):
    rows = '{"a":1,"b":1,"c":"x","d":[1],"e":true,"f":1}\n{"a":2,"b":1.5,"c":"y","d":{},"e":false,"f":"x","g":null}\n'
    found = look("a.ndjson", rows)
    expected = {"a": "integer", "b": "number", "c": "string", "d": "json", "e": "boolean", "f": "json", "g": "string"}
    assert types(found) == expected
    assert not any(column.textual for column in found.columns)


def test_no_more_is_looked_at_than_a_sample(look, monkeypatch):
    monkeypatch.setattr(inspection, "SAMPLED_RECORDS", 10)
    found = look("a.csv", "n,m\n" + "1,2\n" * 10 + "x,y\n" * 10_000)
    assert (found.records, found.whole, types(found)) == (10, False, {"n": "integer", "m": "integer"})
    found = look("b.csv", "n,m\n" + "1,2\n" * 9)
    assert (found.records, found.whole) == (9, True)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", b"\xff\xfea\0,\0b\0"), ("a.gif", b"GIF"), ("a.ndjson", "[1]\n")]
)
def test_what_cannot_be_read_is_told_as_a_submit_would(look, name, content):
    with pytest.raises(SourceError, match=name):
        look(name, content)


def test_an_empty_file_has_no_columns(look):
    found = look("a.ndjson", "")
    assert (found.records, list(found.columns)) == (0, [])
