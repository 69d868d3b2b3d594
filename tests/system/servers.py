"""Real servers for tests: PocketBase, PouchDB's server with CouchDB's API, Datasette, and Kinto.

`make test-system` installs them into `.servers`. Each is started on a free port of loopback, in a temporary folder. It
ends with the `with` that started it, by its own pid; and with this process, whatever ends that.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVERS = Path(os.environ.get("BULKSUBMIT_SERVERS") or Path(__file__).parents[2] / ".servers")
USER, PASSWORD = "root@example.com", "a-password-for-tests"
_START_SECONDS = 60.0
_POLL_SECONDS = 0.05
_LARGEST_BATCH = 1000


@dataclass
class Server:
    """A server that runs; `secrets` are the variables of the environment that its description needs."""

    port: int
    folder: Path
    pid: int
    secrets: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    """What proves who we are, where a test asks the server itself."""

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Make a call of the test's own; return status and parsed body."""
        said = {"Content-Type": "application/json", **(self.headers if headers is None else headers)}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), said)
            answer = connection.getresponse()
            text = answer.read()
        try:
            return answer.status, json.loads(text or b"null")
        except ValueError:
            return answer.status, text.decode(errors="replace")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """Make a call that must succeed; return its parsed body."""
        status, answer = self.ask(method, path, body)
        assert status < 300, (status, answer)
        return answer


@contextmanager
def pocketbase() -> Iterator[Server]:
    """Run PocketBase with a superuser, and with the batch API on."""
    program = _program("python/bin/pocketbase")
    with _folder("pocketbase") as folder:
        data = f"--dir={folder / 'data'}"
        subprocess.run(
            [program, "superuser", "upsert", USER, PASSWORD, data], check=True, capture_output=True, timeout=60
        )
        port = _free_port()
        command = [program, "serve", f"--http=127.0.0.1:{port}", data, "--automigrate=false"]
        with _running(command, folder, port, "/api/health") as server:
            who = {"identity": USER, "password": PASSWORD}
            token = server.done("POST", "/api/collections/_superusers/auth-with-password", who)["token"]
            server.headers["Authorization"] = token
            server.secrets["POCKETBASE_PASSWORD"] = PASSWORD
            batch = {"enabled": True, "maxRequests": _LARGEST_BATCH, "timeout": 30, "maxBodySize": 0}
            server.done("PATCH", "/api/settings", {"batch": batch})
            yield server


@contextmanager
def couchdb() -> Iterator[Server]:
    """Run PouchDB's server, which has CouchDB's API, with its databases in memory and one admin."""
    with _folder("couchdb") as folder:
        port = _free_port()
        config = {"admins": {"root": PASSWORD}, "log": {"file": str(folder / "couch.log"), "level": "error"}}
        (folder / "config.json").write_text(json.dumps(config))
        script = _program("pouchdb/node_modules/pouchdb-server/bin/pouchdb-server")
        places = ["--dir", folder, "--config", folder / "config.json", "--in-memory", "--no-stdout-logs"]
        command = ["node", script, "--host", "127.0.0.1", "--port", str(port), *places]
        with _running(command, folder, port, "/") as server:
            named = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
            server.headers["Authorization"] = f"Basic {named}"
            server.secrets |= {"COUCHDB_USER": "root", "COUCHDB_PASSWORD": PASSWORD}
            yield server


@contextmanager
def datasette(schema: str) -> Iterator[Server]:
    """Run Datasette over `tests.db` with this schema; a token of root may write."""
    program = _program("python/bin/datasette")
    with _folder("datasette") as folder:
        database, secret = folder / "tests.db", os.urandom(16).hex()
        with closing(sqlite3.connect(database)) as made:
            made.execute("PRAGMA journal_mode = WAL")  # the test counts while the server writes
            made.executescript(schema)
        made_token = subprocess.run(
            [program, "create-token", "root", "--secret", secret],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        port = _free_port()
        options = ["-h", "127.0.0.1", "-p", str(port), "--root", "--secret", secret]
        command = [program, database, *options, "--setting", "max_insert_rows", str(_LARGEST_BATCH)]
        with _running(command, folder, port, "/-/versions.json") as server:
            token = made_token.stdout.strip()
            server.headers["Authorization"] = f"Bearer {token}"
            server.secrets["DATASETTE_TOKEN"] = token
            yield server


_KINTO = """
[app:main]
use = egg:kinto
kinto.storage_backend = kinto.core.storage.memory
kinto.permission_backend = kinto.core.permission.memory
kinto.cache_backend = kinto.core.cache.memory
kinto.includes = kinto.plugins.accounts
multiauth.policies = account
multiauth.policy.account.use = kinto.plugins.accounts.authentication.AccountsAuthenticationPolicy
kinto.account_create_principals = system.Everyone
kinto.bucket_create_principals = system.Authenticated
kinto.userid_hmac_secret = {secret}
kinto.experimental_collection_schema_validation = true
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = {port}
"""


@contextmanager
def kinto() -> Iterator[Server]:
    """Run Kinto, with what it has in memory and one account."""
    program = _program("python/bin/kinto")
    with _folder("kinto") as folder:
        port = _free_port()
        (folder / "kinto.ini").write_text(_KINTO.format(secret=os.urandom(16).hex(), port=port))
        with _running([program, "start", "--ini", folder / "kinto.ini"], folder, port, "/v1/__lbheartbeat__") as server:
            server.done("PUT", "/v1/accounts/root", {"data": {"password": PASSWORD}})
            named = base64.b64encode(f"root:{PASSWORD}".encode()).decode()
            server.headers["Authorization"] = f"Basic {named}"
            server.secrets |= {"KINTO_USER": "root", "KINTO_PASSWORD": PASSWORD}
            yield server


def _program(path: str) -> Path:
    found = SERVERS / path
    assert found.exists(), f"{found} is missing: make test-system installs it"
    return found


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"bulksubmit-{name}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def lasting_port() -> int:
    """Return a free port for a server that is stopped and started again.

    It is below those that the kernel gives to clients: nobody gets it in between, and a client that calls it while
    nobody listens cannot be connected to itself.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with closing(socket.socket()) as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


@contextmanager
def _running(command: Sequence[str | Path], folder: Path, port: int, ready: str) -> Iterator[Server]:
    """Run a server until the `with` ends. It does not outlive this process: the kernel sees to that."""
    dies_with_us = ["setpriv", "--pdeathsig", "KILL"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*dies_with_us, *map(str, command)], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    server = Server(port, folder, process.pid)
    try:
        _wait_until_ready(server, process, ready)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(server: Server, process: subprocess.Popen, path: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            if server.ask("GET", path)[0] < 500:
                return
        time.sleep(_POLL_SECONDS)
    raise AssertionError(f"it did not start:\n{(server.folder / 'log').read_text(errors='replace')[-2000:]}")
