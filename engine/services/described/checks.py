"""What can be asked of a described service before a load: its cheap call, and what promise its description gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from msgspec.structs import replace

from engine.model.doubt import RemoteStatus
from engine.model.errors import Refused
from engine.model.record import Row
from engine.services.checks import (
    GENERAL_GUESSES,
    UNSEEN,
    CheckVerdict,
    Finding,
    Guess,
    ProbeEvidence,
    ServiceCheck,
    Sight,
    denied,
    held,
)
from engine.services.described.promise import promise_of
from engine.services.described.search import SKEW_SECONDS
from engine.services.described.settings import DescribedSettings


def _own_ids(evidence: ProbeEvidence) -> Sight:
    ids = evidence.task_ids
    if not ids:
        return UNSEEN
    return Sight(len(set(ids)) == len(ids) == len(evidence.sent), f"{len(set(ids))} ids for {len(evidence.sent)} tasks")


SEARCHED = "described.search"

GUESSES: tuple[Guess, ...] = (
    Guess("described.upsert", "the same upsert again changes nothing"),
    Guess("described.key", "an idempotency key is remembered for `key_seconds`"),
    Guess("described.unique-keys", "keys are unique, and what is called there already is there"),
    Guess("described.exists-words", "what is there already is told as `exists` says"),
    Guess(SEARCHED, "a search finds all that is there, within the settle time"),
    Guess("described.success", "a 2xx is the service's own, and tells what became of the records"),
    Guess("described.nothing-done", "where a batch is refused as a whole, nothing of it was done"),
    Guess("described.content", "a refusal for content comes each time"),
    Guess("described.busy", "what is told as `busy` was not done"),
    Guess("described.results", "results name each record once, and nobody else"),
    Guess("described.order", 'with `match = "order"`, results stand in the order sent'),
    Guess("described.item-words", "an item of which `ok` does not hold was not done"),
    Guess("described.batch-words", "a batch's states are the words in `[service.status]`"),
    Guess("described.own-ids", "each created record has an id, and its own", _own_ids),
    Guess("described.ids", "ids are texts, or whole numbers"),
)
"""Of every described service, as far as its description says such a thing."""


class DescribedChecks:
    """The ability `checking` of a described service."""

    clock_seconds = SKEW_SECONDS
    """A search ends where what it lists is older than the release by as much."""

    def __init__(
        self,
        settings: DescribedSettings,
        look: Callable[[], Awaitable[str]],
        flaw: Callable[[Row], str | None],
        remote_status: Callable[[str], Awaitable[RemoteStatus]] | None,
        search: Callable[[Sequence[str], Sequence[str]], Awaitable[tuple[bool, str]]] | None = None,
    ) -> None:
        self._settings = settings
        self._look = look
        self._flaw = flaw
        self._remote_status = remote_status
        self._search = search
        self._found = UNSEEN
        """Whether a search finds what was just created."""

    @property
    def guesses(self) -> Sequence[Guess]:
        """What is believed of any service, and of any that is described."""
        own = [replace(one, see=lambda _: self._found) if one.name == SEARCHED else one for one in GUESSES]
        return (*GENERAL_GUESSES, *own)

    def checks(self) -> Sequence[ServiceCheck]:
        """Return its cheap call, and what it promises."""
        secret = "auth.secret" if self._settings.auth.kind != "none" else "auth"
        return [
            ServiceCheck("key", self._key, f"put a valid key into what service.{secret} names"),
            ServiceCheck("promise", self._promise),
            ServiceCheck("lost answers", self._lost),
        ]

    async def _key(self) -> Finding:
        try:
            return Finding(await self._look())
        except Refused as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise
            return Finding(
                str(refusal), CheckVerdict.FAILED, "correct service.base_url or service.values: no such place"
            )

    async def _promise(self) -> Finding:
        return Finding(promise_of(self._settings).created)

    async def _lost(self) -> Finding:
        promise = promise_of(self._settings)
        if promise.warnings:
            return Finding(promise.lost, CheckVerdict.WARNING, "; ".join(promise.warnings))
        return Finding(promise.lost)

    async def flaws(self, tasks: Sequence[Row]) -> Sequence[str | None]:
        """Return of each task why it cannot be sent: the service itself tells no rules."""
        return list(map(self._flaw, tasks))

    def probe_note(self) -> str:
        """Return that what a probe creates stays there."""
        return "what the probe creates stays at the service: its description has no call that takes it back"

    async def look_closer(self, remote_ids: Sequence[str], task_ids: Sequence[str]) -> None:
        """Ask for the status of each batch once more, and search for the first one as after a lost answer."""
        if self._remote_status is not None:
            for remote_id in remote_ids:
                await self._remote_status(remote_id)
        if self._search is not None:
            self._found = denied("the search brought no answer that can be used; --trace shows it")
            finds, what = await self._search(remote_ids, task_ids)
            self._found = held(what) if finds else denied(f"{what}; --trace shows the search")
