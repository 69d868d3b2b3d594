import os

import pytest

from benchmarks.fleet import Look
from benchmarks.postgres import _cpu_seconds
from benchmarks.workers import _speed, _steady


def test_a_speed_is_that_between_the_beginning_and_the_end_of_a_job():
    slow_start = [Look(at, 0, 0) for at in range(10)]
    steady = [Look(10 + at, 20 * at, 0) for at in range(51)]
    slow_end = [Look(61 + at, 1000, 0) for at in range(10)]
    found = _steady([*slow_start, *steady, *slow_end])
    assert (found[0].requests, found[-1].requests) == (260, 900)
    assert _speed(found) == pytest.approx(20)


def test_cpu_counts_a_process_that_is_there_and_none_that_has_ended():
    before = _cpu_seconds(os.getpid())
    assert before > 0
    sum(range(10**7))
    assert _cpu_seconds(os.getpid()) > before
    assert _cpu_seconds(2**22) == 0
