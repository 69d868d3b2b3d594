"""The process: its arguments in, its exit code out."""

from __future__ import annotations

import gc
import sys

from engine import __version__


def main() -> None:
    """Be the command `bulksubmit`."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:  # scripts ask this often; a parser of options need not be loaded for it
        sys.stdout.write(f"bulksubmit {__version__}\n")
        return
    gc.disable()  # nothing that is imported is garbage; whoever begins to work enables it
    from engine.cli.app import call  # noqa: PLC0415 - see above

    code = call(arguments)
    gc.freeze()  # or the interpreter, on its way out, would look for garbage among all that was imported: 50 ms
    sys.exit(code)


if __name__ == "__main__":
    main()
