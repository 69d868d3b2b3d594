import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest
from aiohttp import web

import engine
from engine.commands.hooks import MOST_BODY_BYTES, MOST_OUTPUT_BYTES, state_of
from engine.model.errors import ConfigError, LedgerError
from engine.progress.events import JobEnded, Noticed
from engine.sandbox.behaviour import FailureRule, WorkPace
from engine.sandbox.settings import SandboxSama

from .desk import lines, stopped, tasks

SECRET_PATH = "/ping/0b6c-secret-uuid"


def hook(*command, **more):
    written = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {"command": command, **more}.items() if value)
    return f"[[hooks]]\n{written}"


def shell(script, **more):
    return hook("sh", "-c", script, **more)


def told(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def warnings(desk):
    return [event.text for event in desk.events if isinstance(event, Noticed)]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (0, "finish"),
        *((code, "partial") for code in (3, 4, 10)),
        *((code, "stop") for code in (5, 130, 143)),
        *((code, "fail") for code in (1, 2, 7, 8, 9)),
    ],
)
def test_the_exit_code_says_which_state_it_is(code, state):
    assert state_of(code) == state


async def test_a_command_hears_of_beginning_and_end_in_the_environment_and_on_its_input(desk, tmp_path):
    desk = await desk()
    script = f'cat >> {tmp_path}/told; echo "$BULKSUBMIT_STATE $BULKSUBMIT_JOB $BULKSUBMIT_EXIT_CODE" >> {tmp_path}/env'
    await desk.submit(desk.source(tasks(25)), desk.config(more=shell(script)))
    assert (tmp_path / "env").read_text() == "start j \nfinish j 0\n"
    start, finish = told(tmp_path / "told")
    assert (start["state"], start["exit_code"], start["job"]) == ("start", None, "j")
    assert (finish["state"], finish["exit_code"], finish["created"], finish["records"]) == ("finish", 0, 25, 25)
    assert start["command"] == finish["command"] == "submit"
    assert start["run"] == finish["run"]
    assert len(lines(Path(finish["outcomes"]))) == 25
    assert not warnings(desk)


async def test_a_command_does_not_get_the_secrets_of_the_configuration(desk, tmp_path, monkeypatch):
    monkeypatch.setenv("PLAIN", "plain")
    desk = await desk()
    more = shell(f"env > {tmp_path}/env", states=["finish"])
    await desk.submit(desk.source(tasks(1)), desk.config(more=more))
    environment = (tmp_path / "env").read_text().splitlines()
    assert "PLAIN=plain" in environment
    assert not any(line.startswith("SAMA_ACCESS_KEY=") for line in environment)


async def test_only_the_states_that_are_named_are_told(desk, tmp_path):
    desk = await desk(failures=(FailureRule("data.id", equals="1"),))
    more = shell(f'cat >> {tmp_path}/told; echo "$BULKSUBMIT_MESSAGE" >> {tmp_path}/said', states=["partial", "stop"])
    await desk.submit(desk.source([*tasks(5), {"input": 1}]), desk.config(more=more))
    (partial,) = told(tmp_path / "told")
    assert (partial["state"], partial["failed"], partial["rejected"], partial["skipped"]) == ("partial", 1, 1, 0)
    assert partial["message"].startswith("Job j is finished: 4 of 6 records created. 1 failed, 1 rejected; most often")
    assert (tmp_path / "said").read_text() == f"{partial['message']}\n"
    assert sum(one["records"] for one in partial["reasons"]) == 2


async def test_a_run_that_is_stopped_and_one_that_a_person_must_mend_are_told(desk, tmp_path, monkeypatch):
    desk = await desk()
    await stopped(desk, more=shell(f"cat >> {tmp_path}/told"))
    monkeypatch.setenv("SAMA_ACCESS_KEY", "last-years-key")
    await desk.resume()
    states = [(one["state"], one["exit_code"]) for one in told(tmp_path / "told")]
    assert states == [("start", None), ("stop", 143), ("start", None), ("fail", 9)]


