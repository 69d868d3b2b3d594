"""Whom the command `bulksubmit sandbox` lets in, by what the kernel says of its sockets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LISTENS = "0A"
"""TCP_LISTEN of net/tcp_states.h."""


def listening(pid: int) -> set[str]:
    """Return the addresses, as the kernel writes them, on which a process accepts connections."""
    links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    tables = [Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    return {row[1].partition(":")[0] for row in rows if row[3] == LISTENS and row[9] in sockets}


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        ((), {"0100007F"}),
        (("--service", "sevenbridges"), {"0100007F"}),
        (("--host", "0.0.0.0", "--allow-remote"), {"00000000"}),  # noqa: S104 - for the length of this test
    ],
)
def test_a_sandbox_listens_on_loopback_unless_told_otherwise(options, addresses):
    command = [sys.executable, "-m", "engine", "sandbox", "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            json.loads(process.stdout.readline())
            assert listening(process.pid) == addresses
        finally:
            process.terminate()


def test_another_address_alone_is_not_enough():
    command = [sys.executable, "-m", "engine", "sandbox", "--port", "0", "--host", "0.0.0.0"]  # noqa: S104 - refused
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert "--allow-remote" in done.stderr
