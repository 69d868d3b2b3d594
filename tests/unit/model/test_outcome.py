import pytest

from engine.model.outcome import Fate, Settlement, Tally


def test_a_settlement_counts_what_became_a_task():
    assert Settlement(["a", None, "c"], {1: "no"}).created == 2
    assert Settlement(["a", None, None], {1: "no"}, uncertain={2: "lost"}).created == 1
    assert Settlement([]).created == 0


@pytest.mark.parametrize(
    ("settlement", "unclear"),
    [
        (Settlement(["a", None, None], {1: "no"}, uncertain={2: "lost"}), set()),
        (Settlement(["a", None]), {1}),
        (Settlement(["a", "b"], {1: "no"}), {1}),
        (Settlement(["a", "b"], uncertain={0: "lost"}), {0}),
        (Settlement(["a", None], {1: "no"}, uncertain={1: "lost"}), {1}),
        (Settlement(["a", "b"], {0: "no"}, uncertain={0: "lost", 2: "lost"}), {0, 2}),
    ],
)
def test_each_record_has_an_id_an_error_or_an_uncertainty_and_nothing_else(settlement, unclear):
    assert settlement.unclear() == unclear


def test_a_refused_batch_fails_each_record_for_one_reason():
    refused = Settlement.refused(3, "too late")
    assert refused == Settlement([None] * 3, {0: "too late", 1: "too late", 2: "too late"})
    assert refused.created == 0


def test_what_has_no_end_yet_is_unresolved():
    assert Tally(records=100, created=40, failed=3, rejected=2, uncertain=5).unresolved == 50
    assert Tally(records=100, created=40, skipped=60).unresolved == 0
    assert Tally().unresolved == 0


def test_a_record_has_one_of_six_ends():
    assert [fate.value for fate in Fate] == ["created", "failed", "rejected", "uncertain", "skipped", "unresolved"]
