import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace
from unit.bench.benches import bench

from engine.cli.demo import Demo, demo_screen
from engine.cli.output.bench import bench_screen
from engine.cli.output.checks import audit_screen, story_screen, validation_screen
from engine.cli.output.result import next_steps, result_screen
from engine.cli.output.screen import Mood, Screen, Table, tell_error, text_of
from engine.cli.output.status import job_screen, jobs_screen
from engine.commands.cancel import CANCELED
from engine.commands.lineage import Attempt, Retried, Story
from engine.commands.paths import program
from engine.commands.result import JobStatus, ServiceCan, Validation
from engine.model.errors import BulkSubmitError, Exit, StillWaiting
from engine.model.job import JobState
from engine.model.outcome import Fate, LaterFate, Outcome, Tally
from engine.model.record import Format, Reject, Source
from engine.model.runs import PastRun, RunCounts, Sample
from engine.model.shard import Shard, ShardState
from engine.reports.audit import Audit
from engine.reports.causes import Cause, FailureExample

from .conftest import JOB, RESULT, TALLY

LEDGER = Path(".bulksubmit/ledger.db")


def cause(records, words="for a reason", message=None):
    example = FailureExample(1_017, "in.ndjson", 9, 1_018, "0", None, None, message or words)
    return Cause("failed", words, records, [example])


def test_a_screen_is_aligned_text():
    table = Table([["created", "1,204"], ["failed", "7"]], "Counts", ["fate", "records"], frozenset({1}))
    text = text_of(Screen("Done.", {}, Mood.GOOD, [table, Table([], "Empty")]), colours=False)
    assert text.splitlines() == [
        "Done.",
        "",
        "Counts",
        "  fate     records",
        "  created    1,204",
        "  failed         7",
    ]


def words(text):
    return sorted(text.split())


def a_story(outcome):
    """Tell of a record that failed, and that a retry has created; its task failed then."""
    first = Attempt("nightly", 1, outcome, 1_235, 1e9)
    created = replace(outcome, index=3, state=Fate.CREATED, task_id="t1", error=None)
    again = Attempt("nightly.retry", 2, created, 4, 1e9 + 60, LaterFate("failed", "disk full", 1e9 + 3600))
    return Story(first, [first, again], "id", "a7")


LONG = Path("/a/path") / ("that-is-longer-than-the-screen-is-wide-" * 3) / "rejects.ndjson"
TROUBLE = "The service could not be reached for a long time; it says: maintenance until tomorrow morning, or later."
NARROW = {
    "result": lambda: result_screen(replace(RESULT, message=TROUBLE, rejects=LONG, orphans=2), Path("my folder/l.db")),
    "open job": lambda: result_screen(replace(RESULT, state=JobState.OPEN, message=TROUBLE), LEDGER),
    "jobs": lambda: jobs_screen([JobStatus(JOB, TALLY, running=True)] * 2, LEDGER),
    "job of a long name": lambda: jobs_screen([JobStatus(replace(JOB, name="n" * 100), TALLY, running=True)], LEDGER),
    "job with runs": lambda: job_screen(with_runs(), LEDGER),
    "job": lambda: job_screen(JobStatus(replace(JOB, output=str(LONG)), TALLY, running=False), LEDGER),
    "validation": lambda: validation_screen(
        Validation(
            10,
            1,
            2,
            1_000,
            [
                (
                    Source(0, "in/a/folder/tasks.ndjson", Format.NDJSON, 1000, 0, 0),
                    Reject(4, 480, 7, 5, f"not valid JSON. {TROUBLE}"),
                )
            ],
        )
    ),
    "audit": lambda: audit_screen(Audit("nightly", 10**9, 2, Counter(dict.fromkeys(Fate, 10**8))), LEDGER),
    "record": lambda: story_screen(
        a_story(Outcome(7, "in.csv", 9, Fate.FAILED, batch_id="b" * 90, error=TROUBLE)), LEDGER
    ),
    "bench": lambda: bench_screen(bench()),
}


