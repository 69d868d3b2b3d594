"""NDJSON in, the seconds of `orjson.loads` alone out: blocks of records are cut before its time is taken.

    python -m benchmarks.contenders.blocks SOURCE RECORDS [no-gc]

The ceiling of every reader in one thread: it finds no record's boundary, checks none and keeps none. With
`no-gc` Python's cyclic collector rests meanwhile, which parsing gains much by: all it makes are containers.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from itertools import islice
from pathlib import Path

import orjson


def main() -> None:
    """Print the seconds that parsing took."""
    source, records, *collector = sys.argv[1:]
    if collector == ["no-gc"]:
        gc.disable()
    seconds = 0.0
    with Path(source).open("rb") as file:
        while lines := list(islice(file, int(records))):
            block = b"[%b]" % b",".join(lines)
            started = time.perf_counter()
            orjson.loads(block)
            seconds += time.perf_counter() - started
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
