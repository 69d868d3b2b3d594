import io
import time

import pytest
from rich.console import Console

from engine.model.outcome import Tally
from engine.model.submission import State
from engine.progress.display import LINE_SECONDS, Display, PlainDisplay, QuietDisplay, choose_display
from engine.progress.events import (
    BatchesFrozen,
    BatchesWaiting,
    BatchMoved,
    BatchSettled,
    CallEnded,
    CallRetried,
    CallStarted,
    JobEnded,
    JobStarted,
    Noticed,
    Paused,
    Spaced,
    Stopping,
)
from engine.progress.live import LiveDisplay, draw
from engine.progress.snapshot import WINDOW_SECONDS, Progress

STARTED = JobStarted("nightly", 2_000_000)
RUN = [
    STARTED,
    BatchesFrozen(3, 3_000, 2, 1_000_000, last=False),
    BatchMoved(0, State.FROZEN, State.RELEASED, 1_000, 1),
    BatchMoved(1, State.FROZEN, State.SETTLED, 1_000, 1),
    CallStarted("put"),
    CallEnded("put", 0.2, 500_000, 200),
    CallStarted("status"),
    BatchSettled(1, 995, 5, "input 'url' is\x1b[2J empty"),
    CallRetried("put", 2, 1.0, "status 503"),
]


class Hand:
    def __init__(self):
        self.at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def lines():
    return []


@pytest.fixture
def plain(hand, lines):
    return PlainDisplay(hand, lines.append)


def test_plain_lines_come_every_few_seconds_however_many_events_there_are(plain, hand, lines):
    plain.listener(STARTED)
    for number in range(1_000):
        hand.at += LINE_SECONDS / 80  # sums up without rounding
        plain.listener(BatchSettled(number, 125, 0))
    assert len(lines) == 1 + 1_000 // 80
    assert lines[0] == "[00:00:00] job nightly: 2 MB to read"
    assert lines[2] == "[00:00:10] read 0 (0 %), created 20,000, 2,000 tasks/s, 0 B/s, 0 in flight"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            JobStarted("j", 1_000, 620, Tally(records=40, created=30)),
            "job j goes on: 62 % of 1 KB read, 40 records, 30 of them created",
        ),
        (BatchesFrozen(1, 10, 0, 1_000, last=True), "all is read: 10 records"),
        (BatchSettled(7, 9, 1, "no url"), "first failure, in batch 7: no url"),
        (BatchMoved(7, State.RELEASING, State.UNCERTAIN, 10, 1, "answer lost"), "batch 7 is uncertain: answer lost"),
        (BatchSettled(7, 8, 0, "answer lost", 2), "2 records of batch 7 uncertain: answer lost"),
        (BatchSettled(7, 7, 1, "no url", 2), "first failure, in batch 7: no url"),
        (Noticed("a status never heard of"), "a status never heard of"),
        (Paused("asked to", 12.0), "calls wait for 12 s: asked to"),
        (
            BatchesWaiting(1, 130.0, "7"),
            "1 batch accepted, and not begun by the service for 2 min 10 s: 7; followed on",
        ),
        (Stopping("SIGTERM"), "stopping: SIGTERM"),
        (
            JobEnded("j", "finished"),
            "job j is finished; created 0",
        ),
        (
            CallRetried("start", 1, 0.4, "no connection"),
            "start did not succeed (no connection); calls that fail are tried again",
        ),
        (
            CallRetried("start", 1, 0.4, "no connection", 900.0),
            "start did not succeed (no connection); calls that fail are tried again for up to 15 min 00 s",
        ),
        (
            CallRetried(
                "start", 1, 0.4, "status 503", None, "start (GET a.example/b) did not succeed: status 503: full"
            ),
            "start (GET a.example/b) did not succeed: status 503: full; calls that fail are tried again",
        ),
    ],
)
def test_what_a_person_wants_to_know_gets_a_line_at_once(plain, lines, event, line):
    plain.listener(event)
    assert lines == [f"[00:00:00] {line}"]


def test_the_same_news_is_told_once(plain, lines, hand):
    for number in range(3):
        plain.listener(BatchSettled(number, 0, 1, "no url"))
        plain.listener(Paused("asked to", 3.0))
        hand.at += 1
    assert len(lines) == 2
    hand.at += 2
    plain.listener(Paused("asked to", 3.0))
    assert lines[2] == "[00:00:05] calls wait for 3.0 s: asked to"


