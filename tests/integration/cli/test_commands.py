import io
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.model.errors import JobLocked, SourceChanged, StillWaiting, Unavailable
from engine.model.job import JobState
from engine.model.outcome import Tally
from engine.model.record import Format
from engine.model.settings import RunLimits
from engine.progress.events import JobEnded, JobStarted

LEDGER = Path(".bulksubmit/ledger.db")
OPTIONS = {
    "config": Path("c.toml"),
    "job": None,
    "output": None,
    "format": None,
    "until": "",
    "strict": False,
    "again": False,
    "processes": None,
    "delta": False,
    "dask": "",
    "family": None,
    "accept_new": False,
    "limits": RunLimits(),
    "metrics_textfile": None,
}
"""Of submit, where only the configuration is named."""
NIGHT = {
    key: value for key, value in OPTIONS.items() if key not in {"job", "output", "strict", "again", "delta", "dask"}
}
PROMISED = {
    "job",
    "state",
    "records",
    "batches",
    "created",
    "failed",
    "rejected",
    "uncertain",
    "unresolved",
    "elapsed_seconds",
}


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["resume", "a"], ("resume", "a", LEDGER)),
        (["resume", "a", "--config", "new.toml"], ("resume", "a", LEDGER, Path("new.toml"))),
        (
            ["resume", "a", "--max-records", "5", "--max-failed", "1%", "--fail-if-empty"],
            ("resume", "a", LEDGER, RunLimits(max_records=5, max_failed="1%", fail_if_empty=True)),
        ),
        (
            ["nightly", "a", "b", "-c", "c.toml", "--window", "22:00-06:00", "--zone", "UTC", "--deadline", "2h"],
            (
                "nightly",
                ["a", "b"],
                LEDGER,
                {**NIGHT, "limits": RunLimits(deadline="2h", window="22:00-06:00", zone="UTC")},
            ),
        ),
        (["retry", "a"], ("retry", "a", LEDGER)),
        (["cancel", "a", "--yes"], ("cancel", "a", LEDGER)),
        (["refresh", "a"], ("refresh", "a", LEDGER)),
        (["resume", "a", "--until", "finished"], ("resume", "a", LEDGER, "finished")),
        (["status"], ("status", None, LEDGER, False)),
        (["status", "a", "--tasks"], ("status", "a", LEDGER, True)),
        (["status", "--state", "open", "--limit", "20"], ("status", None, LEDGER, False, "open", 20)),
        (["status", "--since", "2026-11-01T22:00Z"], ("status", None, LEDGER, False, 1_793_570_400.0)),
        (["resume", "a", "--metrics-textfile", "a.prom"], ("resume", "a", LEDGER, Path("a.prom"))),
        (["report", "a"], ("report", "a", LEDGER)),
        (["report", "a", "--record", "48211"], ("tell_story", "a", LEDGER, 48211, None)),
        (["report", "a", "--key", "id=5"], ("tell_story", "a", LEDGER, None, "id=5")),
        (["retry", "a", "--config", "new.toml"], ("retry", "a", LEDGER, Path("new.toml"))),
        (["retry", "a", "--from", "back.csv"], ("retry", "a", LEDGER, Path("back.csv"))),
        (
            ["retry", "a", "--deadline", "2h", "--metrics-textfile", "a.prom"],
            ("retry", "a", LEDGER, RunLimits(deadline="2h"), Path("a.prom")),
        ),
        (
            ["retry", "a", "--task-failed", "--yes", "--max-records", "5"],
            ("retry_tasks", "a", LEDGER, RunLimits(max_records=5)),
        ),
        (["audit", "a", "--ledger", "x.db"], ("audit", "a", Path("x.db"))),
        (
            ["validate", "in.csv", "more.csv", "--config", "c.toml", "--format", "csv"],
            ("validate", ["in.csv", "more.csv"], {"config": Path("c.toml"), "format": Format.CSV, "processes": None}),
        ),
        (["resume", "a", "--processes", "2"], ("resume", "a", LEDGER, 2)),
        (
            ["submit", "a", "-c", "c.toml", "--dask", "local:2"],
            ("submit", ["a"], LEDGER, OPTIONS | {"dask": "local:2"}),
        ),
        (
            ["validate", "a", "-c", "c.toml", "--processes", "3"],
            ("validate", ["a"], {"config": Path("c.toml"), "format": None, "processes": 3}),
        ),
        (
            ["submit", "a", "-c", "c.toml", "--processes", "0"],
            ("submit", ["a"], LEDGER, OPTIONS | {"processes": 0}),
        ),
        (
            ["submit", "a", "-", "-c", "c.toml", "--job", "j", "-o", "out", "--strict", "--until", "finished"],
            (
                "submit",
                ["a", "-"],
                LEDGER,
                OPTIONS | {"job": "j", "output": Path("out"), "strict": True, "again": False, "until": "finished"},
            ),
        ),
    ],
)
def test_a_command_asks_the_engine_for_what_was_typed(say, engine, arguments, asked):
    say(*arguments)
    assert engine.asked == [asked]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "lately"], "'lately' is no date, time or duration: write it as 2026-11-01"),
        (["a", "--limit", "3"], "--state, --since and --limit choose among jobs"),
    ],
)
def test_a_choice_among_jobs_that_means_nothing_is_refused(say, arguments, said):
    refused = say("status", *arguments)
    assert (refused.code, said in refused.err) == (2, True)


