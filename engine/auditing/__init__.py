"""A job's ledger, its sources and its reports in, a proof out: every byte in one batch, each record with one fate.

The audit trusts no counter. It walks the batches in the order of their records, checks that they lie end to end from
the first byte to the last, cuts the sources into records again and compares what each batch and each reject says of
them, counts the fates one by one, sees that no task id stands twice, and holds the reports against all of that.

What no one can see from here, since nothing else knows it: two task ids of a batch that changed places in the ledger
and in the outcomes alike; a blank between two records that became another blank; the text of a reject that is refused
for the same reason as before, where there is no `rejects.ndjson` to compare it with.
"""

from engine.auditing.findings import MOST_FINDINGS, Audit, Reported
from engine.auditing.proof import Evidence, audit

__all__ = ["MOST_FINDINGS", "Audit", "Evidence", "Reported", "audit"]