def test_retries_are_news_again_after_a_while(plain, lines, hand):
    for _ in range(3):
        plain.listener(CallRetried("start", 1, 0.4, "no connection"))
    assert len(lines) == 1
    hand.at += 2 * WINDOW_SECONDS
    plain.listener(CallRetried("start", 1, 0.4, "no connection"))
    assert len([line for line in lines if "tried again" in line]) == 2


def test_why_it_stops_is_said_once_and_nothing_after_the_end(plain, lines, hand):
    for event in (STARTED, Stopping("the service is down"), CallStarted("status"), JobEnded("nightly", "open")):
        hand.at += LINE_SECONDS
        plain.listener(event)
    for _ in range(3):
        hand.at += LINE_SECONDS
        plain.listener(CallStarted("cancel"))
    assert [line.split("] ")[1].split(",")[0] for line in lines] == [
        "job nightly: 2 MB to read",
        "stopping: the service is down",
        "read 0 (0 %)",
        "job nightly is open; read 0 (0 %)",
    ]
    assert lines[2].endswith(", stopping")


def test_a_line_of_foreign_text_cannot_steer_the_terminal(plain, lines):
    plain.listener(BatchSettled(0, 0, 1, "bad\x1b[2J\nword"))
    assert lines == [r"[00:00:00] first failure, in batch 0: bad\x1b[2J\nword"]


def picture(events, hand, width=100):
    progress = Progress(hand)
    for event in events:
        progress.fold(event)
    hand.at += 10
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(draw(progress.view(), width, at=1_764_000_000.0))
    return console.export_text()


def test_the_live_view_shows_how_a_run_stands(hand):
    text = picture(RUN, hand)
    for words in (
        "nightly  00:00:10",
        "50 % 1 MB of 2 MB, 3,000 records",
        "16 % 1,002 of about 6,000 records",
        "995 created · 5 failed · 2 rejected · 0 uncertain",
        "1 frozen · 1 released · 1 settled",
        "100 tasks/s · 50 KB/s · 1 in flight · 1 retry",
        "50 s  (4,998 records to go, their number estimated from the part that is read)",
        r"input 'url' is\x1b[2J empty",
        "last retry: status 503",
    ):
        assert words in text


def test_the_live_view_shows_which_batches_wait(hand):
    text = picture([STARTED, BatchesWaiting(2, 130.0, "0, 7")], hand)
    assert "2 batches accepted, and not begun by the service for 2 min 10 s: 0, 7" in text


MILLIONS = [
    JobStarted("a-night-of-a-family-with-a-name-of-many-letters-2026-11-28", 9_876_543_210),
    BatchesFrozen(3_000, 3_000_000, 96_738, 8_765_432_109, last=False, skipped=1_000_000),
    *(BatchMoved(number, State.FROZEN, state, 1_000, 1) for number, state in enumerate(State)),
    BatchSettled(0, 1_234_567, 96_738, f"input 'url': {'not an address of ours, ' * 3}at /data/7", 12_345),
    CallStarted("status"),
    CallRetried("put", 2, 1.0, "HTTP 503"),
    Paused("the request budget of this window is used up", 290.0),
    Spaced("the service takes no more calls a second than now, by its refusals", 12.0),
]


@pytest.mark.parametrize("width", [80, 200])
def test_the_live_view_of_millions_fits_and_nothing_of_it_is_cut(hand, width):
    text = picture(MILLIONS, hand, width)
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) <= 24
    said = " ".join(text.split())
    for words in (
        "a-night-of-a-family-with-a-name-of-many-letters-2026-11-28",
        "8.77 GB of 9.88 GB, 3,000,000 records",
        "2,441,388 of about 3,380,282 records",
        "1,234,567 created · 96,738 failed · 96,738 rejected · 13,345 uncertain · 1,000,000 skipped",
        "at /data/7",
        "134,465 tasks/s · ",
        "(4 min 40 s): the request budget of this window is used up",
        "(2.0 s): the service takes no more calls a second than now, by its refusals",
        "frozen: cut, not sent yet;",
        "released: at the service, which is asked about it;",
        "uncertain: sent, and nobody knows what became of it;",
        "in flight: calls without an answer yet; /s: mean of the last 30 s",
    ):
        assert words in said
    assert "…" not in text


