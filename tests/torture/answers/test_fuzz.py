"""Every answer of both services, spoilt in thousands of ways: nothing breaks, hangs, is lost, made twice or told.

BULKSUBMIT_SEED=57 plays one job again, and one that ends badly says so; BULKSUBMIT_TORTURE=1 spoils a million answers.
"""

import os

import pytest

from engine.services.sama import answers

from .world import fuzz

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
MUTATIONS = 1_000_000 if TORTURE else 10_000
PARTS = 8
"""Each a test of its own, so that several processes share the work."""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_spoilt_answer_does_harm(part, tmp_path):
    if "BULKSUBMIT_SEED" in os.environ:
        played = fuzz(int(os.environ["BULKSUBMIT_SEED"]), tmp_path)
        assert not played.complaints, str(played)
        return
    mutations, seed = 0, part
    while mutations < MUTATIONS / PARTS:
        (folder := tmp_path / str(seed)).mkdir()
        played = fuzz(seed, folder)
        assert not played.complaints, str(played)
        mutations += played.mutations
        seed += PARTS


def test_the_judge_sees_words_that_are_kept_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "words", str)
    monkeypatch.setattr(answers, "words_of_all", list)
    for seed in range(30):
        (folder := tmp_path / str(seed)).mkdir()
        played = fuzz(seed, folder)
        if any("a secret stands in" in one for one in played.complaints):
            assert f"BULKSUBMIT_SEED={seed} " in str(played)
            return
    pytest.fail("it does not")
