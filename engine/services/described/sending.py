"""One release of a described service: the call, and those that follow it, until each record has its fate.

So one bad or busy record costs no other one its turn. Records that the service was too busy for are sent again, after
a pause. Records that it names as the cause of a refusal fail, and the others are sent again. What is known from earlier
calls, and from lost answers, is kept over all of them: a record fails only if no attempt can have made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.model.doubt import Again
from engine.model.error_hints import Blame
from engine.model.errors import CallFailed, NotApplied, PossiblyApplied, Refused
from engine.model.outcome import Settlement
from engine.model.payload import Payload
from engine.services.base import Intent
from engine.services.described.items import is_id
from engine.services.described.results import PERHAPS_OURS, THERE_ALREADY, UNNAMED, doubt_same_ids, forget_ids

if TYPE_CHECKING:
    from engine.services.described.service import DescribedService

MOST_BUSY_ROUNDS = 10
"""Times that records are sent again in one release because the service was too busy for them."""
FIRST_BUSY_SECONDS, LONGEST_BUSY_SECONDS = 1.0, 30.0
"""Pause before the first of those rounds, doubled each time, and the longest one: three minutes in all."""
MOST_FLAW_ROUNDS = 20
"""Refusals of one release that name the records at fault; after that the batch is halved."""

_PERHAPS_BEFORE = "an earlier attempt may have made it"


class Sending:
    """One release: the call, and those that follow it for records that were busy, or beside some that are at fault."""

    def __init__(
        self,
        service: DescribedService,
        count: int,
        payload: Payload | None,
        values: Mapping[str, str],
        intent: Intent,
        *,
        earlier: bool,
    ) -> None:
        self._service = service
        self._values = values
        self._intent = intent
        self._payload = payload
        self._left: Sequence[int] = range(count)
        """Positions that are still to be sent."""
        self._count = count
        self._ids: list[str | None] = [None] * count
        self._errors: dict[int, str] = {}
        self._uncertain: dict[int, str] = {}
        self._by_key: list[int] = []
        """Positions of those that stand here by their keys, since nobody says by which ids."""
        self._notes: list[str] = []
        self._accepted = False
        """A call was answered with success: some records may be created."""
        self._ours = False
        """A refusal has named records that are there already, by an attempt of ours."""
        self._lost = False
        """An attempt of this release had no answer."""
        self._busy_rounds = self._flaw_rounds = 0
        self.earlier = earlier
        """An attempt that is not this one may have arrived."""
        self.taken: dict[str, str] = {}
        self.settlement: Settlement | None = None

    async def run(self) -> None:
        """Send, until each record has its fate or the service has the batch.

        Raises:
            as `Service.release` says.
        """
        self._hold_twins()
        while self._left:
            try:
                done = await self._once()
            except Refused as refusal:
                self._note_loss(refusal.earlier_lost)
                if not self._sort_out(refusal):
                    self._give_up(refusal)
            except (NotApplied, PossiblyApplied) as failure:
                self._give_up(failure)
            else:
                if done:
                    return
        if self._service.again is not Again.SAFE:  # each call has seen to its own records only
            doubt_same_ids(self._ids, self._uncertain)
        forget_ids(self._ids, self._by_key)
        note = "; ".join(dict.fromkeys(filter(None, self._notes)))
        self.settlement = Settlement(self._ids, self._errors, note=note, uncertain=self._uncertain)

    async def _once(self) -> bool:
        """Make one call; return whether that was all."""
        service, rounds = self._service, self._busy_rounds + self._flaw_rounds
        values = service.round_values(self._values, rounds)
        answer = await service.send(self._payload, values, self._intent)
        self._note_loss(answer.earlier_lost)
        self.taken = self.taken or service.release_takes(answer)
        if not service.settles_at_once:
            return True
        found, busy = service.read_answer(answer, len(self._left), self._keys, earlier=self.earlier)
        self._accepted = True
        if not rounds and not busy and len(self._left) == self._count:
            self.settlement = found
            return True
        self._take_in(found, busy)
        await self._go_on_with(busy)
        return False

    def _note_loss(self, lost: bool) -> None:  # noqa: FBT001 - it is all that is noted
        self._lost |= lost
        self.earlier |= lost

    def _keys(self) -> Sequence[str]:
        return self._service.keys(self._payload, self._values) if self._payload is not None else ()

    def _hold_twins(self) -> None:
        """Fail records whose key an earlier one of the batch has: an answer by keys could not tell the two apart."""
        keys = self._keys() if self._service.answers_by_key else ()
        if len(set(keys)) == len(keys):
            return
        first: dict[str, int] = {}
        for at, key in enumerate(keys):
            if first.setdefault(key, at) != at:
                number = self._payload.indexes[first[key]] if self._payload is not None else first[key]
                self._errors[at] = f"its key stands twice in the source: record {number} has it, too"
        self._keep(list(first.values()))

    def _take_in(self, found: Settlement, busy: Sequence[int]) -> None:
        """Keep what is known of the records of one call; those that are busy are known by another one.

        One that stays busy was not made by these calls. That says nothing of an attempt before them.
        """
        again = frozenset(busy) if self._may_go_again() else frozenset()
        self._notes.append(found.note)
        for at, position in enumerate(self._left):
            if at in again:
                continue
            self._ids[position] = found.task_ids[at]
            if found.task_ids[at] == UNNAMED:
                self._ids[position] = self._keys()[at]
                self._by_key.append(position)
            if at in found.errors:
                tries = f" ({self._busy_rounds + 1} times)" if at in busy and self._busy_rounds else ""
                if at in busy and self.earlier:
                    self._uncertain[position] = f"{found.errors[at]}{tries}; {_PERHAPS_BEFORE}"
                else:
                    self._errors[position] = f"{found.errors[at]}{tries}"
            if at in found.uncertain:
                self._uncertain[position] = found.uncertain[at]

    def _may_go_again(self) -> bool:
        """Return whether busy records may be sent once more: some of what was staged cannot go without the others."""
        return self._payload is not None and self._busy_rounds < MOST_BUSY_ROUNDS

    async def _go_on_with(self, busy: Sequence[int]) -> None:
        if not busy or not self._may_go_again():
            self._keep(())
            return
        await self._service.pause(min(FIRST_BUSY_SECONDS * 2.0**self._busy_rounds, LONGEST_BUSY_SECONDS))
        self._busy_rounds += 1
        self._keep(busy)

    def _keep(self, places: Sequence[int]) -> None:
        """Go on with some of the records that were left, by their places among them."""
        self._left = [self._left[at] for at in places]
        if self._payload is not None and self._left:
            tasks, indexes = self._payload.tasks, self._payload.indexes
            self._payload = Payload.of([tasks[at] for at in places], [indexes[at] for at in places])

    def _sort_out(self, refusal: Refused) -> bool:
        """Take out the records that a refusal names; return whether the others may be sent again."""
        left = len(self._left)
        # A place that was not sent: it counts from another number, and the other places may be those of neighbours.
        flaws = refusal.flaws if all(0 <= at < left for at in refusal.flaws) else {}
        if refusal.exists and not flaws and left == 1:
            flaws = {0: str(refusal)}
        if not flaws:
            if refusal.exists or refusal.flaws:  # which of them, only halves tell
                refusal.blame = Blame.PAYLOAD
            return False
        # What is staged, or followed by a name, is one whole: the places of its records are those of the batch.
        is_whole = self._payload is None or not self._service.settles_at_once
        if self._flaw_rounds == MOST_FLAW_ROUNDS or (is_whole and left > 1):
            refusal.blame = Blame.PAYLOAD
            return False
        self._flaw_rounds += 1
        self._take_out(flaws, refusal)
        self._keep([at for at in range(left) if at not in flaws])
        return True

    def _take_out(self, flaws: Mapping[int, str], refusal: Refused) -> None:
        """Settle the records that a refusal names, by their places among those left."""
        exists, task_id = refusal.exists, refusal.task_id if is_id(refusal.task_id) else ""
        ours = exists and self.earlier
        keys: Sequence[str] = self._keys() if ours else ()
        self._ours |= ours
        for at, said in flaws.items():
            position = self._left[at]
            if ours and (task_id or keys):
                self._ids[position] = task_id or keys[at]
                if not task_id and not self._service.keys_are_ids:
                    self._by_key.append(position)
            elif ours:
                self._uncertain[position] = f"{PERHAPS_OURS} ({said})"
            else:
                self._errors[position] = f"{THERE_ALREADY} ({said})" if exists else said

    def _give_up(self, failure: CallFailed) -> None:
        """Settle what is left after a call that failed, if others are there already; else it is raised.

        Where a repeat is harmless, all of it is repeated later: what was done by then may be there already.
        """
        failure.earlier_lost |= self._lost
        if not (self._accepted or self._ours) or self._all_may_go_again(failure):
            is_there = bool(self._uncertain) or any(task_id is not None for task_id in self._ids)
            failure.earlier_lost |= is_there and self._service.is_repeatable
            raise failure
        for position in self._left:
            if isinstance(failure, PossiblyApplied):
                self._uncertain[position] = (
                    f"the service was busy, and the answer to its second call was lost: {failure}"
                )
            elif self.earlier and not isinstance(failure, Refused):
                self._uncertain[position] = f"its call failed: {failure}; {_PERHAPS_BEFORE}"
            elif self._accepted:
                self._errors[position] = f"the service was busy, and then its call failed: {failure}"
            else:
                self._errors[position] = str(failure)
        self._left = ()

    def _all_may_go_again(self, failure: CallFailed) -> bool:
        """Return whether the whole batch may be sent again, or its halves, though some of it is there already.

        A refusal that is not about these records is left to the engine. One that is about some of several has the batch
        halved; not with an idempotency key, since the halves have others.
        """
        if self._accepted and not self._service.is_repeatable:
            return False
        if not isinstance(failure, Refused) or failure.blame in {Blame.JOB, Blame.SUSPECT}:
            return True
        has_other_key = self._accepted and self._service.again is Again.KEY
        return failure.blame is Blame.PAYLOAD and len(self._left) > 1 and not has_other_key
