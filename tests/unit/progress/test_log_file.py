"""The log file of a job: private, of bounded size, without secrets, and never a reason to wait or to fail."""

import json
import stat

import pytest

from engine.progress import log_file
from engine.progress.events import BatchSettled, CallRetried, JobStarted, Noticed, Stopping
from engine.progress.log_file import LOG_FILE, MOST_OF_A_KIND, JobLog


class Hand:
    at = 100.0

    def __call__(self):
        return self.at


@pytest.fixture
def hand():
    return Hand()


def log(folder, hand):
    return JobLog(folder, hand, lambda text: text.replace("s3cr3t", "***"))


def lines(folder, name=LOG_FILE):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_events_are_lines_of_json_for_their_owner_only_without_secrets(tmp_path, hand):
    with log(tmp_path, hand) as written:
        written.hear(JobStarted("j", 1_000))
        written.hear(Stopping("the key s3cr3t expired"))
    first, second = lines(tmp_path)
    assert (first["event"], first["level"], first["size_bytes"]) == ("JobStarted", "info", 1_000)
    assert (second["event"], second["log.level"], second["reason"]) == ("Stopping", "warning", "the key *** expired")
    assert first["@timestamp"] == first["time"]
    assert stat.S_IMODE((tmp_path / LOG_FILE).stat().st_mode) == 0o600


def test_a_log_goes_on_where_the_last_run_left_it_and_counts_its_own_warnings(tmp_path, hand):
    for _ in range(2):
        with log(tmp_path, hand) as written:
            written.hear(Noticed("a new key in an answer"))
            written.say(20, "the run begins", event="RunBegun")
    assert [line["event"] for line in lines(tmp_path)] == ["Noticed", "RunBegun"] * 2
    assert written.warnings == 1


def test_batches_that_go_well_have_no_line(tmp_path, hand):
    with log(tmp_path, hand) as written:
        written.hear(BatchSettled(1, 10, 0))
        written.hear(BatchSettled(2, 9, 1, "no url"))
    assert [line["sequence"] for line in lines(tmp_path)] == [2]


def test_what_is_told_a_thousand_times_is_not_written_as_often(tmp_path, hand):
    with log(tmp_path, hand) as written:
        for _ in range(3 * MOST_OF_A_KIND):
            written.hear(CallRetried("put", 1, 0.5, "HTTP 500"))
        written.hear(Noticed("something else"))
        hand.at += 60
        written.hear(CallRetried("put", 1, 0.5, "HTTP 500"))
    found = lines(tmp_path)
    assert len(found) == MOST_OF_A_KIND + 2
    assert [line["lines_left_out_before"] for line in found if "lines_left_out_before" in line] == [2 * MOST_OF_A_KIND]


def test_a_long_log_is_begun_anew_and_the_oldest_part_goes(tmp_path, hand, monkeypatch):
    monkeypatch.setattr(log_file, "_PART_BYTES", 2_000)
    with log(tmp_path, hand) as written:
        for number in range(100):
            written.say(20, f"line {number}")
    parts = sorted(path.name for path in tmp_path.iterdir())
    assert parts == [LOG_FILE, f"{LOG_FILE}.1", f"{LOG_FILE}.2", f"{LOG_FILE}.3"]
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert lines(tmp_path)[-1]["message"] == "line 99"


@pytest.mark.parametrize("hindrance", ["no folder", "a link", "a full disk"])
def test_a_log_that_cannot_be_written_is_no_matter_of_the_run(tmp_path, hand, hindrance, monkeypatch, capsys):
    folder = tmp_path / "gone" if hindrance == "no folder" else tmp_path
    if hindrance == "a link":
        (folder / LOG_FILE).symlink_to(tmp_path / "theirs")
    if hindrance == "a full disk":
        monkeypatch.setattr(log_file, "has_disk_room", lambda _: False)
    with log(folder, hand) as written:
        written.hear(Stopping("SIGTERM"))
    assert written.warnings == 1
    assert not (tmp_path / "theirs").exists()
    assert capsys.readouterr().err == ""
