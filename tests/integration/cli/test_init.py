"""A configuration by a few questions: what is asked, what is proposed, what is written, and what is never shown."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from fakes.toy import install

from engine.cli.app import call

TASKS = 'id,img_url,urgency,lat,done,box\na1,x.jpg,1,1.5,true,"[1,2]"\na2,y.jpg,2,-3,false,"[3]"\n'
PAIRS = "sample;r1;r2;threads;ref id\nS1;S1_1.fq.gz;in/S1_2.fq.gz;4;567890abc9b0307bc0414164\n"
SAMA = ["init", "sama", "--from", "tasks.csv", "--yes", "--project-id", "42"]
SEVEN = ["init", "sevenbridges", "--from", "pairs.csv", "--yes", "--project", "me/p", "--app", "me/p/align"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("SAMA_ACCESS_KEY", "SB_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tasks.csv").write_text(TASKS)
    (tmp_path / "pairs.csv").write_text(PAIRS)


@pytest.fixture
def bulksubmit(capsys, monkeypatch):
    """Call the command in this process, where nobody can be asked."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*words):
        code = call(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def written(name):
    return tomllib.loads(Path(name).read_text())


def test_for_sama_a_row_is_wrapped_its_priority_is_found_and_its_columns_have_types(bulksubmit, monkeypatch):
    code, out, _ = bulksubmit(*SAMA)
    assert code == 0
    assert "2 of the 2 records can be sent" in out
    lines = list(map(str.split, out.splitlines()))
    assert ["urgency", "integer", "priority", "1"] in lines
    assert ["lat", "number", "data.lat", "1.5"] in lines
    assert written("sama.toml") == {
        "service": {"kind": "sama", "project_id": 42, "access_key": "${env:SAMA_ACCESS_KEY}"},
        "source": {"types": {"urgency": "integer", "lat": "number", "done": "boolean", "box": "json"}},
        "mapping": {"wrap": "data", "fields": {"priority": "urgency"}},
    }
    monkeypatch.setenv("SAMA_ACCESS_KEY", "some-key")
    code, out, _ = bulksubmit("validate", "tasks.csv", "--config", "sama.toml", "--json")
    assert (code, json.loads(out)["records"]) == (0, 2)


def test_columns_are_matched_with_the_project_s_inputs(bulksubmit, tmp_path):
    inputs = {"id": "string", "imgUrl": "string", "lat": "string", "box": "array", "missing": "string"}
    properties = {name: {"type": kind} for name, kind in inputs.items()}
    (tmp_path / "schema.json").write_text(json.dumps({"properties": {"data": {"properties": properties}}}))
    code, _, _ = bulksubmit(*SAMA, "--task-schema", "schema.json", "--output", "deep/er/s.toml")
    made = written("deep/er/s.toml")
    assert code == 0
    assert made["service"]["task_schema"] == "../../schema.json"
    assert made["mapping"]["rename"] == {"img_url": "imgUrl"}
    assert made["source"]["types"] == {"urgency": "integer", "done": "boolean", "box": "json"}
    text = (tmp_path / "deep" / "er" / "s.toml").read_text()
    assert "# No input of the project's schema: done." in text
    assert "# Inputs that no column is: missing." in text


def test_for_seven_bridges_columns_become_inputs_and_files_are_told_by_name_or_id(bulksubmit, monkeypatch):
    code, _, _ = bulksubmit(*SEVEN, "--run")
    assert code == 0
    made = written("sevenbridges.toml")
    assert made["service"] == {
        "kind": "sevenbridges",
        "base_url": "us",
        "auth_token": "${env:SB_AUTH_TOKEN}",
        "project": "me/p",
        "app": "me/p/align",
        "run": True,
    }
    assert made["source"] == {"delimiter": ";", "types": {"threads": "integer"}}
    assert made["mapping"]["template"] == {
        "name": "align ${row.sample}",
        "inputs": {
            "sample": "${row.sample}",
            "reads": [{"class": "File", "name": "${row.r1}"}, {"class": "File", "name": "${row.r2}"}],
            "threads": "${row.threads}",
            "ref id": {"class": "File", "path": "${row.ref id}"},
        },
    }
    monkeypatch.setenv("SB_AUTH_TOKEN", "some-token")
    assert bulksubmit("validate", "pairs.csv", "--config", "sevenbridges.toml")[0] == 0


def test_the_screen_says_where_in_the_task_each_column_stands(bulksubmit):
    lines = [line.split() for line in bulksubmit(*SEVEN)[1].splitlines()]
    assert ["sample", "string", "name,", "inputs.sample", "S1"] in lines
    assert ["r2", "string", "inputs.reads", "in/S1_2.fq.gz"] in lines, "a pair is one list of files"


def test_rows_that_are_tasks_already_are_left_as_they_are(bulksubmit, tmp_path):
    (tmp_path / "t.ndjson").write_text('{"data":{"a":1},"priority":2}\n')
    (tmp_path / "s.ndjson").write_text('{"name":"n","inputs":{"x":1}}\n')
    assert bulksubmit(*SAMA[:2], "--from", "t.ndjson", *SAMA[4:])[0] == 0
    assert bulksubmit(*SEVEN[:2], "--from", "s.ndjson", *SEVEN[4:])[0] == 0
    for name in ("sama.toml", "sevenbridges.toml"):
        assert written(name).keys() == {"service"}


def test_a_record_that_would_not_go_up_is_named(bulksubmit, tmp_path):
    rows = "".join(f"a{number},{number}\n" for number in range(1500))
    (tmp_path / "t.csv").write_text(f"id,n\n{rows}x,no number\n")
    (tmp_path / "u.csv").write_text("id,n\na,1\nb\n")
    assert "1,000 of the first 1,000 records" in bulksubmit(*SAMA[:2], "--from", "t.csv", *SAMA[4:])[1]
    out = bulksubmit(*SAMA[:2], "--from", "u.csv", *SAMA[4:], "--overwrite")[1]
    assert "1 of the 2 records can be sent" in out
    assert "the first that cannot be sent  has 1 values" in out


def test_what_is_missing_where_nobody_can_be_asked_is_named_with_its_option(bulksubmit):
    code, _, err = bulksubmit("init", "sevenbridges", "--app", "a/b/c")
    assert code == 2
    for option in ("--base-url", "--auth-token-variable", "--project", "--run"):
        assert option in err
    assert "--app," not in err
    assert "--yes takes --base-url us" in " ".join(err.split())
    code, _, err = bulksubmit("init", "sevenbridges", "--yes")
    assert code == 2
    assert "say --project, --app" in " ".join(err.split())
    assert not Path("sevenbridges.toml").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--project-id", "forty"], "--project-id: must be a whole number"),
        (["--project-id", "42", "--mode", "fast"], "--mode: must be 'inline' or 'presigned'"),
        (["--project-id", "42", "--base-url", "http://far.example"], "base_url must be https"),
        (["--project-id", "42", "--access-key-variable", "a-b"], "no name of a variable"),
        (["--projct-id", "42"], "No such option"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named_and_nothing_is_written(bulksubmit, words, said):
    code, _, err = bulksubmit("init", "sama", "--yes", *words)
    assert code == 2
    assert said in " ".join(err.split())
    assert not Path("sama.toml").exists()


def test_a_secret_in_place_of_its_variable_s_name_is_refused_and_not_shown(bulksubmit):
    for secret in ("a3f9b2c4d5e6f708192a3b4c", "sk-live+secret/value"):
        code, out, err = bulksubmit(*SAMA, "--access-key-variable", secret)
        assert code == 2
        assert secret not in out + err
        assert not Path("sama.toml").exists()


def test_a_file_that_is_there_is_kept_unless_it_may_be_written_over(bulksubmit, tmp_path):
    (tmp_path / "sama.toml").write_text("mine")
    code, _, err = bulksubmit(*SAMA)
    assert code == 2
    assert "--overwrite" in err
    assert (tmp_path / "sama.toml").read_text() == "mine"
    assert bulksubmit(*SAMA, "--overwrite")[0] == 0
    assert "[service]" in (tmp_path / "sama.toml").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"sama.toml", "tasks.csv", "pairs.csv"}


def test_the_commands_that_come_next_can_be_pasted(bulksubmit, tmp_path):
    (tmp_path / "my tasks.csv").write_text(TASKS)
    words = [*SAMA[:2], "--from", "my tasks.csv", *SAMA[4:], "-o", "a b.toml", "--json"]
    said = json.loads(bulksubmit(*words)[1])
    assert said["next"] == [
        "export SAMA_ACCESS_KEY=…",
        "bulksubmit check --config 'a b.toml' 'my tasks.csv'",
        "bulksubmit preview 'my tasks.csv' --config 'a b.toml'",
        "bulksubmit submit 'my tasks.csv' --config 'a b.toml'",
    ]
    assert (said["fit"], said["flaw"], said["variables"]) == (2, "", ["SAMA_ACCESS_KEY"])


def test_git_is_told_to_ignore_what_jobs_leave_once(bulksubmit, tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*.csv")
    assert ".gitignore" in bulksubmit(*SAMA)[1]
    assert (tmp_path / ".gitignore").read_text() == "*.csv\n.bulksubmit/\n"
    bulksubmit(*SAMA, "-o", "sub/s.toml")
    bulksubmit(*SAMA, "--overwrite")
    assert (tmp_path / ".gitignore").read_text() == "*.csv\n.bulksubmit/\n"
    assert not (tmp_path / "sub" / ".gitignore").exists()


def test_the_service_of_a_package_is_asked_by_its_own_settings(bulksubmit, tmp_path, monkeypatch):
    for folder in install(tmp_path):
        monkeypatch.syspath_prepend(folder)
    (tmp_path / "t.csv").write_text("title,n\na,1\n")
    code, _, err = bulksubmit("init", "toy", "--from", "t.csv")
    assert code == 2
    assert "--base-url, --api-key-variable" in " ".join(err.split())
    words = ["init", "toy", "--from", "t.csv", "--yes", "--base-url", "https://toy.example"]
    assert bulksubmit(*words)[0] == 0
    assert written("toy.toml")["service"] == {
        "kind": "toy",
        "base_url": "https://toy.example",
        "api_key": "${env:TOY_API_KEY}",
    }
    code, _, err = bulksubmit("init", "tyo")
    assert "did you mean 'toy'?" in err


class Person:
    """Somebody at a terminal."""

    def __init__(self, *words):
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            os.execv(sys.executable, [sys.executable, "-m", "engine", *words])  # noqa: S606 - the command it tests
        self.seen = ""

    def reads(self, text, seconds=60):
        """Read until a text comes."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.terminal], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.terminal, 65536).decode()
                except OSError:  # Linux says so when the other end is closed
                    assert text in self.seen
        self.seen = self.seen.partition(text)[2]

    def types(self, text):
        os.write(self.terminal, f"{text}\n".encode())

    def leaves(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_at_a_terminal_each_question_is_asked_until_its_answer_can_be_used(tmp_path):
    person = Person("init", "sama")
    person.reads("Number of the project: ")
    person.types("forty")
    person.reads("must be a whole number")
    person.reads("Number of the project: ")
    person.types("42")
    person.reads("API key [SAMA_ACCESS_KEY]: ")
    person.types("")
    person.reads("JSON Schema of a task, if you have it: ")
    person.types("")
    person.reads("File with your records, if you have it: ")
    person.types("no.csv")
    person.reads("there is no such file")
    person.types("tasks.csv")
    person.reads("bulksubmit submit tasks.csv --config sama.toml")
    assert person.leaves() == 0
    assert written("sama.toml")["mapping"] == {"wrap": "data", "fields": {"priority": "urgency"}}


def test_with_proposals_taken_only_the_rest_is_asked_and_whoever_leaves_has_written_nothing(tmp_path):
    person = Person("init", "sevenbridges", "--yes", "--project", "me/p")
    person.reads("App, as owner/project/app: ")
    person.types("me")
    person.reads("is not owner/project/app")
    person.types("me/p/align")
    person.reads("Wrote sevenbridges.toml")
    assert person.leaves() == 0
    person = Person("init", "sama")
    person.reads("Number of the project: ")
    os.write(person.terminal, b"\x04")
    person.reads("nothing was written")
    assert person.leaves() == 1
    assert not (tmp_path / "sama.toml").exists()


def test_nothing_heavy_is_loaded_by_init_and_nobody_is_called():
    program = "import sys\nfrom engine.cli.app import call\ncall(sys.argv[1:])\nprint('aiohttp' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program, *SAMA], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.splitlines()[-1] == "False"


# Services by a description


def test_a_shipped_description_is_asked_for_what_it_leaves_open(bulksubmit):
    said = ["--base-url", "https://search.example.com", "--values-index-name", "tasks"]
    code, out, _ = bulksubmit("init", "elasticsearch", "--yes", *said)
    assert code == 0
    assert "export ES_API_KEY=" in out
    assert written("elasticsearch.toml") == {
        "service": {
            "kind": "elasticsearch",
            "base_url": "https://search.example.com",
            "auth": {"secret": "${env:ES_API_KEY}"},
            "values": {"index_name": "tasks"},
        }
    }
    code, _, err = bulksubmit("init", "elasticsearch", "--yes", "--overwrite", *said[:2])
    assert code == 2
    assert "--values-index-name" in err


def test_a_description_of_ones_own_begins_with_one_call_and_the_rest_as_comments(bulksubmit):
    code, _, _ = bulksubmit("init", "http", "--yes", "--base-url", "https://api.example.com", "--body-under", "inputs")
    assert code == 0
    assert written("http.toml") == {
        "service": {
            "kind": "http",
            "base_url": "https://api.example.com",
            "auth": {"kind": "bearer", "secret": "${env:API_TOKEN}"},
            "release": {"call": "POST /tasks", "payload": True, "again": "never"},
            "limit": {"records": 100},
            "body": {"framing": "array", "under": "inputs"},
            "results": {"id": "id"},
        }
    }
    assert "# [service.stage]" in Path("http.toml").read_text()


@pytest.mark.parametrize(
    ("said", "service"),
    [
        (["--auth-kind", "none"], {"auth": {"kind": "none"}}),
        (
            ["--auth-kind", "query", "--auth-name", "key"],
            {"auth": {"kind": "query", "name": "key", "secret": "${env:API_TOKEN}"}},
        ),
        (
            ["--release-again", "key"],
            {"release": {"call": "POST /tasks", "again": "key", "key_header": "Idempotency-Key", "payload": True}},
        ),
        (["--release-again", "safe", "--body-framing", "single"], {"body": {"framing": "single"}}),
        (["--body-framing", "ndjson"], {"body": {"framing": "ndjson"}, "limit": {"records": 100}}),
    ],
)
def test_what_an_answer_makes_needless_is_not_asked_and_each_skeleton_is_valid_at_once(bulksubmit, said, service):
    code, _, err = bulksubmit("init", "http", "--yes", "--base-url", "https://api.example.com", *said)
    assert (code, err) == (0, "")
    found = written("http.toml")["service"]
    assert {key: found[key] for key in service} == service
    Path("tasks.ndjson").write_text('{"a": 1}\n')
    code, out, _ = bulksubmit("preview", "tasks.ndjson", "--config", "http.toml")
    assert code == 0
    assert "1. release  POST https://api.example.com/tasks" in out


def test_the_skeleton_can_be_filled_in_by_taking_signs_away(bulksubmit):
    """No table stands in it twice."""
    bulksubmit("init", "http", "--yes", "--base-url", "https://api.example.com")
    lines = Path("http.toml").read_text().splitlines()
    begin = lines.index("# [service.record]")
    end = next(at for at, line in enumerate(lines) if at > begin and line.startswith("# Records that are no tasks"))
    assert tomllib.loads("\n".join([*lines[:begin], *(line.removeprefix("# ") for line in lines[begin : end - 1])]))


@pytest.mark.parametrize(
    ("option", "answer", "words"),
    [
        ("--release-call", "tasks", "'tasks' is no call"),
        ("--limit-records", "0", "must be a whole number from 1 on"),
        ("--body-framing", "xml", "must be "),
        ("--release-again", "exists", "does not ask for it"),
    ],
)
def test_what_is_wrong_with_an_answer_about_a_table_is_told(bulksubmit, option, answer, words):
    code, _, err = bulksubmit("init", "http", "--yes", "--base-url", "https://api.example.com", option, answer)
    assert code == 2
    assert words in err.replace("\n", " ")
    assert not Path("http.toml").exists()
