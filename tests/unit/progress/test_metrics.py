"""The metrics file, as Prometheus' own parser reads it."""

import os
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.model.runs import Standing
from engine.progress.metrics import LoadMetrics, metrics_text, write_textfile

RECORDS = {"created": 7, "failed": 0, "rejected": 1, "uncertain": 0, "unresolved": 2}

FAILED = Standing(100.5, 200.5, 5)


def samples(standing=FAILED, load="nightly", records=RECORDS, seconds=(("read", 1.5),)):
    text = metrics_text(LoadMetrics(load, "1.2.3", standing, records, dict(seconds))).decode()
    assert text.endswith("\n")
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {sample.timestamp for sample in found} == {None}
    return {(one.name.removeprefix("bulksubmit_"), *sorted(one.labels.items())): one.value for one in found}


def test_times_and_exit_code_are_those_of_the_load():
    found, name = samples(), ("job_name", "nightly")
    assert found["job_last_success_timestamp_seconds", name] == 100.5
    assert found["job_last_completion_timestamp_seconds", name] == 200.5
    assert found["job_exit_code", name] == 5
    assert found["build_info", ("version", "1.2.3")] == 1


def test_each_state_and_each_stage_is_told_also_where_it_is_nothing():
    found, name = samples(), ("job_name", "nightly")
    assert {state: found["job_records", name, ("state", state)] for state in RECORDS} == RECORDS
    stages = {key[2][1]: value for key, value in found.items() if key[0] == "job_duration_seconds"}
    assert stages == {"read": 1.5, "send": 0, "settle": 0, "all": 0}


def test_what_was_not_counted_has_no_sample():
    told = {key[0] for key in samples(records={}, seconds=())}
    assert "job_exit_code" in told
    assert not told & {"job_records", "job_duration_seconds"}


def test_before_a_run_has_ended_no_exit_code_looks_good():
    found = samples(Standing())
    assert found["job_last_success_timestamp_seconds", ("job_name", "nightly")] == 0
    assert not [key for key in found if key[0] == "job_exit_code"]


def test_a_name_with_odd_letters_stays_one_label():
    assert samples(load='a"b\\c\nd')["job_exit_code", ("job_name", 'a"b\\c\nd')] == 5


def test_the_file_is_put_in_its_place_whole_and_readable_for_the_collector(tmp_path):
    path, before = tmp_path / "j.prom", os.umask(0o077)
    try:
        for content in (b"old\n", b"new\n"):
            write_textfile(path, content)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "j.prom").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_textfile(tmp_path / "j.prom", b"new\n")
    assert [path.name for path in tmp_path.iterdir()] == ["j.prom"]
