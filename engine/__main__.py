"""The process: its arguments in, its exit code out; and what holds for it from its first moment to its last."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from engine import __version__


def main() -> None:
    """Be the command `bulksubmit`."""
    # Before anything loads aiohttp: its import makes contexts of TLS that would write their keys there. A path that
    # cannot be written would end us, and a pipe that nobody reads would hold us.
    os.environ.pop("SSLKEYLOGFILE", None)
    _open_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us wants it ignored
        signal.signal(signal.SIGINT, _leave)
    arguments = sys.argv[1:]
    if arguments == ["--version"]:  # scripts ask this often; a parser of options need not be loaded for it
        _say_version()
        return
    if arguments[:2] == ["completion", "--jobs"]:  # a person waits behind the Tab key
        from engine.cli.completion import answer  # noqa: PLC0415 - see above

        answer(arguments[2:])
        _close_output()
        return
    gc.disable()  # nothing that is imported is garbage; whoever begins to work enables it
    _forbid_core_dumps()
    from engine.cli.app import call  # noqa: PLC0415 - see above

    code = call(arguments)
    _close_output()
    gc.freeze()  # or the interpreter, on its way out, would look for garbage among all that was imported: 50 ms
    sys.exit(code)


def _say_version() -> None:
    with suppress(OSError):
        sys.stdout.write(f"bulksubmit {__version__}\n")
    _close_output()


def _open_streams() -> None:
    """Have descriptors 0 to 2 open, or a ledger would become one of them, and whoever prints would write into it."""
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # becomes the lowest descriptor that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115 - for good


def _leave(number: int, _frame: FrameType | None) -> None:
    """End at once: while modules are loaded, nothing has begun. `cli.signals` has its own way while there is work."""
    os._exit(128 + number)


def _forbid_core_dumps() -> None:
    """Keep the memory of a process that crashes, with the secrets in it, off the disk."""
    import resource  # noqa: PLC0415 - not for --version

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _close_output() -> None:
    """Write the last of standard output; Python would end with a traceback if whoever read it is gone."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