@pytest.mark.parametrize("name", NARROW)
def test_nothing_is_broken_inside_a_word(name):
    screen = NARROW[name]()
    narrow = text_of(screen, colours=False, width=80)
    # Where columns do not fit, their names stand beside each cell, and the first name nowhere.
    names = {table.header[0] for table in screen.tables if table.header}
    assert set(words(narrow)) | names == set(words(text_of(screen, colours=False))) | names
    cells = {row[place] for table in screen.tables for place in table.whole for row in table.rows}
    for line in narrow.splitlines():
        assert len(line) <= 80 or len(line.split()) == 1 or line.strip() in cells


def test_a_command_is_never_folded():
    screen = Screen("Done.", {}, tables=[Table([["what for, in some words", "bulksubmit " * 7 + "x"]], whole={1})])
    lines = text_of(screen, colours=False, width=80).splitlines()
    assert lines[2:] == ["  what for, in some words", "      " + "bulksubmit " * 7 + "x"]


STEERING = "\x1b[2J\x9b31m\u202egpj.exe\u2066\u2028\u2029\x85\x00\n"


def test_no_word_of_others_steers_a_terminal_from_anywhere_on_a_screen():
    screen = Screen(STEERING, {}, tables=[Table([[STEERING, STEERING]], STEERING, [STEERING, STEERING], whole={1})])
    for width in (20, 1_000):
        lines = text_of(screen, colours=False, width=width).split("\n")
        assert all(line.isprintable() for line in lines)


def test_no_word_of_others_steers_a_terminal_from_an_error(capsys):
    tell_error(BulkSubmitError(STEERING), as_json=True)
    said = capsys.readouterr()
    assert all(line.isprintable() for line in [*said.out.split("\n"), *said.err.split("\n")])
    assert json.loads(said.out)["error"] == STEERING


def test_colours_are_for_terminals_only():
    screen = Screen("Done.", {}, Mood.GOOD, [Table([["a"]], "Title")])
    assert text_of(screen, colours=True).startswith("\x1b[1;32mDone.\x1b[0m")
    assert "\x1b" not in text_of(screen, colours=False)


