"""A service as values: what it did, what it will still do, and what it shows, in quarters of the settle time.

It plays by everything that may be true of a service: reads lag behind, a call is carried out later or never, a repeat
is refused or obeyed, a cancel is confirmed and means nothing. One thing it never does: a call whose effect shows later
than the settle time. That is the promise of `send.settle_seconds`, and the only one that recovery builds on.

It is not the sandbox, on purpose: the explorer is a judge of its own, and needs a service as one small value that it
can copy and compare a million times.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.model.doubt import Again, Declined, RemoteStatus

SETTLE = 4
"""Quarters in a settle time."""


@dataclass(frozen=True)
class Manner:
    """How a service is."""

    again: Again
    stage_again: Again = Again.SAFE
    lag: int = 0
    """Reads show what was true so long ago."""
    repeat: str = "refuse"
    """What a second release does: "refuse", "refuse in other words" (nobody knows them), "obey" (it creates twice)."""
    busy: bool = False
    """While a release is still to be carried out, everything else is refused."""
    content: str = "good"
    """ "bad": it refuses what the batch holds."""
    cancel: str = "accept"
    """ "accept", "refuse", or "lie": it confirms, and carries out a late release all the same."""
    hides: bool = False
    """A draft is not known until the lag is over: it is neither shown nor released."""
    staged: bool = False
    """With SEARCH: it is staged first, by a name that tells nothing of its release."""

    @property
    def stages(self):
        return self.staged or self.again in {Again.ASK, Again.REFUSED}

    @property
    def is_asked(self):
        """Whether it can be asked about a batch by the name that it was staged by."""
        return self.again in {Again.ASK, Again.REFUSED}

    @property
    def delays(self):
        """When a call may be carried out, so that its effect shows within the settle time."""
        return range(SETTLE - self.lag + 1)


@dataclass
class Service:
    """What is true at the service."""

    manner: Manner
    now: int = 0
    made: tuple[int, ...] = ()
    """When each draft came into being."""
    created: tuple[int, ...] = ()
    """When the tasks of the batch were created: twice is one time too many."""
    pending: tuple[tuple[int, str], ...] = ()
    """(when, what) is still to be carried out."""
    canceled: int | None = None
    log: list[str] = field(default_factory=list)

    def key(self):
        """Return what decides over all that can still happen, whatever the time is."""

        def age(at):
            return min(self.now - at, 2 * SETTLE)

        return (
            tuple(map(age, self.made)),
            tuple(map(age, self.created)),
            tuple((at - self.now, what) for at, what in self.pending),
            None if self.canceled is None else age(self.canceled),
        )

    def pass_time(self, quarters):
        end = self.now + quarters
        for at, what in sorted(self.pending):
            if at <= end:
                self.now = at
                self._carry_out(what)
        self.pending = tuple(one for one in self.pending if one[0] > end)
        self.now = end

    def take(self, what, delay):
        """Take a call in that is carried out after a delay."""
        self.pending += ((self.now + delay, what),)
        self.pass_time(0)

    def _carry_out(self, what):
        if what == "make":
            self.made += (self.now,)
            self.log.append(f"{self.now}: the service makes a draft")
        elif self.canceled is not None and self.manner.cancel != "lie":
            self.log.append(f"{self.now}: the service drops a release of what is canceled")
        elif self.created and self.manner.repeat != "obey":
            self.log.append(f"{self.now}: the service drops a second release")
        else:
            self.created += (self.now,)
            self.log.append(f"{self.now}: THE SERVICE CREATES THE TASKS ({len(self.created)}.)")

    def objection(self):
        """Return how a release that arrives now is declined; None if it is taken."""
        if self._hidden:
            return Declined.NOT_THERE
        if self.canceled is not None:
            return self._words
        if self.created:
            return None if self.manner.repeat == "obey" else self._words
        if self.manner.busy and self._under_way:
            return Declined.RELEASED_BEFORE
        return Declined.REFUSED if self.manner.content == "bad" else None

    @property
    def _words(self):
        return Declined.REFUSED if self.manner.repeat == "refuse in other words" else Declined.RELEASED_BEFORE

    @property
    def _under_way(self):
        return any(what == "release" for _, what in self.pending)

    @property
    def _hidden(self):
        return self.manner.hides and not any(at <= self.now - self.manner.lag for at in self.made)

    def cancel(self):
        """Tell whether a cancel that arrives now is confirmed."""
        busy = self.manner.busy and self._under_way
        if self.created or busy or self.manner.cancel == "refuse":
            return False
        self.canceled = self.now if self.canceled is None else self.canceled
        if self.manner.stage_again is Again.SEARCH:
            self.made = ()  # the draft is deleted
        return True

    def remote_status(self):
        """Return what it shows of a batch that it has a name for."""
        if self._hidden:
            return RemoteStatus.NOT_THERE
        shown = self.now - self.manner.lag
        if any(at <= shown for at in self.created):
            return RemoteStatus.STARTED
        if self.canceled is not None and self.canceled <= shown:
            return RemoteStatus.NOT_THERE if self.manner.stage_again is Again.SEARCH else RemoteStatus.ENDED
        return RemoteStatus.WAITING

    def search(self):
        """Return what a search by mark shows."""
        shown = self.now - self.manner.lag
        return RemoteStatus.STARTED if any(at <= shown for at in self.created) else RemoteStatus.NOT_THERE

    def find(self):
        """Return what a search for a draft shows."""
        shown = self.now - self.manner.lag
        return RemoteStatus.WAITING if any(at <= shown for at in self.made) else RemoteStatus.NOT_THERE
