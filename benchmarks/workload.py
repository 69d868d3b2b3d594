"""A seed and a size in, a file of task records out: the same bytes each time.

The typical record has 570 bytes: nested boxes, escaped quotes, and braces inside strings, as labelling tasks have.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import orjson

BLOCK_RECORDS = 1000


def typical_records(seed: int) -> Iterator[bytes]:
    """Yield records without end, each with its number as marker; 570 bytes on average."""
    draw = random.Random(seed)
    tails = [orjson.dumps(_inputs(draw))[1:] + b"}" for _ in range(BLOCK_RECORDS)]
    number = 0
    while True:
        for tail in tails:
            yield b'{"data":{"client_batch_id":"record-%09d",%b' % (number, tail)
            number += 1


def _inputs(draw: random.Random) -> dict[str, object]:
    boxes = [
        {"label": draw.choice(["car", "person", "{sign}"]), "box": [draw.randrange(4000) for _ in range(4)]}
        for _ in range(draw.randrange(3, 7))
    ]
    note = 'said "stop" }, { at '
    return {
        "image": f"https://images.example.com/{draw.getrandbits(64):016x}/frame.jpg",
        "note": note + "x" * draw.randrange(130, 260),
        "boxes": boxes,
        "camera": draw.choice(["front", "Rückfahrkamera", "left"]),
    }


def write_ndjson(path: Path, size_bytes: int, seed: int = 1) -> int:
    """Write records until the file has `size_bytes`; return how many."""
    return _write(path, size_bytes, seed, b"", b"\n", b"\n")


def write_array(path: Path, size_bytes: int, seed: int = 1) -> int:
    """Write the same records as one top-level JSON array; return how many."""
    return _write(path, size_bytes, seed, b"[", b",", b"]\n")


def _write(path: Path, size_bytes: int, seed: int, head: bytes, separator: bytes, tail: bytes) -> int:
    records = typical_records(seed)
    written = count = 0
    with path.open("wb") as file:
        file.write(head)
        while written < size_bytes:
            block = [next(records) for _ in range(BLOCK_RECORDS)]
            text = separator.join(block)
            written += file.write(separator + text if count else text)
            count += len(block)
        file.write(tail)
    return count
