"""Contenders in, what each run took out: processes of their own, in turn, A B A B, in one session.

A machine is noisy and no two are alike, so a figure is a ratio of two contenders within one round; a row shows the
least, the median and the greatest of these, and its target is held against the median.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent
WORKPLACE = ROOT / ".bench"
"""Everything that may be thrown away: the peers' packages, workloads, the folders in which contenders run."""

PEERS = WORKPLACE / "peers" / "bin" / "python"
OPTIMISED = {"PGO": "--enable-optimizations", "LTO": "--with-lto"}
"""How an interpreter was built, and the option of its `configure` for it."""

LAUNCHER = Path(__file__).with_name("launcher.py")
MEBIBYTE = 1024 * 1024
TIMES = "\N{MULTIPLICATION SIGN}"
RUN_SECONDS = 900.0
"""Longest run of one contender; whatever takes longer hangs."""


SILENT = {"DO_NOT_TRACK": "1", "RUNTIME__DLTHUB_TELEMETRY": "false"}
"""A peer that would report to its makers does not: nothing leaves this machine."""


class NotMeasured(Exception):
    """Says what is missing for a row."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a contender took."""

    seconds: float
    """By the contender's own word where it prints one (`{"seconds": …}` as its last line), else start to exit."""
    cpu_seconds: float
    peak_bytes: int
    work: float
    """Units done: records, bodies."""

    @property
    def speed(self) -> float:
        """Units a second."""
        return self.work / self.seconds


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that does the work; each run starts in an empty folder."""

    name: str
    command: Sequence[str]
    work: float
    unit: str = "records"
    environment: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    """What it does not do, or how it does it."""


Runs: TypeAlias = dict[str, list[Run]]


@dataclass(frozen=True, slots=True)
class Spread:
    """A few figures as three."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raise: ValueError, if there are none."""
        return cls(min(values), median(values), max(values))


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to reach."""

    bound: float
    at_least: bool = True
    wish: float | None = None
    """What would be better still."""

    def met(self, value: float) -> bool:
        """Tell whether `value` reaches it."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure of each repetition, held against a target."""

    measure: str
    against: str
    figures: Sequence[float]
    target: Target | None = None
    """None: there for comparison."""
    unit: str = TIMES

    @property
    def spread(self) -> Spread:
        """Least, median and greatest figure."""
        return Spread.of(self.figures)

    @property
    def met(self) -> bool | None:
        """Tell whether the median reaches the target; None without one."""
        return None if self.target is None else self.target.met(self.spread.median)


@dataclass(frozen=True, slots=True)
class Section:
    """One measure: its question, how it was answered, and the answer."""

    name: str
    title: str
    method: str
    rows: Sequence[Row] = ()
    contenders: Sequence[Contender] = ()
    runs: Runs = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    not_measured: Sequence[str] = ()
    """Rows without a figure, each with what is missing."""
    series: Sequence[Mapping[str, Any]] = ()
    """Simulated servers, each with the limits that the rules set over time; one plot shows them all."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often contenders take turns: `most` times, or fewer where the machine is too slow for that; once at least."""

    most: int
    within_seconds: float

    def counted(self) -> Iterator[int]:
        """Yield the number of each round; none is begun that would probably end too late."""
        started = time.monotonic()
        for number in range(self.most):
            passed = time.monotonic() - started
            if number and passed * (number + 1) / number > self.within_seconds:
                return
            yield number


@dataclass(frozen=True, slots=True)
class Session:
    """What a measure is given."""

    folder: Path
    """Empty at first, on a disk, shared by the measures of one session."""
    quick: bool
    sections: Mapping[str, Any] = field(default_factory=dict)
    """What the folder of the results holds already, as JSON."""

    def size(self, full: int, quick: int) -> int:
        """Return the size of a workload."""
        return quick if self.quick else full

    def rounds(self, full: int, within_seconds: float) -> Rounds:
        """Return how often contenders take turns; a quick session is content with one round."""
        return Rounds(1 if self.quick else full, within_seconds)

    def made(self, name: str, write: Callable[[Path], object]) -> Path:
        """Return a file that is written where it is not there yet; measures share workloads."""
        path = self.folder / name
        if not path.exists():
            write(path)
        return path


def alternate(
    contenders: Sequence[Contender],
    rounds: Rounds,
    folder: Path,
    *,
    failures: dict[str, str] | None = None,
) -> Runs:
    """Run each contender once a round, one after the other.

    With `failures`, one that fails is noted there and left out; its figures fall away, and the others go on.
    """
    runs: Runs = {contender.name: [] for contender in contenders}
    for _ in rounds.counted():
        for contender in [one for one in contenders if one.name in runs]:
            try:
                runs[contender.name].append(run_once(contender, folder))
            except NotMeasured as failure:
                if failures is None:
                    raise
                failures[contender.name] = str(failure)
                del runs[contender.name]
    return runs