class TestResult:
    def test_of_a_finished_job_says_what_is_wrong_and_what_to_do(self, tmp_path):
        causes = [cause(2, "bad url"), cause(1, "not JSON")]
        result = replace(RESULT, rejects=tmp_path / "rejects.ndjson", causes=causes)
        text = text_of(result_screen(result, LEDGER), colours=False)
        assert text.startswith("Job nightly is finished: 7 of 10 records created.")
        assert "  2  bad url\n  1  not JSON" in text
        assert "bulksubmit retry nightly" in text
        assert "bulksubmit audit nightly" in text
        assert str(result.rejects) in text

    def test_of_a_job_without_a_fault_proposes_the_proof_only(self):
        tally = Tally(10, 1, 10, states={"settled": 1})
        screen = result_screen(replace(RESULT, tally=tally, exit_code=0), LEDGER)
        assert screen.mood is Mood.GOOD
        assert screen.headline == "Job nightly is finished: 10 records, all created."
        assert "retry" not in text_of(screen, colours=False)

    def test_tells_a_speed_of_what_this_run_has_done_and_none_of_what_was_done_before(self):
        def time_told(resolved):
            return result_screen(replace(RESULT, resolved=resolved), LEDGER).tables[0].rows[-1]

        assert time_told(5) == ["time", "2.5 s", "2 records a second"]
        assert time_told(0) == ["time", "2.5 s", ""]

    def test_of_ids_that_are_not_proven_says_how_many(self):
        tables = result_screen(replace(RESULT, unproven=3), LEDGER).tables
        assert ["created", "7", "of 3 it is not proven which id is whose"] in tables[0].rows
        assert result_screen(replace(RESULT, unproven=3), LEDGER).data["unproven_ids"] == 3

    def test_of_a_job_that_was_stopped_says_why_and_how_to_go_on(self):
        result = replace(RESULT, state=JobState.OPEN, message="The service is down.", exit_code=5)
        screen = result_screen(result, LEDGER)
        assert (screen.mood, screen.exit_code) == (Mood.BAD, 5)
        assert screen.headline == "Job nightly is not finished. The service is down."
        assert "bulksubmit resume nightly" in text_of(screen, colours=False)

    def test_of_a_job_whose_batches_are_not_begun_names_them_and_how_to_go_on(self):
        result = replace(RESULT, state=JobState.OPEN, message=f"{StillWaiting()}", exit_code=StillWaiting.exit_code)
        screen = result_screen(result, LEDGER)
        assert screen.exit_code == 5
        assert "does not begin with what it has accepted" in screen.headline
        assert "bulksubmit resume nightly" in text_of(screen, colours=False)

    def test_of_a_job_that_waits_for_a_person_says_so_beside_the_way_to_go_on(self):
        result = replace(RESULT, state=JobState.OPEN, message="The key does not hold.", exit_code=9)
        screen = result_screen(result, LEDGER)
        assert (screen.mood, screen.exit_code) == (Mood.BAD, 9)
        text = text_of(screen, colours=False)
        assert re.search(r"mend what is named above, then go on +bulksubmit resume nightly", text)

    def test_of_a_canceled_job_says_what_stays(self):
        screen = result_screen(replace(RESULT, state=JobState.CANCELED), LEDGER)
        assert screen.headline == "Job nightly is canceled. 7 tasks had been created."
        unsent = replace(RESULT, state=JobState.CANCELED, tally=Tally(10, 2, 7))
        assert result_screen(unsent, LEDGER).headline.endswith("7 tasks had been created and 3 records not sent.")

    def test_of_a_finished_job_shows_what_is_said_besides_as_a_note(self):
        screen = result_screen(replace(RESULT, message="NAME.retry already ran"), LEDGER)
        assert screen.headline.endswith("records created.")
        assert "Note\n  NAME.retry already ran\n" in text_of(screen, colours=False)

    def test_of_a_job_without_records_says_so(self):
        screen = result_screen(replace(RESULT, tally=Tally(), message="the sources hold no record"), LEDGER)
        assert screen.headline == "Job nightly is finished: no records."

    @pytest.mark.parametrize(
        ("state", "reasons", "said"),
        [
            (JobState.CANCELED, [(2, CANCELED)], CANCELED),
            (JobState.CANCELED, [(1, CANCELED), (1, "no url")], f"{CANCELED}, or the service said no"),
            (JobState.FINISHED, [(2, "no url")], "the service said no"),
        ],
    )
    def test_tells_who_said_no(self, state, reasons, said):
        result = replace(RESULT, state=state, causes=[cause(*reason) for reason in reasons])
        failed = next(row for row in result_screen(result, LEDGER).tables[0].rows if row[0] == "failed")
        assert failed == ["failed", "2", said]

    def test_counts_every_failure_and_names_one_record_as_an_example_only(self):
        tally = Tally(3_000_000, 3_000, 2_903_262, 96_738)
        first = "input 'n': 'a17' is no number"
        causes = [cause(90_000, "input …: … is no number", first), cause(6_000, "no url"), *map(cause, range(9, 4, -1))]
        screen = result_screen(replace(RESULT, tally=tally, causes=causes), LEDGER)
        assert text_of(screen, colours=False).split("Why records were not created\n")[1].splitlines()[:7] == [
            "  90,000  input …: … is no number",
            f"          e.g. record 1,017: {first}",
            "   6,000  no url",
            "       9  for a reason",
            "       8  for a reason",
            "       7  for a reason",
            "     714  for other reasons",
        ]
        assert screen.data["reasons"][0] == {
            "records": 90_000,
            "reason": "input …: … is no number",
            "example": f"e.g. record 1,017: {first}",
        }
        assert screen.data["reasons_other"] == 714

    def test_tells_a_rate_only_of_what_it_has_sent_and_only_if_that_took_a_while(self):
        for done in ({"resolved": 0}, {"elapsed_seconds": 0.004, "resolved": 3_000_000}):
            assert "a second" not in text_of(result_screen(replace(RESULT, **done), LEDGER), colours=False)
        assert "2.5 s  4 records a second" in text_of(result_screen(RESULT, LEDGER), colours=False)
        idle = result_screen(replace(RESULT, resolved=0, elapsed_seconds=0.004), LEDGER)
        assert "time" not in [row[0] for row in idle.tables[0].rows]

    def test_names_uncertain_records_and_batches_left_behind(self):
        tally = Tally(10, 2, 5, uncertain=5, states={"settled": 1, "uncertain": 1})
        text = text_of(result_screen(replace(RESULT, tally=tally, orphans=2), LEDGER), colours=False)
        assert "look at the service for the uncertain" in text
        assert "2 empty batches left at the service" in text

    def test_names_a_ledger_that_would_not_be_found(self, monkeypatch):
        other = Path("there/l.db")
        assert "audit nightly --ledger there/l.db" in text_of(result_screen(RESULT, other), colours=False)
        monkeypatch.setenv("BULKSUBMIT_LEDGER", "there/l.db")
        assert "--ledger" not in text_of(result_screen(RESULT, other), colours=False)


