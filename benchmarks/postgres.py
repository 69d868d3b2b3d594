"""A PostgreSQL for benchmarks: a cluster of its own on a disk, as durable as it comes, and the CPU that it takes.

Debian's package `postgresql` brings the programs; `make test-system` installs it. Root runs it as the user `postgres`,
for PostgreSQL refuses to be run by root. It ends with the block that started it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.harness import NotMeasured
from benchmarks.launcher import below

USER = "postgres"
START_SECONDS = 30.0
ON_DISK = "/var/tmp"  # noqa: S108 - outlives a restart, so it is no memory; and any user may pass through it
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Database:
    """A server that runs."""

    port: int
    password: str
    process: int

    @property
    def environment(self) -> dict[str, str]:
        """What proves who one is."""
        return {"PGPASSWORD": self.password}

    def cpu_seconds(self) -> float:
        """Return the CPU that all of the server's processes took so far, those that have ended included."""
        return sum(_cpu_seconds(process) for process in [self.process, *below(self.process)])

    @contextmanager
    def database(self) -> Iterator[str]:
        """Have an empty database until the block ends; yield its URL."""
        name = f"bench_{secrets.token_hex(4)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, sql: str, database: str = USER) -> Sequence[tuple[object, ...]]:
        """Run a statement as superuser; return its rows."""
        where = f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(where, password=self.password, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []


def _cpu_seconds(process: int) -> float:
    """Return the CPU of a process and of its children that have ended; 0 if it has ended itself."""
    try:
        said = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return sum(map(int, said.rpartition(")")[2].split()[11:15])) / _TICKS


@contextmanager
def postgres() -> Iterator[Database]:
    """Run a server on a free port of the loopback until the block ends.

    Raises:
        NotMeasured: it is not installed or does not start.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise NotMeasured("postgresql is missing")
    with tempfile.TemporaryDirectory(dir=ON_DISK, prefix="bulksubmit-bench-") as folder:
        password, place = secrets.token_hex(), Path(folder)
        (place / "password").write_text(password)
        if os.geteuid() == 0:
            shutil.chown(place, USER, USER)
            shutil.chown(place / "password", USER, USER)
        how = ["--auth=scram-sha-256", f"--pwfile={place / 'password'}", "--encoding=UTF8", "--locale=C.UTF-8"]
        made: list[str | Path] = [found[-1], "-D", place / "data", "-U", USER, *how]
        subprocess.run(_as_user(made), cwd="/", check=True, capture_output=True)
        port = _free_port()
        options = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories="]
        command: list[str | Path] = [found[-1].with_name("postgres"), "-D", place / "data"]
        command += [f"--{option}" for option in options]
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(_as_user(command), cwd="/", stdout=log, stderr=log)
        database = Database(port, password, process.pid)
        try:
            _until_it_answers(database, process, place / "log")
            yield database
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(START_SECONDS)
            process.kill()


def _as_user(command: Sequence[str | Path]) -> list[str]:
    """Return a command that who runs the server runs; it ends when this process does."""
    user = [f"--reuid={USER}", f"--regid={USER}", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", "--pdeathsig", "KILL", *user, *map(str, command)]


def _until_it_answers(database: Database, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with suppress(psycopg.OperationalError):
            database.execute("SELECT 1")
            return
        time.sleep(0.05)
    raise NotMeasured(f"PostgreSQL did not start: {log.read_text(errors='replace')[-300:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
