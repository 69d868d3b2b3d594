"""The two commands that try things out, the sandbox and the demo: options in, exit code out.

Apart from the others, so that a load does not import the server that it might be tried on.
"""

from __future__ import annotations

from pathlib import Path

from engine.cli import demo as airports
from engine.cli.options import Voice
from engine.cli.output.demo import demo_screen
from engine.cli.output.streams import show
from engine.cli.signals import collecting, perform
from engine.sandbox import server
from engine.sandbox.behaviour import ServiceKind


def sandbox(  # noqa: PLR0913 - one argument for each option of the command
    behaviour: Path | None,
    journal: Path | None,
    *,
    service: ServiceKind | None,
    host: str,
    port: int | None,
    s3: bool,
    allow_remote: bool,
    as_json: bool,
) -> int:
    """Serve until a signal."""
    with collecting():
        server.run(
            behaviour,
            service=service,
            host=host,
            port=port,
            s3=s3,
            allow_remote=allow_remote,
            json=as_json,
            journal=journal,
        )
    return 0


def demo(folder: Path, voice: Voice) -> int:
    """Submit the airports of the world to a sandbox and prove what came of it."""
    shown = perform(lambda emit, stop: airports.run(folder, emit, stop), voice)
    return show(demo_screen(shown, folder / "ledger.db"), voice)