async def test_an_error_that_ends_the_command_is_told_as_well(desk, tmp_path, monkeypatch):
    desk = await desk()

    async def broken(*_, **__):
        raise LedgerError("the disk is gone")

    monkeypatch.setattr("engine.commands.submit.summarize", broken)
    with pytest.raises(LedgerError):
        await desk.submit(desk.source(tasks(1)), desk.config(more=shell(f"cat >> {tmp_path}/told", states=["fail"])))
    (fail,) = told(tmp_path / "told")
    assert (fail["state"], fail["exit_code"], fail["message"]) == ("fail", 9, "the disk is gone")


async def test_what_goes_wrong_with_a_hook_is_a_warning_and_no_matter_of_the_job(desk):
    desk = await desk()
    more = hook("/does/not/exist", states=["start"]) + shell("echo no mail server; exit 3", states=["finish"])
    result = await desk.submit(desk.source(tasks(5)), desk.config(more=more))
    assert (result.exit_code, result.message) == (0, "")
    said = "hooks[0] (/does/not/exist), at start: it cannot be started (No such file or directory)"
    assert warnings(desk) == [
        f"{said}. The job is not affected",
        "hooks[1] (sh), at finish: it ended with exit code 3: no mail server. The job is not affected",
    ]


async def test_a_command_that_takes_too_long_is_killed_with_its_children_and_holds_up_nothing(desk, tmp_path):
    desk = await desk()
    more = shell(f"sleep 1000 & echo $! > {tmp_path}/child; wait", states=["start"], seconds=0.3)
    result = await desk.submit(desk.source(tasks(5)), desk.config(more=more))
    ends = [type(event) for event in desk.events if isinstance(event, JobEnded | Noticed)]
    assert ends == [JobEnded, Noticed] or result.elapsed_seconds > 0.3  # of a busy machine
    assert warnings(desk) == [
        "hooks[0] (sh), at start: it took longer than 0.3 s and was killed. The job is not affected"
    ]
    assert not _lives(int((tmp_path / "child").read_text()))