class TestAdvice:
    @pytest.mark.parametrize(
        ("state", "tally", "commands"),
        [
            (JobState.OPEN, Tally(9, 1, 3, 1), ["resume"]),
            (JobState.OPEN, Tally(9, 1, 3, uncertain=1), ["resume", "status"]),
            (JobState.CANCELED, Tally(9, 1, 3, 1, states={"released": 1}), ["cancel", "retry", "audit"]),
            (JobState.CANCELED, Tally(9, 1, 3, states={"frozen": 1}), ["resume", "audit"]),
            (JobState.CANCELED, Tally(9, 1, 3, 6), ["retry", "audit"]),
            (JobState.CANCELED, Tally(9, 1, 3, 0, 6), ["retry", "audit"]),
            (JobState.CANCELED, Tally(9, 1, 3, 4, uncertain=2), ["retry", "status", "audit"]),
            (JobState.CANCELED, Tally(9, 1, 9), ["audit"]),
            (JobState.FINISHED, Tally(9, 1, 3, 4, uncertain=2), ["retry", "status", "retry", "audit"]),
            (
                JobState.FINISHED,
                Tally(9, 1, 3, 4, 0, 2, {"uncertain": 1}),
                ["retry", "resume", "status", "retry", "audit"],
            ),
            (JobState.FINISHED, Tally(9, 1, 9), ["audit"]),
        ],
    )
    def test_suits_the_state(self, state, tally, commands):
        steps = next_steps("j", state, tally, LEDGER)
        assert [line.split()[1] for _, line in steps] == commands
        assert all(line.split()[2] == "j" for _, line in steps)

    def test_is_the_same_at_the_end_and_when_asked(self):
        tally = Tally(9, 1, 3, 1)
        ended = result_screen(replace(RESULT, state=JobState.CANCELED, tally=tally), LEDGER)
        asked = job_screen(JobStatus(replace(JOB, state=JobState.CANCELED), tally, running=False), LEDGER)
        assert ended.tables[-2].rows == asked.tables[-1].rows

    @pytest.mark.parametrize(
        ("states", "line"),
        [
            (["done", "parked", "left"], "bulksubmit resume nightly --parked"),
            (["done", "parked", "open"], "bulksubmit resume nightly"),
            (["parked", "settling"], "bulksubmit resume nightly"),
            (["done", "left"], "bulksubmit resume nightly"),
        ],
    )
    def test_of_a_job_of_which_only_parked_shards_are_left_has_those_sent(self, states, line):
        job = replace(JOB, state=JobState.OPEN, read_complete=True)
        shards = [Shard(number, number, ShardState(state), 1) for number, state in enumerate(states)]
        run = PastRun(1, 1e9, "h", "1", ended_at=1e9 + 1, exit_code=Exit.MEND_FIRST)
        asked = job_screen(JobStatus(job, TALLY, running=False, shards=shards, runs=[run]), LEDGER)
        assert asked.tables[-1].rows[0][1] == line
        ended = replace(RESULT, state=JobState.OPEN, exit_code=Exit.MEND_FIRST, parked=line.endswith("--parked"))
        assert result_screen(ended, LEDGER).tables[-2].rows[0][1] == line

    @pytest.mark.parametrize("can_ask", [True, False])
    @pytest.mark.parametrize("can_count", [True, False])
    def test_names_no_question_that_the_service_cannot_answer(self, can_ask, can_count):
        tally = Tally(9, 1, 3, 0, 0, 6, {"uncertain": 1})
        can = ServiceCan(can_ask, can_count)
        ended = result_screen(replace(RESULT, tally=tally, rejects=Path("r.ndjson"), service_can=can), LEDGER)
        asked = job_screen(JobStatus(JOB, tally, running=False, service_can=can), LEDGER)
        wanted = ["resume nightly"] * can_ask + ["status nightly --tasks"] * can_count
        wanted = [f"bulksubmit {words}" for words in [*wanted, "retry nightly --uncertain", "audit nightly"]]
        assert [line for _, line in asked.tables[-1].rows] == wanted
        # Where the service counts nothing, the file says which records a person has to look for there.
        assert [line for _, line in ended.tables[-2].rows] == ["less r.ndjson"] * (not can_count) + wanted

    def test_shows_the_rejects_before_they_are_tried_again(self):
        steps = next_steps("j", JobState.FINISHED, Tally(9, 1, 3, 6), LEDGER, Path("my out/rejects.ndjson"))
        assert steps[0][1] == "less 'my out/rejects.ndjson'"


