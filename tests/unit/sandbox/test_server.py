import os
import signal
import subprocess
import sys

import orjson
import pytest

from engine.sandbox.server import ListenError, RemoteHostError, running_sandbox

from .api import tasks

COMMAND = "import sys; from pathlib import Path; from engine.sandbox.server import run; run({})"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - refused
async def test_only_loopback_is_served(host):
    with pytest.raises(RemoteHostError, match="--allow-remote"):
        async with running_sandbox(host=host):
            pass


async def test_every_host_is_served_when_asked_for(start):
    api = await start(host="0.0.0.0", allow_remote=True)  # noqa: S104 - for the length of this test
    assert api.sandbox.url.startswith("http://0.0.0.0:")


async def test_a_port_that_is_taken_is_an_error(start):
    api = await start()
    port = int(api.origin.rsplit(":", 1)[1])
    with pytest.raises(ListenError, match=rf"127.0.0.1:{port}: process {os.getpid()} \(.*--port \d+") as caught:
        async with running_sandbox(port=port):
            pass
    async with running_sandbox(port=int(str(caught.value).rsplit(" ", 1)[1])):  # the one that it has named
        pass


async def test_two_sandboxes_know_nothing_of_each_other(start):
    one, other = await start(), await start()
    batch_id = (await one.create(tasks(1))).body["batch_id"]
    assert (await other.call("GET", f"/batches/{batch_id}.json")).status == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_where_it_serves_and_ends_on_a_signal(number):
    command = [sys.executable, "-c", COMMAND.format("port=0, json=True")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            ready = orjson.loads(process.stdout.readline())
            assert ready["pid"] == process.pid
            assert ready["url"].startswith("http://127.0.0.1:")
            os.kill(process.pid, number)
            assert process.wait(timeout=10) == 0
            assert process.stdout.read() + process.stderr.read() == b""
        finally:
            process.kill()


def test_the_command_serves_the_service_that_it_is_told():
    command = [sys.executable, "-c", COMMAND.format("port=0, service='sevenbridges'")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert b"The API of Seven Bridges is served at" in process.stdout.readline()
        finally:
            process.terminate()
            process.wait(timeout=10)


def test_the_command_reads_a_behaviour_and_talks_to_people(tmp_path):
    (tmp_path / "b.toml").write_text('access_keys = ["a", "b"]')
    journal = tmp_path / "deep" / "journal.ndjson"
    arguments = f"Path({str(tmp_path / 'b.toml')!r}), port=0, journal=Path({str(journal)!r})"
    with subprocess.Popen([sys.executable, "-c", COMMAND.format(arguments)], stdout=subprocess.PIPE) as process:
        try:
            line = process.stdout.readline()
            assert b"The API of Sama is served at http://127.0.0.1:" in line
            assert b"access key: a, b" in line
            assert journal.exists()
        finally:
            process.terminate()
            process.wait(timeout=10)
