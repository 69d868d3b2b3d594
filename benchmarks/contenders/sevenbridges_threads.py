"""The vendor's client for Seven Bridges with 100 threads, one draft for each line of a file.

python -m benchmarks.contenders.sevenbridges_threads URL SOURCE
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import sevenbridges

THREADS = 100


def main() -> None:
    """Create the drafts."""
    url, source = sys.argv[1:]
    # It takes no plain http but in this mode, which changes nothing else.
    api = sevenbridges.Api(url=url, token="x" * 32, debug=True, pool_maxsize=THREADS, max_parallel_requests=THREADS)

    def create(line: bytes) -> None:
        api.tasks.create(**orjson.loads(line))

    with Path(source).open("rb") as file, ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(create, file):
            pass


if __name__ == "__main__":
    main()
