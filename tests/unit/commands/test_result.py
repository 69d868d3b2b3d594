"""What is said of an end: a sentence for every exit code."""

import pytest

from engine.commands.result import Result, message_of
from engine.model.job import JobState
from engine.model.outcome import Tally
from engine.reports.causes import Cause

ALL_CREATED = Tally(5, 1, 5)
CAUSES = (Cause("failed", "bad url", 2, ()), Cause("rejected", "not JSON", 1, ()))


def result(code, state=JobState.FINISHED, message="", tally=ALL_CREATED, **more):
    return Result("j", state, tally, 1.0, code, message, **more)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (result(0), "Job j is finished: 5 records, all created."),
        (
            result(3, tally=Tally(5, 1, 2, failed=2, rejected=1), causes=CAUSES),
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
