"""A folder enters, certificates leave: of an authority that is nobody's, for servers on this machine; by `openssl`."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


def _openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates for names on this machine; `certificate` is what its friends trust."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "authority.pem"

    def found(self) -> None:
        _openssl(self.folder, f"req -x509 {_NEW_KEY} -days 2 -subj /CN=nobody -keyout authority.key -out authority.pem")

    def server(self, name: str, host: str, *, days: int = 1, signed: bool = True) -> ssl.SSLContext:
        """Return what a server needs to prove that it is `host`; signed by itself if not by the authority."""
        request = f"req -new {_NEW_KEY} -subj /CN=server -addext subjectAltName={host} -keyout {name}.key"
        if signed:
            _openssl(self.folder, f"{request} -out {name}.csr")
            sign = "-CA authority.pem -CAkey authority.key -copy_extensions copy"
            _openssl(self.folder, f"x509 -req -in {name}.csr {sign} -days {days} -out {name}.pem")
        else:
            _openssl(self.folder, f"{request} -x509 -days {days} -out {name}.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context
