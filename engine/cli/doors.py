"""What the commands need of the engine, so that a test can stand in for it: the module `engine.commands.api` fits."""

# ruff: noqa: D102 - `engine.commands.api` says what each does and what it raises

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from engine.commands.api import Bench, BenchOrder, BenchPlan, JobStatus, Order, Result, UncertainRecords, Validation
from engine.model.outcome import Outcome
from engine.model.record import Format
from engine.progress.events import Listener
from engine.reports.audit import Audit
from engine.run.context import Stop


class Operations(Protocol):
    """What a person can ask for."""

    async def submit(self, order: Order, ledger_path: Path, emit: Listener, stop: Stop) -> Result: ...

    async def resume(
        self,
        name: str,
        ledger_path: Path,
        emit: Listener,
        stop: Stop,
        *,
        config: Path | None = None,
        processes: int | None = None,
    ) -> Result: ...

    async def retry(self, name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result: ...

    async def uncertain(self, name: str, ledger_path: Path) -> UncertainRecords: ...

    async def send_again(self, name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result: ...

    async def cancel(self, name: str, ledger_path: Path, emit: Listener, stop: Stop) -> Result: ...

    async def status(
        self, name: str | None, ledger_path: Path, *, tasks: bool = False, tell: Callable[[str], None] = ...
    ) -> Sequence[JobStatus]: ...

    async def report(self, name: str, ledger_path: Path) -> Result: ...

    async def audit(self, name: str, ledger_path: Path) -> Audit: ...

    async def find_record(self, name: str, ledger_path: Path, index: int) -> Outcome: ...

    async def bench_plan(self, order: BenchOrder) -> BenchPlan: ...

    async def bench(self, order: BenchOrder, emit: Listener, stop: Stop) -> Bench: ...

    async def validate(
        self,
        sources: Sequence[str],
        config: Path,
        format_: Format | None,
        emit: Listener,
        *,
        processes: int | None = None,
    ) -> Validation: ...
