"""Audit a job: its name in, what was proven or found out. Nothing is sent."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from engine.batch.planning import reference_of
from engine.commands import wiring
from engine.commands.configuration import hide_secret
from engine.commands.paths import open_ledger
from engine.reports.audit import Audit, Evidence
from engine.reports.audit import audit as audit_job


async def audit(name: str, ledger_path: Path) -> Audit:
    """Prove from ledger, sources and reports that each record has exactly one fate."""
    async with open_ledger(ledger_path) as ledger:
        try:
            job = await ledger.job(name)
        except ValueError as error:  # a state or a format that no bulksubmit has written
            return Audit(name, findings=[f"the job cannot be read: {error}; put a backup of {ledger_path} back"])
        offline = wiring.load_offline(job)
        evidence = Evidence(
            wiring.load(job.config, hide_secret).service.kind,
            partial(offline.tasks, job),
            reference_of(offline.service),
            offline.service.task_url,
            offline.payloads(job).as_json,
        )
        return await audit_job(job, ledger, evidence)
