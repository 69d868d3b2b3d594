import json
import logging

import pytest

from engine.adaptive.concurrency import LimitChanged
from engine.model.submission import State
from engine.progress.events import (
    BatchesFrozen,
    BatchesWaiting,
    BatchMoved,
    BatchProgressed,
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
from engine.progress.log import event_log, set_up_logging

EVENTS = [
    (JobStarted("j", 100), "INFO"),
    (BatchesFrozen(1, 10, 2, 50, last=False), "DEBUG"),
    (BatchesFrozen(1, 10, 2, 100, last=True), "INFO"),
    (BatchMoved(0, State.FROZEN, State.STAGING, 10, 1), "DEBUG"),
    (BatchMoved(0, State.RELEASING, State.UNCERTAIN, 10, 1, "answer lost"), "WARNING"),
    (BatchProgressed(0, 5, 0), "DEBUG"),
    (BatchSettled(0, 9, 1, "no url"), "INFO"),
    (BatchSettled(0, 9, 0, "lost", 1), "WARNING"),
    (BatchesWaiting(2, 130.0, "0, 7"), "WARNING"),
    (CallStarted("put"), "DEBUG"),
    (CallEnded("put", 0.25, 10, None), "DEBUG"),
    (CallRetried("put", 2, 1.5, "status 503"), "INFO"),
    (Noticed("a status never heard of"), "WARNING"),
    (Paused("asked to", 12.0), "WARNING"),
    (Paused("one call at a time tries", 0.3), "DEBUG"),
    (Spaced("requests_per_second is 0.5", 12.0), "INFO"),
    (LimitChanged("max_batch_bytes", 4096, 2048, "a payload of 4000 bytes was too large"), "DEBUG"),
    (Stopping("SIGTERM"), "WARNING"),
    (JobEnded("j", "finished"), "INFO"),
]


@pytest.fixture(autouse=True)
def _clean():
    yield
    set_up_logging("warning", as_json=False, redact=str)
    logging.getLogger().handlers.pop()


def hide(text):
    return text.replace('s3cr"et', "***")


@pytest.mark.parametrize(("event", "level"), EVENTS)
def test_each_event_is_a_line_of_its_level(capsys, event, level):
    set_up_logging("debug", as_json=False, redact=hide)
    event_log()(event)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"Z {level} engine.events: " in line


def test_a_json_line_holds_the_facts(capsys):
    set_up_logging("info", as_json=True, redact=hide)
    event_log()(BatchSettled(3, 9, 1, "no url"))
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time") == line.pop("@timestamp")
    assert {name: line.pop(name) for name in ("ecs.version", "log.level", "service.name")} == {
        "ecs.version": "8.11.0",
        "log.level": "info",
        "service.name": "bulksubmit",
    }
    assert line == {
        "level": "info",
        "logger": "engine.events",
        "message": "batch 3 settled: 9 created, 1 failed; first error: no url",
        "event": "BatchSettled",
        "sequence": 3,
        "created": 9,
        "failed": 1,
        "first_error": "no url",
        "uncertain": 0,
    }


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (BatchSettled(3, 9, 0), "9 created, 0 failed"),
        (BatchSettled(3, 8, 0, "lost", 2), "8 created, 0 failed, 2 uncertain; first reason: lost"),
        (BatchSettled(3, 7, 1, "no url", 2), "7 created, 1 failed, 2 uncertain; first error: no url"),
    ],
)
def test_a_line_tells_how_the_records_of_a_batch_ended(capsys, event, said):
    set_up_logging("info", as_json=False, redact=hide)
    event_log()(event)
    assert capsys.readouterr().err.endswith(f"batch 3 settled: {said}\n")


def test_a_line_names_the_batches_that_are_accepted_and_not_begun(capsys):
    set_up_logging("warning", as_json=False, redact=hide)
    event_log()(BatchesWaiting(2, 130.0, "0, 7"))
    said = "2 batches accepted, and not begun by the service for 2 min 10 s: 0, 7; followed on\n"
    assert capsys.readouterr().err.endswith(said)


def test_what_is_below_the_level_is_not_logged(capsys):
    set_up_logging("warning", as_json=False, redact=hide)
    for event, _ in EVENTS:
        event_log()(event)
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_other_libraries_stay_at_warning(capsys):
    set_up_logging("debug", as_json=False, redact=hide)
    logging.getLogger("aiohttp.client").debug("headers")
    logging.getLogger("aiohttp.client").warning("trouble")
    assert "headers" not in (said := capsys.readouterr().err)
    assert "WARNING aiohttp.client: trouble" in said


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_logged_nor_in_a_traceback(capsys, as_json):
    set_up_logging("info", as_json=as_json, redact=hide)
    event_log()(Stopping('refused: s3cr"et'))
    logging.getLogger("engine").error('with s3cr"et', exc_info=ValueError('s3cr"et'))
    said = capsys.readouterr().err
    assert "s3cr" not in said
    assert said.count("***") >= 3
    assert "ValueError: ***" in said


def test_logging_set_up_twice_writes_once(capsys):
    set_up_logging("info", as_json=True, redact=hide)
    set_up_logging("info", as_json=False, redact=hide)
    event_log()(JobEnded("j", "finished"))
    assert capsys.readouterr().err.count("finished") == 1


STEERING = "\x1b[2J\x9b31m\u202egpj.exe\u2066\u2028\u2029\x85\x00"
"""C0, C1, what turns the direction of writing round, and what ends a line."""


@pytest.mark.parametrize("as_json", [True, False])
def test_no_word_of_others_steers_a_terminal_or_makes_a_line_of_its_own(capsys, as_json):
    set_up_logging("info", as_json=as_json, redact=hide)
    event_log()(Noticed(STEERING))
    logging.getLogger("aiohttp").error("%s", STEERING)
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    if as_json:
        assert [json.loads(line).get("text") for line in lines[:2]] == [STEERING, None]
        assert json.loads(lines[1])["message"] == STEERING


def test_words_of_any_script_stay_as_they_are(capsys):
    set_up_logging("info", as_json=True, redact=hide)
    event_log()(Noticed("schön, 日本語, שלום"))
    assert "schön, 日本語, שלום" in capsys.readouterr().err
