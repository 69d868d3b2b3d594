"""Arguments in, exit code out: every error ends as one message, and with `--json` as one JSON object too."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from engine.cli.app import CONTEXT, app

if TYPE_CHECKING:
    from engine.cli.doors import Operations

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer's own name for it moved between its versions, from click to itself; this way to it is public in all."""
USAGE = 2
PROGRAM = "bulksubmit"


def call(arguments: Sequence[str], engine: Operations | None = None) -> int:
    """Perform the command that the arguments name; `engine` stands in for the real one."""
    as_json = "--json" in arguments
    try:
        command, name, rest = _command(list(arguments))
        code = command.main(rest, prog_name=name, standalone_mode=False, obj=engine, **CONTEXT)
    except UsageError as error:
        return _tell_usage(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last one who can say it in words
        from engine.cli.output.streams import tell_error  # noqa: PLC0415 - not needed for --help

        return tell_error(error, as_json=as_json)
    return int(code or 0)


def _command(arguments: list[str]) -> tuple[Any, str, list[str]]:
    """Return the command that is named first, with its full name and arguments; the overview if none is.

    Typer would find it too, but on its way judges the overview's options with pydantic: 0.15 s of CPU.
    """
    overview: Any = typer.main.get_command(app)
    if arguments and (command := overview.commands.get(arguments[0])) is not None:
        return command, f"{PROGRAM} {arguments[0]}", arguments[1:]
    return overview, PROGRAM, arguments


def _tell_usage(error: Any, *, as_json: bool) -> int:
    """Let typer say what was wrong, where the usage stands and how to get help."""
    error.message = error.message.replace("Value error, ", "")  # how pydantic begins, which typer asks about choices
    error.show()
    if as_json:
        sys.stdout.write(json.dumps({"error": error.format_message(), "exit_code": USAGE}) + "\n")
    return USAGE
