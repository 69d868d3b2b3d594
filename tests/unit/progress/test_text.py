import pytest

from engine.progress.text import clock_time, count, duration, printable, rate, share, size


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (count(1_204), "1,204"),
        (count(1, "record"), "1 record"),
        (count(0, "record"), "0 records"),
        (count(2, "batch"), "2 batches"),
        (count(2, "retry"), "2 retries"),
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(999.7), "1 KB"),
        (size(3_400_000), "3.4 MB"),
        (size(999_700), "1 MB"),
        (size(2e18), "2e+03 PB"),
        (duration(0.44), "0.4 s"),
        (duration(41), "41 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(200), "3 min 20 s"),
        (duration(18_120), "5 h 02 min"),
        (duration(183_600), "2 d 3 h"),
        (clock_time(3_725.9), "01:02:05"),
        (share(999, 1_000), "99 %"),
        (share(1, 0), "100 %"),
        (rate(2_281.4), "2,281"),
        (rate(3.14159), "3.14"),
        (printable("plain ü"), "plain ü"),
        (printable("a\x1b[2J\r\n\u202e"), r"a\x1b[2J\r\n\u202e"),
    ],
)
def test_numbers_are_said_as_people_do(said, expected):
    assert said == expected
