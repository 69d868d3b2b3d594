"""Every way of a batch whose release may be repeated, or whose records a search finds, by the engine's own table.

`RepeatWalk` carries a batch of two records as uploader, recovery and ledger carry it: it repeats, halves, parks,
searches, and remembers in `sent_at` that an attempt may have arrived. A call may be answered, lost, turned away by a
proxy, be the last one of its process, or not get through; a person may cancel the job, or have sent again what is
uncertain.

`Bounds` says how much may happen on one path; time is in quarters of the settle time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from engine.model.doubt import INHERITED, MOST_REPEATS, REPEATABLE, Again, Declined, Doubt, RemoteStatus, Wish
from engine.model.next_step import Action
from engine.model.submission import State

from .explorer import ENDLESS, Chooser, Killed, SeenBefore, Violation, decided, walk_everywhere
from .records import RECORDS, Habits, Holdings
from .worlds import SETTLE


@dataclass(frozen=True)
class Bounds:
    """How much may happen on one path."""

    lost: int = 2
    """Lost answers."""
    kills: int = 1
    """Ends of the process, and calls that do not get through."""
    away: int = 1
    """Pages of a proxy."""


class Ended(Exception):
    """The run ends in order: the service is not to be had, or the table says so."""


@dataclass
class Part:
    """The batch, or a half of it, as the ledger has it."""

    positions: tuple[int, ...]
    state: State = State.FROZEN
    sent_at: int | None = None
    doubt: Doubt | None = None
    """In memory only."""
    found: tuple[int, ...] = ()
    """Likewise."""
    is_settled: bool = False

    def key(self, now, life):
        """Return what decides over all that can still happen to it, whatever the time is."""
        doubt = self.doubt
        if doubt is not None:
            silent = doubt.remote_status is RemoteStatus.SILENT
            since = max(doubt.since - now, -2 * SETTLE)
            doubt = replace(doubt, since=since, asked_at=0.0 if silent else max(doubt.asked_at - now, since - 1))
        age = None if self.sent_at is None else min(now - self.sent_at, life + SETTLE)
        return self.positions, self.state, age, doubt, self.found, self.is_settled


@dataclass
class RepeatWalk:
    """One batch of two records on its way; `fates` has what is said of each in the end."""

    habits: Habits
    chooser: Chooser
    decide: object = decided
    inherited: frozenset = INHERITED
    """With which kinds halves remember a lost attempt."""
    ages: bool = True
    """Keys get too old."""
    believes_proxies: bool = False
    """A proxy's page counts as the service's word."""
    bounds: Bounds = Bounds()
    seen: dict | None = None
    lost: int = 0
    kills: int = 0
    away: int = 0
    canceled: bool = False
    by_person: bool = False
    """A person has had sent again what is uncertain, whatever may come twice."""
    wished: bool = False
    """That is so in this run, and was not done yet."""
    asked_again: bool = False
    fates: dict[int, str] = field(default_factory=dict)

    def __post_init__(self):
        self.service = Holdings(self.habits)
        self.log = self.service.log
        self.parts = [Part(RECORDS)]
        self.chosen = []

    # The engine

    def run(self):
        """Return how it ends, as far as it is known of all records: the words of their fates, in their order."""
        while True:
            try:
                self._live()
            except (Killed, Ended) as end:
                self.kills += isinstance(end, Killed)
                if isinstance(end, Ended) and self.kills >= self.bounds.kills:
                    return self._said()
                self.kills += isinstance(end, Ended)
                self._come_back()
                continue
            if self.canceled or self.asked_again or "uncertain" not in self.fates.values():
                return self._said()
            self.asked_again = True
            then = self._choose("and then", ["nothing", "resume", "sent again by a person"])
            if then == "nothing":
                return self._said()
            self._forget()
            self.by_person = self.wished = then != "resume"

    def _come_back(self):
        wait = self._choose("how long until resume", self._long(0, SETTLE + 1))
        self.service.pass_time(wait)
        self.canceled = self._choose("and then", ["resume", "cancel"]) == "cancel"
        self._say(f"{'cancel' if self.canceled else 'resume'}, {wait} quarters later")
        self._forget()

    def _forget(self):
        """A new process has what the ledger has."""
        self.wished = False
        for part in self.parts:
            part.doubt, part.found = None, ()

    def _live(self):
        for position in [one for part in self.parts if not part.is_settled for one in part.positions]:
            self.fates.pop(position, None)
        at = 0
        while at < len(self.parts):
            part = self.parts[at]
            if part.is_settled or self._step(part):
                at += 1

    def _step(self, part):
        """Take a part one step on; return whether this run is done with it."""
        if part.doubt is None and part.state is State.FROZEN:
            if self.canceled:
                self._call_all(part, "unsent" if part.sent_at is None else "uncertain")
                return True
            self._release(part)
            return part.is_settled
        if part.doubt is None:
            part.doubt = self._left(part)
        return self._resolve(part)

    def _left(self, part):
        by_person = Wish.SEND_AGAIN if self.wished and part.state is State.UNCERTAIN else Wish.SEND
        wish = Wish.CANCEL if self.canceled else by_person
        return Doubt(part.state, self.habits.again, self.service.now, named=False, wish=wish)

    def _too_old(self, part):
        key = self.habits.again is Again.KEY and part.sent_at is not None and self.ages
        return key and self.service.now - part.sent_at + SETTLE >= self.habits.key_life

    def _release(self, part):
        sent_before = part.sent_at is not None
        part.state, part.sent_at = State.RELEASING, part.sent_at if sent_before else self.service.now
        if sent_before and self._too_old(part):
            self._say("its key is too old")
            self._heard(part, Declined.NO, lost=True)
            return
        if self.service.is_at_work(part.positions):
            self._say(f"{part.positions} is declined: a call with its key is at work")
            self._heard(part, Declined.RELEASED_BEFORE, lost=sent_before)
            return
        end, *how = self._choose(f"release {part.positions}", self._ends(part))
        self._say(f"release {part.positions}, sent before: {sent_before}: {end} {how}")
        if end == "answered":
            self._answered(part, self.service.carry_out(part.positions), sent_before=sent_before)
        elif end in {"lost", "dies"}:
            if how[0] is not None:
                self.service.take(part.positions, how[1], how[0])
            if end == "dies":
                raise Killed
            self._heard(part, Declined.NO, lost=True)
        elif end == "does not get through":
            if not sent_before:
                part.state, part.sent_at, part.doubt = State.FROZEN, None, None
            raise Ended
        else:
            last_chance = self.habits.again is Again.KEY or len(part.positions) == 1
            keeps = sent_before and last_chance and self.habits.again in REPEATABLE and not self.believes_proxies
            part.sent_at = part.sent_at if sent_before else None
            self._heard(part, Declined.SUSPECT if keeps else Declined.REFUSED, lost=sent_before)
            if end == "turned away for good":
                part.doubt = replace(part.doubt, repeats=MOST_REPEATS)

    def _ends(self, part):
        reach = [part.positions]
        if self.habits.again in {Again.SEARCH, Again.EXISTS, Again.SAFE} and self.habits.told == "each":
            reach += [part.positions[:1]] if len(part.positions) > 1 else []
        effects = [(delay, reached) for delay in self.habits.delays for reached in reach] + [(None, ())]
        ends = [("answered",)]
        if self.lost < self.bounds.lost:
            ends += [("lost", *effect) for effect in effects]
        if self.kills < self.bounds.kills:
            ends += [*(("dies", *effect) for effect in effects), ("does not get through",)]
        if self.away < self.bounds.away:
            ends += [("turned away",), ("turned away for good",)]
        return ends

    def _answered(self, part, answer, *, sent_before):
        if answer == "refused":
            if not sent_before:
                part.sent_at = None
            self._heard(part, Declined.REFUSED, lost=sent_before)
            return
        for position, word in zip(part.positions, answer, strict=True):
            ours = word == "created" or (word == "exists" and sent_before)
            self.fates[position] = "created" if ours else "failed"
        self._settle(part)

    def _heard(self, part, declined, *, lost):
        if part.doubt is not None and part.doubt.state is State.RELEASING:
            doubt = part.doubt.with_repeat(self.service.now, declined)
            part.doubt = replace(doubt, lost=doubt.lost or lost)
        else:
            before = self._left(part)
            part.doubt = replace(before, since=self.service.now, lost=lost, declined=declined)

    def _resolve(self, part):
        part.doubt = replace(part.doubt, expired=self._too_old(part))
        step = self.decide(part.doubt, SETTLE)
        self._say(f"the table of {part.positions}: {step.action.name}, for {step.reason}")
        match step.action:
            case Action.ASK:
                self._search(part)
            case Action.FOLLOW:
                self._settle_by_search(part)
            case Action.PARK:
                part.state, part.doubt = State.UNCERTAIN, None
                self._call_all(part, "uncertain")
                # At its end, a run searches for what carries a mark.
                return self.habits.again is not Again.SEARCH or step.reason.startswith("a search")
            case Action.FAIL:
                self._halve_or_fail(part)
            case Action.STOP:
                raise Ended
            case Action.SEND:
                if self.habits.again not in REPEATABLE:
                    part.sent_at = None
                elif self.habits.again is Again.KEY and part.doubt.wish is Wish.SEND_AGAIN:
                    part.sent_at = self.service.now
                self.wished = self.wished and any(one.state is State.UNCERTAIN for one in self.parts if one is not part)
                part.state, part.doubt = State.FROZEN, None
            case Action.RELEASE_AGAIN:
                self.service.pass_time(self._choose("pause before the repeat", self._long(1)))
                self._release(part)
            case _:
                raise AssertionError(step)
        return part.is_settled

    def _halve_or_fail(self, part):
        sent_at = part.sent_at if self.habits.again in self.inherited else None
        if len(part.positions) > 1:
            at = self.parts.index(part)
            self.parts[at : at + 1] = [Part((position,), sent_at=sent_at) for position in part.positions]
            return
        self._call_all(part, "failed")
        self._settle(part)

    def _search(self, part):
        self.service.pass_time(self._choose("wait before the question", [1, SETTLE]))
        asked_at = self.service.now
        found = tuple(sorted({*part.found, *self.service.search(part.positions)}))
        part.found = found
        if found == part.positions:
            status = RemoteStatus.STARTED
        elif found:
            status = RemoteStatus.PARTLY
        else:
            status = RemoteStatus.NOT_THERE if self.habits.proven else RemoteStatus.UNPROVEN
        self._say(f"a search finds {found}: {status.name}")
        part.doubt = part.doubt.with_answer(status, asked_at)

    def _settle_by_search(self, part):
        for position in part.positions:
            missing = "failed" if self.habits.proven else "uncertain"
            self.fates[position] = "created" if position in part.found else missing
        self._settle(part)

    def _settle(self, part):
        part.state, part.doubt, part.is_settled = State.SETTLED, None, True

    def _call_all(self, part, fate):
        self.fates.update(dict.fromkeys(part.positions, fate))

    def _said(self):
        return tuple(self.fates.get(position, "unresolved") for position in RECORDS)

    # What may happen

    def _choose(self, what, options):
        self._check_place(what)
        chosen = self.chooser.choose(options)
        self.chosen.append((what, chosen))
        word = chosen[0] if isinstance(chosen, tuple) else chosen
        self.lost += word == "lost"
        self.away += word in {"turned away", "turned away for good"}
        return chosen

    def _long(self, *quarters):
        """Return waits to choose from; one of them is as long as a key lives, where there is one."""
        return [*quarters, self.habits.key_life] if self.habits.again is Again.KEY else [*quarters]

    def _check_place(self, what):
        if self.service.now > ENDLESS * 2:
            raise self.violation("it never ends")
        if self.seen is None or len(self.chooser.made) < len(self.chooser.decisions):
            return
        now, life = self.service.now, self.habits.key_life
        parts = tuple(part.key(now, life) for part in self.parts)
        said = tuple(sorted(self.fates.items()))
        flags = (
            self.canceled,
            self.by_person,
            self.wished,
            self.asked_again,
            bool(self.lost or self.kills),
            bool(self.away),
        )
        place = what, parts, said, flags, self.service.key()
        spent = self.lost, self.kills, self.away
        # Who came here with less behind it could do all that is possible now, and more.
        before = self.seen.setdefault(place, [])
        if any(all(one <= mine for one, mine in zip(other, spent, strict=True)) for other in before):
            raise SeenBefore
        before.append(spent)

    def _say(self, words):
        self.log.append(f"{self.service.now}: {words}")

    # What must hold

    def judge(self, end):
        """Let the service do all that it still will, and hold the end against it."""
        self._say(f"THE RECORDS ARE {end}")
        self.service.pass_time(2 * SETTLE)
        for position, fate in enumerate(end):
            times = self.service.count(position)
            if times > 1 and not self.by_person:
                raise self.violation("a record was created twice")
            # What nobody could know of, and a person has had sent again, counts as sent for the first time.
            anew = self.by_person and self.habits.again not in REPEATABLE
            if times and fate in {"failed", "unsent"} and not anew:
                raise self.violation(f"a record exists, and it is called {fate}")
            is_there = times or (self.habits.foreign and position == 0)
            if fate == "created" and not is_there:
                raise self.violation("a record is called created, and does not exist")
            if fate == "created" and not times and not (self.lost or self.kills):
                raise self.violation("somebody else's record is called created, and nothing was lost")
            if fate == "uncertain" and not self._may_be_uncertain():
                raise self.violation("a record is called uncertain where the service promises more")

    def _may_be_uncertain(self):
        if self.habits.again in {Again.SAFE, Again.EXISTS}:
            return self.canceled or self.away
        return self.habits.again is not Again.SEARCH or self.canceled or not self.habits.proven

    def violation(self, words):
        return Violation("\n".join([f"{self.habits}", *self.log, words.upper()]))


def explore_repeats(habits, *, wanted="", **rules):
    """Walk every path of a service, up to the first violation whose story has the `wanted` words."""
    return walk_everywhere(lambda chooser, seen: RepeatWalk(habits, chooser, seen=seen, **rules), wanted)
