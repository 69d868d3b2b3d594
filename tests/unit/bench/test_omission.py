import pytest

from engine.bench.omission import expected_seconds, omitted


def test_a_stall_stands_for_the_batches_that_it_kept_from_being_sent():
    # One batch a second, and one that held its place for 5 s: four were not sent, the last after 4 s.
    assert list(omitted(5.0, 1.0)) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("held", [0.0, 0.9, 1.0, 1.9])
def test_what_takes_less_than_twice_as_long_as_usual_kept_nothing_back(held):
    assert list(omitted(held, 1.0)) == []


def test_without_anything_usual_nothing_is_put_back():
    assert list(omitted(5.0, expected_seconds([]))) == []


def test_a_few_stalls_do_not_change_what_is_usual():
    assert expected_seconds([0.1] * 10 + [30.0] * 3) == 0.1
