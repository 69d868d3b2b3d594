import subprocess
import sys

SAID = """
import ssl
from engine.http.certificates import load_aiohttp

load_aiohttp()
from aiohttp import connector

{then}
context = connector._SSL_CONTEXT_VERIFIED
print(type(context).__name__, bool(context.get_ca_certs()), context.verify_mode.name, context.check_hostname)
context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a.example")
print(type(context).__name__, len(context.get_ca_certs()) == len(ssl.create_default_context().get_ca_certs()))
"""


def what_is_said(then=""):
    command = [sys.executable, "-c", SAID.format(then=then)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()


def test_the_certificates_are_read_when_a_connection_needs_them():
    assert what_is_said() == ["_Unread False CERT_REQUIRED True", "SSLContext True"]


def test_contexts_that_are_made_later_have_theirs_at_once():
    assert what_is_said("assert type(ssl.create_default_context()) is ssl.SSLContext")
