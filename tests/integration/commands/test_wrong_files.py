"""What `validate` says of files that are not what they seem: the words that help, and the exit code.

`submit` says the same and makes no job. With BULKSUBMIT_TABLE=1 the table is printed.
"""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.cli.app import call

ROOT = Path(__file__).parents[3]
CONFIG = """
[service]
kind = "sama"
base_url = "http://127.0.0.1:9/v2"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[mapping]
wrap = "data"
{more}
"""


def an_archive() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return packed.getvalue()


WRONG = [
    ("semicolons.csv", b"k;s;t\n1;a;b\n", 2, 'say delimiter = ";" under [source]'),
    ("tabs.csv", b"k\ts\n1\ta\n", 2, 'say delimiter = "\\t" under [source]'),
    ("sep.csv", b"sep=;\nk;s\n1;a\n", 2, "which Excel writes: remove it"),
    ("quoted.csv", b'"k";"s"\n"1";"a"\n', 2, "If its columns are parted by ';', say delimiter"),
    ("quoted-lines.csv", b'"k;s"\n"1;a"\n', 2, "remove the quotes around each line"),
    ("comment.csv", b"# made today\nk,s\n1,a\n", 2, "seems to be a comment"),
    ("twice.csv", b"k,k\n1,2\n", 2, "names 'k' more than once"),
    ("latin1.csv", b"k,gr\xf6\xdfe\n1,2\n", 2, "is not of its encoding: name the right one"),
    ("nul.csv", b"k,s\0\n1,2\n", 2, "holds NUL bytes in its first line"),
    ("mark.csv", "k,\ufeffs\n1,2\n".encode(), 2, "has a byte order mark (U+FEFF) in the name"),
    ("utf16.csv", "k,s\n1,2\n".encode("utf-16-le"), 2, 'say encoding = "utf-16le"'),
    ("utf16.ndjson", '{"k":1}\n'.encode("utf-16-be"), 2, 'say encoding = "utf-16be"'),
    ("array.jsonl", b'[\n{"k":1},\n{"k":2}\n]\n', 2, "read it with --format json"),
    ("pretty.ndjson", b'{\n "k": 1\n}\n{\n "k": 2\n}\n', 2, "one object over several lines: put its"),
    ("commas.ndjson", b'{"k":1},\n{"k":2},\n{"k":3}\n', 2, "has a comma behind each line"),
    ("joined.ndjson", b'{"k":1}{"k":2}\n', 2, "has several objects on one line"),
    ("table.ndjson", b"k,s\n1,a\n", 2, "not with an object a line, as NDJSON does"),
    ("lines.csv", b'{"k":1}\n{"k":2}\n', 2, "so it is JSON and no CSV"),
    ("table.json", b"k,s\n1,a\n", 2, "so it is no JSON array"),
    ("records.json", b'{\n "records": [{"k":1}]\n}', 2, "jq -c '.records[]'"),
    ("packed.ndjson", gzip.compress(b'{"k":1}\n'), 0, "The 1 record can be sent."),
    ("sheet.csv", an_archive(), 2, "Excel's .xlsx is one, too"),
    ("old.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00\x00", 2, "is an old Excel or Word file"),
    ("columns.csv", b"PAR1\x15\x04\x15", 2, "cannot be read as Parquet"),
    ("login.ndjson", b"<!DOCTYPE html><html><body>Sign in</body>", 2, "is HTML or XML, perhaps the page of a login"),
    ("readme.txt", b"Please read me\nfirst\n", 2, "neither its name nor that says what it is"),
    ("blank.csv", b"\n" * 70_000, 2, "begins with 64 KiB of blanks"),
    ("empty.ndjson", b"", 0, "empty.ndjson is empty. Nothing was sent."),
    ("one-bad.ndjson", b'{"k":1}\nnonsense\n{"k":3}\n', 3, "1 of 3 records cannot be sent."),
]  # fmt: skip
"""Name, content, exit code, words."""


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")

    def run(*arguments, more=""):
        (tmp_path / "c.toml").write_text(CONFIG.format(more=more))
        code = call([*arguments, "--config", "c.toml"])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize(("name", "content", "code", "words"), WRONG, ids=[name for name, *_ in WRONG])
