"""What results say of the records of a made-up batch."""

from engine.services.described.results import (
    ListReader,
    RecordFates,
)
from engine.services.described.settings import FailuresTable, ResultsTable

NO_WORDS = "its item in the results says neither yes nor no"


def fates(body, *, count=2, keys=None, earlier=False, unique_ids=True, keys_are_ids=True, **table):
    """Return settlement and busy positions by an answer with a list of results."""
    made = table.pop("failures", None)
    rules = ResultsTable(**{"id": ["id"], **table}, **({"failures": FailuresTable(**made)} if made else {}))
    known = keys or [f"k{at}" for at in range(count)]
    gathered = RecordFates(
        count, lambda: known, unique_ids=unique_ids, first_index=rules.first_index, keys_are_ids=keys_are_ids
    )
    ListReader(rules).add_value(body, gathered)
    settlement = gathered.settlement(rules.missing, earlier=earlier)
    assert not settlement.unclear()
    return settlement, gathered.busy


def settled(body, **table):
    settlement, busy = fates(body, **table)
    assert not busy
    return settlement