def test_the_ledger_may_be_named_by_the_environment(say, engine, monkeypatch):
    monkeypatch.setenv("BULKSUBMIT_LEDGER", "there/l.db")
    say("resume", "a")
    assert engine.asked == [("resume", "a", Path("there/l.db"))]


def test_the_ledger_may_be_named_by_the_configuration(say, engine, monkeypatch, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('ledger = "l.db"\n[service]\nkind = "sama"\nproject_id = 1\naccess_key = "${env:KEY}"\n')
    monkeypatch.delenv("BULKSUBMIT_LEDGER")
    say("resume", "a", "--config", config)
    say("resume", "a", "--config", config, "--ledger", "x.db")
    monkeypatch.setenv("BULKSUBMIT_LEDGER", "there/l.db")
    say("resume", "a", "--config", config)
    assert [asked[2] for asked in engine.asked] == [tmp_path / "l.db", Path("x.db"), Path("there/l.db")]


@pytest.mark.parametrize("command", ["submit", "resume", "retry", "cancel", "report"])
def test_a_run_answers_with_one_json_object_and_its_exit_code(say, command):
    arguments = ["in.ndjson", "--config", "c.toml"] if command == "submit" else ["nightly"]
    said = say(command, *arguments, *(["--yes"] if command == "cancel" else []), "--json")
    assert said.code == 3
    assert said.json.keys() >= PROMISED
    assert (said.json["records"], said.json["created"], said.json["exit_code"]) == (10, 7, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["status"], {"jobs", "ledger"}),
        (["status", "nightly", "--tasks"], {"job", "state", "created", "working", "running"}),
        (["audit", "nightly"], {"holds", "findings", "created", "unresolved"}),
        (["report", "nightly", "--record", "4"], {"index", "state", "task_id", "url"}),
        (["report", "nightly", "--html"], {"job", "tally", "calls", "causes", "series", "next", "page"}),
        (["validate", "x", "--config", "c.toml"], {"records", "rejected", "rejects", "size_bytes"}),
    ],
)
def test_a_question_is_answered_with_one_json_object(say, arguments, expected):
    said = say(*arguments, "--json")
    assert said.json.keys() >= expected


def test_progress_goes_to_standard_error_and_the_screen_to_standard_output(say, engine):
    engine.events = [JobStarted("nightly", 1000), JobEnded("nightly", "finished")]
    said = say("resume", "nightly")
    assert said.out.startswith("Job nightly is finished: 7 of 10 records created.\n")
    assert "[00:00:00] job nightly: 1 KB to read" in said.err


def test_quiet_shows_no_progress(say, engine):
    engine.events = [JobStarted("nightly", 1000)]
    assert say("resume", "nightly", "--quiet").err == ""


def test_a_log_takes_the_place_of_the_progress_lines(say, engine):
    engine.events = [JobStarted("nightly", 1000)]
    lines = say("resume", "nightly", "--log-level", "info").err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("INFO engine.events: job nightly started: 0 % of its sources read before")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SourceChanged(), 2),
        (JobLocked(), 6),
        (Unavailable("nobody answers"), 5),
        (StillWaiting("batch 7 waits"), 5),
        (ExceptionGroup("", [JobLocked()]), 6),
    ],
)
def test_an_error_of_ours_is_one_message_and_its_exit_code(say, engine, error, code):
    engine.error = error
    said = say("resume", "nightly", "--json")
    message = str(error.exceptions[0] if isinstance(error, ExceptionGroup) else error)
    assert said.code == code
    assert said.json == {"error": message, "exit_code": code}
    assert said.err == f"bulksubmit: {message}\n"


def test_an_unexpected_error_shows_its_traceback_only_in_the_debug_log(say, engine):
    engine.error = ZeroDivisionError("oh")
    said = say("audit", "nightly")
    assert said.code == 1
    assert said.err == "bulksubmit: unexpected error: ZeroDivisionError: oh. --log-level debug shows where\n"
    assert "Traceback" in say("audit", "nightly", "--log-level", "debug").err


