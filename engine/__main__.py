"""The process: its arguments in, its exit code out."""

from __future__ import annotations

import sys

from engine import __version__


def main() -> None:
    """Be the command `bulksubmit`."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:  # scripts ask this often; a parser of options need not be loaded for it
        sys.stdout.write(f"bulksubmit {__version__}\n")
        return
    from engine.cli.entry import call  # noqa: PLC0415 - see above

    sys.exit(call(arguments))


if __name__ == "__main__":
    main()
