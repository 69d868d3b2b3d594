"""What is said of an end: a sentence for every exit code, and the reasons as the ledger counts them."""

import pytest

from engine.commands.result import Reasons, Result, common_reasons, message_of
from engine.model.errors import LedgerError
from engine.model.job import JobState
from engine.model.outcome import Tally

ALL_CREATED = Tally(5, 1, 5)
REASONS = Reasons([(2, "bad url"), (1, "not JSON")], 3, whole=True)


class Rows:
    """Stands for a ledger that knows reasons."""

    def __init__(self, *rows):
        self._rows = rows

    async def reasons(self, job, limit):
        if not self._rows:
            raise LedgerError
        return self._rows[:limit]


def result(code, state=JobState.FINISHED, message="", tally=ALL_CREATED, **more):
    return Result("j", state, tally, 1.0, code, message, **more)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (result(0), "Job j is finished: 5 records, all created."),
        (
            result(3, tally=Tally(5, 1, 2, failed=2, rejected=1), reasons=REASONS),
            "Job j is finished: 2 of 5 records created. 2 failed, 1 rejected; most often: bad url.",
        ),
        (
            result(4, tally=Tally(5, 1, 3, uncertain=2)),
            "Job j is finished: 3 of 5 records created. 2 uncertain.",
        ),
        (result(5, JobState.OPEN, "The service is down."), "Job j is not finished. The service is down."),
        (
            result(8, tally=Tally(5, 1, skipped=5), message="Nothing new"),
            "Job j is finished: 5 records, 0 created, 5 known already. No record was sent (fail_if_empty). Nothing new",
        ),
        (
            result(10, later={"failed": 2}),
            "Job j is finished: 5 records, all created. Of their tasks, later 2 failed.",
        ),
    ],
)
def test_every_exit_code_has_its_sentence(end, said):
    assert message_of(end) == said


async def test_reasons_that_differ_in_numbers_are_one_told_by_its_first():
    tally = Tally(20, failed=12, rejected=2)
    found = await common_reasons("j", Rows(("line 7: bad", 10), ("other", 1), ("line 12: bad", 2), ("", 1)), tally)
    assert found == Reasons([(12, "line 7: bad"), (1, "other"), (1, "no reason given")], 14, whole=True)


async def test_the_five_most_common_are_told():
    rows = [(letter, number) for number, letter in enumerate("abcdefg", 1)]
    found = await common_reasons("j", Rows(*rows), Tally(100, failed=28))
    assert [reason for _, reason in found.top] == list("gfedc")


async def test_reasons_that_were_not_all_looked_at_say_so():
    assert not (await common_reasons("j", Rows(("bad", 5)), Tally(100, failed=28))).whole
    assert await common_reasons("j", Rows(), Tally(100, failed=28)) == Reasons([], 0, whole=False)


async def test_where_all_was_created_nobody_is_asked():
    assert (await common_reasons("j", None, Tally(5, 1, 5))).whole
