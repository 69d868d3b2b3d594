"""The report page tells a job, fits into its room whatever the job is, and holds nothing of a record."""

import re
from itertools import pairwise

import pytest
from fakes.facts import usual_facts, worst_facts
from fakes.pages import Page
from msgspec.structs import replace

from engine.model.outcome import Tally
from engine.model.runs import PastAudit
from engine.reports.causes import Cause, Causes
from engine.reports.overview import AuditFacts, Lineage
from engine.reports.page import MOST_BYTES, page
from engine.reports.page_figures import cut, share

NOTHING = {
    "tally": Tally(),
    "runs": [],
    "run_count": 0,
    "series": [],
    "limit_changes": [],
    "calls": [],
    "slowest": [],
    "causes": Causes([], 0, 0),
    "nights": [],
    "lineage": Lineage(),
    "audit": None,
    "next": [],
    "worked_seconds": 0.0,
}


def audited(*, holds=True, outdated=False, **found):
    return AuditFacts(PastAudit(5.0, holds, 10, 2, **found), outdated)


def words_of(facts):
    return " ".join(Page(page(facts)).words)


def test_the_page_tells_what_a_person_wants_to_know():
    words = words_of(usual_facts())
    for wanted in (
        "Finished: 993,200 of 1,000,000 records created, 6,800 not.",
        "5,500 failed, 1,300 rejected",
        "bulksubmit retry images-2026-11-28",
        "Audit of",
        "it holds.",
        "data.image: the address … cannot be reached",
        "20 examples of 4,812, in /srv/exports/images-2026-11-28.csv",
        "Highest 833, mean",
        "the service pushed back (429)",
        "2 with no answer",
        "the service asks for it (HTTP 503: maintenance)",
        "878561000",
        "the deadline of 05:30 is reached",
        "Nights of the family images",
        "images-2026-11-28.retry",
    ):
        assert wanted in words, wanted


def test_a_task_is_linked_to_its_page():
    made = page(usual_facts())
    assert '<a href="https://app.sama.com/projects/42/tasks/6b0aeea1345dc6e900000000" rel="noopener' in made


def test_it_stands_alone():
    assert Page(page(usual_facts())).stands_alone


def test_headings_are_in_order_and_tables_have_captions_and_scopes():
    tags = Page(page(usual_facts())).tags
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert tags.count("table") == tags.count("caption")


def test_regions_have_names_of_their_own():
    labels = re.findall('role="region" aria-label="([^"]*)"', page(usual_facts()))
    assert len(labels) == len(set(labels)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("words", ["a plain message ", "<&>\"'", "\U0010fffd\u202e", "\ud800"])
def test_the_page_of_any_job_has_no_more_than_two_megabytes(words):
    made = page(worst_facts(words)).encode()
    assert len(made) <= MOST_BYTES == 2_000_000
    assert b"cause" in made


def test_where_there_is_no_room_examples_are_left_out_and_causes_are_not():
    facts = worst_facts("<&>")
    made = page(facts)
    assert made.count("<summary>") >= len(facts.causes.top)
    examples = len(facts.causes.top[0].examples)
    assert f"Examples of cause {len(facts.causes.top)}" in made or "no room" in made
    assert f"{examples} examples of" not in made


def test_an_empty_job_has_a_page():
    words = words_of(replace(usual_facts(), **NOTHING))
    assert "finished: its sources hold no record" in words.lower()
    assert "No audit was made." in words
    for absent in ("Over time", "How long calls took", "Slowest batches", "Runs:", "Why:"):
        assert absent not in words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"running": True}, "Running: 993,200 of 1,000,000 records read so far are created."),
        ({"state": "open"}, "Open: 993,200 created, nothing is under way."),
        ({"tally": Tally(10, 1, created=7, skipped=3)}, "Finished: 7 of 10 records created, 3 known already."),
        ({"audit": audited(outdated=True)}, "audit it again"),
        ({"audit": audited(holds=False, findings=["a gap"], found=1)}, "a gap"),
        ({"audit": audited(holds=False, unproven=["a.csv is gone"])}, "a.csv is gone"),
        ({"audit": audited(open_records=4)}, "of which 4 are open or uncertain"),
    ],
)
def test_the_page_says_how_the_job_stands(change, said):
    assert said in words_of(replace(usual_facts(), **change))


def test_foreign_words_stay_words():
    hostile = "</style><svg onload=alert(1)>\u202e\ud800\0"
    cause = Cause("failed", hostile, 1, usual_facts().causes.top[0].examples)
    facts = replace(worst_facts(hostile), causes=Causes([cause], 1, 0))
    found = Page(page(facts))
    assert not {"onload"} & {name for name, _ in found.attributes}
    assert found.tags.count("style") == 1
    assert found.stands_alone


def test_foreign_words_are_cut_after_what_steers_a_display_is_spelled_out():
    assert cut("\u202e" * 300).startswith("\\u202e")
    assert len(cut("\U0010ffff" * 300)) == 300
    assert cut("short") == "short"


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 5, "0.0 %"), (5, 5, "100.0 %"), (1, 10**6, "< 0.1 %"), (10**6 - 1, 10**6, "> 99.9 %"), (1, 0, "")],
)
def test_a_share_is_neither_all_nor_nothing_unless_it_is(part, whole, said):
    assert share(part, whole) == said
