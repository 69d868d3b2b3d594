import re
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.night import (
    DailyWindow,
    clock_time,
    deadline_at,
    duration_seconds,
    moment,
    most_failed,
    said_moment,
    zone_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo", "UTC"]
"""Lord Howe's clocks are set by half an hour only."""


def at(text, zone=BERLIN, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def utc(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%m-%d %H:%M")


def window(text, zone=BERLIN):
    opens, closes = text.split("-")
    return DailyWindow(clock_time(opens), clock_time(closes), zone)


# What people write


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h30m", 9000), ("90m", 5400), ("45s", 45), ("1d", 86400), ("1d2h3m4s", 93784)]
)
def test_a_duration(text, seconds):
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "2", "m", "2h30", "30m2h", "-1h", "1.5h", "two hours"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"is no duration; write it as 2h30m"):
        duration_seconds(text)


@pytest.mark.parametrize("text", ["", "24:00", "22", "22:60", "10 pm", "22:00:00"])
def test_what_is_no_time_of_the_day_is_refused(text):
    with pytest.raises(ValueError, match=r"is no time of the day; write it as 22:00"):
        clock_time(text)


@pytest.mark.parametrize(("text", "limit"), [("1%", (0.01, True)), ("0.5 %", (0.005, True)), ("500", (500, False))])
def test_a_limit_of_failures(text, limit):
    assert most_failed(text) == limit


@pytest.mark.parametrize("text", ["", "%", "101%", "-1", "1.5", "few"])
def test_what_is_no_limit_of_failures_is_refused(text):
    with pytest.raises(ValueError, match=r"neither a share nor a number"):
        most_failed(text)


@pytest.mark.parametrize("name", ["Europe/Berlinn", "Europe", "../etc/passwd", "x"])
def test_a_zone_that_is_not_there_says_what_to_do(name):
    with pytest.raises(ValueError, match=re.escape(repr(name)) + r".*pip install tzdata"):
        zone_of(name)


def test_a_deadline_is_the_next_such_time_or_so_long_from_now_or_a_moment():
    now = at("2026-11-28 22:00")
    assert deadline_at("05:30", now, BERLIN) == at("2026-11-29 05:30")
    assert deadline_at("22:30", now, BERLIN) == at("2026-11-28 22:30")
    assert deadline_at("22:00", now, BERLIN) == at("2026-11-29 22:00")
    assert deadline_at("2h30m", now, BERLIN) == now + 9000
    assert deadline_at("2026-11-29T05:30:00+01:00", now, None) == at("2026-11-29 05:30")


# Clocks that are set forward and back


def test_a_time_that_comes_twice_is_the_first_one():
    assert utc(moment(date(2026, 10, 25), time(2, 30), BERLIN)) == "10-25 00:30"


def test_a_time_that_never_comes_is_when_the_clocks_are_set():
    assert utc(moment(date(2026, 3, 29), time(2, 30), BERLIN)) == "03-29 01:00"
    assert utc(moment(date(2026, 10, 4), time(2, 15), ZoneInfo("Australia/Lord_Howe"))) == "10-03 15:30"


@given(day=st.dates(date(2000, 1, 1), date(2037, 1, 1)), clock=st.times(), zone=st.sampled_from(ZONES))
def test_a_moment_is_the_first_at_which_the_clocks_show_the_time_or_a_later_one(day, clock, zone):
    zone, clock = ZoneInfo(zone), clock.replace(second=0, microsecond=0)
    shown = datetime.combine(day, clock)
    first = moment(day, clock, zone)
    assert datetime.fromtimestamp(first, zone).replace(tzinfo=None) >= shown
    assert datetime.fromtimestamp(first - 1, zone).replace(tzinfo=None) < shown


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-11-28", 8), ("2026-10-24", 9), ("2026-03-28", 7)], ids=["usual", "set back", "forward"]
)
def test_a_window_over_midnight_is_as_long_as_the_night(day, hours):
    opening = window("22:00-06:00").at(at(f"{day} 23:00"))
    assert opening.closes - opening.opens == hours * 3600


def test_a_window_that_closes_in_the_hour_that_comes_twice_closes_at_its_first():
    opening = window("22:00-02:30").at(at("2026-10-25 02:15"))
    assert (utc(opening.opens), utc(opening.closes)) == ("10-24 20:00", "10-25 00:30")
    again = window("22:00-02:30").at(at("2026-10-25 02:15", fold=1))
    assert utc(again.opens) == "10-25 21:00"  # the night is over; 22:00 is an hour later by then


def test_a_window_in_the_hour_that_never_comes_opens_the_day_after():
    opening = window("02:10-02:50").at(at("2026-03-29 01:00"))
    assert utc(opening.opens) == "03-30 00:10"


def test_after_midnight_a_window_belongs_to_the_day_on_which_it_opened():
    assert window("22:00-06:00").at(at("2026-11-29 05:59")).day == date(2026, 11, 28)
    assert window("22:00-06:00").at(at("2026-11-29 06:00")).day == date(2026, 11, 29)
    assert window("01:00-06:00").at(at("2026-11-29 05:59")).day == date(2026, 11, 29)


@given(
    now=st.floats(0, 2_000_000_000),
    opens=st.times(),
    closes=st.times(),
    zone=st.sampled_from(ZONES),
)
def test_a_window_is_open_or_opens_next(now, opens, closes, zone):
    opens, closes = (one.replace(second=0, microsecond=0) for one in (opens, closes))
    if opens == closes:
        return
    opening = DailyWindow(opens, closes, ZoneInfo(zone)).at(now)
    assert now < opening.closes
    assert opening.opens < opening.closes
    assert opening.opens - now < 3 * 86400


def test_a_moment_is_said_with_its_zone():
    assert said_moment(at("2026-11-28 22:00"), BERLIN) == "2026-11-28 22:00 Europe/Berlin"
    assert re.fullmatch(r"2026-11-28 \d\d:\d\d \S+", said_moment(at("2026-11-28 12:00"), None))
