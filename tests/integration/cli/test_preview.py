"""The screen of the dry run, and its object for programs."""

import pytest

from engine.cli.app import call

CONFIG = """
[service]
kind = "sama"
project_id = 42
access_key = "${env:SAMA_ACCESS_KEY}"

[mapping]
wrap = "data"

[source.types]
n = "integer"
"""


@pytest.fixture
def preview(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMA_ACCESS_KEY", "the-key-itself")
    (tmp_path / "sama.toml").write_text(CONFIG)
    (tmp_path / "t.csv").write_text("id,url,n\na,https://x.example/1?v=2,1\nb,the-key-itself,2\nc,x,three\n")

    def run(*words):
        code = call(["preview", "t.csv", "--config", "sama.toml", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_row_task_and_requests_stand_below_each_other(preview):
    code, out, _ = preview("-n", "1")
    assert code == 0
    expected = [
        "Record 0 as it would be sent.",
        '  row   {"id":"a","url":"https://x.example/1?v=2","n":1}',
        '  task  {"data":{"id":"a","url":"https://x.example/1?v=2","n":1}}',
        "Batch 0: records 0 to 2, 2 tasks, ",
        "  1. create    POST https://api.sama.com/v2/projects/42/batches.json?access_key=********",
        "  2. put       PUT https://bucket.s3.amazonaws.com/PRESIGNED",
        "  3. continue  POST https://api.sama.com/v2/projects/42/batches/BATCH/continue.json?access_key=********",
    ]
    places = [out.index(line) for line in expected]
    assert places == sorted(places)


def test_what_cannot_be_sent_has_its_reason_and_an_exit_code(preview):
    code, out, _ = preview()
    assert code == 3
    assert "3 records as they would be sent; 1 cannot be" in out
    assert "no task  column 'n': 'three' is no integer" in out
    assert preview("--record", "2")[0] == 3
    code, _, err = preview("--record", "3")
    assert code == 2
    assert "no record 3: the sources have 3 records" in err


def test_a_secret_that_stands_in_a_record_is_not_shown(preview):
    for words in ((), ("--json",)):
        out = preview(*words)[1]
        assert "the-key-itself" not in out
        assert "https://x.example/1?v=2" in out, "what is no secret is shown as it would go up"
