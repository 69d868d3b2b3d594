"""Two processes with one ledger in PostgreSQL, which do not send one job: the service sees one client all the same."""

import asyncio
import os
import sys

import pytest

from engine.sandbox.behaviour import Behaviour, JournalSettings, RateLimit
from engine.sandbox.journal import count_markers
from engine.sandbox.server import running_sandbox
from engine.sandbox.settings import Rate, SandboxPlatform

from .postgres import SUPERUSER, postgres

pytestmark = pytest.mark.slow

ENGINE = (sys.executable, "-m", "engine")
PER_SECOND, LIMIT = 40, 66
"""Requests that the configuration allows, and the service: two that do not know of each other make 80."""
CONFIG = """
[service]
kind = "sevenbridges"
base_url = "{url}"
auth_token = "${{env:SB_AUTH_TOKEN}}"
project = "owner/project"
app = "owner/project/align"

[send]
max_in_flight = 20
requests_per_second = {per_second}
settle_seconds = 1
"""


async def test_a_submit_in_one_process_and_an_undo_in_another_keep_the_limit_together(tmp_path):
    behaviour = Behaviour(
        service="sevenbridges",
        journal=JournalSettings(tmp_path / "journal.ndjson"),
        sevenbridges=SandboxPlatform(rate=Rate(0)),
        rate_limits=(RateLimit(LIMIT, 1.0),),
    )
    for name, count in (("wrong", 100), ("right", 160)):
        lines = [f'{{"name": "{name}-{number}", "inputs": {{"n": {number}}}}}\n' for number in range(count)]
        (tmp_path / f"{name}.ndjson").write_text("".join(lines))
    with postgres(durable=False) as server:
        environment = os.environ | {
            "SB_AUTH_TOKEN": "sandbox-key",
            "BULKSUBMIT_LEDGER": server.url(SUPERUSER, server.make_database()),
            "PGPASSWORD": server.passwords[SUPERUSER],
            "XDG_DATA_HOME": str(tmp_path),
        }

        async def run(*arguments):
            process = await asyncio.create_subprocess_exec(
                *ENGINE, *arguments, cwd=tmp_path, env=environment, stderr=asyncio.subprocess.PIPE
            )
            _, said = await process.communicate()
            assert process.returncode == 0, said.decode()

        async with running_sandbox(behaviour) as sandbox:
            (tmp_path / "load.toml").write_text(CONFIG.format(url=sandbox.url, per_second=PER_SECOND))
            await run("submit", "wrong.ndjson", "--config", "load.toml", "--job", "wrong")
            async with asyncio.timeout(60):
                await asyncio.gather(
                    run("undo", "wrong", "--yes"),
                    run("submit", "right.ndjson", "--config", "load.toml", "--job", "right"),
                )
            assert sandbox.stats.requests["delete"] == 100
            assert sandbox.stats.rate_limited == 0
    created = count_markers(tmp_path / "journal.ndjson")
    assert (len(created), set(created.values())) == (260, {1})
