"""Count how many ideas the engine asks a reader to know: files, lines, and what one job and one upload pass through.

    python -m benchmarks.ideas [--json] [--list]     --list names what is entered
    python benchmarks/ideas.py --root CHECKOUT [--json]      the same of another checkout, by this one's method

A job of 20 records in one batch goes to a sandbox in a process of its own, by presigned upload: three calls, then
polls. It is submitted as a program does it, without the command line. *Entered* are functions, lambdas and
comprehensions that ran in any thread (Python 3.12 and later run most comprehensions without entering them: compare
figures of one version). A file counts if one of its functions was entered. *One upload* is what was entered while
`Uploader.submit` worked on the batch. *Types* are the classes and type aliases of the modules that the job loaded.
Lines are all lines, blank ones, comments and SQL included.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from inspect import CO_NEWLOCALS
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, TypeAlias

RECORDS = 20
KEY = "sandbox-key"
CONFIG = """[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[send]
poll_seconds = 0.05
"""
_TYPE = re.compile(r"^(?:class (\w+)|(\w+): TypeAlias\b)", re.MULTILINE)

_ASIDE = frozenset({"cli", "sandbox", "services", "bench", "benching"})
"""Folders in which other things may have the same names."""

Entered: TypeAlias = set[tuple[str, str]]
"""(file below engine/, qualified name) of functions."""


class Watch:
    """Notes the functions of one folder that are entered while it is on."""

    def __init__(self, folder: Path) -> None:
        self._prefix = f"{folder}{os.sep}"
        self._on: list[Entered] = []

    @contextmanager
    def noting(self) -> Iterator[Entered]:
        """Note what is entered within the block."""
        entered: Entered = set()
        self._on.append(entered)
        try:
            yield entered
        finally:
            self._on.remove(entered)

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note one call; the interpreter calls this."""
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(self._prefix):
            return
        if code.co_flags & CO_NEWLOCALS:  # the body of a module or a class has no locals of its own
            one = (code.co_filename.removeprefix(self._prefix), getattr(code, "co_qualname", code.co_name))
            for entered in self._on:
                entered.add(one)

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Look at this thread and at those that begin within the block."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


@contextmanager
def sandbox(root: Path, folder: Path) -> Iterator[str]:
    """Run a sandbox; yield its address."""
    command = [sys.executable, "-m", "engine", "sandbox", "--port", "0", "--json", "--journal", str(folder / "journal")]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder) as process:
        assert process.stdout is not None  # noqa: S101 - opened with a pipe
        try:
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()


def _found(engine: Path, kind: str, name: str) -> Any:
    """Return what is defined by that name, wherever it stands on the way of a run."""
    pattern = re.compile(rf"^{kind} {name}\b", re.MULTILINE)
    paths = [path for path in engine.rglob("*.py") if not _ASIDE & set(path.relative_to(engine).parts)]
    (path,) = (path for path in paths if pattern.search(path.read_text("utf-8")))
    return getattr(import_module(".".join(("engine", *path.relative_to(engine).with_suffix("").parts))), name)


def _submit(engine: Path, folder: Path) -> Callable[[], Any]:
    """Return what submits the job, as a program does it."""
    source, config, ledger = folder / "tasks.ndjson", folder / "sama.toml", folder / "ledger.db"
    submit = _found(engine, "async def", "submit")
    if "order" not in inspect.signature(submit).parameters:
        return lambda: submit(source, config, ledger, job="ideas")
    order, stop = _found(engine, "class", "Order"), _found(engine, "class", "Stop")  # of older checkouts
    return lambda: submit(order([str(source)], config, job="ideas"), ledger, lambda _: None, stop())


def entered_by_job(root: Path) -> tuple[Entered, Entered]:
    """Return what a job enters, and of it what the upload of its batch does."""
    engine = root / "engine"
    watch, uploads = Watch(engine), Entered()
    uploader = _found(engine, "class", "Uploader")
    submit: Callable[..., Any] = uploader.submit

    async def watched(*arguments: Any, **more: Any) -> Any:
        with watch.noting() as entered:
            try:
                return await submit(*arguments, **more)
            finally:
                uploads.update(entered)

    with TemporaryDirectory() as name, sandbox(root, Path(name)) as url:
        folder = Path(name)
        (folder / "sama.toml").write_text(CONFIG.format(url=url))
        lines = [json.dumps({"data": {"id": f"task-{number}"}}) + "\n" for number in range(RECORDS)]
        (folder / "tasks.ndjson").write_text("".join(lines))
        os.environ["SAMA_ACCESS_KEY"] = KEY
        work = _submit(engine, folder)
        uploader.submit = watched
        try:
            with watch.noting() as entered, watch.everywhere():
                result = asyncio.run(work())
        finally:
            uploader.submit = submit
    if result.exit_code:
        raise SystemExit(f"the job ended with exit code {result.exit_code}: {result.message}")
    return entered, uploads


def loaded_files(engine: Path) -> list[str]:
    """Return the files of the engine that are loaded, as they stand below its folder."""
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "engine"]
    paths = [Path(module.__file__) for module in ours if module.__file__]
    return sorted(str(path.relative_to(engine)) for path in paths)


def types_in(engine: Path, files: Iterable[str]) -> list[str]:
    """Return the names of the classes and type aliases that stand in some files, each as often as it is defined."""
    return [
        one or other for file in sorted(set(files)) for one, other in _TYPE.findall((engine / file).read_text("utf-8"))
    ]


def counted(root: Path) -> Mapping[str, Any]:
    """Return all figures of a checkout."""
    engine = root / "engine"
    paths = sorted(path for path in engine.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    entered, uploads = entered_by_job(root)
    every = Counter(types_in(engine, (str(path.relative_to(engine)) for path in paths if path.suffix == ".py")))
    return {
        "entered": {file: sorted(name for one, name in entered if one == file) for file, _ in sorted(entered)},
        "uploads": {file: sorted(name for one, name in uploads if one == file) for file, _ in sorted(uploads)},
        "files": len(paths),
        "lines": sum(len(path.read_text("utf-8").splitlines()) for path in paths),
        "job_files": len({file for file, _ in entered}),
        "job_functions": len(entered),
        "upload_files": len({file for file, _ in uploads}),
        "upload_functions": len(uploads),
        "presigned_types": len(types_in(engine, loaded_files(engine))),
        "twice": sorted(name for name, times in every.items() if times > 1),
    }


def main() -> None:
    """Print the figures of a checkout."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.ideas", description="Count the engine's ideas.")
    options.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent, help="the checkout")
    options.add_argument("--json", action="store_true")
    options.add_argument("--list", action="store_true", help="name the functions that are entered")
    chosen = options.parse_args()
    root = chosen.root.resolve()
    sys.path.insert(0, str(root))
    figures = counted(root)
    if chosen.json:
        print(json.dumps(figures))
        return
    if chosen.list:
        for way in ("entered", "uploads"):
            for file, names in figures[way].items():
                print(f"{way} {file} ({len(names)}): {', '.join(names)}")
    print(f"engine/: {figures['files']} files, {figures['lines']:,} lines")
    print(f"a job of {RECORDS} records enters {figures['job_files']} files and {figures['job_functions']} functions")
    print(f"one upload enters {figures['upload_files']} files and {figures['upload_functions']} functions")
    print(f"types in the modules that the job loads: {figures['presigned_types']}")
    print(f"type names defined twice: {len(figures['twice'])} {', '.join(figures['twice'])}".rstrip())


if __name__ == "__main__":
    main()
