"""In words: what a description promises. `check` tells it, and the pages of the documentation.

Each promise rests on what the author of the description says of the service; nothing here can see whether that is true.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from engine.model.doubt import Again
from engine.services.described.consistency import has_source_keys, rules_on_conflict, rules_on_success
from engine.services.described.settings import DescribedSettings

AFTER_A_LOSS: dict[Again, str] = {
    Again.SAFE: (
        "it is sent again, since the service takes a second record of the same key for the first one (an upsert)"
    ),
    Again.KEY: "it is sent again with the same idempotency key, which the service answers without doing it twice",
    Again.EXISTS: (
        "it is sent again, since the service takes no second record of the same key; what is there already then counts "
        "as created by us"
    ),
    Again.ASK: (
        "the service is asked whether the batch was released; only if it says for the whole settle time that it was "
        "not, it is released again"
    ),
    Again.SEARCH: (
        "it is searched for by our mark; it is sent again only if nothing is found for the whole settle time, and the "
        "same search is known to find what is there"
    ),
    Again.NEVER: (
        "its records are uncertain, since nothing tells what became of them; a person decides (`retry --uncertain`)"
    ),
}
"""What happens to a batch when the answer to its release is lost."""

_HOUR_SECONDS = 3600.0

_CREATED_BY = {
    "order": "by their order",
    "index": "by the place that each item names",
    "key": "by the key that each item names",
}
_FROM = {
    "release": "the answer to the release",
    "status": "the last status",
    "fetch": "the results that are fetched",
}


class DescribedPromise(Struct, frozen=True):
    """What a description promises."""

    created: str
    """What has to be said of a record for it to count as created."""
    lost: str
    """What happens after a lost answer."""
    warnings: Sequence[str] = ()
    """Where the promise is weaker than it could be, and what would make it stronger."""


def promise_of(settings: DescribedSettings) -> DescribedPromise:
    """Return what a description promises, in words."""
    again = Again(settings.release.again)
    lost = f"after a lost answer {AFTER_A_LOSS[again]}"
    if again is Again.KEY:
        hours = settings.release.key_seconds / _HOUR_SECONDS
        lost += f"; after {hours:g} {'hour' if hours == 1 else 'hours'} it is uncertain instead"
    created = _created(settings)
    if has_source_keys(settings):
        created += "; no key may stand twice in the source, which `validate` looks for"
    return DescribedPromise(created, lost, tuple(_warnings(settings, again)))


def _created(settings: DescribedSettings) -> str:
    results = settings.results
    where = _FROM[results.of]
    if results.format == "count":
        return f"a batch is created if {where} counts as many as went up; else all of its records are uncertain"
    if results.format == "ids":
        return f"a record is created if {where} has an id for it, by their order"
    how = _CREATED_BY[results.match]
    how += f", counted from {results.first_index}" if results.match == "index" else ""
    said = "says that it is fine" if results.ok else "has no error"
    rest = {"error": "is uncertain", "created": "counts as created, too"}.get(results.missing, "has failed")
    return f"a record is created if its item in {where} {said} (matched {how}); one without an item {rest}"


def _warnings(settings: DescribedSettings, again: Again) -> Sequence[str]:
    results, found = settings.results, []
    if again is Again.NEVER:
        found.append(
            'again = "never": every lost answer leaves a batch uncertain; does the service know an idempotency key, '
            "unique keys, or a search?"
        )
    if again is Again.KEY and not rules_on_conflict(settings):
        found.append(
            'again = "key", and no rule says what a 409 means: it is taken for the first call with the key, still at '
            "work, and repeated; a rule should tell that from a refusal"
        )
    if any(map(rules_on_success, settings.rules)):
        found.append(
            "a rule is about a success: whatever it means, nothing may have been done by then; what was created all "
            "the same is sent a second time, or called failed"
        )
    if results.missing == "created":
        found.append(
            'results.missing = "created": a success that names nobody counts for all; a rule should tell refusals'
        )
    if results.format == "count":
        found.append('results.format = "count": one record that fails makes its whole batch uncertain')
    if results.format != "count" and results.match == "order" and results.of == "fetch":
        found.append('results.match = "order": files of results often come in another order; is there a key in them?')
    return found
