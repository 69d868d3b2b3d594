"""A job at each described service that lies, one lie of `[bulk.unwritten]` at a time, with answers that get lost.

Nothing is lost, nothing is there twice on our own account, and no record has a fate that is not its own: judged by the
sandbox's journal, in made-up time. Where a lie makes a fate unknowable, its record is uncertain, or nobody can see it:
`Lie.shows` says which complaints of the judge those are, and docs/guesses.md has a row for each.
"""

import os
import re
from dataclasses import dataclass, replace

import pytest
from msgspec import structs

from engine.sandbox.behaviour import Fault, parse_behaviour
from engine.sandbox.settings import BulkUnwritten
from engine.services.described.checks import GUESSES

from .ways import ASK, BULK_WAYS, EXISTS, KEYED, NEVER, SAFE, SEARCH, Way
from .worlds import Death, Plan, play

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
BATCHES = 6
BAD = {4: "fails", 7: "index", 11: "batch", 13: "busy"}
BAD_ROWS = {4: "fails"}
"""Of a job with files, which tells of no busy rows, and names nobody where it refuses all."""
WORDS = {
    word: f"{word}, so to speak"
    for word in ("complete", "done", "created", "accepted", "rejected", "failed", "version_conflict", "parsing_error")
} | {"VALIDATION_ERROR": "INVALID"}
STATES = {"Complete": "Erledigt", "InProgress": "Bei der Arbeit"}
MIXED_UP = "said to be|created 2|is failed"
UNRESOLVED = r"unresolved|it does not end|the audit does not hold"


@dataclass(frozen=True)
class Lie:
    """What a service does otherwise than its documents say."""

    name: str
    guess: str
    """What is believed of it, by its name in docs/guesses.md."""
    ways: list[Way]
    keys: dict
    uncertain: int = 0
    """So many of the 18 records may be uncertain."""
    shows: str = ""
    """Complaints that there must be, and no others: what nobody can know."""

    def __str__(self) -> str:
        return self.name


KEY_OR_INDEX = [SAFE, KEYED, EXISTS, ASK]
"""Their results say which record each item is about."""
ORDER = [SEARCH, NEVER]

LIES = [
    Lie("as it is documented", "described.results", BULK_WAYS, {}),
    Lie("numbers as ids", "described.ids", [SAFE, KEYED, ASK, NEVER], {"ids": "numbers"}),
    Lie("no id, where a search names by key", "described.own-ids", [SEARCH], {"no_id_every": 2}),
    Lie("no id", "described.own-ids", [SAFE, KEYED, NEVER], {"no_id_every": 2}, 6),
    Lie("no id, of rows or items with keys", "described.own-ids", [EXISTS, ASK], {"no_id_every": 2}, 6),
    Lie("an id twice", "described.own-ids", [KEYED, EXISTS, ASK, NEVER], {"same_id_every": 2}, 12),
    Lie(
        "an id twice, of an upsert", "described.own-ids", [SAFE], {"same_id_every": 2}, shows="said to be|same task id"
    ),
    Lie("an item left out", "described.results", [*KEY_OR_INDEX, NEVER], {"omits_every": 2}, 18),
    Lie(
        "an item left out of a list", "described.search", [SEARCH], {"omits_every": 2}, 9, "never arrived|not the same"
    ),
    *[Lie(f"results {one}", "described.order", KEY_OR_INDEX, {"order": one}) for one in ("shuffled", "reversed")],
    Lie(
        "results in order shuffled",
        "described.order",
        ORDER,
        {"order": "shuffled"},
        6,
        MIXED_UP,
    ),
    Lie("strangers", "described.results", BULK_WAYS, {"strangers": True}, 18),
    Lie("other words", "described.item-words", [SAFE, KEYED, EXISTS, SEARCH, NEVER], {"words": WORDS}),
    Lie("other states", "described.batch-words", [ASK], {"words": STATES}, 0, UNRESOLVED),
    Lie("a refusal as a success", "described.success", [SAFE, KEYED, EXISTS], {"errors_inside": True}, 6, UNRESOLVED),
    Lie("a refusal as a success, and none to ask", "described.success", [SEARCH, NEVER], {"errors_inside": True}, 6),
    Lie("said to be there", "described.unique-keys", [EXISTS], {"exists_every": 5}, 0, "there already|and is \\[\\]"),
    Lie("a key is forgotten", "described.key", [KEYED], {"forgets_keys_after": 0.001}, 0, "created 2 times|and is \\["),
]
PARKED = 7
"""Records of a batch and of the halves of others whose answers are lost, where nobody can ask."""


def cases():
    """Yield (lie, way, whether answers get lost): in the short form they do."""
    for lie in LIES:
        for way in lie.ways:
            yield from ((lie, way, lost) for lost in ([True, False] if TORTURE else [True]))


def plan_of(lie, way, *, lost):
    base = parse_behaviour(way.behaviour)
    (release,) = way.releases
    faults = (Fault(release, "drop_after", nth=(2,)), Fault(release, "drop_before", nth=(4,))) if lost else ()
    bulk = structs.replace(base.bulk, unwritten=BulkUnwritten(**lie.keys))
    return Plan(
        0,
        way,
        BATCHES,
        structs.replace(base, faults=faults, bulk=bulk),
        (Death("request", 9),) if lost else (),
        bad=BAD_ROWS if way is ASK else BAD,
        unknowable=lie.uncertain,
        most_runs=3,
        one_at_a_time=True,
    )


@pytest.mark.parametrize(("lie", "way", "lost"), list(cases()), ids=str)
def test_no_record_has_a_fate_that_is_not_its_own_whatever_the_service_says(lie, way, lost, tmp_path, tally):
    played = play(plan_of(lie, way, lost=lost), tmp_path)
    if not lie.shows:  # else it counts what the service has done, not the engine
        tally.add(played.tally)
    others = [one for one in played.complaints if not (lie.shows and re.search(lie.shows, one))]
    assert not others, str(played)
    assert bool(played.complaints) == bool(lie.shows), "what is in docs/guesses.md is not so"
    assert played.tally.parked <= lie.uncertain + (PARKED if way.parks and lost else 0)


def test_each_lie_is_the_opposite_of_a_guess():
    assert {lie.guess for lie in LIES} <= {guess.name for guess in GUESSES}
    told = {key for lie in LIES for key in lie.keys}
    assert told == set(BulkUnwritten.__struct_fields__)


def test_a_rule_about_successes_settles_what_looks_like_one(tmp_path):
    """What docs/guesses.md advises where a refusal is answered 200."""
    lie = next(lie for lie in LIES if lie.guess == "described.success")
    config = KEYED.config.replace("status = [400]", "status = [200, 400]")
    config = config.replace('means = "whole"', 'path = "error.message"\nmeans = "whole"')
    played = play(replace(plan_of(lie, KEYED, lost=True), way=replace(KEYED, config=config), unknowable=0), tmp_path)
    assert not played.complaints, str(played)
    assert played.last.tally.failed == 3
