"""What a file is as a whole is told by its first bytes, before anything is sent; one bad record is not its matter."""

import gzip
import io
import zipfile

import pytest

from engine.model.errors import SourceError
from engine.model.record import Format
from engine.model.settings import SourceSettings
from engine.source.sources import find_sources


def refusal(folder, name, content, **settings) -> str:
    """Return why a file is refused; "" if it is not."""
    (folder / name).write_bytes(content)
    try:
        find_sources([str(folder / name)], SourceSettings(**settings))
    except SourceError as error:
        return str(error)
    return ""


def an_archive() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return packed.getvalue()


TEXT = '{"a":1}\n{"a":2}\n'
TABLE = "a,b\n1,2\n"
BINARY = {
    "gzip": gzip.compress(b"{}"),
    "zstd": b"\x28\xb5\x2f\xfd\x00",
    "zip (Excel's .xlsx is one, too)": an_archive(),
    "an old Excel or Word file": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00",
    "PDF": b"%PDF-1.7\n",
    "an SQLite database": b"SQLite format 3\x00\x10",
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-32": TEXT.encode("utf-32"),
}


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("name", ["x.ndjson", "x.json", "x.csv", "x", "x.gz"])
def test_what_must_be_converted_first_is_told_by_its_content_whatever_its_name(tmp_path, name, kind):
    assert f"{name} is {kind}: convert it to NDJSON, JSON or CSV" in refusal(tmp_path, name, BINARY[kind])


def test_parquet_under_another_format_is_told_the_way_out(tmp_path):
    said = refusal(tmp_path, "x.csv", b"PAR1\x15\x04", format="csv")
    assert "x.csv is Parquet: leave its format out, or say --format parquet" in said


@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
@pytest.mark.parametrize("text", [TEXT, TABLE, '[{"a":1}]'])
@pytest.mark.parametrize("name", ["x.ndjson", "x.json", "x.csv", "x"])
def test_another_unicode_without_its_mark_is_named_with_the_command_that_converts_it(tmp_path, name, text, encoding):
    said = refusal(tmp_path, name, text.encode(encoding))
    assert f'looks like {encoding}: say encoding = "{encoding.lower()}" under [source]' in said


NOT_AS_NAMED = [
    ("x.jsonl", b'[\n{"k":1},\n{"k":2}\n]\n', "it is a JSON array and no NDJSON: read it with --format json"),
    ("x.ndjson", b'[{"k":1},{"k":2}]', "it is a JSON array and no NDJSON"),
    ("x.ndjson", b'{"k":1},\n{"k":2},\n{"k":3}\n', "has a comma behind each line"),
    ("x.ndjson", b'{"k":1},\r\n{"k":2},\r\n', "has a comma behind each line"),
    ("x.ndjson", b'{"k":1},\n', "has a comma behind each line"),
    ("x.ndjson", b'{\n  "k": 1\n}\n{\n  "k": 2\n}\n', "one object over several lines: put its records on a line each"),
    ("x.ndjson", b'{"k": 1,\n "l": 2}\n', "one object over several lines"),
    ("x.ndjson", b'{"k": [\n' + b'"x",\n' * 30_000 + b"]}", "one object over several lines"),
    ("x.json", b'{\n  "records": [\n  ]\n}', "one object over several lines"),
    ("x.ndjson", b'{"k":1}{"k":2}{"k":3}\n', "has several objects on one line"),
    ("x.ndjson", b'{"k":1}\r{"k":2}\r', "has several objects on one line"),
    ("x.ndjson", b"id,name\n1,a\n", "begins with 'id,name' and not with an object a line"),
    ("x.ndjson", b'"id","name"\n"1","a"\n', "not with an object a line, as NDJSON does: name its --format"),
    ("x.jsonl", b'"a"\n"b"\n', "not with an object a line"),
    ("x.ndjson", b"<!DOCTYPE html>\n<html>", "is HTML or XML, perhaps the page of a login"),
    ("x.csv", b"\n <html><body>503</body>", "is HTML or XML"),
    ("x.json", b"<?xml version='1.0'?>", "is HTML or XML"),
    ("x.csv", b'[{"k":1},{"k":2}]', "so it is JSON and no CSV"),
    ("x.csv", b'[\n {"k":1}\n]', "so it is JSON and no CSV"),
    ("x.csv", b'{"k":1}\n{"k":2}\n', "so it is JSON and no CSV: name it .json or .ndjson"),
    ("x.csv", b'{\n "k": 1\n}', "so it is JSON and no CSV"),
    ("x.json", b"id,name\n1,a\n", "and not with [, so it is no JSON array"),
    ("x.json", b"null", "and not with [, so it is no JSON array"),
    ("notes.txt", b"# Notes\n\nnothing\n", "neither its name nor that says what it is: name its --format"),
    ("x.csv", b"k;s;t\n1;a;b\n", "is one column, 'k;s;t': if its columns are parted by ';', say delimiter = \";\""),
    ("x.csv", b"k\ts\n1\ta\n", 'say delimiter = "\\t" under [source]'),
    ("x.tsv", b"k,s\n1,a\n", "parted by ',', name it .csv"),
    ("x.csv", b"k|s\n1|a\n", "parted by '|'"),
    ("x.csv", b"sep=;\nk;s\n1;a\n", 'which Excel writes: remove it, and say delimiter = ";" under [source]'),
    ("x.csv", b"\xef\xbb\xbfSEP=,\r\nk,s\r\n1,a\r\n", "which Excel writes: remove it"),
    ("x.csv", b'"k";"s"\n"1";"a"\n', "If its columns are parted by ';', say delimiter = \";\" under [source]"),
    ("x.csv", b'"k ""x""";s\n1;a\n', "If its columns are parted by ';'"),
    ("x.csv", b'"k"\t"s"\n"1"\t"a"\n', 'say delimiter = "\\t" under [source]'),
    ("x.tsv", b'"k","s"\n"1","a"\n', "name it .csv"),
    ("x.csv", b'"k"s\n1\n', "Is source.delimiter, ',', the one that the file has?"),
    ("x.csv", b'"k;s;t"\n"1;a;b"\n"2;a;b"\n', "remove the quotes around each line (sed 's/^\"//;"),
    ("x.csv", b'"k;s;t"\r\n"1;a;b"\r\n', 'and say delimiter = ";" under [source]; if it is one, give it a name'),
    ("x.csv", b"# made today\nk,s\n1,a\n", "begins with '# made today', which seems to be a comment"),
    ("x.csv", b"# made today; by us\nk,s\n1,a\n", "columns, parted by ',': remove it (sed 1d)"),
    ("x.csv", b"# made today\nk;s\n1;a\n", "columns, parted by ';': remove it (sed 1d)"),
    ("x.csv", b"#k;s\n1;a\n", "is one column, '#k;s': if its columns are parted by ';'"),
    ("x.csv", "a,\ufeffb\n1,2\n".encode(), "has a byte order mark (U+FEFF) in the name '\\ufeffb'"),
    ("x.csv", b"\xef\xbb\xbf\xef\xbb\xbfa,b\n1,2\n", "begins with two byte order marks"),
    ("x.ndjson", '{"\ufeffid":1}\n'.encode(), "the first record of"),
    ("x.json", '[{"\ufeffid":1}]'.encode(), "has a byte order mark (U+FEFF) in the name"),
    ("x.json", b'[{"i\\u0000d":1}]', "has a NUL in the name"),
    ("x.csv", b"a,b\0c\n1,2\n", "holds NUL bytes in its first line"),
    ("x.csv", b'"a\nx\0",b\n1,2\n', "the header of"),
    ("x.ndjson", bytes(4096) + b'{"a":1}\n', "holds NUL bytes in its first line"),
    ("x.csv", b"\n" * 70_000 + b"a,b\n", "begins with 64 KiB of blanks"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), NOT_AS_NAMED)
