"""Signals end a run in order, or at once; the processes here are started by the test and killed by their own id."""

import gc
import signal
import subprocess
import sys
import time

import pytest

from engine.cli.app import call
from engine.cli.options import OutputOptions
from engine.cli.signals import REPEAT_SECONDS, perform

PROGRAM = """
import signal, sys, time
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # these tests run in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
from engine.cli.options import OutputOptions
from engine.cli.signals import ask, perform
from engine.model.errors import BulkSubmitError
import anyio

if {loop!r} == "asyncio":
    sys.modules["uvloop"] = None

async def work(emit, stop):
    print("working", flush=True)
    await stop.wait()
    print("draining", flush=True)
    {then}
    raise stop.error

async def hanging(emit, stop):
    print("working", flush=True)
    while True:
        pass

async def question():
    print("working", flush=True)
    await anyio.sleep_forever()

try:
    {start}
except BulkSubmitError as error:
    print(error.exit_status, flush=True)
"""
NUMBERS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def start(loop, *, then="pass", doing="perform(work, OutputOptions())", before=()):
    program = PROGRAM.format(loop=loop, then=then, start=doing)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*before, sys.executable, "-c", program], **pipes)
    assert process.stdout.readline() == "working\n"
    return process


@LOOPS
@NUMBERS
def test_the_first_signal_ends_the_run_in_order(loop, number):
    process = start(loop)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert out.split() == ["draining", str(128 + number)]
    assert f"stopping: {number.name} received" in err


@LOOPS
@pytest.mark.parametrize("then", ["await anyio.sleep_forever()", "time.sleep(600)", "\n    while True: pass"])
def test_the_second_signal_ends_the_process_even_if_the_loop_hangs(loop, then):
    process = start(loop, then=then)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


@LOOPS
@NUMBERS
def test_a_signal_that_is_told_twice_at_once_is_one(loop, number):
    process = start(loop, then="await anyio.sleep(0.1)")
    process.send_signal(number)
    process.send_signal(number)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == f"{128 + number}\n"


def test_a_process_that_is_ended_at_once_takes_the_hooks_commands_with_it():
    then = "import subprocess; hook = subprocess.Popen(['sleep', '1000'], start_new_session=True, stdout=2)"
    then += "; stop.groups.add(hook.pid); print('begun', flush=True); await anyio.sleep_forever()"
    process = start("asyncio", then=then)
    process.send_signal(signal.SIGINT)
    assert [process.stdout.readline() for _ in range(2)] == ["draining\n", "begun\n"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)  # the command holds standard error, too: that ends with it
    assert process.returncode == 128 + signal.SIGTERM


@LOOPS
def test_the_same_signal_a_second_later_ends_the_process(loop):
    process = start(loop, then="await anyio.sleep_forever()")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "draining\n"
    time.sleep(REPEAT_SECONDS + 0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT


@LOOPS
def test_a_loop_that_hangs_before_the_first_signal_is_ended_by_the_second(loop):
    process = start(loop, doing="perform(hanging, OutputOptions())")
    process.send_signal(signal.SIGTERM)
    time.sleep(REPEAT_SECONDS + 0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=5)
    assert process.returncode == 128 + signal.SIGTERM


@LOOPS
def test_a_signal_that_was_ignored_when_the_process_began_stays_so(loop):
    process = start(loop, before=["nohup"])
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=REPEAT_SECONDS)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert out.split() == ["draining", str(128 + signal.SIGTERM)]
    assert "SIGHUP" not in err


STARTING = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = ["submit", "in.ndjson", "--config", "c.toml"]
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever these tests were started with
from engine.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["resource", "typer", "engine.cli.signals", "msgspec", "engine.commands.submit"])
def test_ctrl_c_while_modules_are_loaded_ends_without_a_traceback(module):
    command = [sys.executable, "-c", STARTING.format(module=module)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_question_can_be_broken_off_by_one_signal():
    process = start("asyncio", doing="ask(question, OutputOptions())")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "130\n"


def test_the_collector_passes_over_what_was_imported_and_only_during_the_work():
    async def work(emit, stop):
        return gc.get_freeze_count(), gc.isenabled()

    frozen, enabled = perform(work, OutputOptions(quiet=True))
    assert frozen > 10_000
    assert enabled
    assert gc.get_freeze_count() == 0


def test_the_collector_works_while_the_sandbox_serves(monkeypatch):
    enabled = []
    monkeypatch.setattr("engine.sandbox.server.run", lambda *_, **__: enabled.append(gc.isenabled()))
    gc.disable()  # as the process does until it begins to work
    try:
        call(["sandbox"])
    finally:
        gc.enable()
    assert enabled == [True]
