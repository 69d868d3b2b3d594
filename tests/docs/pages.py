"""Fenced blocks of Markdown, and a reader who does what they say: in one folder, in order, as a person would.

- `toml`: must load. With `# NAME.toml` as its first line it is written to that file, for what comes after it.
- `python`: is run; `await` outside a function works as in a notebook. All blocks of a page share their names. What
  stands behind `print(…)  # ` must have been printed: `…` in it is any text.
- `console`: each line that begins with `$ ` is run and must end with exit code 0, or the one that a comment behind it
  names (`# exit code 9`); the lines below are its output, in order, with others between them.

Commands that serve (a sandbox, the dashboard) run until the end of the page. Addresses, and what takes long, are
changed by the tables below; `…` as the value of a variable is the key of the sandbox. A block with `not-run` behind its
language is left out; the test has the reasons.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fakes.served import serving

from engine.cli.app import call
from engine.commands import wiring
from engine.commands.configuration import hide_secret

ROOT = Path(__file__).parents[2]
ANY = "…"
SERVERS = {
    "http://127.0.0.1:8800": ["sandbox", "--delay", "0"],
    "http://127.0.0.1:8801": ["sandbox", "--service", "sevenbridges"],
    "http://127.0.0.1:8802": ["sandbox", "--service", "bulk", "--delay", "0"],
}
"""Address in the pages → what is served there."""
CHANGED = {
    r"~/\.local/share/bulksubmit": ".bulksubmit",
    r"/etc/bulksubmit/nightly\.toml": "nightly.toml",
    r"/srv/export/": "export/",
    r"\bseq 0 999\b": "seq 0 19",
    r"\bcount = 2000\b": "count = 40",
    r"\bqueued_seconds = 2\b": "queued_seconds = 0.05",
    r"\brunning_seconds = 10\b": "running_seconds = 0.1",
    r"(?<=bulksubmit bench )(?!.*--seconds)": "--seconds 0.1 --records 20 ",
    r"--seconds \d+": "--seconds 0.1 --records 20",
    r"\bpython3 -m engine\b": f"{sys.executable} -m engine",
}
"""What cannot be as it stands on this machine, or would take long → what is done in its place. Regular expressions."""
_FENCE = re.compile(r"^(?P<indent> *)```(?P<words>\w[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (?P<name>[\w-]+\.toml)\n")
_PRINTED = re.compile(r"^\s*print\(.*\)  # (?P<text>.+)$", re.MULTILINE)
_EXIT_CODE = re.compile(r"# exit code (\d+)")
_HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?")
_SERVING = ("sandbox", "dashboard")
_ANY_SERVICE = '[service]\nkind = "sama"\nproject_id = 1\naccess_key = "${env:SAMA_ACCESS_KEY}"\n'
_ANY_DESCRIBED = (
    '[service]\nkind = "http"\nbase_url = "https://api.example.com"\nrelease = { call = "POST /a", payload = true }\n'
)
_SHELL = ("awk", "cat", "echo", "gzip", "head", "printf", "python3", "sed", "seq", "tail")
"""Programs that pages use besides."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    """On which its text begins, from 1."""
    language: str
    text: str
    run: bool = True

    @property
    def place(self):
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that say their language."""
    text = page.read_text()
    return [
        Block(
            page.name,
            text.count("\n", 0, found.start("text")) + 1,
            found["words"].split()[0],
            re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
            "not-run" not in found["words"].split(),
        )
        for found in _FENCE.finditer(text)
    ]


