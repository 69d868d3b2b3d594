"""Certificates for a sandbox that is served by TLS: a right one, or one that no client may believe.

They are made by the program `openssl`, of an authority that is made with them and forgotten: whoever shall believe a
right one names the authority's certificate in SSL_CERT_FILE.
"""

import ipaddress
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

from engine.sandbox.behaviour import SandboxError, Tls

_NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
_DAYS = 30


class NoOpenSslError(SandboxError):
    """The program openssl, which makes the sandbox's certificates, is not installed: install it, or leave [tls] out."""


def server_context(settings: Tls, host: str) -> ssl.SSLContext:
    """Return what a server at `host` proves itself with, as the settings say; write the authority's certificate.

    Raise SandboxError.
    """
    if shutil.which("openssl") is None:
        raise NoOpenSslError
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="bulksubmit-") as made:
        folder = Path(made)
        _openssl(folder, f"req -x509 {_NEW_KEY} -days {_DAYS} -subj /O=Sandbox -keyout ca.key -out ca.pem")
        names = "DNS:elsewhere.example" if settings.certificate == "other_host" else f"DNS:localhost,{_name(host)}"
        request = f"req -new {_NEW_KEY} -subj /CN=sandbox -addext subjectAltName={names} -keyout own.key"
        if settings.certificate == "self_signed":
            _openssl(folder, f"{request} -x509 -days {_DAYS} -out own.pem")
        else:
            days = -1 if settings.certificate == "expired" else _DAYS
            _openssl(folder, f"{request} -out own.csr")
            signed = "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy"
            _openssl(folder, f"{signed} -days {days} -out own.pem")
        context.load_cert_chain(folder / "own.pem", folder / "own.key")
        if settings.authority is not None:
            settings.authority.write_bytes((folder / "ca.pem").read_bytes())
    return context


def _name(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"


def _openssl(folder: Path, command: str) -> None:
    try:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607 - fixed words
    except subprocess.CalledProcessError as error:
        raise SandboxError(
            f"openssl cannot make a certificate: {error.stderr.decode(errors='replace')[-200:]}"
        ) from error
