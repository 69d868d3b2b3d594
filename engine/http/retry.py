"""The rule when to try again: what was tried for a call and how its newest attempt ended -> when, or why not. Pure.

Whether a repeat is safe says `classify`: only a verdict of `Unavailable` comes here. `decide` says when, and when no
more:

- A call with `few_tries` is given up early; whoever made it then tests whether its payload is the cause.
- So is a GET that polls, where a page says 404 or 410; whoever polls then asks whether the service is there at all.
- Any other answer of a proxy is tried again for as long as any trouble, if the service itself has answered in this
  run. Before that, or if the proxy forbids, for a minute: then the address is wrong, or the proxy is, and a person must
  look.
- All else is tried again for `give_up_seconds`, ever more seldom (`backoff`); where nothing has ever answered in this
  run, for a minute.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from msgspec.structs import replace

from engine.http.classify import Verdict
from engine.model.error_hints import Carries
from engine.services.base import Call

MOST_PROXY_ANSWERS = 2
"""To one release, before the service itself is asked what became of the batch; to one call with `few_tries`, before it
is handed back; to one poll that says that what it names is not there, before whoever polls asks for something else."""

MOST_LOSSES = 4
"""Of a call with `few_tries`: connections that broke under it."""
_TIME_OUT_LOSSES = 2
"""A timeout counts for so many: it is seldom chance, and the next one would take as long."""

PROXY_SECONDS = 60.0
"""A call that a proxy answers is tried again for so long, if the service itself has never answered: an address may be
wrong, or a deployment under way. Ingresses answer 404 for seconds while one is."""
UNANSWERED_SECONDS = 60.0
"""For so long calls are tried where nothing has ever answered in this run: then it is no outage that will end."""
_FORBIDDING = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
"""Said by a proxy, it will not end by itself."""
_NOT_THERE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
"""May be about what was asked for, and not an outage: many a service has a page for what it does not have."""

_MOST_DOUBLINGS = 60
"""Doublings after which the bound is far past any cap; more would overflow a float."""


class RetryRules(msgspec.Struct, frozen=True):
    """How patient we are."""

    base_seconds: float = 0.5
    cap_seconds: float = 20.0
    give_up_seconds: float = 900.0

    never_answered: bool = False
    """Nothing has answered in this run."""

    def unanswered(self) -> RetryRules:
        """Return the rules for as long as nothing has answered."""
        return replace(self, give_up_seconds=min(self.give_up_seconds, UNANSWERED_SECONDS), never_answered=True)

    @property
    def limit(self) -> str:
        """What ends our patience, in words."""
        if self.never_answered:
            return "nothing has ever answered in this run"
        return f"give_up_seconds is {self.give_up_seconds:g}"


class Retry(msgspec.Struct, frozen=True):
    """Try again."""

    after_seconds: float
    reason: str


class GiveUp(msgspec.Struct, frozen=True):
    """Do not try again."""

    reason: str
    wrong_address: bool = False
    """Whoever answers is not the service: a person must look."""


class CallState(msgspec.Struct):
    """One call on its way: what was tried for it, and how it stands with the throttle. Times are monotonic seconds."""

    call: Call
    attempts: int = 0
    """That failed."""
    failing_since: float = float("inf")
    """Its first failure, or when it first met an outage."""
    lost: bool = False
    """An attempt may have been applied."""
    losses: int = 0
    """Attempts that got lost on the way, timeouts weighing more."""
    proxy_since: float = float("inf")
    """The first answer of a proxy."""
    retry_at: float = float("-inf")
    due: float | None = None
    """Its place in the queue of all calls."""
    probing: bool = False
    """It has its lane's turn to probe."""
    counted: bool = False
    """It holds a request of the service's window."""
    under_way: bool = False
    sent_at: float = 0.0
    price: int = 0
    """What its last retry cost of the retry budget; refunded if it helps."""
    token: int = 0
    """Number of the token that its newest attempt carried; see `http.tokens`."""
    renewed: bool = False
    """A token was renewed for it."""

    def failed(self, verdict: Verdict, now: float) -> None:
        """Note an attempt that did not get through."""
        self.attempts += 1
        self.note_failing(now)
        if verdict.by_proxy:
            self.proxy_since = min(self.proxy_since, now)
        if verdict.lost:
            self.lost = True
            self.losses += _TIME_OUT_LOSSES if verdict.timed_out else int(verdict.reset)

    def note_failing(self, now: float) -> None:
        """Note that it does not get through; only the first time counts."""
        self.failing_since = min(self.failing_since, now)

    def failing_seconds(self, now: float) -> float:
        """Return for how long it has not got through; 0 if that was never noted."""
        return max(0.0, now - self.failing_since)