@dataclass
class Reader:
    """Does what blocks say, in a folder. Its variables are those of this process, and so is its working folder."""

    folder: Path
    setenv: object
    """Takes a variable and its value."""
    said: object
    """Returns what this process has said since it was asked last: (standard output, standard error)."""
    stack: contextlib.ExitStack
    """Ends what serves."""
    urls: dict = field(default_factory=dict)
    """Address in the pages → the one that serves in its place."""
    names: dict = field(default_factory=lambda: {"__name__": "__main__"})
    """What Python blocks have defined."""

    def follow(self, block: Block) -> None:
        """Do what a block says; the test fails where that fails."""
        match block.language:
            case "toml":
                self._load(self.changed(block.text), block)
            case "python":
                self._run(self.changed(block.text), block)
            case "console":
                for command, expected in commands_of(block.text):
                    self._call(command, expected, f"{block.place}: {command}")
            case "json":
                json.loads(block.text)
            case _:
                raise AssertionError(f"{block.place}: nobody knows how to run {block.language}")

    def changed(self, text: str) -> str:
        """Return a text of a page as it can be done here."""
        for address, arguments in SERVERS.items():
            if address in text:
                text = text.replace(address, self.urls.get(address) or self._serve(address, arguments))
        for said, done in CHANGED.items():
            text = re.sub(said, done, text)
        return text

    def _serve(self, address, arguments):
        said = self.folder / f".said-{len(self.urls)}"
        line = self.stack.enter_context(serving([*arguments, "--port", "0", "--json"], said))
        self.urls[address] = json.loads(line)["url"].removesuffix("/v2")
        return self.urls[address]

    def _load(self, text, block):
        whole = text
        if not re.search(r"^\[service\]", text, re.MULTILINE):
            described = re.search(r"^\[+service\.", text, re.MULTILINE)
            whole = f"{_ANY_DESCRIBED}\n{text}" if described else f"{text}\n{_ANY_SERVICE}"
        try:
            wiring.load(whole, hide_secret)
        except Exception as error:
            raise AssertionError(f"{block.place}: {error}") from error
        if named := _FILE.match(text):
            if "base_url" not in text:
                text = text.replace('kind = "sama"\n', f'kind = "sama"\nbase_url = "{self.sama()}"\n')
            (self.folder / named["name"]).write_text(text)

    def sama(self) -> str:
        """Return the address of Sama's API."""
        return self.changed("http://127.0.0.1:8800/v2")

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

    def _call(self, command, expected, place):
        wanted = int(found[1]) if (found := _EXIT_CODE.search(command)) else 0
        words = shlex.split(command, comments=True) if "<<" not in command else [command.split()[0]]
        if words[:1] == ["export"]:
            name, _, value = words[1].partition("=")
            self.setenv(name, "sandbox-key" if value == ANY else self.changed(value))
        elif words[0] == "bulksubmit" and words[1] in _SERVING:
            self._begin(words[1:], expected, place)
        elif words[0] == "bulksubmit":
            self.said()
            code = call(shlex.split(self.changed(command), comments=True)[1:])
            said = "".join(self.said())
            assert code == wanted, f"{place}: exit code {code}: {said}"
            expect([self.changed(line) for line in expected], said, place)
        else:
            assert words[0] in _SHELL, f"{place}: nobody knows how to run it"
            done = subprocess.run(
                ["bash", "-ec", self.changed(command)], cwd=self.folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == wanted, f"{place}: {done.stderr}"
            expect(expected, done.stdout + done.stderr, place)

    def _begin(self, words, expected, place):
        """Serve what a page says, at a port that is free; `words`: the command with its arguments."""
        if "--port" in words:
            del words[words.index("--port") : words.index("--port") + 2]
        if words[0] == "dashboard":
            arguments = [*words, "--port", "0", "--ledger", os.environ["BULKSUBMIT_LEDGER"]]
            line = self.stack.enter_context(serving(arguments, self.folder / f".said-{place.split()[0]}"))
            line = line.replace(f"{self.folder}/", "")
            expect([re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{ANY}", text) for text in expected], line, place)
            return
        port = 8801 if "sevenbridges" in words else 8802 if "bulk" in words else 8800
        address = f"http://127.0.0.1:{port}"
        here = {at for at, word in enumerate(words) if words[at - 1] == "--journal" or (self.folder / word).is_file()}
        files = [str(self.folder / word) if at in here else word for at, word in enumerate(words)]
        url = self._serve(address, files)
        for line in expected:  # it said the same as JSON
            assert address in line, f"{place}: {line}"
        assert url


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block, each with the output that is shown below it."""
    commands: list[tuple[str, list[str]]] = []
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:].strip()
            if end := _HERE_DOCUMENT.search(command):
                while (more := next(lines)) != end[1]:
                    command += f"\n{more}"
                command += f"\n{end[1]}\n"
            while command.split("#")[0].count("'") % 2:  # quotes go on over lines
                command += f"\n{next(lines)}"
            commands.append((command, []))
        elif line.strip() and commands:
            commands[-1][1].append(line)
    return commands


def expect(lines: list[str], said: str, place: str) -> None:
    """Check that lines were said, in their order."""
    pattern = ".*".join(re.escape(line.strip()).replace(ANY, ".*?") for line in lines)
    assert re.search(pattern, said, re.DOTALL), f"{place}: expected {lines}, and there was:\n{said}"


def today() -> str:
    """Return the date of a night that begins now."""
    return datetime.now().astimezone().date().isoformat()
