"""A seed, a kind and a size in, a file of task records out: the same bytes each time.

    small     150 bytes: a link and a few words
    typical   570 bytes: nested boxes, escaped quotes, and braces inside strings, as labelling tasks have
    large     20 KB: a sequence of 50 frames with their boxes

By hand: `python -m benchmarks.workload typical 1000 tasks.ndjson` writes 1,000 MB.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path

import orjson

from engine.source.reader import SEGMENT_BYTES

MEGABYTE = 10**6
BLOCK_RECORDS = 1000
"""Files have a multiple of so many records, so that they end with a full batch of any size below."""


def records(kind: str, seed: int = 1) -> Iterator[bytes]:
    """Yield records without end; their mean size is SIZES[kind].

    They repeat after a batch. So a server that is given no more than a batch's size can show the content of its tasks,
    as a real one does; the engine proves by it which id is whose.
    """
    return cycle(batch_records(kind, seed))


def batch_records(kind: str, seed: int = 1) -> list[bytes]:
    """Return the records of one batch, each with its number in it; no two are alike."""
    draw = random.Random(seed)
    return [
        b'{"data":{"client_batch_id":"record-%09d",%b}' % (number, orjson.dumps(KINDS[kind](draw))[1:])
        for number in range(BATCH_RECORDS[kind])
    ]


def _small(draw: random.Random) -> dict[str, object]:
    image = f"https://images.example.com/{draw.getrandbits(48):012x}.jpg"
    return {"image": image, "note": "n" * draw.randrange(19, 59)}


def _typical(draw: random.Random) -> dict[str, object]:
    note = 'said "stop" }, { at '
    return {
        "image": f"https://images.example.com/{draw.getrandbits(64):016x}/frame.jpg",
        "note": note + "x" * draw.randrange(130, 260),
        "boxes": _boxes(draw, draw.randrange(3, 7)),
        "camera": draw.choice(["front", "Rückfahrkamera", "left"]),
    }


def _large(draw: random.Random) -> dict[str, object]:
    return {
        "sequence": f"https://images.example.com/{draw.getrandbits(64):016x}/",
        "note": 'lane "A" {closed}, ' + "y" * draw.randrange(1800, 2600),
        "frames": [{"time": draw.random(), "boxes": _boxes(draw, 7)} for _ in range(50)],
    }


def _boxes(draw: random.Random, count: int) -> list[dict[str, object]]:
    return [
        {"label": draw.choice(["car", "person", "{sign}"]), "box": [draw.randrange(4000) for _ in range(4)]}
        for _ in range(count)
    ]


KINDS: Mapping[str, Callable[[random.Random], dict[str, object]]] = {
    "small": _small,
    "typical": _typical,
    "large": _large,
}
SIZES: Mapping[str, int] = {"small": 150, "typical": 570, "large": 20_000}
"""Bytes of a record, on average and nearly so."""

BATCH_RECORDS: Mapping[str, int] = {"small": 1000, "typical": 1000, "large": 100}
"""Records of a request: a hundred large ones are 2 MB, a thousand would be 20 MB."""


def count_for(kind: str, size_bytes: int) -> int:
    """Return how many records of a kind make about `size_bytes`: whole batches, one at least."""
    return max(1, round(size_bytes / SIZES[kind] / BLOCK_RECORDS)) * BLOCK_RECORDS


def write_ndjson(path: Path, kind: str, count: int, seed: int = 1) -> int:
    """Write `count` records, one a line; return the bytes.

    The engine ends a batch at each multiple of SEGMENT_BYTES. Blanks bring a full one there: servers whose answers are
    written before know no others.
    """
    stream = islice(records(kind, seed), count)
    with path.open("wb") as file:
        while batch := b"\n".join(islice(stream, BATCH_RECORDS[kind])):
            if file.tell():
                room = -(file.tell() + 1) % SEGMENT_BYTES
                file.write(b" " * (room if room <= len(batch) else 0) + b"\n")
            file.write(batch)
        file.write(b"\n")
        return file.tell()


def write_array(path: Path, kind: str, count: int, seed: int = 1) -> int:
    """Write the same records as one top-level JSON array; return the bytes."""
    return _write(path, islice(records(kind, seed), count), b"[", b",", b"]\n")


def write_bodies(path: Path, kind: str, count: int, seed: int = 1, *, batch_records: int = BLOCK_RECORDS) -> int:
    """Write the same records as ready bodies of an inline POST, one a line; return the bytes."""
    stream = islice(records(kind, seed), count)
    bodies = (
        b'{"tasks":[%b],"tasks_file_name":"bench"}' % b",".join(block)
        for block in iter(lambda: list(islice(stream, batch_records)), [])
    )
    return _write(path, bodies, b"", b"\n", b"\n")


def write_specs(path: Path, count: int, seed: int = 1) -> int:
    """Write task specs of Seven Bridges, one a line, which are their own bodies; return the bytes."""
    draw = random.Random(seed)
    specs = (
        orjson.dumps(
            {
                "name": f"record-{number:09d}",
                "project": "owner/project",
                "app": "owner/project/align",
                "inputs": {"sample": f"{draw.getrandbits(64):016x}", "threads": draw.randrange(1, 17)},
            }
        )
        for number in range(count)
    )
    return _write(path, specs, b"", b"\n", b"\n")


def _write(path: Path, lines: Iterator[bytes], head: bytes, separator: bytes, tail: bytes) -> int:
    first = True
    with path.open("wb") as file:
        file.write(head)
        while block := list(islice(lines, BLOCK_RECORDS)):
            text = separator.join(block)
            file.write(text if first else separator + text)
            first = False
        file.write(tail)
        return file.tell()


def main() -> None:
    """Write a workload by hand."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.workload", description="Write a file of records.")
    options.add_argument("kind", choices=list(KINDS))
    options.add_argument("megabytes", type=int)
    options.add_argument("file", type=Path)
    options.add_argument("--array", action="store_true", help="one JSON array instead of lines")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    write = write_array if given.array else write_ndjson
    count = count_for(given.kind, given.megabytes * MEGABYTE)
    print(f"{count:,} records, {write(given.file, given.kind, count, given.seed):,} bytes in {given.file}")


if __name__ == "__main__":
    main()
