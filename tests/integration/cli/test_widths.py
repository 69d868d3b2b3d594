"""All last screens and errors, of real runs against a sandbox, at 80 and 200 columns: they fit, and nothing is cut."""

import json
import re

import pytest
from fakes.served import served

from engine.cli import app
from engine.cli.output import screen as module
from engine.cli.output.screen import text_of

JOB = "airports-of-the-whole-world-2026-11-28-second-attempt"
FAMILY = "a-family-of-nights-that-has-a-long-name"
FOLDER = "a folder with a name as long as they come in real life"
BEHAVIOUR = """
[[failures]]
path = "data.n"
matches = "7$"
type = "InvalidInputSchema"
message = "data.n must not end in 7, as it does here; see the schema of the project for what it may be."
[sama]
task_lists_per_second = 0
"""
CONFIG = """
[service]
kind = "sama"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"
base_url = "{url}"
[batch]
max_records = 25
"""
TASKS = [{"data": {"n": str(number), "image": f"https://example.com/{number}.jpg"}} for number in range(50)]
TASKS[20:22] = [{"data": "no object"}, {"data": {}, "urgency": 3}]


def commands(folder):
    """Yield the name of each screen, and the command that ends with it; in this order."""
    source, few, config = folder / "records.ndjson", folder / "few.ndjson", ["--config", folder / "sama.toml"]
    yield "submit", ["submit", source, *config, "--job", JOB]
    yield "submitted before", ["submit", source, *config]
    yield "stopped", ["submit", source, *config, "--job", "stopped", "--again", "--max-records", 20]
    yield "status of what stopped", ["status", "stopped"]
    yield "cancel", ["cancel", "stopped", "--yes"]
    yield "resume of a canceled job", ["resume", "stopped"]
    yield "resume", ["resume", JOB]
    yield "nightly", ["nightly", few, *config, "--family", FAMILY]
    yield "second night", ["nightly", few, *config, "--family", FAMILY]
    yield "retry", ["retry", JOB]
    yield "report", ["report", JOB]
    yield "record", ["report", JOB, "--record", 7]
    yield "missing", ["report", f"{FAMILY}-tonight", "--missing"]
    yield "audit", ["audit", JOB]
    yield "status", ["status"]
    yield "status of a job", ["status", JOB, "--tasks"]
    yield "validate", ["validate", source, *config]
    yield "preview", ["preview", source, *config, "-n", 2]
    yield "check", ["check", source, *config]
    yield "bench", ["bench", few, *config, "--steps", "1", "--seconds", 0.1, "--records", 9, "--output", folder / "b"]
    yield "undo", ["undo", JOB, "--yes"]
    yield "refresh", ["refresh", JOB]
    yield "backup", ["backup", folder / "a-copy.db"]
    yield "prune that only says so", ["prune", "--keep-last", 1, "--dry-run"]
    yield "prune", ["prune", "--keep-last", 1, "--yes"]
    yield "examples", ["examples"]
    yield "no such source", ["submit", folder / "nothing.ndjson", *config]
    yield "no such job", ["audit", "nothing"]


ERRORS = {"submitted before", "resume of a canceled job", "missing", "no such source", "no such job"}
WITHOUT_LEDGER = {"validate", "preview", "bench", "examples"}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Call each command; return by name the screen that it ended with, or the lines of its error."""
    folder = tmp_path_factory.mktemp("w") / FOLDER
    folder.mkdir()
    for name, tasks in (("records", TASKS), ("few", TASKS[:9])):
        (folder / f"{name}.ndjson").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    ends, lines = {}, []
    with served(tmp_path_factory.mktemp("s"), BEHAVIOUR) as (url, _), pytest.MonkeyPatch.context() as patch:
        (folder / "sama.toml").write_text(CONFIG.format(url=url))
        patch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
        patch.setattr(module, "write_line", lines.append)
        for name, arguments in commands(folder):
            patch.setattr(module, "show", lambda screen, _, name=name: ends.setdefault(name, screen).exit_code)
            ledger = [] if arguments[0] in WITHOUT_LEDGER else ["--ledger", folder / "ledger.db"]
            lines.clear()
            app.call(list(map(str, [*arguments, *ledger])))
            ends.setdefault(name, list(lines))
    return ends


def copied(screen):
    """Return what is never folded, since people copy it: cells with commands, paths and tasks."""
    return {
        cell for table in screen.tables for row in table.rows for place, cell in enumerate(row) if place in table.whole
    }


@pytest.mark.parametrize("width", [80, 200])
def test_every_screen_fits_and_nothing_of_it_is_cut(said, width):
    screens = {name: screen for name, screen in said.items() if name not in ERRORS}
    for name, screen in screens.items():
        text, whole = text_of(screen, colours=False, width=width), copied(screen)
        for line in map(str.strip, text.splitlines()):
            alone = line in whole or re.fullmatch(r"`[^`]+`\S*|\S+", line)
            assert len(line) <= width or alone, f"{name}: {line}"
        flat = " ".join(text.split())
        for cell in (cell for table in screen.tables for row in table.rows for cell in row):
            assert cell in text if cell in whole else set(cell.split()) <= set(flat.split()), f"{name}: {cell}"
        assert "\n\n\n" not in text, name


@pytest.mark.parametrize("width", [80, 200])
def test_errors_fit_and_a_command_in_them_can_be_copied(said, width, monkeypatch):
    for name in ERRORS:
        lines = []
        monkeypatch.setattr(module, "write_line", lines.append)
        monkeypatch.setattr(module, "_error_width", lambda: width)
        for line in said[name]:
            module.say(line)
        assert " ".join(lines).split() == " ".join(said[name]).split()
        for line in lines:
            assert len(line) <= width or re.fullmatch(r"`[^`]+`\S*|\S+", line), f"{name}: {line}"
