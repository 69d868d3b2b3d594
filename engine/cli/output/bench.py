"""The screen of `bench`: the knee and the best step, a row for each step, and where the rest stands."""

from __future__ import annotations

from engine.bench.page import headline
from engine.bench.results import Bench, document, rows
from engine.cli.output.screen import Mood, Screen, Table
from engine.model.errors import Exit


def bench_screen(bench: Bench) -> Screen:
    """Return what is to be said of a bench."""
    files = {
        "the same with plots": bench.folder / "bench.html",
        "the numbers": bench.folder / "bench.json",
        "every task that was created": bench.outcomes,
        "ledger": bench.ledger,
    }
    header, *body = rows(bench)
    return Screen(
        headline(bench),
        document(bench),
        mood=Mood.GOOD if bench.exit_code == Exit.ALL_CREATED else Mood.MIXED,
        tables=[
            Table(body, "Time to created, in seconds", header, frozenset(range(1, len(header) - 1))),
            Table([[bench.ended], *([hint] for hint in bench.hints)]),
            Table([[what, str(path)] for what, path in files.items()], "Files", whole=frozenset({1})),
        ],
        exit_code=bench.exit_code,
    )