def test_an_error_never_shows_a_secret(say, engine, monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "s3cr3t-value")
    engine.error = RuntimeError("GET https://host/x?access_key=s3cr3t-value&y=1 failed with s3cr3t-value")
    for arguments in (["--json"], ["--log-level", "debug"], ["--log-format", "json", "--log-level", "debug"]):
        said = say("audit", "nightly", *arguments)
        assert "s3cr3t" not in said.out + said.err
        assert "https://host/x?***" in said.err


def test_a_refused_validation_exits_with_3(say):
    said = say("validate", "in.ndjson", "--config", "c.toml")
    assert said.code == 3
    assert "1 of 10 records cannot be sent. Nothing was sent." in said.out
    assert "in.ndjson:5  record 4  not valid JSON" in said.out


def test_text_that_could_steer_the_terminal_is_escaped(say, engine):
    engine.result = replace(engine.result, state=JobState.OPEN, message="\udcff and \x1b[2J and \nü")
    assert r"not finished. \udcff and \x1b[2J and \nü" in say("resume", "nightly").out


def test_a_job_that_goes_on_tells_how_with_its_own_ledger(say, engine):
    engine.result = replace(engine.result, state=JobState.OPEN, tally=Tally(5, 1), exit_code=5, message="Down.")
    said = say("resume", "nightly", "--ledger", "my ledger.db")
    assert said.code == 5
    assert "Job nightly is not finished. Down." in said.out
    assert "bulksubmit resume nightly --ledger 'my ledger.db'" in said.out


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("typed", "asked"), [("y\n", 1), ("n\n", 0), ("\n", 0), ("", 0)])
def test_whoever_cancels_at_a_terminal_is_asked_first(say, engine, monkeypatch, typed, asked):
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    said = say("cancel", "nightly", "--json")
    assert asked_for(engine) == ["status", "cancel"][: 1 + asked]
    assert "Job nightly has created 7 tasks, which stay" in said.err
    assert "Cancel job nightly of ledger .bulksubmit/ledger.db?" in said.err
    assert said.json.get("error", "") == ("" if asked else "job nightly was not canceled")


