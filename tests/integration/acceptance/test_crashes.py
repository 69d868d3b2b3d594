import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

CRASHING = Path(__file__).with_name("crashing.py")
BATCHES = "[batch]\nmax_records = 10\n"
PRESIGNED_STATES = ["frozen", "staging", "staged", "releasing", "released", "settled"]
INLINE_STATES = ["frozen", "releasing", "released", "settled"]


def crash(workplace, config, tasks, state, number) -> None:
    ledger = workplace.folder / ".bulksubmit" / "ledger.db"
    command = [sys.executable, CRASHING, config, tasks, ledger, state, str(number)]
    died = subprocess.run(command, cwd=workplace.folder, env=workplace.environment, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL


@pytest.mark.parametrize("state", PRESIGNED_STATES)
def test_a_kill_after_any_step_loses_nothing_and_creates_nothing_twice(workplace, state):
    """The command itself; tests/torture/faults/test_transitions.py has more moments, and the other ways to submit."""
    config, tasks = workplace.configure(more=BATCHES), workplace.write_tasks(45)
    crash(workplace, config, tasks, state, 3)
    resumed = workplace.run("resume", "crashed", "--json")
    assert (resumed.code, resumed.json["created"]) == (0, 45), resumed.err
    assert workplace.sandbox.markers == {f"task-{n}": 1 for n in range(45)}
    assert workplace.run("audit", "crashed").code == 0


@pytest.mark.parametrize("state", INLINE_STATES)
def test_inline_a_kill_may_leave_a_batch_uncertain_and_never_sends_it_twice(workplace, state):
    config, tasks = workplace.configure(mode="inline", more=BATCHES), workplace.write_tasks(45)
    crash(workplace, config, tasks, state, 2)
    resumed = workplace.run("resume", "crashed", "--json")
    counts = resumed.json
    assert counts["created"] + counts["uncertain"] == 45
    assert resumed.code == (4 if counts["uncertain"] else 0)
    markers = workplace.sandbox.markers
    assert set(markers.values()) == {1}
    assert counts["created"] <= len(markers) <= 45
    assert workplace.run("audit", "crashed").code == 0


@pytest.mark.parametrize("behaviour", ["max_body_bytes = 5000\n"])
def test_a_kill_while_the_size_of_batches_is_found_out_loses_nothing_and_creates_nothing_twice(workplace):
    config = workplace.configure(more=f"{BATCHES}[source]\nprocesses = 1\n")
    tasks = workplace.write_tasks(700, text="x" * 800)  # ten of them are too large
    crash(workplace, config, tasks, "split", 30)
    resumed = workplace.run("resume", "crashed", "--json")
    assert (resumed.code, resumed.json["created"]) == (0, 700), resumed.err
    assert workplace.sandbox.markers == {f"task-{n}": 1 for n in range(700)}
    assert workplace.run("audit", "crashed").code == 0


@pytest.mark.parametrize("behaviour", ["[creation]\ntasks_per_second = 20\nparallel_batches = 20\n"])
def test_kill_9_in_the_middle_of_200_batches_and_resume(workplace):
    config, tasks = workplace.configure(more=BATCHES), workplace.write_tasks(2_000)
    process = start(workplace, "submit", tasks, "--config", config, "--job", "killed")
    wait_for(lambda: len(workplace.sandbox.markers) >= 700)
    running = workplace.run("status", "killed", "--json").json
    assert (running["running"], running["runs"][0]["state"]) == (True, "running")
    process.kill()
    process.wait()
    stopped = workplace.run("status", "killed", "--json").json
    assert (stopped["killed"], stopped["runs"][0]["state"], stopped["runs"][0]["ended_at"]) == (True, "killed", None)
    assert stopped["next"][0]["command"] == "bulksubmit resume killed"
    resumed = workplace.run("resume", "killed", "--json")
    assert (resumed.code, resumed.json["created"], resumed.json["batches"]) == (0, 2_000, 200)
    runs = workplace.run("status", "killed", "--json").json["runs"]
    assert [run["state"] for run in runs] == ["killed", "ended"]
    assert workplace.sandbox.markers == {f"task-{n}": 1 for n in range(2_000)}
    assert workplace.run("audit", "killed").code == 0


@pytest.mark.parametrize("behaviour", ["[creation]\ntasks_per_second = 5\n"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_drains_the_run_and_resume_finishes_it(workplace, number, code):
    config, tasks = workplace.configure(more=BATCHES), workplace.write_tasks(60)
    process = start(workplace, "submit", tasks, "--config", config, "--job", "drained")
    wait_for(lambda: len(workplace.sandbox.markers) >= 5)
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    resumed = workplace.run("resume", "drained", "--json")
    assert (resumed.code, resumed.json["created"]) == (0, 60)
    assert set(workplace.sandbox.markers.values()) == {1}


@pytest.mark.parametrize("behaviour", ["[creation]\ntasks_per_second = 2\n"])
def test_a_second_process_on_the_same_job_is_refused(workplace):
    config, tasks = workplace.configure(), workplace.write_tasks(30)
    process = start(workplace, "submit", tasks, "--config", config, "--job", "held")
    wait_for(lambda: workplace.sandbox.markers)
    try:
        assert workplace.run("resume", "held").code == 6
        canceled = workplace.run("cancel", "held", "--yes")
        assert canceled.code == 6
    finally:
        process.kill()
        process.wait()
    done = workplace.run("cancel", "held", "--yes", "--json")
    assert done.json["state"] == "canceled"
    assert done.json["created"] == len(workplace.sandbox.markers) < 30
    refused = workplace.run("resume", "held", stdin="")
    assert (refused.code, "--yes says that all of it shall be sent" in refused.err) == (2, True)


def start(workplace, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "engine", *map(str, arguments)]
    return subprocess.Popen(command, cwd=workplace.folder, env=workplace.environment, stderr=subprocess.DEVNULL)


def wait_for(condition, seconds=30) -> None:
    """Another process brings the condition about, so only the wall clock can bound the wait."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the other process did not get there"
        os.sched_yield()
        time.sleep(0.02)


@pytest.mark.parametrize("behaviour", ["[sama]\ntask_lists_per_second = 0\n"])
def test_an_undo_that_is_killed_goes_on_and_no_task_is_left(workplace):
    config, tasks = workplace.configure(more=BATCHES), workplace.write_tasks(20)
    assert workplace.run("submit", tasks, "--config", config, "--job", "wrong").code == 0
    refused = workplace.run("undo", "wrong", stdin="")
    assert (refused.code, "Job wrong has 20 tasks on 127.0.0.1 (sama)" in refused.err) == (2, True)
    process = start(workplace, "undo", "wrong", "--yes")
    ledger = sqlite3.connect(f"file:{workplace.folder / '.bulksubmit' / 'ledger.db'}?mode=ro", uri=True)
    with closing(ledger):
        wait_for(lambda: ledger.execute("SELECT COUNT(*) FROM later_fates").fetchone()[0])
    process.kill()
    process.wait()
    done = workplace.run("undo", "wrong", "--yes", "--json")
    assert (done.code, done.json["later"]) == (0, {"undone": 20})
    assert {line["later"] for line in workplace.lines("wrong", "outcomes.ndjson")} == {"undone"}
