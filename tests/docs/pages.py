"""Fenced blocks of Markdown, and a reader who does what they say: in one folder, in order, as a person would.

- `toml`: must load. With `# NAME.toml` as its first line it is written to that file, for what comes after it.
- `python`: is run; `await` outside a function works as in a notebook. All blocks of a page share their names. What
  stands behind `print(…)  # ` must have been printed: `…` in it is any text.
- `console`: each line that begins with `$ ` is run and must end with exit code 0; the lines below are its output.

The sandbox of a page is at http://127.0.0.1:8800, and the test's stands in its place. `…` as the value of a variable
is the key of the sandbox. A block below `<!-- not run: WHY -->` is left out.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from engine.commands import wiring
from engine.commands.configuration import hide_secret

ROOT = Path(__file__).parents[2]
SANDBOX = "http://127.0.0.1:8800"
ANY = "…"
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\s*\Z")
_FILE = re.compile(r"# (?P<name>[\w-]+\.toml)\n")
_PRINTED = re.compile(r"^\s*print\(.*\)  # (?P<text>.+)$", re.MULTILINE)
_ANY_SERVICE = '[service]\nkind = "sama"\nproject_id = 1\naccess_key = "${env:SAMA_ACCESS_KEY}"\n'
_SERVED_ALREADY = ("bulksubmit sandbox",)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    """On which its text begins, from 1."""
    language: str
    text: str

    @property
    def place(self):
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that are to be run."""
    text = page.read_text()
    return [
        Block(page.name, text.count("\n", 0, found.start("text")) + 1, found["language"], _unindented(found))
        for found in _FENCE.finditer(text)
        if not _NOT_RUN.search(text, 0, found.start())
    ]


def _unindented(found):
    return re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE)


@dataclass
class Reader:
    """Does what blocks say, in a folder, against a sandbox. Its variables are those of this process."""

    folder: Path
    url: str
    setenv: object
    """Takes a variable and its value."""
    names: dict = field(default_factory=lambda: {"__name__": "__main__"})
    """What Python blocks have defined."""

    def follow(self, block: Block) -> None:
        """Do what a block says; the test fails where that fails."""
        text = block.text.replace(SANDBOX, self.url.removesuffix("/v2"))
        match block.language:
            case "toml":
                self._load(text, block)
            case "python":
                self._run(text, block)
            case "console":
                self._call(text, block)

    def _load(self, text, block):
        if named := _FILE.match(text):
            (self.folder / named["name"]).write_text(text)
        whole = text if re.search(r"^\[service\]", text, re.MULTILINE) else f"{text}\n{_ANY_SERVICE}"
        try:
            wiring.load(whole, hide_secret)
        except Exception as error:
            raise AssertionError(f"{block.place}: {error}") from error

    def _run(self, text, block):
        code = compile(
            "\n" * (block.line - 1) + text, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(self._awaited(code))
            else:
                exec(code, self.names)  # noqa: S102 - our own page
        expected = [found["text"] for found in _PRINTED.finditer(text)]
        expect(expected, printed.getvalue(), block.place)

    async def _awaited(self, code):
        await eval(code, self.names)  # noqa: S307 - our own page

    def _call(self, text, block):
        for command, expected in commands_of(text):
            if command.startswith(_SERVED_ALREADY):
                continue
            words = shlex.split(command, comments=True)
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                self.setenv(name, "sandbox-key" if value == ANY else value)
                continue
            assert words[0] == "bulksubmit", f"{block.place}: nobody knows how to run {command!r}"
            ended = subprocess.run(
                [sys.executable, "-m", "engine", *words[1:]],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 0, f"{block.place}: {command}: {ended.stderr}"
            expect(expected, ended.stdout + ended.stderr, f"{block.place}: {command}")


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block, each with the output that is shown below it."""
    commands: list[tuple[str, list[str]]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            commands.append((line[2:].strip(), []))
        elif line.strip() and commands:
            commands[-1][1].append(line)
    return commands


def expect(lines: list[str], said: str, place: str) -> None:
    """Check that lines were said, in their order."""
    pattern = ".*".join(re.escape(line.strip()).replace(ANY, ".*?") for line in lines)
    assert re.search(pattern, said, re.DOTALL), f"{place}: expected {lines}, and there was:\n{said}"
