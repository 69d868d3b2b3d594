"""Task ids enter, the few that may stand twice leave, whatever their number in bounded memory.

An id is kept as a hash of 8 bytes in a temporary file. Each run of hashes is written sorted, so that those of one
bucket lie together; afterwards one bucket after the other is read from all runs. Two ids with one hash are rare (of
10,000,000, once in 370,000 audits) and no harm: who asks compares the ids themselves.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from tempfile import TemporaryFile

RUN_IDS = 1 << 18
"""Sorting takes some 10 MiB."""
BUCKETS = 256
"""10,000,000 ids make 40,000 a bucket."""
_EDGES = [(bucket << 56) - (1 << 63) for bucket in range(1, BUCKETS)]
_WIDTH = array("q").itemsize


class Repeats(AbstractContextManager["Repeats"]):
    """Collects ids; `found` are the hashes of those that came more than once."""

    def __init__(self, run_ids: int = RUN_IDS) -> None:
        self._run_ids = run_ids
        self._file = TemporaryFile(prefix="bulksubmit-")  # noqa: SIM115 - closed by __exit__
        self._run: list[int] = []
        self._runs: list[Sequence[int]] = []
        """For each run, where in the file each of its buckets begins, and its end."""

    def add(self, ids: Sequence[str]) -> None:
        """Take some ids."""
        self._run += map(hash, ids)
        if len(self._run) >= self._run_ids:
            self._write()

    def _write(self) -> None:
        self._run.sort()
        base = self._file.tell() // _WIDTH
        inner = [base + bisect_left(self._run, edge) for edge in _EDGES]
        self._runs.append(array("q", [base, *inner, base + len(self._run)]))
        array("q", self._run).tofile(self._file)
        self._run = []

    def found(self, most: int) -> frozenset[int]:
        """Return the hashes that came more than once, but no more than `most`."""
        self._write()
        found: list[int] = []
        for bucket in range(BUCKETS):
            hashes = self._bucket(bucket)
            if len(set(hashes)) < len(hashes):
                found += [value for value, count in Counter(hashes).items() if count > 1]
            if len(found) >= most:
                break
        return frozenset(found[:most])

    def _bucket(self, bucket: int) -> Sequence[int]:
        hashes = array("q")
        for edges in self._runs:
            self._file.seek(edges[bucket] * _WIDTH)
            hashes.frombytes(self._file.read((edges[bucket + 1] - edges[bucket]) * _WIDTH))
        return hashes

    def __exit__(self, *_: object) -> None:
        self._file.close()


def repeated(ids: Sequence[str | None], hashes: frozenset[int]) -> Iterator[tuple[int, str]]:
    """Yield position and id of those whose hash is among `hashes`."""
    return ((at, task_id) for at, task_id in enumerate(ids) if task_id and hash(task_id) in hashes)
