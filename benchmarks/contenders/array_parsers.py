"""Other ways to read one top-level array: the seconds that `ijson` takes, item by item, or `orjson.loads` of it all.

python -m benchmarks.contenders.array_parsers ijson|whole SOURCE
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def whole(source: Path) -> int:
    """Parse the whole file at once."""
    import orjson  # noqa: PLC0415 - each way has the memory of its own imports only

    return len(orjson.loads(source.read_bytes()))


def streamed(source: Path) -> int:
    """Parse one item after the other."""
    import ijson.backends.yajl2_c as ijson  # noqa: PLC0415 - only the contender that uses it has it

    with source.open("rb") as file:
        return sum(1 for _ in ijson.items(file, "item", use_float=True))


def main() -> None:
    """Print the seconds, reading included."""
    read = {"ijson": streamed, "whole": whole}[sys.argv[1]]
    started = time.perf_counter()
    count = read(Path(sys.argv[2]))
    print(json.dumps({"seconds": time.perf_counter() - started, "work": count}))


if __name__ == "__main__":
    main()