def test_the_live_view_tells_each_wait_with_its_end_until_it_is_over(hand):
    waits = [line for line in picture(MILLIONS, hand, 100).splitlines() if line.startswith("waits")]
    ends = [time.strftime("%H:%M:%S", time.localtime(1_764_000_000 + left)) for left in (280, 2)]
    assert [line.split()[2] for line in waits] == ends
    hand.at += 500
    assert "waits" not in picture([STARTED, Paused("asked to", 5.0)], hand)


@pytest.mark.parametrize("width", [30, 50])
def test_the_live_view_fits_a_narrow_terminal(hand, width):
    for events in (RUN, MILLIONS):
        text = picture(events, hand, width)
        assert max(len(line) for line in text.splitlines()) <= width
        assert "%" in text


def test_records_that_are_only_checked_are_no_job(plain, lines, hand):
    checked = [JobStarted("", 2_000_000), BatchesFrozen(3, 3_000, 2, 1_000_000, last=False)]
    for event in checked:
        plain.listener(event)
    hand.at += LINE_SECONDS
    plain.listener(BatchesFrozen(3, 3_000, 2, 1_000_000, last=False))
    assert lines == ["[00:00:00] 2 MB to read", "[00:00:05] read 6,000 (50 %), 4 rejected"]
    text = picture(checked, hand)
    assert text.splitlines()[0] == "reading  00:00:10"
    assert not any(word in text for word in ("created", "batches", "settled", "left", "/s"))


def test_the_mean_of_a_run_is_told_at_its_end_of_what_it_has_done_itself(plain, lines, hand):
    plain.listener(JobStarted("j", 1_000, 1_000, Tally(records=3_000_000, created=2_999_000)))
    hand.at += 4
    plain.listener(BatchSettled(0, 1_000, 0))
    plain.listener(JobEnded("j", "finished"))
    assert lines[-1].endswith("job j is finished; read 3,000,000 (100 %), created 3,000,000, 250 tasks/s in 4.0 s")


def test_a_run_that_did_nothing_or_was_over_at_once_has_no_mean(plain, lines, hand):
    for done, seconds in ((0, 60), (1_000, 0.0004)):
        plain.listener(JobStarted("j", 1_000, 1_000, Tally(records=3_000, created=2_000)))
        plain.listener(BatchSettled(0, done, 0))
        hand.at += seconds
        plain.listener(JobEnded("j", "open"))
        assert "/s" not in lines[-1]


def test_the_live_view_of_a_job_that_is_canceled_does_not_speak_of_reading(hand):
    text = picture([BatchMoved(0, State.RELEASED, State.SETTLED, 10, 1), BatchSettled(0, 4, 6, "no")], hand)
    assert "4 created" in text
    assert "read" not in text
    assert "left" not in text


def test_the_live_view_begins_before_anything_is_known(hand):
    assert "starting" in picture([], hand)


def test_the_live_display_leaves_nothing_behind(hand):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with LiveDisplay(hand, console) as display:
        for event in RUN:
            display.listener(event)
    display.abandon()
    written = screen.getvalue()
    assert "nightly" in written
    assert written.endswith("\x1b[?25h")  # the cursor is shown again
    assert "\x1b[2K" in written  # the table is wiped away


def test_the_display_suits_where_it_is_shown(hand):
    assert isinstance(choose_display(hand, terminal=True, silent=False), LiveDisplay)
    assert isinstance(choose_display(hand, terminal=False, silent=False), PlainDisplay)
    with choose_display(hand, terminal=True, silent=True) as display:
        assert type(display) is Display
        display.listener(STARTED)
        display.abandon()


def test_quiet_is_one_line_at_the_end_however_often_calls_wait(hand, lines):
    with QuietDisplay(hand, lines.append) as quiet:
        for event in RUN:
            quiet.listener(event)
        for _ in range(100):
            quiet.listener(Paused("the service asks for it", 12.0))
            hand.at += 6
        quiet.listener(Noticed("a status never heard of"))
        quiet.listener(Stopping("the service is down"))
        assert lines == []
    assert lines == [
        (
            "101 warnings: calls waited 10 min 06 s in all, last because the service asks for it; "
            "a status never heard of. log.ndjson of the job has each of them"
        )
    ]


def test_quiet_says_nothing_where_nothing_was_to_be_warned_of(hand, lines):
    with QuietDisplay(hand, lines.append) as quiet:
        for event in RUN:
            quiet.listener(event)
    assert lines == []