def test_what_is_not_as_its_name_says_is_refused_with_the_cure(tmp_path, name, content, words):
    said = refusal(tmp_path, name, content)
    assert words in said


@pytest.mark.parametrize("format_", [Format.NDJSON, Format.CSV, Format.JSON])
def test_a_format_that_was_named_is_judged_alike(tmp_path, format_):
    wrong = {Format.NDJSON: b'[{"a":1}]', Format.CSV: b'{"a":1}', Format.JSON: b'{"a":1}'}[format_]
    assert "begins with" in refusal(tmp_path, "x", wrong, format=format_)


FITTING = [
    ("x.ndjson", b""),
    ("x.csv", b""),
    ("x.json", b" \n"),
    ("x.ndjson", b"\xef\xbb\xbf\n\n"),
    ("x.ndjson", b'nonsense\n{"a":1}\n'),
    ("x.ndjson", b'[1,2]\n{"a":1}\n'),
    ("x.ndjson", b'{"a":1},\n{"a":2}\n{"a":3}\n'),
    ("x.ndjson", b'{"a":1}{"a":2}\n{"a":2}\n{"a":3}\n'),
    ("x.ndjson", b'{"a":1\n{"a":2}\n'),
    ("x.ndjson", b'{"a":"' + b"x," * 40_000 + b'"}\n{"a":2}'),
    ("x.ndjson", b'{"a":[' + b"1," * 40_000 + b"1]}"),
    ("x.ndjson", b'{"a":' * 40_000),
    ("x.ndjson", b'{"a":"\x00"}\n{"a":1}\n'.replace(b"\x00", b"\xff")),
    ("x.json", b"[" * 70_000),
    ("x.csv", b"a\n1\n"),
    ("x.csv", b'"a;b"\n1\n'),
    ("x.csv", b'"a;b"\n"1;2"\n"3"\n'),
    ("x.csv", b'"a;b"\n'),
    ("x.csv", b"#\n1\n2\n"),
    ("x.csv", b"# note\none, two\nthree\n"),
    ("x.csv", b'"# note"\n"a; b"\n'),
    ("x.csv", b"#,b\n1,2\n"),
    ("x.csv", b"[id],[name]\n1,a\n"),
    ("x.csv", b"{id},b\n1,a\n"),
    ("x.csv", b'"a\nb",c\n1,2\n'),
    ("x.tsv", b"a\tb\n1\t2\n"),
]


@pytest.mark.parametrize(("name", "content"), FITTING)
def test_bad_records_and_odd_names_are_not_the_file_being_another_one(tmp_path, name, content):
    assert refusal(tmp_path, name, content) == ""


def test_a_delimiter_that_was_chosen_is_compared_with_the_others(tmp_path):
    assert refusal(tmp_path, "x.csv", b"k;s\n1;a\n", delimiter=";") == ""
    assert "parted by ','" in refusal(tmp_path, "x.csv", b"k,s\n1,a\n", delimiter=";")
    assert refusal(tmp_path, "x", b"k:s\n1:a\n", delimiter=":") == ""
