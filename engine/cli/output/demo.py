"""What the demo showed in, its screen out: the result of the run, the audit, and the sandbox's own word for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.cli.demo import Demo
from engine.cli.output.result import result_screen
from engine.cli.output.screen import Screen, Table
from engine.model.errors import Exit
from engine.model.job import JobState
from engine.progress.text import count


def demo_screen(shown: Demo, ledger: Path) -> Screen:
    """Return the screen of the run, with the proof from outside the engine below it."""
    screen = result_screen(shown.result, ledger)
    proven = shown.audit.holds and not shown.twice and shown.tasks == shown.result.tally.created
    proof = Table(
        [
            ["tasks that the sandbox created", count(shown.tasks)],
            ["tasks that it created twice", count(shown.twice)],
            ["the audit holds", "yes" if shown.audit.holds else "no"],
        ],
        "Proof, from the sandbox's own journal",
        figures=frozenset({1}),
    )
    data = {
        "proven": proven,
        "sandbox_tasks": shown.tasks,
        "sandbox_twice": shown.twice,
        "audit_holds": shown.audit.holds,
        "journal": str(shown.journal),
    }
    return replace(
        screen,
        tables=[screen.tables[0], proof, *screen.tables[1:]],
        data={**screen.data, **data},
        # Of a demo that was interrupted nothing is proven yet, and nothing is wrong.
        exit_code=screen.exit_code if proven or shown.result.state == JobState.OPEN else Exit.ERROR,
    )
