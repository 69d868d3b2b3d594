"""`bulksubmit check`: what it asks before a probe, what it says, and what its exit code tells a script."""

import io

import pytest
from msgspec.structs import replace

from engine.commands.trace import TracedExchange
from engine.services.checks import CheckVerdict

from .test_commands import Terminal, asked_for

CHECK = ("check", "in.ndjson", "--config", "c.toml")


def test_a_check_that_fails_has_exit_code_9_and_says_how_to_mend_it(say, engine):
    engine.verdict = CheckVerdict.FAILED
    said = say(*CHECK)
    assert said.code == 9
    assert "1 check failed: key. A load would go to api.sama.com (sama, project 42). Nothing was created." in said.out
    assert "To mend it: renew it." in said.out


@pytest.mark.parametrize("verdict", [CheckVerdict.OK, CheckVerdict.WARNING, CheckVerdict.UNCHECKED])
def test_any_other_verdict_is_no_failure(say, engine, verdict):
    engine.verdict = verdict
    said = say(*CHECK, "--json")
    assert (said.code, said.json["exit_code"]) == (0, 0)
    assert said.json["checks"] == [
        {"name": "key", "verdict": str(verdict), "found": "the key", "cure": "renew it", "seconds": 0.0}
    ]


def test_without_a_source_it_checks_the_rest(say, engine):
    assert say("check", "--config", "c.toml").code == 0
    assert engine.asked[0][2] == []


def test_a_probe_without_a_source_is_wrong_usage(say, engine):
    said = say("check", "--config", "c.toml", "--probe")
    assert (said.code, engine.asked) == (2, [])
    assert "--probe needs a SOURCE" in said.err


def test_where_a_check_fails_no_probe_is_made(say, engine):
    engine.verdict = CheckVerdict.FAILED
    assert say(*CHECK, "--probe", "--yes").code == 9
    assert asked_for(engine) == ["check"]


@pytest.mark.parametrize(
    ("typed", "operations"),
    [("y\ny\n", ["check", "probe", "undo"]), ("y\nn\n", ["check", "probe"]), ("n\n", ["check"]), ("", ["check"])],
)
def test_a_probe_asks_before_it_creates_and_before_it_deletes(say, engine, monkeypatch, typed, operations):
    engine.result = replace(engine.result, exit_code=0)
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    said = say(*CHECK, "--probe")
    assert asked_for(engine) == operations
    question = "A probe creates 2 real tasks at api.sama.com (sama, project 42): of records 0 and 3 of in.ndjson"
    assert question in said.err
    assert "People see them." in said.err
    assert ("Delete what job nightly created?" in said.err) == ("probe" in operations)
    assert said.code == (0 if "probe" in operations else 1)
    if "probe" in operations:
        assert "1 guesses hold" in said.out
        assert engine.asked[1][3] == [0, 3]


def test_where_nothing_can_be_taken_back_nothing_is_offered(say, engine, monkeypatch):
    engine.result, engine.undoable = replace(engine.result, exit_code=0), False
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    said = say(*CHECK, "--probe")
    assert asked_for(engine) == ["check", "probe"]
    assert "Delete what job" not in said.err
    assert "They stay: nothing here can take them back. Delete them at the service." in said.out


def test_a_trace_is_shown_below_the_checks(say, monkeypatch, engine):
    seen = TracedExchange("look", "GET", "https://a.example/x", {"A": "b"}, "one\ntwo\x1b[31m", 9, status=200)
    seen = replace(seen, answer='{"a": 1}', taken=[("id", "7")], times=2)

    async def check(*given, trace, **options):
        trace.exchanges += [seen, replace(seen, status=None, lost="no answer", taken=(), times=1)]
        trace.planned = [replace(seen, sent=False, kind="release", times=1, body="\n".join("abcdefgh"))]
        return await engine.check(*given, **options)

    monkeypatch.setattr("engine.check", check, raising=False)
    said = say(*CHECK, "--trace").out
    assert "1. look, 2 times\n  request  GET https://a.example/x\n" in said
    assert r"two\x1b[31m" in said
    assert "  taken    id = 7" in said
    assert "answer   none: no answer" in said
    assert "3. release, not sent: a load would" in said
    assert "… 2 more lines here" in said
    traced = say(*CHECK, "--trace", "--json").json["trace"]
    assert [(one["kind"], one["sent"], one["taken"]) for one in traced] == [
        ("look", True, {"id": "7"}),
        ("look", True, {}),
        ("release", False, {"id": "7"}),
    ]


def test_where_nobody_can_be_asked_a_probe_is_made_only_with_yes_and_deleted_unless_kept(say, engine, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert say(*CHECK, "--probe").code == 2
    assert asked_for(engine) == ["check"]
    engine.asked.clear()
    probed = say(*CHECK, "--probe", "--yes", "--json").json
    assert asked_for(engine) == ["check", "probe", "undo"]
    assert probed["probe"]["guesses"][0]["holds"] is True
    engine.asked.clear()
    assert say(*CHECK, "--probe", "--yes", "--keep", "--json").json["probe"]["deleted"] is None
    assert asked_for(engine) == ["check", "probe"]