def test_where_nobody_can_be_asked_a_job_is_canceled_only_with_yes(say, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    said = say("cancel", "nightly")
    assert (said.code, asked_for(engine)) == (2, ["status"])
    assert "--yes says that it shall be canceled" in said.err
    say("cancel", "nightly", "--yes")
    assert asked_for(engine) == ["status", "cancel"]


@pytest.mark.parametrize(("typed", "sent"), [("y\n", True), ("n\n", False)])
def test_whoever_resumes_a_canceled_job_is_told_what_was_not_sent_and_asked(say, engine, monkeypatch, typed, sent):
    engine.canceled = True
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    said = say("resume", "nightly")
    assert "3 records that it has read were not sent. Send all of it now?" in said.err
    assert [question[3:] for question in engine.asked] == [(), *([("reopen",)] if sent else [])]


def test_where_nobody_can_be_asked_a_canceled_job_is_resumed_only_with_yes(say, engine, monkeypatch):
    engine.canceled = True
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert say("resume", "nightly").code == 2
    assert say("resume", "nightly", "--yes").code == engine.result.exit_code


def asked_for(engine):
    return [question[0] for question in engine.asked]


@pytest.mark.parametrize(("typed", "sent"), [("y\n", True), ("n\n", False), ("", False)])
def test_whoever_sends_uncertain_records_again_is_told_what_could_happen_and_asked(
    say, engine, monkeypatch, typed, sent
):
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    said = say("retry", "nightly", "--uncertain")
    assert "2,000 records in 4 batches may be tasks already" in said.err
    assert "records 0 to 499 (batch 0: the answer was lost) and 3 more" in said.err
    assert "becomes a second task if it is sent again" in said.err
    assert asked_for(engine) == ["find_uncertain", *(["retry uncertain"] if sent else [])]


def test_whoever_is_asked_is_told_of_the_job_that_uncertain_records_become(say, engine, monkeypatch):
    engine.again_in = "nightly.retry"
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert (
        "look at the service first. They become job nightly.retry. Send them"
        in say("retry", "nightly", "--uncertain").err
    )


def test_where_nobody_can_be_asked_uncertain_records_are_sent_again_only_with_yes(say, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    said = say("retry", "nightly", "--uncertain", "--json")
    assert (said.code, asked_for(engine)) == (2, ["find_uncertain"])
    assert "--yes says that they shall be sent again" in said.json["error"]
    assert "becomes a second task" in said.json["error"]
    said = say("retry", "nightly", "--uncertain", "--yes", "--json")
    assert (said.json["job"], asked_for(engine)[-1]) == ("nightly", "retry uncertain")


@pytest.mark.parametrize(("typed", "sent"), [("y\n", True), ("n\n", False), ("", False)])
def test_whoever_takes_a_load_back_is_told_how_many_and_where_and_asked(say, engine, monkeypatch, typed, sent):
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    said = say("undo", "nightly")
    assert "Job nightly has 7 tasks on api.sama.com (sama). Those that have not begun would be deleted" in said.err
    assert "It takes 30 s at least. Take them back?" in said.err
    assert asked_for(engine) == ["find_undoable", *(["undo"] if sent else [])]


def test_where_nobody_can_be_asked_a_load_is_taken_back_only_with_yes(say, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert say("undo", "nightly").code == 2
    say("undo", "nightly", "--yes")
    assert asked_for(engine) == ["find_undoable", "undo"]


@pytest.mark.parametrize(("typed", "sent"), [("y\n", True), ("n\n", False)])
def test_whoever_submits_failed_tasks_again_is_told_how_many_and_the_price_and_asked(
    say, engine, monkeypatch, typed, sent
):
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    said = say("retry", "nightly", "--task-failed")
    assert "3 tasks of job nightly failed on api.sbgenomics.com (sevenbridges)" in said.err
    assert (
        "the first time they cost 4.50 USD (known of 2). They become tasks a second time, as job nightly.ag" in said.err
    )
    assert asked_for(engine) == ["find_failed_tasks", *(["retry_tasks"] if sent else [])]


def test_where_nobody_can_be_asked_failed_tasks_are_submitted_again_only_with_yes(say, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert say("retry", "nightly", "--task-failed").code == 2
    say("retry", "nightly", "--task-failed", "--yes")
    assert asked_for(engine) == ["find_failed_tasks", "retry_tasks"]


def test_tasks_that_failed_are_named_with_their_reasons(say, engine):
    said = say("status", "nightly", "--tasks", "--failed")
    assert re.search(r"record 4 +task-4 +failed +out of memory", said.out)
    assert "of their tasks, later 1 failed" in said.out
    assert say("status", "nightly", "--tasks", "--failed", "--json").json["failed_tasks"][0]["task_id"] == "task-4"
    assert say("status", "nightly", "--failed").code == 2


def test_words_of_the_service_do_not_steer_the_terminal_of_whoever_is_asked(say, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    engine.again_in = "\x1b[2J\u202e"
    said = say("retry", "nightly", "--uncertain")
    assert "\\x1b[2J\\u202e" in said.err
    assert all(line.isprintable() for line in said.err.split("\n"))


def test_backup_copies_the_ledger_and_says_what_must_not_be_done_with_both(say, engine):
    said = say("backup", "copy.db", "--ledger", "l.db")
    assert engine.asked == [("backup", Path("copy.db"), Path("l.db"))]
    assert said.out.startswith("l.db is copied to copy.db: 1 job. Only one of the two may go on")
    assert say("backup", "copy.db", "--json").json["jobs"] == ["nightly"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "a", "--record", "1", "--key", "b"],
        ["report", "a", "--missing", "--record", "1"],
        ["report", "a", "--html", "--record", "1"],
        ["report", "a", "page.html"],
        ["report", "a", "--audit"],
        ["retry", "a", "--uncertain", "--from", "back.csv"],
        ["retry", "a", "--uncertain", "--config", "new.toml"],
    ],
)
def test_options_that_ask_for_different_things_do_not_go_together(say, engine, arguments):
    assert (say(*arguments).code, engine.asked) == (2, [])


def test_prune_shows_what_goes_and_asks_before_it_removes(say, engine):
    policy = {"older_than_seconds": 90 * 86_400.0, "keep_last": 7}
    said = say("prune", "--older-than", "90d", "--keep-last", "7", "--dry-run")
    assert engine.asked == [("prune", LEDGER, policy, True)]
    assert said.out.startswith("1 job of 1 would be removed from .bulksubmit/ledger.db.")
    assert "older than 90 days" in said.out
    said = say("prune", "--older-than", "90d")
    assert (said.code, engine.asked[-1][-1]) == (2, True)  # nobody can be asked here
    assert "Remove 1 job with all that is known of them? Nobody can be asked here: --yes" in said.err
    engine.asked.clear()
    said = say("prune", "--keep-last", "7", "--yes", "--json")
    assert [dry_run for *_, dry_run in engine.asked] == [True, False]
    assert (said.json["removed"], said.json["jobs"][0]["reason"]) == (["old"], "older than 90 days")


def test_prune_that_finds_nothing_to_remove_does_not_ask(say, engine):
    engine.pruned = replace(engine.pruned, verdicts=[])
    assert say("prune", "--keep-last", "7").out.startswith("0 jobs of 0 removed")


@pytest.mark.parametrize("age", ["90", "90x", "-1d", "0d"])
def test_an_age_that_is_none_is_an_error(say, age):
    said = say("prune", "--older-than", age)
    assert (said.code, "is no age; write it as 90d, 12w or 36h" in said.err) == (2, True)