def _lives(pid):
    """Return whether a process works still; one that nobody has waited for does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_the_output_of_a_command_goes_to_the_log_bounded_and_without_secrets(desk, caplog, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "canary-canary")
    caplog.set_level("INFO", logger="engine")
    desk = await desk()
    script = f"echo $SOME_TOKEN; yes | head -c {5 * MOST_OUTPUT_BYTES}"
    await desk.submit(desk.source(tasks(1)), desk.config(more=shell(script, states=["finish"])))
    said = [record.getMessage() for record in caplog.records if record.name == "engine.commands.hooks"]
    assert said[0] == "hooks[0] finish: ***"
    assert said.count("hooks[0] finish: y") <= MOST_OUTPUT_BYTES / 2
    assert re.fullmatch(r"hooks\[0\] finish: \([\d,]+ bytes more are left out\)", said[-1])


async def test_what_a_command_leaves_behind_is_not_waited_for(desk, tmp_path):
    desk = await desk()
    more = shell(f"sleep 1000 & echo $! > {tmp_path}/child", states=["finish"])
    await desk.submit(desk.source(tasks(1)), desk.config(more=more))
    assert not warnings(desk)
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


async def canceled(desk):
    return await desk.cancel()


async def undone(desk):
    return await engine.undo("j", desk.ledger, desk.emit, desk.new_stop())


async def refreshed(desk):
    return await engine.refresh("j", desk.ledger, desk.emit, desk.new_stop())


@pytest.mark.parametrize(
    ("command", "work", "message"),
    [
        ("cancel", canceled, "Job j is canceled."),
        ("undo", undone, "20 tasks taken back"),
        ("refresh", refreshed, "Of their tasks, later 20 completed."),
        ("resume", lambda desk: desk.resume(until="finished"), "Of their tasks, later 20 completed."),
    ],
)
async def test_the_runs_of_commands_that_load_nothing_are_told_too(desk, tmp_path, command, work, message):
    work_pace = {"work": WorkPace(tasks_per_second=100, step_seconds=0.05)} if command == "resume" else {}
    desk = await desk(sama=SandboxSama(task_lists_per_second=0), **work_pace)
    more = shell(f'cat >> {tmp_path}/told; echo "$BULKSUBMIT_COMMAND $BULKSUBMIT_STATE" >> {tmp_path}/env')
    if command == "cancel":
        await stopped(desk, more=more)
    else:
        records = tasks(20) if command == "undo" else [task | {"submit": True} for task in tasks(20)]
        await desk.submit(desk.source(records), desk.config(more=more))
    result = await work(desk)
    assert result.exit_code == 0
    start, finish = told(tmp_path / "told")[2:]
    assert (start["state"], finish["state"], finish["exit_code"]) == ("start", "finish", 0)
    assert message in finish["message"]
    assert (tmp_path / "env").read_text().endswith(f"{command} start\n{command} finish\n")


async def test_a_refresh_that_cannot_begin_is_told_and_leaves_the_metrics_of_the_load_as_they_are(
    desk, tmp_path, monkeypatch
):
    desk = await desk(sama=SandboxSama(task_lists_per_second=0))
    metrics = tmp_path / "load.prom"
    more = f'[metrics]\ntextfile = "{metrics}"\n{shell(f"cat >> {tmp_path}/told", states=["fail"])}'
    await desk.submit(desk.source(tasks(1)), desk.config(more=more))
    before = metrics.read_text()
    await refreshed(desk)
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    with pytest.raises(ConfigError):
        await refreshed(desk)
    (fail,) = told(tmp_path / "told")
    assert (fail["command"], fail["job"], fail["exit_code"]) == ("refresh", "j", 2)
    assert metrics.read_text() == before


async def test_of_a_probe_nobody_is_told_nor_of_taking_back_what_it_has_created(desk, tmp_path):
    desk = await desk(sama=SandboxSama(task_lists_per_second=0))
    config = desk.config(more=shell(f"cat >> {tmp_path}/told"))
    probed = await engine.probe(config, desk.source(tasks(5)), desk.ledger, records=[0, 1])
    result = await engine.undo(probed.result.job, desk.ledger)
    assert result.later == {"undone": 2}
    assert not told(tmp_path / "told")


# Pings


@pytest.fixture
async def monitor(monkeypatch):
    """Stand for healthchecks.io: keep what is called, answer with the statuses given, then with 200."""
    pings, statuses = [], []

    async def handle(request):
        pings.append((request.method, request.path, request.query["rid"], await request.read()))
        return web.Response(status=statuses.pop(0) if statuses else 200)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("HC_URL", f"http://127.0.0.1:{runner.addresses[0][1]}{SECRET_PATH}")
    yield pings, statuses
    await runner.cleanup()


PING = '[[hooks]]\nping = "${env:HC_URL}"\nseconds = 5\n'


async def test_a_check_is_pinged_at_the_beginning_and_with_the_exit_code(desk, monitor):
    pings, _ = monitor
    desk = await desk()
    await desk.submit(desk.source(tasks(5)), desk.config(more=PING))
    (_, start, run, _), (method, finish, same_run, body) = pings
    assert (method, start, finish) == ("POST", f"{SECRET_PATH}/start", f"{SECRET_PATH}/0")
    assert run == same_run
    assert json.loads(body)["created"] == 5
    assert len(body) <= MOST_BODY_BYTES


@pytest.mark.parametrize(("more", "ending"), [("", "3"), ('partial = "success"\n', "0")])
async def test_failed_records_are_a_failure_there_unless_they_are_said_to_be_none(desk, monitor, more, ending):
    pings, _ = monitor
    desk = await desk(failures=(FailureRule("data.id", equals="1"),))
    await desk.submit(desk.source(tasks(5)), desk.config(more=PING + more))
    assert pings[-1][1] == f"{SECRET_PATH}/{ending}"


async def test_a_stop_goes_to_the_log_of_a_check(desk, monitor):
    pings, _ = monitor
    await stopped(await desk(), more=PING)
    assert [path for _, path, _, _ in pings] == [f"{SECRET_PATH}/start", f"{SECRET_PATH}/log"]


async def test_what_loads_nothing_neither_begins_nor_ends_the_load_for_a_check_unless_it_fails(
    desk, monitor, monkeypatch
):
    pings, _ = monitor
    desk = await desk()
    await stopped(desk, more=PING)
    pings.clear()
    await desk.cancel()
    assert [path for _, path, _, _ in pings] == [f"{SECRET_PATH}/log", f"{SECRET_PATH}/log"]
    monkeypatch.setenv("SAMA_ACCESS_KEY", "last-years-key")
    await refreshed(desk)
    assert pings[-1][1] == f"{SECRET_PATH}/9"


async def test_a_ping_that_is_refused_is_a_warning_that_does_not_show_its_url(desk, monitor, monkeypatch):
    pings, statuses = monitor
    statuses += [200, 503, 404, 404]
    monkeypatch.setattr("engine.commands.hooks.PAUSE_SECONDS", 0.0)
    desk = await desk()
    result = await desk.submit(desk.source(tasks(5)), desk.config(more=PING))
    assert result.exit_code == 0
    assert len(pings) == 4
    assert warnings(desk) == ["hooks[0] (ping), at finish: 127.0.0.1 answered HTTP 404. The job is not affected"]
    assert "secret-uuid" not in str(desk.events)


async def test_hooks_may_change_while_a_job_goes_on(desk, tmp_path):
    desk = await desk()
    await stopped(desk)
    result = await desk.resume(config=desk.config(send="max_in_flight = 1", more=shell(f"cat >> {tmp_path}/told")))
    assert result.exit_code == 0
    assert [one["state"] for one in told(tmp_path / "told")] == ["start", "finish"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (hook("true", states=["finsh"]), "hooks[0].states: 'finsh' is not one; did you mean 'finish'?"),
        (hook("true", states=["zzz"]), "hooks[0].states: 'zzz' is not one; known: start, finish, partial, stop, fail"),
        (hook(), "hooks[0].command: a hook has either a command"),
        (hook("true") + PING + "comand = 1", "hooks[1].comand: unknown key; did you mean 'command'?"),
        ('[[hooks]]\nping = "https://hc-ping.com/uuid"', "hooks[0].ping: a secret does not belong into the file"),
        ('[[hooks]]\nping = "${env:ODD_URL}"', "hooks[0].ping: it must be https: plain http to example.com"),
    ],
)
async def test_a_hook_that_cannot_be_is_an_error_before_anything_is_sent(tmp_path, monkeypatch, desk, more, said):
    monkeypatch.setenv("ODD_URL", "http://example.com/secret-path")
    monkeypatch.setenv("HC_URL", "http://127.0.0.1:1/x")
    desk = await desk()
    with pytest.raises(ConfigError) as caught:
        await desk.submit(desk.source(tasks(1)), desk.config(more=more))
    assert str(caught.value).startswith(said)
    assert "secret-path" not in str(caught.value)


async def test_a_second_process_that_finds_the_job_locked_tells_nobody(desk, tmp_path):
    desk = await desk()
    await stopped(desk)
    config = desk.config(send="max_in_flight = 1", more=shell(f"cat >> {tmp_path}/told"))
    async with engine.commands.paths.open_ledger(desk.ledger) as ledger:
        with ledger.lock("j"), pytest.raises(engine.errors.JobLocked):
            await desk.resume(config=config)
    assert not told(tmp_path / "told")


async def test_what_keeps_a_job_from_being_made_is_told_without_a_beginning(desk, tmp_path):
    desk = await desk()
    config = desk.config(more=shell(f"cat >> {tmp_path}/told"))
    with pytest.raises(engine.errors.SourceError):
        await desk.submit(tmp_path / "tonight.ndjson", config)
    with pytest.raises(engine.errors.SourceError):
        await engine.nightly(tmp_path / "tonight.ndjson", config, desk.ledger, family="f")
    first, second = told(tmp_path / "told")
    assert (first["state"], first["exit_code"], first["job"]) == ("fail", 2, "j")
    assert "tonight.ndjson" in first["message"]
    assert (second["state"], second["family"]) == ("fail", "f")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"service": "acces_key = 5"}, "service.acces_key: unknown key"),
        ({"send": "max_in_flight = -1"}, "send.max_in_flight"),
        ({"more": '[delta]\nchanged = "maybe"\n'}, "delta.changed"),
        ({"more": hook("true", states=["finsh"])}, "hooks[0].states"),
    ],
)
async def test_a_configuration_that_is_broken_elsewhere_is_told(desk, tmp_path, broken, said):
    desk = await desk()
    hooks = shell(f"cat >> {tmp_path}/told; env >> {tmp_path}/env")
    config = desk.config(**{**broken, "more": broken.get("more", "") + hooks})
    with pytest.raises(ConfigError):
        await desk.submit(desk.source(tasks(1)), config)
    with pytest.raises(ConfigError):
        await engine.nightly(desk.source(tasks(1)), config, desk.ledger, family="f")
    first, second = told(tmp_path / "told")
    assert (first["state"], first["exit_code"], first["job"], first["service"]) == ("fail", 2, "j", "sama")
    assert (second["state"], second["exit_code"], second["family"]) == ("fail", 2, "f")
    assert said in first["message"]
    assert "SAMA_ACCESS_KEY=" not in (tmp_path / "env").read_text()


async def test_a_key_that_is_gone_is_told_whether_there_is_a_job_already_or_not(desk, tmp_path, monkeypatch):
    desk = await desk()
    await stopped(desk, more=shell(f"cat >> {tmp_path}/told", states=["fail"]))
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    with pytest.raises(ConfigError):
        await desk.resume()
    with pytest.raises(ConfigError):
        await desk.submit(desk.source(tasks(1)), desk.folder / "engine.toml", job="k")
    assert [(one["job"], one["exit_code"]) for one in told(tmp_path / "told")] == [("j", 2), ("k", 2)]


@pytest.mark.parametrize("broken", ["hooks = [\n", None], ids=["no TOML", "gone"])
async def test_a_night_whose_file_cannot_be_read_any_more_is_told_by_the_hooks_of_the_night_before(
    desk, tmp_path, broken
):
    desk = await desk()
    metrics = tmp_path / "load.prom"
    more = f'[metrics]\ntextfile = "{metrics}"\n{shell(f"cat >> {tmp_path}/told", states=["fail"])}'
    config, source = desk.config(more=more), desk.source(tasks(5))
    await engine.nightly(source, config, desk.ledger)
    config.unlink() if broken is None else config.write_text(broken)
    with pytest.raises(ConfigError):
        await engine.nightly(source, config, desk.ledger)
    (fail,) = told(tmp_path / "told")
    assert (fail["state"], fail["exit_code"], fail["command"], fail["job"]) == ("fail", 2, "nightly", "engine")
    assert "configuration" in fail["message"]
    assert 'bulksubmit_job_exit_code{job_name="engine"} 2' in metrics.read_text()


async def test_of_a_first_file_that_is_no_toml_no_hook_hears_and_the_exit_code_says_it(desk, tmp_path):
    desk = await desk()
    config = desk.config(more="broken = [\n" + shell(f"cat >> {tmp_path}/told"))
    with pytest.raises(ConfigError, match="not valid TOML") as raised:
        await desk.submit(desk.source(tasks(1)), config)
    assert raised.value.exit_code == engine.errors.Exit.USAGE  # by which OnFailure= of systemd starts its unit
    assert not told(tmp_path / "told")


async def test_the_answer_to_whoever_has_typed_a_wrong_command_is_no_failure_of_the_load(desk, tmp_path):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)), desk.config(more=shell(f"cat >> {tmp_path}/told", states=["fail"])))
    with pytest.raises(engine.errors.JobError):
        await desk.retry()
    assert not told(tmp_path / "told")


async def test_a_night_that_finds_nothing_to_do_is_told_where_it_is_asked_for(desk, tmp_path):
    desk = await desk()
    config = desk.config(more=f"[limits]\nfail_if_empty = true\n{shell(f'cat >> {tmp_path}/told', states=['fail'])}")
    source = desk.source(tasks(5))
    codes = [(await engine.nightly(source, config, desk.ledger, family="f")).exit_code for _ in range(2)]
    assert codes == [0, 8]
    (fail,) = told(tmp_path / "told")
    assert fail["exit_code"] == 8
    assert "there is nothing new" in fail["message"]


async def test_each_job_that_a_night_works_on_is_told(desk, tmp_path):
    desk = await desk()
    config = desk.config(more=shell(f"cat >> {tmp_path}/told", states=["finish"]))
    await engine.nightly(desk.source(tasks(10)), config, desk.ledger, family="f")
    (finish,) = told(tmp_path / "told")
    assert (finish["family"], finish["created"], finish["job"].startswith("f-")) == ("f", 10, True)
