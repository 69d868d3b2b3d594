"""The dashboard: pages that show the jobs of a ledger, live, on this machine; `bulksubmit dashboard` serves them.

    browser ─ guard ─ server ─ pages ─ reading ─ ledger
                         └─ actions ─ `bulksubmit resume JOB`, a process of its own

It only reads the ledger. What it may start, where `--allow-actions` is given, are commands that a person could type.
"""
