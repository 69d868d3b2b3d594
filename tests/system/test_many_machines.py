"""docs/many-machines.md as a reader does it: with a PostgreSQL that is reached by TLS only, and a sandbox.

And the script of the Kubernetes Job, by two processes in the place of its pods.
"""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import yaml

from engine.sandbox.journal import count_markers
from tests.docs.pages import CHANGED, ROOT, Block, Reader, blocks_of

from .postgres import postgres
from .servers import lasting_port

pytestmark = pytest.mark.slow
PAGE = ROOT / "docs" / "many-machines.md"
PASSWORD = "sandbox-key"
"""What `…` stands for in a page."""
USERS = ("bulksubmit", "bulksubmit_worker")
CONFIG = """
[service]
kind = "sama"
base_url = "{}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[send]
poll_seconds = 0.05
"""
TASKS = "".join(f'{{"data":{{"id":{number}}}}}\n' for number in range(5000))
BEFORE = "$ bulksubmit submit tasks.ndjson --config sama.toml --job images-0 --ledger .bulksubmit/ledger.db"
"""What was done with a ledger in a file."""


@pytest.fixture
def server():
    with postgres(durable=False) as running:
        yield running


class Administrator(Reader):
    """A reader who is an administrator of the database, too, and has workers run beside until the end of the page."""

    def follow(self, block):
        if block.language != "sql":
            super().follow(block)
            return
        database = "postgres"
        for line in block.text.splitlines():
            if line.startswith(r"\connect "):
                database = line.split()[1]
            elif line.partition("--")[0].strip():
                self.server.query(line.partition("--")[0].replace("…", PASSWORD), database)

    def _call(self, command, expected, place):
        if command.startswith("bulksubmit work --stay"):
            self.stack.enter_context(working(self.changed(command).split("#")[0].split()[1:], self.folder))
        else:
            super()._call(command, expected, place)


@contextmanager
def working(arguments, folder):
    """Have a worker run until it is told to end, and see that it ends in order."""
    process = subprocess.Popen([sys.executable, "-m", "engine", *arguments], cwd=folder, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[1].decode()
    assert (process.returncode, "Traceback" in said) == (128 + signal.SIGTERM, False), said


def test_every_block_of_the_page_does_what_it_says(server, tmp_path, monkeypatch, capfd):
    certificate = server.require_tls()
    by_tls = {"sslmode": "verify-full", "sslrootcert": str(certificate)}
    monkeypatch.setattr(server, "connect", lambda *args, **more: type(server).connect(server, *args, **by_tls, **more))
    (tmp_path / "db-ca.pem").write_bytes(certificate.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMA_ACCESS_KEY", PASSWORD)
    monkeypatch.setitem(CHANGED, r"db1\.example\.com,db2\.example\.com", f"127.0.0.1:{lasting_port()},db.example.com")
    monkeypatch.setitem(CHANGED, r"db\.example\.com", f"127.0.0.1:{server.port}")
    monkeypatch.setitem(CHANGED, r"/etc/bulksubmit/", f"{tmp_path}/")
    monkeypatch.setitem(CHANGED, r"/shared/", f"{tmp_path}/")
    with ExitStack() as stack:
        reader = Administrator(tmp_path, monkeypatch.setenv, capfd.readouterr, stack)
        reader.server = server
        (tmp_path / "sama.toml").write_text(CONFIG.format(reader.sama()))
        (tmp_path / "tasks.ndjson").write_text(TASKS)
        (tmp_path / "export.ndjson").write_text(TASKS.replace('"id":', '"id":2'))
        (tmp_path / "more.ndjson").write_text(TASKS.replace('"id":', '"id":1'))
        reader.follow(Block("given", 1, "console", BEFORE))
        for block in blocks_of(PAGE):
            if block.run:
                reader.follow(block)


def test_pods_of_the_kubernetes_job_send_one_load_together(server, tmp_path, monkeypatch):
    text = (ROOT / "deploy" / "kubernetes" / "workers.yaml").read_text()
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    shell, script = container["command"], container["args"][0]
    for mounted in ("/export", "/reports", "/etc/bulksubmit"):
        assert mounted in [mount["mountPath"] for mount in container["volumeMounts"]]
        script = script.replace(f"{mounted}/", f"{tmp_path}/")
    script = script.replace("sleep 5", "sleep 0.2")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "bulksubmit"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m engine "$@"\n')
    program.chmod(0o755)
    (tmp_path / "tasks.ndjson").write_text(TASKS)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LOAD": "images-1",
        "BULKSUBMIT_LEDGER": server.url("postgres", server.make_database()),
        "PGPASSWORD": server.passwords["postgres"],
        "SAMA_ACCESS_KEY": PASSWORD,
    }
    with ExitStack() as stack:
        reader = Reader(tmp_path, monkeypatch.setenv, None, stack)
        journal = tmp_path / "journal.ndjson"
        reader._serve("http://127.0.0.1:8800", ["sandbox", "--delay", "0", "--journal", str(journal)])
        (tmp_path / "load.toml").write_text(CONFIG.format(reader.sama()))

        def pod(index):
            return subprocess.Popen(
                [*shell, script],
                cwd=tmp_path,
                env=environment | {"JOB_COMPLETION_INDEX": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )

        for indexes in ((1, 0), (0,)):  # the first one once more, as if it had been lost at the very end
            pods = [pod(index) for index in indexes]
            said = [each.communicate(timeout=120)[0].decode() for each in pods]
            assert [each.returncode for each in pods] == [0] * len(pods), said
    assert count_markers(journal) == dict.fromkeys(range(5000), 1)
