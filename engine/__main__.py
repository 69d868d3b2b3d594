"""The process: its arguments in, its exit code out."""

from __future__ import annotations

import gc
import sys

from engine import __version__

YOUNG_OBJECTS = 10_000
"""New objects before the cyclic garbage collector looks for garbage among them; Python's own default is 700.

Nearly all of our garbage is freed by its reference counts. Imports make none, and parsed JSON holds no cycles, but a
page of it is thousands of new objects. Cycles come from exceptions and tasks, a few objects a batch: memory stays flat.
"""


def main() -> None:
    """Be the command `bulksubmit`."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:  # scripts ask this often; a parser of options need not be loaded for it
        sys.stdout.write(f"bulksubmit {__version__}\n")
        return
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
    from engine.cli.entry import call  # noqa: PLC0415 - see above

    sys.exit(call(arguments))


if __name__ == "__main__":
    main()
