"""A made-up Sama task, for a bench without files; `bench.loads` asks for it. The same draws make the same task."""

from __future__ import annotations

import random

from engine.model.record import Row


def sample(draw: random.Random, name: str) -> Row:
    """Return a task of some 570 bytes: a link, a note and the boxes on an image."""
    inputs: Row = {
        "id": name,
        "image": f"https://images.example.com/{draw.getrandbits(64):016x}/frame.jpg",
        "note": 'beside the "stop" sign, {occluded} ' + "x" * draw.randrange(160, 220),
        "boxes": [
            {"label": draw.choice(["car", "person", "{sign}"]), "box": [draw.randrange(1000, 4000) for _ in range(4)]}
            for _ in range(5)
        ],
    }
    return {"data": inputs}