def ended(exit_code):
    """Return an open job whose last run has ended so."""
    run = PastRun(1, 5.0, "host", "1.0", 9.0, exit_code, "as it is")
    return JobStatus(replace(JOB, state=JobState.OPEN), TALLY, running=False, runs=[run])


def with_runs():
    """Return a job that is running for the twelfth time."""
    sample = Sample(1_000.0, 10.0, 5.5, 1_400.0, 4.0, 1, 2, 8, "push-back", {TROUBLE: 30.0}, {"HTTP 500": 3})
    runs = [PastRun(number, 5.0, "host", "1.0", 9.0, 5, TROUBLE, RunCounts(warnings=3)) for number in range(1, 12)]
    return JobStatus(JOB, TALLY, running=True, runs=[*runs, PastRun(12, 900.0, "host", "1.0")], samples=[sample])


class TestStatus:
    def test_of_a_running_job_says_how_it_goes_and_shows_its_newest_runs(self):
        said = text_of(job_screen(with_runs(), LEDGER), colours=False)
        assert "5.5 tasks/s, 1.4 KB/s, 4 requests/s, 2 batches of 8 in flight, waited 30 s" in said
        assert "3 retries: HTTP 500" in said
        assert "Runs, the last 10 of 12" in said
        assert "running" in said

    def test_lists_jobs_a_line_each(self):
        screen = jobs_screen([JobStatus(JOB, TALLY, running=True)], LEDGER)
        lines = text_of(screen, colours=False).splitlines()
        assert lines[2].split()[:4] == ["job", "state", "records", "of"]
        assert lines[3].split()[:4] == ["nightly", "running", "10", "7"]

    def test_of_an_empty_ledger_says_how_to_begin(self):
        assert "bulksubmit submit SOURCE --config FILE" in jobs_screen([], LEDGER).headline

    def test_of_one_job_shows_people_s_work_where_it_was_asked_for(self):
        status = JobStatus(JOB, TALLY, running=False, working={"completed": 3})
        screen = job_screen(status, LEDGER)
        assert "  completed  3\n" in text_of(screen, colours=False)
        assert screen.data["working"] == {"completed": 3}

    @pytest.mark.parametrize(
        ("status", "step"),
        [
            (JobStatus(JOB, TALLY, running=True), "status nightly"),
            (JobStatus(replace(JOB, state=JobState.OPEN), TALLY, running=False), "resume nightly"),
            (ended(Exit.MEND_FIRST), "resume nightly --config FILE"),
            (ended(Exit.LIMIT), "resume nightly --max-failed LIMIT"),
            (JobStatus(JOB, TALLY, running=False), "retry nightly"),
            (JobStatus(JOB, Tally(7, 1, 7), running=False), "audit nightly"),
        ],
    )
    def test_of_one_job_says_what_to_do(self, status, step):
        assert f"bulksubmit {step}" in text_of(job_screen(status, LEDGER), colours=False)


