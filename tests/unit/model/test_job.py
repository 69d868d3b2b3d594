import pytest

from engine.model.errors import Exit, JobError
from engine.model.job import Job, check_job_name
from engine.model.record import Format, Source


@pytest.mark.parametrize("name", ["j", "7", "nightly-2024-05-01", "a.b_c-D", "x" * 100])
def test_a_name_that_can_name_a_folder_is_taken(name):
    assert check_job_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-rf",
        "_x",
        "a/b",
        "../a",
        "a..b",
        "a b",
        "a\n",
        "a\x00",
        "ä",
        "x" * 101,
        "$(x)",
        "a;b",
        "a\\b",
    ],
)
def test_a_name_that_could_leave_hide_or_confuse_is_refused(name):
    with pytest.raises(JobError, match="cannot be used: take 1 to 100 letters") as refused:
        check_job_name(name)
    assert repr(name) in str(refused.value)
    assert refused.value.exit_code is Exit.USAGE


def test_a_job_is_as_large_as_its_sources():
    sources = [Source(0, "a", Format.NDJSON, 10, 0, 0), Source(1, "b", Format.CSV, 32, 0, 10)]
    assert Job("j", "sama", "", sources, "out").size_bytes == 42
    assert Job("j", "sama", "", [], "out").size_bytes == 0
