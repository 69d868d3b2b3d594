"""The screen of `examples`, where none is named."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import to_builtins

from engine.cli.output.screen import Screen, Table
from engine.commands.examples import Example
from engine.commands.paths import program
from engine.progress.text import count


def examples_screen(examples: Sequence[Example]) -> Screen:
    """Return the names of the configurations, and what each is for."""
    call = f"{program()} examples"
    return Screen(
        f"{count(len(examples), 'configuration')} to begin with.",
        {"examples": to_builtins(examples)},
        tables=[
            Table([[one.name, one.about] for one in examples]),
            Table([["show one", f"{call} NAME"], ["keep it", f"{call} NAME > FILE"]]),
        ],
    )
