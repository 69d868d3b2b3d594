"""The ledger that the benchmark of known records fills is one that planning can ask."""

from benchmarks import known
from engine.ledger.known import KnownRecords
from engine.model.outcome import Fate


def test_each_record_of_the_made_ledger_is_known_as_created(tmp_path):
    total = 2_500
    size = known.make(tmp_path / "known.db", total)
    with KnownRecords(tmp_path / "known.db") as records:
        hashes = [known.mark(index)[0] for index in range(total)]
        found = records.find(hashes)
        assert {records.fate(found[one][1:]) for one in hashes} == {Fate.CREATED}
        assert records.find([known.mark(total)[0]]) == {}
    assert size / total < 60
