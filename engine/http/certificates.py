"""aiohttp, loaded without waiting for the certificates of the system: whoever connects by TLS first reads them.

`commands.wiring` calls it before it opens the way to a service. As it is imported, aiohttp makes two contexts for TLS.
Reading the certificates for them takes 35 ms, a tenth of what a short load costs, also where nothing speaks TLS, and it
cannot be told not to. So contexts that are made meanwhile read theirs when they are first used. Nobody who shares
aiohttp with us finds less in them than before.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any

_reading: Any = ssl.SSLContext.set_default_verify_paths


class _Unread(ssl.SSLContext):
    """A context that becomes an ordinary one, with its certificates, when it is first used for a connection."""

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection."""
        _reading(self)  # first: another thread may use the context from the moment on in which it seems ordinary
        self.__class__ = ssl.SSLContext  # type: ignore[assignment]
        return self.wrap_bio(*arguments, **named)


def load_aiohttp() -> None:
    """Import aiohttp, unless somebody has."""
    if "aiohttp" in sys.modules:
        return

    def later(context: ssl.SSLContext) -> None:
        if type(context) is ssl.SSLContext:
            context.__class__ = _Unread
        else:
            _reading(context)

    ours: Any = ssl.SSLContext
    ours.set_default_verify_paths = later  # before the method of the same name that it inherits
    try:
        import aiohttp  # noqa: F401, PLC0415 - that is what is wanted here
    finally:
        del ours.set_default_verify_paths