class TestAudit:
    def test_that_holds_shows_the_sum(self):
        audit = Audit("nightly", 10, 2, Counter({Fate.CREATED: 7, Fate.FAILED: 3}), unread_bytes=5_000)
        screen = audit_screen(audit, LEDGER)
        text = text_of(screen, colours=False)
        assert screen.exit_code == 0
        assert "10 records read  = 7 created + 3 failed + 0 rejected + 0 uncertain + 0 unresolved" in text
        assert "5 KB unread" in text

    def test_of_a_whole_job_has_the_last_word(self):
        screen = audit_screen(Audit("nightly", 10, 2, Counter({Fate.CREATED: 10})), LEDGER)
        assert (screen.mood, screen.headline) == (Mood.GOOD, "Job nightly: every record has exactly one outcome.")

    def test_names_in_its_headline_what_is_still_open(self):
        fates = Counter({Fate.CREATED: 7, Fate.UNRESOLVED: 2, Fate.UNCERTAIN: 1})
        screen = audit_screen(Audit("nightly", 10, 2, fates, unread_bytes=15_600_000), LEDGER)
        assert screen.mood is Mood.MIXED
        assert screen.headline == (
            "Job nightly: every record that was read is accounted for once, but 15.6 MB of the sources are unread, "
            "2 records are unresolved, 1 record is uncertain."
        )
        assert "bulksubmit status nightly" in text_of(screen, colours=False)

    def test_that_does_not_hold_names_what_it_found(self):
        audit = Audit("nightly", 10, 2, Counter({Fate.CREATED: 10}), findings=["batch 1: changed"])
        screen = audit_screen(audit, LEDGER)
        assert (screen.exit_code, screen.data["holds"]) == (1, False)
        assert "  batch 1: changed\n" in text_of(screen, colours=False)


def test_a_validation_without_a_fault_is_good_news():
    screen = validation_screen(Validation(10, 0, 1, 500, []))
    assert (screen.exit_code, screen.headline) == (0, "All 10 records can be sent. Nothing was sent.")


@pytest.mark.parametrize(("records", "said"), [(0, "The sources hold no record."), (1, "The 1 record can be sent.")])
def test_a_validation_of_little_is_told_in_words(records, said):
    assert validation_screen(Validation(records, 0, 1, 500, [])).headline == f"{said} Nothing was sent."


def test_keys_that_stand_twice_are_no_good_news():
    twin = Source(0, "in.csv", Format.CSV, 1000, 0, 0), Reject(4, 0, 1, 5, "its key is that of record 0")
    screen = validation_screen(Validation(10, 0, 1, 500, [], twins=3, first_twins=[twin]))
    assert (screen.exit_code, screen.data["twins"]) == (3, 3)
    assert screen.headline == (
        "All 10 records can be sent. 3 records have a key that an earlier one has. Nothing was sent."
    )
    assert "keys that stand twice (first 1 of 3)" in text_of(screen, colours=False)


def test_a_validation_shows_the_first_rejects():
    found = [
        (Source(0, "in.csv", Format.CSV, 1000, 0, 0), Reject(index, 0, 1, index + 1, "bad")) for index in range(100)
    ]
    text = text_of(validation_screen(Validation(500, 200, 1, 500, found)), colours=False)
    assert "Not fit to be sent (first 10 of 200)" in text
    assert text.count("in.csv:") == 10


def test_a_record_is_told_with_its_reason():
    outcome = Outcome(48_211, "in.csv", 12_345, Fate.FAILED, batch_id="b1", error="no url")
    attempt = Attempt("nightly", 1, outcome, None, 0.0)
    text = text_of(story_screen(Story(attempt, [attempt]), LEDGER), colours=False)
    assert text.startswith("Record 48,211 of job nightly: failed.")
    assert "in.csv, byte 12,345" in text
    assert "no url" in text
    assert "task" not in text
    assert "attempt" not in text


