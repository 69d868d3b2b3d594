"""An error of aiohttp -> how the request was lost, in words of ours. Pure; `client` calls it.

No text of aiohttp is passed on: they show URLs with access keys, and what a server sent. Passed on are the system's own
words for an error number, OpenSSL's for a certificate, and the first line of what the parser of HTTP complains about,
which is a fixed sentence of that parser; what it quotes stands on the lines below.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from http import HTTPStatus

import aiohttp
from aiohttp import http_exceptions
from msgspec import Struct

from engine.http.classify import Loss

MAX_FIELD_BYTES = 64 * 1024
"""Of one header field of an answer, and of its first line. Policies and cookies of 11 KB were seen."""

_UNKNOWN_SIGNER = "if you trust who signed it, name the file of that CA's certificate in the variable SSL_CERT_FILE"
_WRONG_HOST = "check how the host is written; else somebody stands in between"
_CERTIFICATE_ADVICE = {
    9: "check this machine's clock",
    10: "the server's owner must renew it, unless this machine's clock is wrong",
    **dict.fromkeys((18, 19, 20, 21), _UNKNOWN_SIGNER),
    **dict.fromkeys((62, 64), _WRONG_HOST),
}
"""OpenSSL's X509_V_ERR_… (x509_vfy.h) → what to do."""

_NO_TLS_THERE = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL"})
"""OpenSSL's reasons for a server that does not speak TLS at all: no use in trying again."""

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
"""Of the system's reasons why a name has no address, those that more attempts will hardly change."""
_RESETS = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


class Lost(Struct, frozen=True):
    """A request without an answer."""

    loss: Loss
    detail: str = ""

    @property
    def words(self) -> str:
        """What to say of it."""
        return f"{self.loss.words}: {self.detail}" if self.detail else self.loss.words


class AnswerLost(aiohttp.ClientError):
    """A connection broke under a request; says how."""


class ForbiddenAddress(OSError):
    """A host name resolved to an address that nothing may be sent to."""


def loss_of(error: Exception, to: str) -> Lost:  # noqa: PLR0911 -- a table, in the order in which classes derive
    """Say how a request was lost; `to` is the host and port that it was meant for, or those of the proxy before it."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return Lost(Loss.UNTRUSTED, f"{to}: {_distrust(error.certificate_error)}")
        case aiohttp.ClientConnectorError():
            return unreachable(error.os_error, to)
        case aiohttp.ClientHttpProxyError():
            return turned_away(error.status, to)
        case aiohttp.ConnectionTimeoutError():
            return Lost(Loss.CONNECT_TIMEOUT, to)
        case TimeoutError():
            return Lost(Loss.ANSWER_TIMEOUT)
        case aiohttp.InvalidURL():
            return Lost(Loss.FORBIDDEN, "the host is not written in its usual form")
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return _unreadable(error)
        case _:
            return Lost(Loss.CUT, how_it_broke(error))


def how_it_broke(error: Exception) -> str:
    """Say how a connection ended under a request."""
    match error:
        case AnswerLost():
            return str(error)
        case aiohttp.ServerDisconnectedError():
            return "the server closed it"
        case ConnectionResetError():
            return "it was reset"
        case OSError(errno=number) if number in _RESETS:
            return "it was reset"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case _:
            return ""


def unreachable(error: OSError, to: str) -> Lost:  # noqa: PLR0911 -- a table
    """Say why there is no connection: each of these is certain not to have sent anything."""
    match error:
        case ssl.SSLCertVerificationError():
            return Lost(Loss.UNTRUSTED, f"{to}: {_distrust(error)}")
        case ForbiddenAddress():
            return Lost(Loss.FORBIDDEN, f"{error.strerror}. If that is meant, name the host itself in upload_hosts")
        case ssl.SSLError(reason=str(reason)) if reason in _NO_TLS_THERE:
            return Lost(Loss.UNTRUSTED, f"{to}: the server does not speak TLS at this port; check https and the port")
        case ssl.SSLError():
            return Lost(Loss.UNREACHABLE, f"{to}: TLS failed ({getattr(error, 'reason', '') or type(error).__name__})")
        case socket.gaierror(errno=number) if number in _NO_SUCH_NAME:
            return Lost(Loss.UNKNOWN_HOST, f"{to}: DNS knows no address of it; check how it is written")
        case socket.gaierror(strerror=str(words)):
            return Lost(Loss.UNREACHABLE, f"{to}: DNS does not answer ({words})")
        case OSError(errno=int(number)) if number > 0:
            return Lost(Loss.UNREACHABLE, f"{to}: {os.strerror(number)}")
        case _:
            return Lost(Loss.UNREACHABLE, f"{to}: {type(error).__name__}")


def turned_away(status: int, to: str) -> Lost:
    """Say what a proxy answers that does not connect."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        # Not as a URL with both in it: that looks like a secret and would be shown without them.
        return Lost(Loss.TURNED_AWAY, f"{to}: write user name and password into HTTPS_PROXY, before the host")
    return Lost(Loss.UNREACHABLE, f"{to}: the proxy does not connect (status {status})")


def _unreadable(error: aiohttp.ClientPayloadError | aiohttp.ClientResponseError) -> Lost:  # noqa: PLR0911 -- a table
    """Say why an answer that came cannot be read."""
    cause: BaseException | None = error
    while cause is not None and type(cause) in {aiohttp.ClientPayloadError, aiohttp.ClientResponseError, _WRAPPER}:
        cause = cause.__cause__ or cause.__context__
    match cause:
        case http_exceptions.ContentEncodingError():
            return Lost(Loss.GARBLED, _encoding(cause.message))
        case http_exceptions.ContentLengthError():
            return Lost(Loss.CUT, "it ended early")
        case http_exceptions.TransferEncodingError() if cause.message.startswith("Not enough data"):
            return Lost(Loss.CUT, "it ended early")
        case http_exceptions.LineTooLong():
            return Lost(Loss.GARBLED, f"a header field is longer than {MAX_FIELD_BYTES // 1024} KB")
        case http_exceptions.BadStatusLine():
            return Lost(Loss.GARBLED, "it is not HTTP")
        case http_exceptions.InvalidHeader():
            return Lost(Loss.GARBLED, "a header field holds what none may")
        case http_exceptions.HttpProcessingError():
            return Lost(Loss.GARBLED, cause.message.partition("\n")[0].rstrip(":. ")[:80])
        case OSError() | aiohttp.ClientError():
            return Lost(Loss.CUT, how_it_broke(cause))
        case _:
            return Lost(Loss.CUT if isinstance(error, aiohttp.ClientPayloadError) else Loss.GARBLED)


_WRAPPER = http_exceptions.HttpProcessingError
"""What aiohttp puts around the parser's own error, of which it is the base class."""


def _encoding(words: str) -> str:
    """Say what is wrong with a Content-Encoding, of which the parser's words name the kind."""
    name = next((name for name in ("gzip", "deflate", "brotli", "zstandard") if name in words), "to be compressed")
    return f"it says {name}, which was not asked for" if "install" in words else f"it says {name} and is not"


def _distrust(error: Exception) -> str:
    """Say what is wrong with a certificate, and what to do."""
    words, advice = getattr(error, "verify_message", ""), _CERTIFICATE_ADVICE.get(getattr(error, "verify_code", 0))
    return f"{words}; {advice}" if advice else words