def decide(
    rules: RetryRules, state: CallState, verdict: Verdict, *, now: float, draw: float, has_answered: bool
) -> Retry | GiveUp:
    """Decide about a call whose newest attempt ended so, and may be repeated.

    `draw` is uniform in [0, 1); `has_answered`: whoever is called has answered in words of its own in this run.
    """
    call = state.call
    if reason := _handed_back(call, state, verdict):
        return GiveUp(reason)
    hopeless = verdict.by_proxy and (not has_answered or verdict.status in _FORBIDDING)
    if hopeless and now - state.proxy_since >= min(PROXY_SECONDS, rules.give_up_seconds):
        words = "what answers there does not speak as it should; check the address, and what stands in between"
        return GiveUp(words, wrong_address=True)
    decision = backoff(rules, state.attempts, state.failing_seconds(now), draw, verdict.asked_seconds)
    if isinstance(decision, GiveUp) and verdict.misnamed:
        return replace(decision, wrong_address=True)
    return decision


def _handed_back(call: Call, state: CallState, verdict: Verdict) -> str:
    """Return why a call is given up early, for whoever made it can find out more; "" if it is not."""
    if call.few_tries and state.losses >= MOST_LOSSES:
        return "it was lost on the way again and again"
    if not verdict.by_proxy or state.attempts < MOST_PROXY_ANSWERS:
        return ""
    if call.few_tries:
        return "it was turned away again"
    if call.carries is Carries.RELEASE:
        return "whether it was released can be asked"
    polls = call.yielding and call.method == "GET"
    return "it may be about what was asked for alone" if polls and verdict.status in _NOT_THERE else ""


def backoff(
    rules: RetryRules, attempt: int, failing_seconds: float, draw: float, asked_seconds: float | None = None
) -> Retry | GiveUp:
    """Decide when a call is tried again whose `attempt`-th try failed (from 1), and that fails for so long already.

    Full jitter (a uniform draw below a doubling bound) spreads callers that failed together; of the usual schemes it
    costs the fewest calls ("Exponential Backoff and Jitter", AWS Architecture Blog). What the service asks for
    (`asked_seconds`) is a minimum, never shortened: where it asks for longer than we are willing to wait, we give up at
    once instead.
    """
    left = rules.give_up_seconds - failing_seconds
    if left <= 0:
        return GiveUp(f"it has failed for {failing_seconds:.0f} s, and {rules.limit}")
    if asked_seconds is None:
        bound = _bound(rules, attempt - 1)
        return Retry(min(draw * bound, left), f"again within {bound:g} s")
    if asked_seconds > left:
        return GiveUp(
            f"the service asks to wait {asked_seconds:.0f} s, which is longer than the {left:.0f} s left, for "
            f"{rules.limit}"
        )
    # A little more than asked for, or all who were told the same second come back in it.
    return Retry(asked_seconds + draw * rules.base_seconds, f"the service asked for {asked_seconds:g} s")


def probe_spacing(rules: RetryRules, probes: int, draw: float) -> float:
    """Return the seconds between probe number `probes` (from 0) and the next: half fixed, half drawn, up to the cap.

    Not full jitter: probes go one at a time, so there is nobody to spread, and a draw near zero would hammer.
    """
    bound = _bound(rules, probes)
    return bound * (0.5 + 0.5 * draw)


def _bound(rules: RetryRules, doublings: int) -> float:
    return min(rules.cap_seconds, rules.base_seconds * 2.0 ** min(doublings, _MOST_DOUBLINGS))