def test_a_story_names_each_attempt_and_what_came_later():
    screen = story_screen(
        a_story(Outcome(48_211, "in.csv", 12_345, Fate.FAILED, batch_id="b1", error="no url")), LEDGER
    )
    text = text_of(screen, colours=False)
    assert text.startswith("Record 48,211 of job nightly: failed, and created by nightly.retry.")
    assert "in.csv, line 1,235, byte 12,345" in text
    assert "id = a7" in text
    assert re.search(r"1 +nightly +48,211 +.+ +failed: no url", text)
    assert re.search(r"2 +nightly.retry +3 +.+ +created as task t1; later failed \(.+\): disk full", text)
    assert [one["state"] for one in screen.data["attempts"]] == ["failed", "created"]
    assert screen.data["attempts"][1]["later"] == {"fate": "failed", "reason": "disk full", "seen_at": 1e9 + 3600}
    assert (screen.data["job"], screen.data["index"], screen.data["key"]) == ("nightly", 48_211, "a7")


@pytest.mark.parametrize(("tasks", "twice", "code"), [(7, 0, 3), (8, 0, 1), (7, 1, 1)])
def test_the_demo_is_judged_by_the_journal(tasks, twice, code):
    audit = Audit("nightly", 10, 2, Counter({Fate.CREATED: 7, Fate.FAILED: 3}))
    screen = demo_screen(Demo(RESULT, audit, Path("journal"), tasks, twice, Path("a.csv")), LEDGER)
    assert screen.exit_code == code
    assert screen.data["proven"] is (code == 3)
    assert f"tasks that the sandbox created    {tasks}" in text_of(screen, colours=False)


def test_a_demo_that_was_interrupted_keeps_its_exit_code():
    result = replace(RESULT, state=JobState.OPEN, exit_code=130)
    screen = demo_screen(Demo(result, Audit("nightly"), Path("journal"), 9, 0, Path("a.csv")), LEDGER)
    assert screen.exit_code == 130


def test_an_audit_that_does_not_hold_asks_for_no_old_file_by_itself():
    audit = Audit("nightly", 10, 2, Counter(), findings=["rejects.ndjson: `bulksubmit report j` writes it anew"])
    assert "old file" not in text_of(audit_screen(audit, LEDGER), colours=False)


def test_what_became_of_failures_decides_over_the_advice():
    def steps(job, **created):
        retried = Retried("nightly", 3, {name.replace("_", "."): number for name, number in created.items()})
        return [line for _, line in next_steps(job, JobState.FINISHED, TALLY, LEDGER, retried=retried)]

    assert steps("nightly", nightly_retry=1)[0].startswith("bulksubmit retry nightly")
    assert steps("nightly.retry", nightly_retry=1)[0].startswith("bulksubmit retry nightly")
    assert not any("retry" in line for line in steps("nightly", nightly_retry=3))


def test_a_result_says_what_became_of_the_failures_that_were_tried_again():
    retried = Retried("nightly", 40, {"nightly.retry": 31, "nightly.retry-2": 0})
    screen = result_screen(replace(RESULT, retried=retried), LEDGER)
    assert "31 of 40 failures of nightly were created by nightly.retry" in text_of(screen, colours=False)
    created = {"nightly.retry": 31, "nightly.retry-2": 0}
    assert screen.data["retried"] == {"job": "nightly", "failures": 40, "created": created}
    status = job_screen(JobStatus(JOB, TALLY, running=False, retried=retried), LEDGER)
    assert "31 of 40 failures of nightly were created by nightly.retry" in text_of(status, colours=False)


class TestProgram:
    """How the command is called in what is to be pasted."""

    @pytest.fixture
    def two(self, tmp_path, monkeypatch):
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "bulksubmit").write_text("")
            (tmp_path / name / "bulksubmit").chmod(0o755)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        ("called", "path", "printed"),
        [
            ("here/bulksubmit", "/nowhere", "here/bulksubmit"),
            ("here/bulksubmit", "there", "here/bulksubmit"),
            ("here/bulksubmit", "here", "bulksubmit"),
            ("engine/__main__.py", "/nowhere", "bulksubmit"),
        ],
    )
    def test_is_its_path_where_a_shell_would_not_find_it(self, two, monkeypatch, called, path, printed):
        monkeypatch.setattr(sys, "argv", [called])
        monkeypatch.setenv("PATH", str(two / path))
        assert program() == printed
