"""A PostgreSQL server for tests: a cluster of its own in a temporary folder, on a port of loopback.

Debian's package `postgresql` brings the programs; `make test-system` installs it. No cluster of the machine is touched.
Root runs it as the user `postgres`, since PostgreSQL refuses to be run by root; anybody else as themselves. It is a
child of this process, while `pg_ctl` would leave it behind: it ends with the `with` that started it, by its own pid,
and with this process, whatever ends that.

Everybody proves who they are by a password (scram-sha-256), the superuser of the tests included.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.sql import SQL, Composable, Identifier
from psycopg.sql import Literal as Quoted
from torture.hostile.authority import Authority

from .servers import lasting_port

SUPERUSER = "postgres"
SYSTEM_USER = "postgres"
"""Of the machine, for whom root runs the server."""
_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.02
_STANDBY = "standby"
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_STARTER = ThreadPoolExecutor(1)
"""Starts the processes: they die with the thread that started them, and a thread of a test may end early."""


def _programs() -> Path:
    """Return the folder of the newest installed PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = found[-1] if found else shutil.which("initdb")
    assert initdb, "PostgreSQL is missing: make test-system installs it"
    return Path(initdb).parent


def _until(happened: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < until, f"waited in vain: {what}"
        time.sleep(_POLL_SECONDS)


def _started(command: list[str], **options: Any) -> subprocess.Popen:
    """Start a process in a folder that every user can be in."""
    return _STARTER.submit(subprocess.Popen, command, cwd="/", stdin=subprocess.DEVNULL, **options).result()


@dataclass
class PostgresServer:
    """A server that runs; `folder` belongs to who runs it, `passwords` are those of its users."""

    folder: Path
    options: dict[str, str]
    """Parameters that it is started with."""
    port: int = field(default_factory=lasting_port)
    passwords: dict[str, str] = field(default_factory=lambda: {SUPERUSER: secrets.token_hex()})
    _process: subprocess.Popen | None = None
    _disk: subprocess.Popen | None = None
    """Holds the mount namespace with the small disk."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server, and return when it takes connections."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "hba_file": str(self.folder / "pg_hba.conf"),
            **self.options,
        }
        command = self.command("postgres", "-D", self.data, *(f"--{name}={value}" for name, value in options.items()))
        with (self.folder / "log").open("ab") as log:
            self._process = _started(command, stdout=log, stderr=log)
        _until(self._takes_connections, "it takes connections")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server: `fast` ends the sessions first; `immediate` just ends, and the next start recovers."""
        if self._process.poll() is None:
            self._process.send_signal(_SIGNALS[mode])
        self._process.wait(_PATIENCE_SECONDS)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self.stop(mode)
        self.start()

    def url(self, user: str, database: str, *, port: int | None = None) -> str:
        """Return an address without password; by another port if there is a proxy."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def connect(
        self, user: str = SUPERUSER, database: str = "postgres", *, port: int | None = None, **options: Any
    ) -> psycopg.Connection:
        return psycopg.connect(self.url(user, database, port=port), password=self.passwords[user], **options)

    def query(self, sql: str | Composable, database: str = "postgres") -> list[tuple]:
        """Run a statement as superuser, also where the server is read-only; return its rows."""
        writes = "-c default_transaction_read_only=off"
        with self.connect(database=database, autocommit=True, options=writes) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def make_user(self, name: str) -> None:
        """Make a user that may connect, and nothing else; the password is in `passwords`."""
        self.passwords[name] = secrets.token_hex()
        made = SQL("CREATE USER {} PASSWORD {}").format(Identifier(name), Quoted(self.passwords[name]))
        self.query(made)

    def make_database(self, owner: str = SUPERUSER, template: str = "template1") -> str:
        """Make a fresh database, a copy of the template; return its name."""
        name = f"tests_{secrets.token_hex(4)}"
        made = SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
        self.query(made.format(Identifier(name), Identifier(owner), Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.query(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def set(self, parameter: str, value: str | None) -> None:
        """Change a parameter for everybody; None is what it was at first.

        Connections from now on have it. Sessions that are there take it before their next statement; what needs a start
        takes it at the next one.
        """
        change = "ALTER SYSTEM RESET {}" if value is None else "ALTER SYSTEM SET {} = {}"
        self.query(SQL(change).format(Identifier(parameter), Quoted(value)))
        self._reload()

    def require_tls(self) -> Path:
        """Refuse connections in the clear from now on; return the certificate of the authority that clients trust."""
        tls = self.folder / "tls"
        tls.mkdir()
        authority = Authority(tls)
        authority.found()
        authority.server("server", "DNS:localhost,IP:127.0.0.1")
        for name in ("server.pem", "server.key"):
            _give(tls / name)
        self.query(SQL("ALTER SYSTEM SET ssl_cert_file = {}").format(Quoted(str(tls / "server.pem"))))
        self.query(SQL("ALTER SYSTEM SET ssl_key_file = {}").format(Quoted(str(tls / "server.key"))))
        self.query("ALTER SYSTEM SET ssl = on")
        self._write_rules("hostssl")
        self._reload()
        return authority.certificate

    def promote(self) -> None:
        """Make a primary of this standby; return when it takes writes."""
        assert self.query("SELECT pg_promote(true, 60)") == [(True,)]

    def fill_disk(self) -> None:
        """Leave no byte on the small disk. What is written into pages and WAL that are there already still succeeds."""
        filler = bytes(65_536)
        with self._filler.open("ab", buffering=0) as file:
            try:
                while file.write(filler):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - it is what ends the loop

    def free_disk(self) -> None:
        self._filler.unlink()

    @property
    def data(self) -> Path:
        """The cluster, as the server sees it."""
        return self.folder / "data"

    @property
    def _filler(self) -> Path:
        return Path(f"/proc/{self._disk.pid}/root{self.folder}/data/filler")

    def mount_disk(self, megabytes: int) -> None:
        """Put the cluster on a disk of this size, in a mount namespace of the server's own: it is gone with that."""
        self.data.mkdir()
        user = pwd.getpwnam(SYSTEM_USER)
        options = f"size={megabytes}m,mode=700,uid={user.pw_uid},gid={user.pw_gid}"
        mounted = f"mount -t tmpfs -o {options} tmpfs {self.data} && echo mounted && exec sleep infinity"
        command = [*_DIES_WITH_US, "unshare", "--mount", "sh", "-c", mounted]
        self._disk = _started(command, stdout=subprocess.PIPE, text=True)
        assert self._disk.stdout.readline() == "mounted\n", "mount failed: may this user mount?"

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return a command that runs one of PostgreSQL's programs as who runs the server, where the cluster is seen."""
        sees_disk = ["nsenter", f"--mount=/proc/{self._disk.pid}/ns/mnt"] if self._disk else []
        user = [f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--init-groups"] if os.geteuid() == 0 else []
        return [*sees_disk, *_DIES_WITH_US, *user, str(_programs() / program), *map(str, arguments)]

    def run(self, program: str, *arguments: str | Path, **environment: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        command = self.command(program, *arguments)
        done = subprocess.run(
            command,
            env=os.environ | environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """End what was started; what it wrote is left to whoever made the folder."""
        if self._process:
            self.stop("immediate")
        if self._disk:
            self._disk.kill()
            self._disk.communicate()

    def _write_rules(self, connection: Literal["host", "hostssl"] = "host") -> None:
        by_password = "all 127.0.0.1/32 scram-sha-256\n"
        rules = self.folder / "pg_hba.conf"
        rules.write_text(f"{connection} all {by_password}{connection} replication {by_password}")
        _give(rules)

    def _takes_connections(self) -> bool:
        assert self._process.poll() is None, f"it did not start:\n{self.log[-2000:]}"
        with contextlib.suppress(psycopg.OperationalError):
            return bool(self.query("SELECT 1"))
        return False

    def _reload(self) -> None:
        (before,) = self.query("SELECT pg_conf_load_time()")
        self.query("SELECT pg_reload_conf()")
        _until(lambda: self.query("SELECT pg_conf_load_time()") != [before], "it reads its configuration again")


def _give(path: Path) -> None:
    """Let a file or folder belong to who runs the server, and nobody else see into it."""
    path.chmod(0o700 if path.is_dir() else 0o600)
    if os.geteuid() == 0:
        shutil.chown(path, SYSTEM_USER, SYSTEM_USER)


@contextmanager
def _server(options: dict[str, str]) -> Iterator[PostgresServer]:
    """Give a server its folder and its rules; when the `with` ends, it is stopped and everything removed."""
    with tempfile.TemporaryDirectory(prefix="bulksubmit-postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), options)
        _give(server.folder)
        server._write_rules()
        try:
            yield server
        finally:
            server.close()


@contextmanager
def postgres(*, durable: bool = True, disk_megabytes: int | None = None) -> Iterator[PostgresServer]:
    """Run a server with an empty cluster.

    `durable=False` writes without fsync, which is faster: not for tests of what outlives a kill. `disk_megabytes` puts
    the cluster on a disk of that size, in memory, for `fill_disk`; who may not mount (`may_mount`) cannot have it.
    """
    with _server({"shared_buffers": "32MB", "fsync": "on" if durable else "off"}) as server:
        if disk_megabytes:
            server.mount_disk(disk_megabytes)
        password = server.folder / "password"
        password.write_text(server.passwords[SUPERUSER])
        _give(password)
        how = ["--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", "--no-sync"]
        server.run("initdb", "-D", server.data, "-U", SUPERUSER, f"--pwfile={password}", *how)
        server.start()
        yield server


@contextmanager
def synchronous_standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """Run a second server, without which the primary commits nothing: what was committed there is on both."""
    with _server(primary.options) as standby:
        standby.passwords = primary.passwords
        source = f"host=127.0.0.1 port={primary.port} user={SUPERUSER} application_name={_STANDBY}"
        how = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        password = primary.passwords[SUPERUSER]
        standby.run("pg_basebackup", "-D", standby.data, "-d", source, *how, PGPASSWORD=password)
        standby.start()
        primary.set("synchronous_standby_names", _STANDBY)
        state = "SELECT sync_state FROM pg_stat_replication"
        _until(lambda: primary.query(state) == [("sync",)], "the standby follows")
        try:
            yield standby
        finally:
            if primary._process.poll() is None:  # else it would wait for one that is gone
                primary.set("synchronous_standby_names", None)


def may_mount() -> bool:
    """Return whether this process may mount a disk."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
