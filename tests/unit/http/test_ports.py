import errno
import os
import socket

import pytest

from engine.http.ports import no_port


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def cure(port):
    return f"--port {port}"


def test_a_port_in_use_is_told_with_its_process_and_a_port_that_is_free(taken):
    said = no_port(OSError(errno.EADDRINUSE, ""), "127.0.0.1", taken, cure)
    start, _, free = said.rpartition(" ")
    assert start.startswith(f"cannot listen on 127.0.0.1:{taken}: process {os.getpid()} (")
    with socket.create_server(("127.0.0.1", int(free))):
        assert int(free) > taken


@pytest.mark.parametrize(
    ("error", "host", "port", "said"),
    [
        (OSError(errno.EACCES, ""), "127.0.0.1", 80, "127.0.0.1:80: ports below 1024 are for root. Take a free one"),
        (OSError(errno.EADDRNOTAVAIL, ""), "192.0.2.1", 80, "192.0.2.1:80: 192.0.2.1 is no address of this machine"),
        (OSError(errno.EADDRNOTAVAIL, ""), "fd00::1", 80, "[fd00::1]:80: fd00::1 is no address of this machine"),
        (socket.gaierror(-2, ""), "nowhere", 80, "nowhere:80: nowhere is no address of this machine"),
        (OSError(errno.EMFILE, ""), "127.0.0.1", 80, "127.0.0.1:80: Too many open files"),
    ],
)
def test_why_an_address_cannot_be_had_is_said_with_what_helps(error, host, port, said):
    assert no_port(error, host, port, cure).startswith(f"cannot listen on {said}")