def run_once(contender: Contender, folder: Path) -> Run:
    """Run a contender in an empty folder below `folder`, which is removed after it; say so on standard error.

    Raises:
        NotMeasured: it failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as place:
        report, output = Path(place) / "report.json", Path(place) / "output"
        work = Path(place) / "work"
        work.mkdir()
        command = [sys.executable, "-I", "-S", str(LAUNCHER), str(report), *contender.command]
        environment = {**os.environ, **SILENT, "PYTHONPATH": str(ROOT), **contender.environment}
        exit_code = _launch(command, work, environment, output)
        said = output.read_text(errors="replace")
        taken = json.loads(report.read_text()) if exit_code == 0 else {"exit": exit_code}
        if taken["exit"] != 0:
            raise NotMeasured(f"{contender.name} ended with status {taken['exit']}: {said[-600:].strip()}")
        own = _own_words(said)
        seconds, done = own.get("seconds", taken["seconds"]), own.get("work", contender.work)
        run = Run(seconds, taken["cpu_seconds"], taken["peak_bytes"], done)
        told = f"{run.speed:,.0f} {contender.unit}/s, {run.peak_bytes / MEBIBYTE:.0f} MiB"
        print(f"  {contender.name}: {run.seconds:.2f} s, {told}", file=sys.stderr)
        return run


def _launch(command: Sequence[str], place: Path, environment: Mapping[str, str], output: Path) -> int:
    """Run a command to its end; whatever ends this wait early ends the command with all that it started."""
    with output.open("wb") as file:
        launched = subprocess.Popen(
            command, cwd=place, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            return launched.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"{command[-1]} hangs: it has not ended within {RUN_SECONDS:g} s") from None
        finally:
            if launched.poll() is None:
                os.killpg(launched.pid, signal.SIGKILL)
                launched.wait()


def _own_words(said: str) -> dict[str, float]:
    """Return what a contender measured itself, if its last line tells."""
    try:
        words = json.loads(said.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {}
    return {key: words[key] for key in ("seconds", "work") if isinstance(words, dict) and key in words}


def speed_ratios(runs: Runs, ours: str, theirs: str) -> list[float]:
    """Return, round by round, how many times as fast as `theirs` is `ours`."""
    return [one.speed / other.speed for one, other in zip(runs[ours], runs[theirs], strict=True)]


def memory_ratios(runs: Runs, ours: str, theirs: str) -> list[float]:
    """Return, round by round, what share of the memory of `theirs` is taken by `ours`."""
    return [one.peak_bytes / other.peak_bytes for one, other in zip(runs[ours], runs[theirs], strict=True)]


def needs(*programs: str) -> None:
    """Raise NotMeasured where a program is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise NotMeasured(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")


def python(module: str, *arguments: str | Path | int) -> list[str]:
    """Return the command that runs a contender of ours with the project's own packages."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def peer(module: str, *arguments: str | Path | int) -> list[str]:
    """Return the command that runs a contender with the peers' packages.

    Raises:
        NotMeasured: they are not installed.
    """
    if not PEERS.exists():
        raise NotMeasured("the peers' packages are missing: make bench installs them")
    return [str(PEERS), "-m", module, *map(str, arguments)]


def machine() -> dict[str, object]:
    """Return what is needed to judge the figures."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": interpreter(),
        "load_before": os.getloadavg()[0],
    }


def interpreter() -> str:
    """Return the version of Python and how it was built; without PGO and LTO it is slower."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS"))
    built = [*platform.python_build(), platform.python_compiler()]
    built += [f"{'' if flag in options else 'no '}{name}" for name, flag in OPTIMISED.items()]
    built.append("no GIL" if sysconfig.get_config_var("Py_GIL_DISABLED") else "GIL")
    return f"{platform.python_version()} ({', '.join(' '.join(part.split()) for part in built)})"


def compile_code() -> None:
    """Compile what measured processes import, in each interpreter that runs them; a user's was compiled by pip."""
    pythons = [Path(sys.executable), *filter(Path.exists, [PEERS])]
    for python in pythons:
        ours = [str(python), "-m", "compileall", "-q", str(ROOT / "engine"), str(ROOT / "benchmarks")]
        subprocess.run(ours, check=True)
        packages = next((python.parent.parent / "lib").glob("python*/site-packages"), None)
        if packages:
            subprocess.run([str(python), "-m", "compileall", "-q", str(packages)], check=False)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def commit() -> str:
    """Return the commit that is measured, with a + if the checkout differs from it; empty outside a checkout."""
    try:
        git = ["git", "-C", str(ROOT)]
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "")