def test_the_table_of_wrong_files(say, name, content, code, words, capsys):
    Path(name).write_bytes(content)
    said = say("validate", name)
    assert (said[0], words in said[1] + said[2]) == (code, True), said
    assert "Traceback" not in said[2]
    if code == 2:
        assert say("submit", name, "--job", "j")[0] == 2
        assert call(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["jobs"] == []
    if os.environ.get("BULKSUBMIT_TABLE"):
        with capsys.disabled():
            sys.stdout.write(f"{name:16} {code}  {(said[2] or said[1]).splitlines()[0]}\n")


def test_a_column_that_the_header_lacks(say):
    Path("t.csv").write_text("id,image\n1,x\n")
    code, _, err = say("validate", "t.csv", more='drop = ["imgae"]')
    assert code == 2
    assert "mapping.drop names column 'imgae', which the header of" in err
    assert "did you mean 'image'?" in err


SERVICE = {
    "no key": (("access_key", "# access_key"), "service.access_key: missing"),
    "a variable that is not set": (("SAMA_ACCESS_KEY", "NO_SUCH_KEY"), "environment variable NO_SUCH_KEY is not set"),
    "an address without TLS": (("http://127.0.0.1:9", "http://example.com"), "base_url must be https"),
    "no address": (("http://127.0.0.1:9/v2", "here"), "base_url must be an absolute https URL"),
    "a schema that is not there": (("project_id", 'task_schema = "no.json"\nproject_id'), "service.task_schema"),
    "an unknown key": (("project_id", "projectid = 1\nproject_id"), "did you mean 'project_id'?"),
}


@pytest.mark.parametrize("wrong", SERVICE)
@pytest.mark.parametrize("command", ["validate", "submit"])
def test_the_service_is_checked_by_both_alike(say, monkeypatch, command, wrong):
    (old, new), words = SERVICE[wrong]
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    monkeypatch.setattr(f"{__name__}.CONFIG", CONFIG.replace(old, new))
    Path("t.ndjson").write_text('{"k":1}\n')
    code, _, err = say(command, "t.ndjson")
    assert (code, words in err) == (2, True), err


def test_the_first_tasks_are_shown_as_they_would_go_up(say):
    rows = [{"k": number, "url": f"https://e.com/{number}?sig=canary"} for number in range(3)]
    lines = ["nonsense", '{"k": 1.0E+2}', json.dumps(rows[0]), '{"k": "\\u001b' + "x" * 500 + '"}', json.dumps(rows[1])]
    Path("t.ndjson").write_text("\n".join(lines))
    code, out, _ = say("validate", "t.ndjson", more='rename = { k = "id" }')
    assert code == 3
    assert "The first tasks, as they would go up" in out
    assert '{"data":{"id":1.0E+2}}' in out
    assert "https://e.com/0?***" in out
    assert "canary" not in out
    shown = json.loads(say("validate", "t.ndjson", "--json", more='rename = { k = "id" }')[1])["tasks"]
    assert shown[0] == '{"data":{"id":1.0E+2}}'
    assert len(shown) == 3
    assert len(shown[2]) == 101
    assert shown[2].endswith("x…")


GUARDED = """
import sys

def guard(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"}:
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(guard)
from engine.__main__ import main
main()
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_no_call_is_made(tmp_path, processes):
    schema = {"type": "object", "properties": {"data": {"type": "object"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    (tmp_path / "c.toml").write_text(
        CONFIG.format(more="").replace("project_id", 'task_schema = "schema.json"\nproject_id')
    )
    (tmp_path / "t.ndjson").write_text('{"k":1}\n' * 2000)
    arguments = ["validate", "t.ndjson", "--config", "c.toml", "--json", "--processes", processes]
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SAMA_ACCESS_KEY": "sandbox-key"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["records"] == 2000
