"""The table of calls and answers, row by row, and what holds for all of it."""

from itertools import product

import pytest

from engine.http.blame import STORE_LATER, TABLE, Said, is_for_size, names_records, whose_fault
from engine.model.error_hints import Blame, Carries

NOTHING, RECORDS, RELEASE, BYTES = Carries
CONTENT = (400, 409, 422)
REFUSALS = [301, 302, 303, 307, 308, *range(400, 429), 431, 451, 501, 505]
EVERY_ANSWER = [
    Said(status, own, code, names)
    for status, own, code, names in product(
        REFUSALS, (True, False), ("", "InvalidArgument", "EntityTooLarge", *STORE_LATER), (True, False)
    )
]


@pytest.mark.parametrize(
    ("carries", "said", "blame"),
    [
        # The store of presigned uploads.
        (BYTES, Said(400, code="RequestTimeout"), Blame.NOT_NOW),
        (BYTES, Said(409, code="OperationAborted"), Blame.NOT_NOW),
        (BYTES, Said(307, code="TemporaryRedirect"), Blame.NOT_NOW),
        (BYTES, Said(413, own=False), Blame.PAYLOAD),
        (BYTES, Said(400, code="EntityTooLarge"), Blame.PAYLOAD),
        (BYTES, Said(403, code="AccessDenied"), Blame.URL),
        (BYTES, Said(401, own=False), Blame.URL),
        (BYTES, Said(400, code="InvalidArgument"), Blame.URL),
        (BYTES, Said(404, code="NoSuchBucket"), Blame.URL),
        (BYTES, Said(404, own=False), Blame.NOT_NOW),
        (BYTES, Said(422, own=False, names_records=True), Blame.NOT_NOW),
        # Calls that carry records.
        (RECORDS, Said(413, own=False), Blame.PAYLOAD),
        (RECORDS, Said(400), Blame.PAYLOAD),
        (RECORDS, Said(422), Blame.PAYLOAD),
        (RECORDS, Said(422, names_records=True), Blame.RECORDS),
        (RECORDS, Said(409), Blame.PAYLOAD),
        (RECORDS, Said(404), Blame.JOB),
        (RECORDS, Said(405), Blame.JOB),
        (RECORDS, Said(403, own=False), Blame.SUSPECT),
        (RECORDS, Said(406, own=False), Blame.SUSPECT),
        (RECORDS, Said(401), Blame.KEY),
        (RECORDS, Said(401, own=False), Blame.KEY),
        (RECORDS, Said(403), Blame.KEY),
        # Calls that release what was brought before.
        (RELEASE, Said(422), Blame.PAYLOAD),
        (RELEASE, Said(400, names_records=True), Blame.RECORDS),
        (RELEASE, Said(404), Blame.RECORDS),
        (RELEASE, Said(409), Blame.RECORDS),
        (RELEASE, Said(405), Blame.JOB),
        (RELEASE, Said(404, own=False), Blame.NOT_NOW),
        (RELEASE, Said(403), Blame.KEY),
        # Calls that carry nothing.
        (NOTHING, Said(400), Blame.JOB),
        (NOTHING, Said(404), Blame.JOB),
        (NOTHING, Said(422, names_records=True), Blame.JOB),
        (NOTHING, Said(403), Blame.KEY),
        (NOTHING, Said(403, own=False), Blame.NOT_NOW),
        (NOTHING, Said(404, own=False), Blame.NOT_NOW),
        (NOTHING, Said(301, own=False), Blame.NOT_NOW),
    ],
    ids=str,
)
def test_each_call_and_answer_has_its_blame(carries, said, blame):
    assert whose_fault(carries, said) is blame


def test_a_call_without_records_decides_no_records_fate():
    blamed = {whose_fault(NOTHING, said) for said in EVERY_ANSWER}
    assert blamed == {Blame.KEY, Blame.JOB, Blame.NOT_NOW}


def test_a_store_says_of_a_payload_only_that_it_is_too_large():
    for said in EVERY_ANSWER:
        assert (whose_fault(BYTES, said) is Blame.PAYLOAD) == (said.code not in STORE_LATER and is_for_size(said))
    assert {whose_fault(BYTES, said) for said in EVERY_ANSWER} == {Blame.PAYLOAD, Blame.URL, Blame.NOT_NOW}


@pytest.mark.parametrize("carries", [RECORDS, RELEASE, NOTHING])
def test_what_is_in_nobodys_words_is_no_fact_about_a_record(carries):
    pages = [said for said in EVERY_ANSWER if not said.own and said.status != 413]
    assert {whose_fault(carries, said) for said in pages} <= {Blame.KEY, Blame.SUSPECT, Blame.NOT_NOW}


def test_every_row_counts_for_something_and_says_why():
    counted = {
        next(row for row in TABLE if row.fits(carries, said)) for carries, said in product(Carries, EVERY_ANSWER)
    }
    assert counted == set(TABLE)
    assert all(row.reason for row in TABLE)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"errors":[{"type":"InvalidInputSchema","message":"x"}]}', False),
        (b'{"errors":[{"task_id":"1","message":"x"}]}', True),
        (b'[{"index":3}]', True),
        (b'{"errors":["nope"]}', False),
        (b"<html>", False),
        (b"7", False),
    ],
)
def test_an_error_may_name_the_record_that_it_is_about(body, names):
    assert names_records(body) is names
